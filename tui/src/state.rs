//! What is known of a run, folded from its events and from nothing else.
//!
//! Pure: no clock, no terminal, no waiting. A live run and a recorded one are told apart nowhere here. All
//! that grows is bounded, and an event that was missed leaves a gap, never an error.

pub(crate) mod agent;
pub(crate) mod curve;
pub(crate) mod exchange;
pub(crate) mod log;
pub(crate) mod run;
mod supervision;

use std::collections::BTreeMap;

use sim::event::{AgentCard, Event, EventKind, Phase, Said, Scores};

use agent::{Agent, Job};
use curve::{Curves, Mark};
use exchange::{Answer, Message, Outcome, Stream, shortened};
use log::{Log, Notice};
use run::{Ending, Run};

/// Episodes under way that are remembered; more than that are forgotten, oldest first.
const OPEN_EPISODES: usize = 1_024;

/// Everything a screen can show.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The header: which run, and how far it is.
    pub(crate) run: Run,
    /// The society, in speaking order.
    pub(crate) agents: Vec<Agent>,
    /// What was said.
    pub(crate) stream: Stream,
    /// How well it goes.
    pub(crate) curves: Curves,
    /// What happened to agents: learning and supervision.
    pub(crate) log: Log,
    /// Holdout scores before play.
    pub(crate) before: Option<Scores>,
    /// Holdout scores after play.
    pub(crate) after: Option<Scores>,
    /// Whose turn it is in each open episode: the agents' waiting work.
    turns: BTreeMap<u64, usize>,
}

impl State {
    /// Takes in one event.
    pub(crate) fn apply(&mut self, event: &Event) {
        self.run.tick = event.tick;
        self.run.seen += 1;
        match &event.kind {
            EventKind::RunStarted { scenario, seed, episodes, protocol, agents } => {
                self.run.begin(scenario, *seed, *episodes, protocol);
                self.agents = agents.iter().map(Agent::from_card).collect();
            }
            EventKind::PhaseStarted { phase, length } => self.enter(*phase, *length),
            EventKind::TransferFinished { agent, steps, loss_before, loss_after, .. } => {
                self.transferred(agent.as_str(), *steps, *loss_before, *loss_after);
            }
            EventKind::EpisodeStarted { episode, query, .. } => self.open(*episode, query),
            EventKind::EpisodeFinished { .. } | EventKind::TalkFinished { .. } => {
                self.close(&event.kind);
            }
            EventKind::MessageDelivered { .. } => self.hear(&event.kind),
            EventKind::FaultInjected { .. }
            | EventKind::AgentFailed { .. }
            | EventKind::AgentRestarted { .. }
            | EventKind::AgentQuarantined { .. }
            | EventKind::ReplyRejected { .. }
            | EventKind::TurnSkipped { .. }
            | EventKind::AgentSilenced { .. }
            | EventKind::EngineFailed { .. }
            | EventKind::EngineRestarted { .. }
            | EventKind::TrainerFailed { .. }
            | EventKind::TrainerRestarted { .. }
            | EventKind::RecordingPaused { .. }
            | EventKind::RecordingResumed { .. }
            | EventKind::SocietyRestarted { .. } => self.mend(&event.kind),
            EventKind::HoldoutScored { phase, scores } => match phase {
                Phase::After => self.after = Some(scores.clone()),
                Phase::Transfer | Phase::Before | Phase::Play => self.before = Some(scores.clone()),
            },
            EventKind::RunFinished { stopped, generations, .. } => {
                self.run.ending = if *stopped { Ending::Stopped } else { Ending::Done };
                self.turns.clear();
                self.stream.abandon();
                for (name, generation) in generations {
                    self.agent_mut(name.as_str()).generation = generation.0;
                }
            }
            EventKind::TriggerFired { .. }
            | EventKind::TrainingStarted { .. }
            | EventKind::TrainingStepped { .. }
            | EventKind::GenerationPublished { .. }
            | EventKind::TrainingRolledBack { .. } => self.learn(&event.kind),
        }
    }

    /// Events will not come any more.
    pub(crate) fn close_feed(&mut self) {
        if self.run.ending == Ending::Running {
            self.run.ending = Ending::Lost;
        }
        self.turns.clear();
        self.stream.abandon();
    }

    /// How many messages wait for an agent's answer.
    pub(crate) fn waiting_for(&self, agent: usize) -> usize {
        self.turns.values().filter(|turn| **turn == agent).count()
    }

    /// Whose turn it is in an episode.
    pub(crate) fn turn_in(&self, episode: u64) -> Option<&Agent> {
        self.turns.get(&episode).and_then(|agent| self.agents.get(*agent))
    }

