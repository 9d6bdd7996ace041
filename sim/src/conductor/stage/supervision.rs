//! What the stage does when a part of the society fails: it comes back with what it had, and what was open is
//! asked again; or the society goes on without it; or the run ends.

use std::sync::Arc;

use agents::name::AgentName;

use super::{Order, Stage};
use crate::conductor::order::Restart;
use crate::conductor::oversight::{Awaited, Part};
use crate::event::EventKind;
use crate::restart::{Backoff, Intensity};
use crate::scenario::Escalation;

/// The shortest wait before the recording is tried again, in milliseconds.
const SHORTEST: u64 = 50;

impl Stage {
    /// An agent's actor ended.
    pub fn failed(&mut self, agent: AgentName, reason: String) -> Vec<Order> {
        if !self.members.contains_key(&agent) || self.oversight.quarantined.contains(&agent) {
            return Vec::new();
        }
        self.emit(EventKind::AgentFailed { agent: agent.clone(), reason: reason.clone() });
        self.part_failed(&Part::Agent(agent), reason)
    }

    /// The engine's thread ended, or hangs.
    pub fn engine_failed(&mut self, reason: &str) -> Vec<Order> {
        if self.oversight.down.contains(&Part::Engine) {
            return Vec::new();
        }
        self.emit(EventKind::EngineFailed { reason: reason.to_owned() });
        self.part_failed(&Part::Engine, reason.to_owned())
    }

    /// The trainer's actor ended.
    pub fn trainer_failed(&mut self, reason: String) -> Vec<Order> {
        self.emit(EventKind::TrainerFailed { reason: reason.clone() });
        self.part_failed(&Part::Trainer, reason)
    }

    fn part_failed(&mut self, part: &Part, reason: String) -> Vec<Order> {
        // What is still on its way to the open tick is of no use: all is asked again.
        self.oversight.round += 1;
        let plan = &self.scenario.supervision;
        let (mut intensity, mut backoff, mut essential) = (plan.intensity, plan.backoff, true);
        if let Part::Agent(name) = part
            && let Some(member) = self.members.get(name)
        {
            let own = &member.plan.supervision;
            (intensity, backoff, essential) = (own.intensity, own.backoff, own.essential);
        }
        let failures = &mut self.oversight.record(part).failures;
        match (failures.note(self.tick, intensity), part) {
            (Some(earlier), _) => {
                let parts = self.scenario.supervision.strategy.affected(&self.parts(), part);
                self.restart(parts, &part.to_string(), earlier, backoff)
            }
            (None, Part::Agent(agent)) if !essential => self.quarantine(agent.clone(), reason),
            (None, part) => self.escalate(part, intensity, &reason),
        }
    }

    /// All parts in the order in which they are started: agents as they speak.
    fn parts(&self) -> Vec<Part> {
        let agents = self.cards().into_iter().map(|card| card.name);
        let agents = agents.filter(|name| !self.oversight.quarantined.contains(name));
        [Part::Engine, Part::Trainer].into_iter().chain(agents.map(Part::Agent)).collect()
    }

    fn restart(
        &mut self,
        parts: Vec<Part>,
        whose: &str,
        earlier: usize,
        backoff: Backoff,
    ) -> Vec<Order> {
        let mut restart = Restart::default();
        for part in &parts {
            match part {
                Part::Engine => restart.engine = true,
                Part::Trainer => restart.trainer = true,
                Part::Agent(name) => {
                    let adapter = self.members.get(name).and_then(|member| member.adapter());
                    restart.agents.push((name.clone(), adapter.map(Arc::clone)));
                }
            }
        }
        let seed = self.seed.child("backoff").child(whose).index(self.oversight.round);
        let milliseconds = backoff.wait(earlier, seed);
        self.oversight.down.extend(parts);
        vec![Order::Restart { parts: restart, milliseconds }]
    }

