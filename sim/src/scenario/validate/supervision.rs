//! Checks of supervision and ordered faults.

use agents::name::AgentName;

use super::{Check, count64};
use crate::restart::{Backoff, Intensity};
use crate::scenario::file::{AgentSupervisionFile, BackoffFile, FaultFile};
use crate::scenario::problem::Problem;
use crate::scenario::problem::fault::FaultProblem;
use crate::scenario::suggestion::{advice, quote};
use crate::scenario::words::{self, meaning, names};
use crate::scenario::{AgentSupervision, FaultKind, FaultPlan, FaultTime, SupervisionPlan};

/// How late a slow reply is where nothing is said, in seconds.
const SLOW: f64 = 0.5;

impl Check<'_> {
    pub(super) fn supervision(&mut self) -> Option<SupervisionPlan> {
        let file = &self.file.supervision;
        let strategy = self.choice("strategy", &words::STRATEGIES, &file.strategy);
        let escalation = self.choice("escalation", &words::ESCALATIONS, &file.escalation);
        Some(SupervisionPlan {
            strategy: strategy?,
            intensity: Intensity {
                restarts: small(file.restarts.value),
                period: count64(&file.period),
            },
            backoff: backoff(&file.backoff),
            escalation: escalation?,
            turn_deadline: milliseconds(file.turn_seconds.value).max(1),
            attempts: small(file.attempts.value).max(1),
        })
    }

    /// What is left out is as for the society.
    pub(super) fn agent_supervision(&self, file: &AgentSupervisionFile) -> AgentSupervision {
        let all = &self.file.supervision;
        AgentSupervision {
            intensity: Intensity {
                restarts: small(file.restarts.as_ref().unwrap_or(&all.restarts).value),
                period: count64(file.period.as_ref().unwrap_or(&all.period)),
            },
            backoff: backoff(file.backoff.as_ref().unwrap_or(&all.backoff)),
            essential: file.essential,
        }
    }

    pub(super) fn faults(&mut self) -> Vec<FaultPlan> {
        let file = self.file;
        file.faults.iter().filter_map(|fault| self.fault(fault)).collect()
    }

    fn fault(&mut self, file: &FaultFile) -> Option<FaultPlan> {
        let name = quote(&file.kind.value);
        let Some(kind) = meaning(&words::FAULTS, &file.kind.value) else {
            let help = advice(&file.kind.value, names(&words::FAULTS));
            self.complain(FaultProblem::Unknown { name, at: file.kind.at, help });
            return None;
        };
        let agent = self.struck(file, kind)?;
        let when = match (&file.at_tick, &file.probability) {
            (Some(tick), None) => FaultTime::AtTick(count64(tick)),
            (None, Some(chance)) => FaultTime::Chance(chance.value),
            (None, None) => {
                self.complain(FaultProblem::NoTime { name, at: file.kind.at });
                return None;
            }
            (Some(tick), Some(chance)) => {
                self.complain(FaultProblem::TwoTimes { first: tick.at, at: chance.at });
                return None;
            }
        };
        let once = if file.at_tick.is_some() { 1 } else { u64::MAX };
        let times = file.times.as_ref().map_or(once, count64);
        let kind = match (kind, &file.seconds) {
            (FaultKind::SlowReply(_), seconds) => {
                let seconds = seconds.as_ref().map_or(SLOW, |seconds| seconds.value);
                FaultKind::SlowReply(milliseconds(seconds))
            }
            (_, Some(seconds)) => {
                self.complain(FaultProblem::NotSlow { name, at: seconds.at });
                return None;
            }
            (kind, None) => kind,
        };
        Some(FaultPlan { kind, agent, when, times })
    }

    /// Whose turn a fault strikes, where it strikes one; nothing where that is a mistake.
    fn struck(&mut self, file: &FaultFile, kind: FaultKind) -> Option<Option<AgentName>> {
        let name = quote(&file.kind.value);
        let is_scripted = self.file.agents().all(|(_, agent)| agent.script.is_some());
        let of_models = matches!(kind, FaultKind::LostEngine | FaultKind::LostTrainer);
        if is_scripted && of_models && !self.declared.agents.is_empty() {
            self.complain(FaultProblem::NoModel { name, at: file.kind.at });
            return None;
        }
        match (kind.is_of_an_agent(), &file.agent) {
            (true, Some(typed)) => {
                let known = self.known_agent("a fault", typed);
                AgentName::new(&typed.value).ok().filter(|_| known).map(Some)
            }
            (true, None) => {
                self.complain(FaultProblem::NoAgent { name, at: file.kind.at });
                None
            }
            (false, Some(typed)) => {
                self.complain(FaultProblem::NotOfAnAgent { name, at: typed.at });
                None
            }
            (false, None) => Some(None),
        }
    }

    fn complain(&mut self, problem: FaultProblem) {
        self.problems.push(Problem::Fault(problem));
    }
}

fn backoff(file: &BackoffFile) -> Backoff {
    Backoff {
        first: milliseconds(file.first.value),
        factor: file.factor.value,
        most: milliseconds(file.most.value),
        jitter: file.jitter.value,
    }
}

/// A time that the bounds of the schema have made small and positive, or that was reported.
fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1_000.0).round() as u64
}

fn small(number: i64) -> u32 {
    u32::try_from(number).unwrap_or_default()
}
