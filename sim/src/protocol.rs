//! Who speaks when: a protocol is a pure state machine, one for each episode. What was said goes in, the
//! next steps come out.
//!
//! No clock, no actors, no randomness of its own.

pub mod pipeline;

use agents::name::AgentName;
use serde::{Deserialize, Serialize};

use self::pipeline::Pipeline;
use crate::event::Said;
use crate::scenario::ProtocolPlan;

/// What shall happen next in an episode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// This agent shall speak, having heard the messages at these turns.
    Speak {
        /// Who.
        agent: AgentName,
        /// Turns it has heard.
        heard: Vec<u32>,
    },
    /// The episode is over.
    End,
}

/// The state of one episode's conversation.
pub trait Protocol: Send + std::fmt::Debug {
    /// The first steps.
    fn begin(&mut self) -> Vec<Step>;

    /// The steps after the turn `turn` of `agent`; nothing was said where the turn was skipped.
    fn heard(&mut self, turn: u32, agent: &AgentName, said: Option<&Said>) -> Vec<Step>;

    /// Who hears what `agent` says; none where only the task does.
    fn listener(&self, agent: &AgentName) -> Option<AgentName>;
}

/// The protocol of one episode, as it can be stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conversation {
    /// One after another.
    Pipeline(Pipeline),
}

impl Protocol for Conversation {
    fn begin(&mut self) -> Vec<Step> {
        let Self::Pipeline(pipeline) = self;
        pipeline.begin()
    }

    fn heard(&mut self, turn: u32, agent: &AgentName, said: Option<&Said>) -> Vec<Step> {
        let Self::Pipeline(pipeline) = self;
        pipeline.heard(turn, agent, said)
    }

    fn listener(&self, agent: &AgentName) -> Option<AgentName> {
        let Self::Pipeline(pipeline) = self;
        pipeline.listener(agent)
    }
}

/// The protocol of a new episode.
#[must_use]
pub fn start(plan: &ProtocolPlan) -> Conversation {
    match plan {
        ProtocolPlan::Pipeline { order } => Conversation::Pipeline(Pipeline::new(order.clone())),
    }
}

/// The protocol's name in scenarios.
#[must_use]
pub fn name(plan: &ProtocolPlan) -> &'static str {
    match plan {
        ProtocolPlan::Pipeline { .. } => "pipeline",
    }
}
