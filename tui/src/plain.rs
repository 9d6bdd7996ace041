//! The run as plain lines, for pipes and logs: no colours, no control characters, one line per thing that
//! matters. Single messages are left out; the recording has them all.

use std::time::Duration;

use sim::event::{Event, EventKind, Phase, Scores};
use sim::work::{Usage, Work, mib};

use crate::state::State;
use crate::untrusted::Untrusted;
use crate::view::number::{counted, grouped, loss, percent};

/// Tells a run line by line.
#[derive(Debug)]
pub(crate) struct Plain {
    state: State,
    /// Every so many episodes of play a line is due.
    every: u64,
    /// What the engine had done when that was told last.
    told: Work,
}

impl Plain {
    /// With a line of progress every so many episodes; at least 1.
    pub(crate) fn new(every: u64) -> Self {
        Self { state: State::default(), every: every.max(1), told: Work::default() }
    }

    /// The lines for an event, without their ends; none for what is not worth one. At the beginning of a part of
    /// the run, with every line of progress and at the end, the first are about what the engine did in the ticks
    /// before, which `work` tells.
    pub(crate) fn lines(
        &mut self,
        event: &Event,
        mut work: impl FnMut(u64) -> Option<Work>,
    ) -> Vec<String> {
        self.state.apply(event);
        let words = self.words(&event.kind);
        let engine = match event.kind {
            EventKind::PhaseStarted { .. }
            | EventKind::EpisodeFinished { .. }
            | EventKind::TalkFinished { .. }
            | EventKind::RunFinished { .. }
                if words.is_some() =>
            {
                event.tick.checked_sub(1).and_then(&mut work).and_then(|work| self.engine(&work))
            }
            _ => None,
        };
        let tick = event.tick;
        let all = engine.into_iter().flatten().chain(words);
        all.map(|words| format!("tick {tick:>5}  {}", Untrusted(&words))).collect()
    }

    /// What the engine did since it was told last; nothing where it did nothing.
    fn engine(&mut self, work: &Work) -> Option<[String; 2]> {
        let before = std::mem::replace(&mut self.told, *work);
        let did = work.whole.since(&before.whole);
        let took = Duration::from_millis(work.took.saturating_sub(before.took));
        (did.tokens() + did.training_steps > 0).then(|| engine(&did, took))
    }

    fn words(&self, kind: &EventKind) -> Option<String> {
        match kind {
            EventKind::RunStarted { scenario, seed, episodes, protocol, agents } => Some(format!(
                "run of {scenario}: seed {seed}, {protocol}, {}, {}",
                counted(agents.len() as u64, "agent"),
                counted(*episodes, "episode")
            )),
            EventKind::PhaseStarted { phase, length } => {
                let noun = if *phase == Phase::Transfer { "step" } else { "episode" };
                Some(format!("{} begins: {}", phase.title(), counted(*length, noun)))
            }
            EventKind::TransferFinished { agent, examples, steps, loss_before, loss_after } => {
                Some(format!(
                    "{agent} transferred: {} on {}, loss {loss_before:.3} to {loss_after:.3}",
                    counted(*steps as u64, "step"),
                    counted(*examples as u64, "example")
                ))
            }
            EventKind::EpisodeFinished { .. } | EventKind::TalkFinished { .. } => self.progress(),
            EventKind::AgentSilenced { agent, limit, most, found, until } => Some(format!(
                "{agent} is silenced until tick {until}: {limit} was {found}, at most {most} is allowed"
            )),
            EventKind::HoldoutScored { phase, scores } => Some(holdout(*phase, scores)),
            EventKind::RunFinished { episodes, stopped, .. } => {
                let how = if *stopped { "stopped early" } else { "done" };
                Some(format!("{how} after {}", counted(*episodes, "episode")))
            }
            EventKind::TriggerFired { .. }
            | EventKind::TrainingStarted { .. }
            | EventKind::GenerationPublished { .. }
            | EventKind::TrainingRolledBack { .. } => self.learning(kind),
            EventKind::FaultInjected { .. }
            | EventKind::AgentFailed { .. }
            | EventKind::AgentRestarted { .. }
            | EventKind::AgentQuarantined { .. }
            | EventKind::ReplyRejected { .. }
            | EventKind::TurnSkipped { .. }
            | EventKind::EngineFailed { .. }
            | EventKind::EngineRestarted { .. }
            | EventKind::TrainerFailed { .. }
            | EventKind::TrainerRestarted { .. }
            | EventKind::RecordingPaused { .. }
            | EventKind::RecordingResumed { .. }
            | EventKind::SocietyRestarted { .. } => supervision(kind),
            EventKind::EpisodeStarted { .. }
            | EventKind::MessageDelivered { .. }
            | EventKind::TrainingStepped { .. } => None,
        }
    }

    fn progress(&self) -> Option<String> {
        let run = &self.state.run;
        let is_due = run.done.is_multiple_of(self.every) || run.done == run.length;
        if run.phase != Some(Phase::Play) || !is_due {
            return None;
        }
        let curves = &self.state.curves;
        if run.is_talk {
            let agreement = percent(curves.agreement.last().unwrap_or(f64::NAN));
            return Some(format!("play {}/{}: agreement {agreement}", run.done, run.length));
        }
        let reward = curves.reward.last().unwrap_or(f64::NAN);
        let accuracy = percent(curves.accuracy.last().unwrap_or(f64::NAN));
        Some(format!(
            "play {}/{}: reward {reward:.2}, intent recognised {accuracy}",
            run.done, run.length
        ))
    }

