//! Measuring the evaluator: after a pass over the holdout it judges a right and a wrong reply to each query.

use super::{HOLDOUT_WIDTH, PROBES, Stage};
use crate::agent::Role;
use crate::conductor::episode::Reply;
use crate::conductor::order::Order;
use crate::event::Said;
use crate::protocol::Step;

impl Stage {
    pub(super) fn open_probes(&mut self) -> Vec<Order> {
        let judges = |name| {
            let model = self.members.get(name).and_then(|member| member.model());
            model.is_some_and(|model| model.role == Role::Evaluate)
        };
        let Some(judge) = self.floor.names().iter().position(judges) else {
            return self.end_holdout();
        };
        let end = (self.begun + HOLDOUT_WIDTH).min(self.probes.len());
        if self.begun == end {
            return self.end_holdout();
        }
        for index in self.begun..end {
            let id = PROBES + index as u64;
            let mut episode = self.episode(self.probes[index].0);
            episode.follow(vec![Step::Speak(judge)]);
            self.active.insert(id, episode);
        }
        self.begun = end;
        self.open_turns()
    }

    pub(super) fn close_probes(&mut self) -> Vec<Order> {
        for (id, episode) in std::mem::take(&mut self.active) {
            for asked in episode.asked {
                if let Some(Reply::Said(_, Said::Verdict { resolved })) = asked.answer {
                    self.holdout.verdict(resolved, self.probes[(id - PROBES) as usize].2);
                }
            }
        }
        self.end_tick()
    }
}