    /// The society goes on without an agent.
    fn quarantine(&mut self, agent: AgentName, reason: String) -> Vec<Order> {
        self.emit(EventKind::AgentQuarantined { agent: agent.clone(), reason });
        self.oversight.down.remove(&Part::Agent(agent.clone()));
        self.oversight.quarantined.insert(agent);
        self.go_on(false)
    }

    /// A part failed too often.
    fn escalate(&mut self, part: &Part, intensity: Intensity, reason: &str) -> Vec<Order> {
        let Intensity { restarts, period } = intensity;
        let reason = format!(
            "{part} failed more than {restarts} times within {period} ticks, which is all that its \
             supervision allows: {reason}"
        );
        let plan = self.scenario.supervision;
        let society = &mut self.oversight.society;
        let earlier = match plan.escalation {
            Escalation::EndRun => return vec![Order::Fail(reason)],
            Escalation::RestartAll => society.failures.note(self.tick, plan.intensity),
        };
        let Some(earlier) = earlier else {
            let Intensity { restarts, period } = plan.intensity;
            return vec![Order::Fail(format!(
                "{reason}; the whole society was started anew {restarts} times within {period} ticks already"
            ))];
        };
        society.restarts += 1;
        let restarts = society.restarts;
        self.emit(EventKind::SocietyRestarted { reason, restarts });
        self.oversight.forget();
        let parts = self.parts();
        self.restart(parts, "society", earlier, plan.backoff)
    }

    /// Parts are back, with what they had.
    pub fn restarted(&mut self, agents: &[AgentName], trainer: bool, engine: bool) -> Vec<Order> {
        let jobs = self.jobs.len();
        for (part, is_back) in [(Part::Engine, engine), (Part::Trainer, trainer)] {
            if is_back {
                let restarts = self.came_back(&part);
                self.emit(match part {
                    Part::Engine => EventKind::EngineRestarted { restarts, jobs },
                    _ => EventKind::TrainerRestarted { restarts, jobs },
                });
            }
        }
        for agent in agents {
            let Some(member) = self.members.get(agent) else { continue };
            let generation = member.generation();
            let restarts = self.came_back(&Part::Agent(agent.clone()));
            self.emit(EventKind::AgentRestarted { agent: agent.clone(), restarts, generation });
        }
        if trainer || engine {
            self.begin = self.jobs.values().map(|running| running.begun.clone()).collect();
        }
        self.go_on(trainer || engine)
    }

    fn came_back(&mut self, part: &Part) -> u32 {
        self.oversight.down.remove(part);
        let record = self.oversight.record(part);
        record.restarts += 1;
        record.restarts
    }

    /// Once nobody is missing, asks again for what the open tick waits for.
    fn go_on(&mut self, jobs_lost: bool) -> Vec<Order> {
        if !self.oversight.down.is_empty() {
            return Vec::new();
        }
        match self.oversight.awaited {
            Awaited::Answers => self.ask(None),
            Awaited::Steps if jobs_lost => vec![self.steps()],
            Awaited::Steps | Awaited::Nothing => Vec::new(),
        }
    }

    /// The disk refused the recording: how long to wait before the next try, in milliseconds; none once that
    /// took longer than a turn may.
    pub fn recording_failed(&mut self, reason: String) -> Option<u64> {
        let plan = self.scenario.supervision;
        // Nothing comes after the end of a run in its log.
        if self.oversight.retries == 0 && !self.finished {
            self.emit(EventKind::RecordingPaused { reason });
        }
        let seed = self.seed.child("backoff").child("recording").index(self.tick);
        let wait = plan.backoff.wait(self.oversight.retries as usize, seed).max(SHORTEST);
        self.oversight.retries += 1;
        self.oversight.waited += wait;
        (self.oversight.waited <= plan.turn_deadline).then_some(wait)
    }

    /// The disk took the recording, after it had refused it or not.
    pub fn recorded(&mut self) {
        let retries = std::mem::take(&mut self.oversight.retries);
        self.oversight.waited = 0;
        if retries > 0 {
            self.emit(EventKind::RecordingResumed { retries });
        }
    }
}
