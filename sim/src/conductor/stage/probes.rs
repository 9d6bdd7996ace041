//! Measuring the evaluator: after a pass over the holdout it judges a right and a wrong reply to each query.

use super::{HOLDOUT_WIDTH, PROBES, Stage};
use crate::agent::Role;
use crate::conductor::episode::{Episode, Reply};
use crate::conductor::order::Order;
use crate::event::Said;
use crate::protocol;

impl Stage {
    pub(super) fn open_probes(&mut self) -> Vec<Order> {
        let judge = self.members.iter().find(|(_, m)| m.role == Role::Evaluate);
        let Some(judge) = judge.map(|(name, _)| name.clone()) else { return self.end_holdout() };
        let end = (self.begun + HOLDOUT_WIDTH).min(self.probes.len());
        if self.begun == end {
            return self.end_holdout();
        }
        for index in self.begun..end {
            let id = PROBES + index as u64;
            let protocol = protocol::start(&self.scenario.protocol);
            let mut episode = Episode::new(self.probes[index].0, protocol);
            episode.asked = Some((judge.clone(), Vec::new()));
            self.active.insert(id, episode);
        }
        self.begun = end;
        self.open_turns()
    }

    pub(super) fn close_probes(&mut self) -> Vec<Order> {
        for (id, episode) in std::mem::take(&mut self.active) {
            if let Some(Reply::Said(_, Said::Verdict { resolved })) = episode.answer {
                self.holdout.verdict(resolved, self.probes[(id - PROBES) as usize].2);
            }
        }
        self.end_tick()
    }
}