    fn learning(&self, kind: &EventKind) -> Option<String> {
        // What a transfer comes to is one line of its own.
        let is_transfer = self.state.run.phase == Some(Phase::Transfer);
        match kind {
            EventKind::TrainingStarted { .. } | EventKind::GenerationPublished { .. }
                if is_transfer =>
            {
                None
            }
            EventKind::TriggerFired { rule, agent, value, job, .. } => {
                let outcome = job.map_or_else(|| "no job".to_owned(), |job| format!("job {job}"));
                Some(format!("trigger {rule} fired for {agent} at {value:.2}: {outcome}"))
            }
            EventKind::TrainingStarted { job, agent, objective, examples, steps, from } => {
                Some(format!(
                    "job {job} began: {agent} learns by {objective} from {from}, {} on {}",
                    counted(*steps as u64, "step"),
                    counted(*examples as u64, "example")
                ))
            }
            EventKind::GenerationPublished { agent, generation, job, .. } => {
                let last = self.state.agents.iter().find(|own| own.name == agent.as_str());
                let last = loss(last.and_then(|own| own.loss));
                Some(format!("job {job} ended: {agent} now uses {generation}, last loss {last}"))
            }
            EventKind::TrainingRolledBack { job, agent, reason } => {
                Some(format!("job {job} thrown away: {agent} keeps its weights, {reason}"))
            }
            _ => None,
        }
    }
}

/// What the engine did in some time: how fast and how full, then of what and for how long.
pub(crate) fn engine(did: &Usage, took: Duration) -> [String; 2] {
    let seconds = |nanoseconds: u64| format!("{:.1} s", nanoseconds as f64 / 1e9);
    [
        format!(
            "engine: {} tokens/s, {:.1} sequences a step, at most {} waiting, keys and values {}",
            grouped(did.tokens_per_second() as u64),
            did.occupancy(),
            grouped(did.waiting),
            mib(did.cache_bytes)
        ),
        format!(
            "engine: {} tokens read, {} shared, {} written in {}; {} for {} in {}; {} in {}; of {:.1} s",
            grouped(did.prompt_tokens),
            grouped(did.shared_tokens),
            grouped(did.written_tokens),
            seconds(did.text_time),
            grouped(did.class_tokens),
            if did.classes == 1 {
                "1 class".to_owned()
            } else {
                format!("{} classes", grouped(did.classes))
            },
            seconds(did.class_time),
            counted(did.training_steps, "training step"),
            seconds(did.training_time),
            took.as_secs_f64()
        ),
    ]
}

/// Failures and what was done about them.
fn supervision(kind: &EventKind) -> Option<String> {
    let jobs = |jobs: usize| match jobs {
        0 => String::new(),
        jobs => format!(", {} brought back", counted(jobs as u64, "job")),
    };
    Some(match kind {
        EventKind::FaultInjected { fault, agent: Some(agent), .. } => {
            format!("ordered fault: {fault} of {agent}")
        }
        EventKind::FaultInjected { fault, .. } => format!("ordered fault: {fault}"),
        EventKind::AgentFailed { agent, reason } => format!("{agent} failed: {reason}"),
        EventKind::AgentRestarted { agent, restarts, generation } => {
            format!("{agent} restarted on {generation}, restart {restarts}")
        }
        EventKind::AgentQuarantined { agent, reason } => {
            format!("{agent} in quarantine, its turns are skipped: {reason}")
        }
        EventKind::ReplyRejected { agent, reason, attempt, .. } => {
            format!("answer {attempt} of {agent} rejected: {reason}")
        }
        EventKind::TurnSkipped { episode, agent, reason, .. } => {
            format!("turn of {agent} in episode {episode} skipped: {reason}")
        }
        EventKind::EngineFailed { reason } => format!("the engine failed: {reason}"),
        EventKind::EngineRestarted { restarts, jobs: lost } => {
            format!("the engine restarted, restart {restarts}{}", jobs(*lost))
        }
        EventKind::TrainerFailed { reason } => format!("the trainer failed: {reason}"),
        EventKind::TrainerRestarted { restarts, jobs: lost } => {
            format!("the trainer restarted, restart {restarts}{}", jobs(*lost))
        }
        EventKind::RecordingPaused { reason } => format!("recording paused: {reason}"),
        EventKind::RecordingResumed { retries } => {
            format!("recording goes on, number of retries: {retries}")
        }
        EventKind::SocietyRestarted { reason, restarts } => {
            format!("all started anew, time {restarts}: {reason}")
        }
        _ => return None,
    })
}

fn holdout(phase: Phase, scores: &Scores) -> String {
    format!(
        "{} on {} queries: intent recognised {:.3}, query resolved {:.3}, evaluator's AUC {:.3}",
        phase.title(),
        scores.items,
        scores.intent_accuracy,
        scores.resolved_rate,
        scores.evaluator_auc
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::screenplay;

    #[test]
    fn a_run_reads_as_lines() {
        let mut plain = Plain::new(8);
        let lines: Vec<String> =
            screenplay::whole_run().iter().flat_map(|event| plain.lines(event, |_| None)).collect();
        for line in &lines {
            assert!(!line.chars().any(char::is_control), "{line:?}");
        }
        insta::with_settings!({ snapshot_path => "snapshots", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!("plain_lines", lines.join("\n"));
        });
    }
}
