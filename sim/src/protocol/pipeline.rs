//! One after another: each agent speaks once, having heard all before it.
//!
//! Ends after the last one. Out-of-turn speech changes nothing.

use agents::name::AgentName;
use serde::{Deserialize, Serialize};

use super::{Protocol, Step};
use crate::event::Said;

/// A pipeline in progress.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pipeline {
    order: Vec<AgentName>,
    position: usize,
}

impl Pipeline {
    /// A pipeline before its first turn.
    #[must_use]
    pub fn new(order: Vec<AgentName>) -> Self {
        Self { order, position: 0 }
    }

    fn step(&self) -> Vec<Step> {
        match self.order.get(self.position) {
            Some(agent) => {
                let heard = (0..self.position as u32).collect();
                vec![Step::Speak { agent: agent.clone(), heard }]
            }
            None => vec![Step::End],
        }
    }
}

impl Protocol for Pipeline {
    fn begin(&mut self) -> Vec<Step> {
        self.step()
    }

    fn heard(&mut self, _turn: u32, agent: &AgentName, _said: Option<&Said>) -> Vec<Step> {
        if self.order.get(self.position) != Some(agent) {
            return Vec::new();
        }
        self.position += 1;
        self.step()
    }

    fn listener(&self, agent: &AgentName) -> Option<AgentName> {
        let place = self.order.iter().position(|name| name == agent)?;
        self.order.get(place + 1).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> AgentName {
        AgentName::new(text).unwrap()
    }

    fn speak(agent: &str, heard: &[u32]) -> Vec<Step> {
        vec![Step::Speak { agent: name(agent), heard: heard.to_vec() }]
    }

    #[test]
    fn each_speaks_once_in_order_and_then_it_ends() {
        let mut pipeline = Pipeline::new(vec![name("a"), name("b")]);
        let said = Said::Text { text: "x".into() };
        assert_eq!(pipeline.begin(), speak("a", &[]));
        assert_eq!(pipeline.heard(0, &name("b"), Some(&said)), [], "b is out of turn");
        assert_eq!(pipeline.heard(0, &name("a"), None), speak("b", &[0]));
        assert_eq!(pipeline.heard(1, &name("b"), Some(&said)), [Step::End]);
        assert_eq!(pipeline.listener(&name("a")), Some(name("b")));
        assert_eq!(pipeline.listener(&name("b")), None);
    }
}
