//! Faults that the experiment orders: when each strikes, and whom.
//!
//! At most one strikes the turns of a tick, one the trainer and one the disk, so that one never hides another.

use rand::Rng;

use super::Stage;
use crate::event::EventKind;
use crate::scenario::{FaultKind, FaultTime};

/// A fault that strikes the turns of a tick.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Strike {
    pub(super) kind: FaultKind,
    /// Whose turn: the episode and its number there; none where it strikes the engine.
    pub(super) turn: Option<(u64, u32)>,
}

impl Stage {
    /// The fault that strikes the turns of this tick.
    pub(super) fn strike_turn(&mut self) -> Option<Strike> {
        for index in 0..self.scenario.faults.len() {
            let plan = &self.scenario.faults[index];
            let (kind, agent) = (plan.kind, plan.agent.clone());
            let turn = match &agent {
                Some(agent) if self.oversight.quarantined.contains(agent) => continue,
                Some(agent) => {
                    let mut due = self.due();
                    match due.find(|(_, asked)| self.floor.name(asked.seat) == agent) {
                        Some((id, asked)) => Some((id, asked.turn)),
                        None => continue,
                    }
                }
                None if kind == FaultKind::LostEngine && self.asks_the_engine() => None,
                None => continue,
            };
            if self.is_due(index) {
                let (fault, episode) = (kind.name().to_owned(), turn.map(|(id, _)| id));
                self.emit(EventKind::FaultInjected { fault, agent, episode });
                return Some(Strike { kind, turn });
            }
        }
        None
    }

    /// Whether an agent with a model is due.
    fn asks_the_engine(&self) -> bool {
        self.due().any(|(_, asked)| {
            let member = self.members.get(self.floor.name(asked.seat));
            member.is_some_and(|member| member.model().is_some())
        })
    }

    /// Whether a fault of this kind strikes now what is shared by all.
    pub(super) fn strike(&mut self, kind: FaultKind) -> bool {
        let strikes = (0..self.scenario.faults.len())
            .any(|index| self.scenario.faults[index].kind == kind && self.is_due(index));
        if strikes {
            let fault = kind.name().to_owned();
            self.emit(EventKind::FaultInjected { fault, agent: None, episode: None });
        }
        strikes
    }

    /// Whether an ordered fault strikes in this tick; counts it where it does.
    fn is_due(&mut self, index: usize) -> bool {
        let plan = &self.scenario.faults[index];
        let struck = &mut self.oversight.struck;
        if struck.len() <= index {
            struck.resize(self.scenario.faults.len(), 0);
        }
        if struck[index] >= plan.times {
            return false;
        }
        let due = match plan.when {
            FaultTime::AtTick(tick) => self.tick >= tick,
            FaultTime::Chance(probability) => {
                let seed = self.seed.child("fault").index(index as u64).index(self.tick);
                seed.stream().random::<f64>() < probability
            }
        };
        struck[index] += u64::from(due);
        due
    }
}
