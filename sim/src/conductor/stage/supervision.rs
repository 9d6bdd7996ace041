//! What the stage does when an actor ends: the agent comes back with its last weights and is asked again.

use std::collections::BTreeSet;
use std::sync::Arc;

use agents::name::AgentName;

use super::{Order, Stage};
use crate::event::EventKind;

impl Stage {
    /// An agent's actor ended: it is started anew with its last weights, unless it did so too often.
    pub fn failed(&mut self, agent: AgentName, reason: String) -> Vec<Order> {
        self.held.push(EventKind::AgentFailed { agent: agent.clone(), reason: reason.clone() });
        let most = self.scenario.max_restarts;
        let Some(member) = self.members.get_mut(&agent) else { return Vec::new() };
        if member.restarts >= most {
            return vec![Order::Fail(format!(
                "{agent} failed {} times, and max_restarts is {most}: {reason}",
                member.restarts + 1
            ))];
        }
        member.restarts += 1;
        vec![Order::Restart { agent, adapter: Arc::clone(&member.adapter) }]
    }

    /// An agent is back: it is asked again what it had not answered.
    pub fn restarted(&mut self, agent: &AgentName) -> Vec<Order> {
        let Some(member) = self.members.get(agent) else { return Vec::new() };
        self.held.push(EventKind::AgentRestarted {
            agent: agent.clone(),
            restarts: member.restarts,
            generation: member.adapter.generation(),
        });
        let open: BTreeSet<u64> = self
            .active
            .iter()
            .filter(|(_, e)| e.answer.is_none())
            .filter(|(_, e)| e.asked.as_ref().is_some_and(|(asked, _)| asked == agent))
            .map(|(id, _)| *id)
            .collect();
        let mut orders: Vec<Order> =
            open.iter().filter_map(|&id| self.speak(id, agent, None)).collect();
        if !orders.is_empty() {
            let keys = open.into_iter().map(|id| (agent.clone(), id)).collect();
            orders.insert(0, Order::Expect(keys));
        }
        orders
    }
}