    /// Position of an agent in the society.
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.agents.iter().position(|agent| agent.name == name)
    }

    /// An agent by name; one that was never introduced, because that event was missed, is added.
    fn agent_mut(&mut self, name: &str) -> &mut Agent {
        let position = self.position(name).unwrap_or_else(|| {
            self.agents.push(Agent::stranger(name));
            self.agents.len() - 1
        });
        &mut self.agents[position]
    }

    fn note(&mut self, notice: Notice, agent: &str, words: String) {
        self.log.push(self.run.tick, notice, agent, words);
    }

    fn enter(&mut self, phase: Phase, length: u64) {
        self.run.enter(phase, length);
        self.stream.divide(phase);
        self.turns.clear();
    }

    fn transferred(&mut self, name: &str, steps: usize, loss_before: f64, loss_after: f64) {
        self.run.step_of_transfer(steps as u64);
        let agent = self.agent_mut(name);
        agent.loss = Some(loss_after);
        let words = format!("loss {loss_before:.3} to {loss_after:.3} in {steps} steps");
        self.note(Notice::Transferred, name, words);
    }

    fn open(&mut self, episode: u64, query: &str) {
        self.stream.open(episode, query);
        if self.turns.len() >= OPEN_EPISODES {
            self.turns.pop_first();
        }
        self.turns.insert(episode, 0);
    }

    fn hear(&mut self, kind: &EventKind) {
        let EventKind::MessageDelivered { episode, from, to, generation, said, cut, .. } = kind
        else {
            return;
        };
        self.agent_mut(from.as_str()).turns += 1;
        match to.first().and_then(|to| self.position(to.as_str())) {
            Some(next) => self.turns.insert(*episode, next),
            None => self.turns.remove(episode),
        };
        self.stream.say(*episode, Message::new(from.as_str(), generation.0, said, *cut));
    }

    fn close(&mut self, kind: &EventKind) {
        let (episode, outcome) = match kind {
            EventKind::EpisodeFinished {
                episode,
                intent,
                intent_correct,
                reward,
                resolved,
                verdict,
            } => {
                if self.run.phase == Some(Phase::Play) {
                    self.curves.finish_episode(*reward, *intent_correct);
                }
                let answer = Answer {
                    intent: intent.clone(),
                    intent_correct: *intent_correct,
                    reward: *reward,
                    resolved: *resolved,
                    verdict_correct: (*verdict >= 0.5) == *resolved,
                };
                (episode, Outcome::Answer(answer))
            }
            EventKind::TalkFinished { episode, most, agreement } => {
                self.curves.finish_talk(*agreement);
                let most = shortened(most.as_deref().unwrap_or_default());
                (episode, Outcome::Talk { most, agreement: *agreement })
            }
            _ => return,
        };
        self.turns.remove(episode);
        self.run.finish_episode();
        self.stream.close(*episode, outcome);
    }

    fn learn(&mut self, kind: &EventKind) {
        // What a transfer comes to is one notice of its own.
        let is_transfer = self.run.phase == Some(Phase::Transfer);
        match kind {
            EventKind::TriggerFired { rule, agent, value, job, .. } => {
                let outcome = job.map_or_else(|| "no job".to_owned(), |job| format!("job {job}"));
                self.curves.mark(Mark::Trigger);
                self.note(Notice::Fired, agent.as_str(), format!("{value:.2}, {outcome}, {rule}"));
            }
            EventKind::TrainingStarted { job, agent, objective, examples, steps, from } => {
                let phase = self.run.phase;
                self.agent_mut(agent.as_str()).begin(Job::new(*job, objective, *steps), phase);
                if !is_transfer {
                    let words = format!(
                        "{objective}, job {job}: {steps} steps, {examples} examples, from {from}"
                    );
                    self.note(Notice::Learning, agent.as_str(), words);
                }
            }
            EventKind::TrainingStepped { job, agent, step, loss, reward, .. } => {
                self.agent_mut(agent.as_str()).step(*job, *step, *loss, *reward);
                if is_transfer {
                    self.run.step_of_transfer(*step as u64);
                }
            }
            EventKind::GenerationPublished { agent, generation, job, .. } => {
                let it = self.agent_mut(agent.as_str());
                it.generation = generation.0;
                it.end(*job);
                if !is_transfer {
                    it.published += 1;
                    self.curves.mark(Mark::Swap);
                    self.note(
                        Notice::Swapped,
                        agent.as_str(),
                        format!("to {generation}, job {job}"),
                    );
                }
            }
            EventKind::TrainingRolledBack { job, agent, reason } => {
                let it = self.agent_mut(agent.as_str());
                it.rolled_back += 1;
                it.end(*job);
                self.curves.mark(Mark::Rollback);
                self.note(Notice::RolledBack, agent.as_str(), format!("job {job}: {reason}"));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
