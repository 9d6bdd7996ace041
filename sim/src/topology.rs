//! Who hears whom: the seats of a society and the pairs among them.
//!
//! Made once for a run, from the scenario and the seed. Protocols choose among the listeners that it allows.

use std::collections::{BTreeMap, BTreeSet};

use agents::name::AgentName;
use agents::seed::Seed;
use rand::Rng;

use crate::scenario::{ProtocolPlan, Scenario, TopologyPlan};

/// An agent's place, from 0, in speaking order.
pub type Seat = usize;

/// The agents of a run by seat, and who hears each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Floor {
    names: Vec<AgentName>,
    /// All seats, in order.
    seats: Vec<Seat>,
    listeners: Vec<Vec<Seat>>,
}

impl Floor {
    /// The floor of a scenario.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Self {
        let names: Vec<AgentName> = match &scenario.protocol {
            ProtocolPlan::Pipeline { order } | ProtocolPlan::RoundRobin { order, .. } => {
                order.clone()
            }
            ProtocolPlan::Broadcast { .. } | ProtocolPlan::Gossip { .. } => {
                scenario.agents.keys().cloned().collect()
            }
        };
        Self::of(names, &scenario.topology, Seed::new(scenario.seed).child("topology"))
    }

    /// The floor of agents in speaking order; names in the plan that are not among them are left out.
    #[must_use]
    pub fn of(names: Vec<AgentName>, plan: &TopologyPlan, seed: Seed) -> Self {
        let count = names.len();
        let mut pairs: BTreeSet<(Seat, Seat)> = BTreeSet::new();
        let mut both = |a: Seat, b: Seat| {
            if a != b {
                pairs.extend([(a, b), (b, a)]);
            }
        };
        match plan {
            TopologyPlan::Complete => {
                (0..count).for_each(|a| (0..a).for_each(|b| both(a, b)));
            }
            TopologyPlan::Ring => (0..count).for_each(|a| both(a, (a + 1) % count)),
            TopologyPlan::Line => (1..count).for_each(|a| both(a, a - 1)),
            TopologyPlan::Star { hub } => {
                let hub = names.iter().position(|name| name == hub);
                hub.into_iter().for_each(|hub| (0..count).for_each(|a| both(a, hub)));
            }
            TopologyPlan::Random { probability } => {
                let mut stream = seed.stream();
                for a in 0..count {
                    for b in 0..a {
                        if stream.random::<f64>() < *probability {
                            both(a, b);
                        }
                    }
                }
            }
            TopologyPlan::Edges { edges } => {
                let seats: BTreeMap<&AgentName, Seat> = names.iter().zip(0..).collect();
                for (from, to) in edges {
                    if let (Some(&from), Some(&to)) = (seats.get(from), seats.get(to)) {
                        pairs.insert((from, to));
                    }
                }
            }
        }
        let mut listeners = vec![Vec::new(); count];
        for (from, to) in pairs {
            listeners[from].push(to);
        }
        Self { names, seats: (0..count).collect(), listeners }
    }

    /// How many agents there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// All seats, in speaking order.
    #[must_use]
    pub fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// The agents, in speaking order.
    #[must_use]
    pub fn names(&self) -> &[AgentName] {
        &self.names
    }

    /// Who sits there.
    #[must_use]
    pub fn name(&self, seat: Seat) -> &AgentName {
        &self.names[seat]
    }

    /// Who hears the agent that sits there, by seat.
    #[must_use]
    pub fn listeners(&self, seat: Seat) -> &[Seat] {
        self.listeners.get(seat).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<AgentName> {
        (0..count).map(|index| AgentName::new(&format!("a{index}")).unwrap()).collect()
    }

    fn floor(count: usize, plan: &TopologyPlan) -> Floor {
        Floor::of(names(count), plan, Seed::new(7))
    }

    fn all(floor: &Floor) -> Vec<&[Seat]> {
        floor.seats().iter().map(|&seat| floor.listeners(seat)).collect()
    }

    #[test]
    fn shapes() {
        let shape = |plan: TopologyPlan| floor(4, &plan);
        assert_eq!(all(&shape(TopologyPlan::Complete))[1], [0, 2, 3]);
        let ring = shape(TopologyPlan::Ring);
        assert_eq!(all(&ring), [&[1, 3][..], &[0, 2], &[1, 3], &[0, 2]]);
        let line = shape(TopologyPlan::Line);
        assert_eq!(all(&line), [&[1][..], &[0, 2], &[1, 3], &[2]]);
        let hub = AgentName::new("a2").unwrap();
        let star = shape(TopologyPlan::Star { hub: hub.clone() });
        assert_eq!(all(&star), [&[2][..], &[2], &[0, 1, 3], &[2]]);
        let edges = vec![(AgentName::new("a0").unwrap(), hub)];
        let one = shape(TopologyPlan::Edges { edges });
        assert_eq!(all(&one), [&[2][..], &[], &[], &[]]);
        assert_eq!(all(&floor(2, &TopologyPlan::Ring)), [&[1][..], &[0]], "each pair once");
        assert_eq!(all(&floor(1, &TopologyPlan::Ring)), [&[] as &[Seat]]);
    }

    #[test]
    fn random_pairs_hear_each_other_and_are_about_as_many_as_asked() {
        let floor = floor(200, &TopologyPlan::Random { probability: 0.1 });
        let edges: usize = floor.seats().iter().map(|&seat| floor.listeners(seat).len()).sum();
        // 19,900 pairs, so 1,990 expected with a standard deviation of 42.
        assert!((1_780..2_200).contains(&(edges / 2)), "{edges}");
        for &seat in floor.seats() {
            for &other in floor.listeners(seat) {
                assert!(floor.listeners(other).contains(&seat) && other != seat);
            }
        }
    }
}
