//! Who speaks when: a protocol is a pure state machine, one for each episode. What was said goes in, the
//! next steps come out.
//!
//! No clock, no actors; where chance decides, it is handed a seed. What becomes of a message on its way is the
//! channel's part, and what an agent has heard is its mailbox's.

pub mod broadcast;
pub mod gossip;
pub mod pipeline;
pub mod round_robin;

use std::borrow::Cow;

use agents::seed::Seed;
use serde::{Deserialize, Serialize};

use self::broadcast::Broadcast;
use self::gossip::Gossip;
use self::pipeline::Pipeline;
use self::round_robin::RoundRobin;
use crate::event::Said;
use crate::scenario::ProtocolPlan;
use crate::topology::{Floor, Seat};

/// What shall happen next in an episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// This agent shall speak, having read its mailbox.
    Speak(Seat),
    /// The episode is over.
    End,
}

/// The state of one episode's conversation.
pub trait Protocol {
    /// The first steps.
    fn begin(&mut self, floor: &Floor) -> Vec<Step>;

    /// The steps after a turn of the agent at `seat`; nothing was said where the turn was skipped.
    fn heard(&mut self, seat: Seat, said: Option<&Said>, floor: &Floor) -> Vec<Step>;

    /// Who shall hear what the agent at `seat` says, in the order of seats; `draw` makes the message's own
    /// seed.
    fn listeners<'f>(
        &self,
        seat: Seat,
        floor: &'f Floor,
        draw: &dyn Fn() -> Seed,
    ) -> Cow<'f, [Seat]>;

    /// Whether an agent speaks only once all that was sent to it has arrived.
    fn waits(&self) -> bool {
        false
    }
}

/// The protocol of one episode, as it can be stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conversation {
    /// One after another.
    Pipeline(Pipeline),
    /// One after another, again and again.
    RoundRobin(RoundRobin),
    /// All at once.
    Broadcast(Broadcast),
    /// All at once, to some.
    Gossip(Gossip),
}

impl Conversation {
    /// The protocol of a new episode.
    #[must_use]
    pub fn new(plan: &ProtocolPlan) -> Self {
        match plan {
            ProtocolPlan::Pipeline { .. } => Self::Pipeline(Pipeline::default()),
            ProtocolPlan::RoundRobin { rounds, .. } => Self::RoundRobin(RoundRobin::new(*rounds)),
            ProtocolPlan::Broadcast { rounds } => Self::Broadcast(Broadcast::new(*rounds)),
            ProtocolPlan::Gossip { rounds, fanout } => Self::Gossip(Gossip::new(*rounds, *fanout)),
        }
    }

    fn protocol(&self) -> &dyn Protocol {
        match self {
            Self::Pipeline(own) => own,
            Self::RoundRobin(own) => own,
            Self::Broadcast(own) => own,
            Self::Gossip(own) => own,
        }
    }

    fn protocol_mut(&mut self) -> &mut dyn Protocol {
        match self {
            Self::Pipeline(own) => own,
            Self::RoundRobin(own) => own,
            Self::Broadcast(own) => own,
            Self::Gossip(own) => own,
        }
    }
}

impl Protocol for Conversation {
    fn begin(&mut self, floor: &Floor) -> Vec<Step> {
        self.protocol_mut().begin(floor)
    }

    fn heard(&mut self, seat: Seat, said: Option<&Said>, floor: &Floor) -> Vec<Step> {
        self.protocol_mut().heard(seat, said, floor)
    }

    fn listeners<'f>(
        &self,
        seat: Seat,
        floor: &'f Floor,
        draw: &dyn Fn() -> Seed,
    ) -> Cow<'f, [Seat]> {
        self.protocol().listeners(seat, floor, draw)
    }

    fn waits(&self) -> bool {
        self.protocol().waits()
    }
}

/// The protocol's name in scenarios.
#[must_use]
pub fn name(plan: &ProtocolPlan) -> &'static str {
    match plan {
        ProtocolPlan::Pipeline { .. } => "pipeline",
        ProtocolPlan::RoundRobin { .. } => "round_robin",
        ProtocolPlan::Broadcast { .. } => "broadcast",
        ProtocolPlan::Gossip { .. } => "gossip",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use agents::name::AgentName;

    use super::*;
    use crate::scenario::TopologyPlan;

    /// A floor of so many agents on a topology.
    pub(crate) fn floor(count: usize, topology: &TopologyPlan) -> Floor {
        let names = (0..count).map(|index| AgentName::new(&format!("a{index}")).unwrap());
        Floor::of(names.collect(), topology, Seed::new(1))
    }

    /// Who speaks in each step of a protocol in which every agent answers at once.
    pub(crate) fn order(protocol: &mut dyn Protocol, floor: &Floor) -> Vec<Vec<Seat>> {
        let said = Said::Text { text: "x".into() };
        let (mut steps, mut order) = (protocol.begin(floor), Vec::new());
        for _ in 0..1_000 {
            let seats: Vec<Seat> = steps
                .iter()
                .filter_map(|step| match step {
                    Step::Speak(seat) => Some(*seat),
                    Step::End => None,
                })
                .collect();
            if steps.contains(&Step::End) {
                assert_eq!(steps, [Step::End], "nobody speaks after the end");
                return order;
            }
            steps =
                seats.iter().flat_map(|seat| protocol.heard(*seat, Some(&said), floor)).collect();
            order.push(seats);
        }
        panic!("it never ends: {order:?}");
    }
}
