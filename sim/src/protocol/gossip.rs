//! Gossip: in each round every agent speaks, and a few of its neighbours, drawn anew each time, hear it.
//!
//! Random gossip as Boyd and others describe it (2006), here in rounds that all take at once.

use std::borrow::Cow;

use agents::seed::Seed;
use rand::seq::index;
use serde::{Deserialize, Serialize};

use super::broadcast::Broadcast;
use super::{Protocol, Step};
use crate::event::Said;
use crate::topology::{Floor, Seat};

/// Gossip in progress.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Gossip {
    rounds: Broadcast,
    fanout: usize,
}

impl Gossip {
    /// Before the first round; `fanout` neighbours hear each message.
    #[must_use]
    pub fn new(rounds: u32, fanout: usize) -> Self {
        Self { rounds: Broadcast::new(rounds), fanout }
    }
}

impl Protocol for Gossip {
    fn begin(&mut self, floor: &Floor) -> Vec<Step> {
        self.rounds.begin(floor)
    }

    fn heard(&mut self, seat: Seat, said: Option<&Said>, floor: &Floor) -> Vec<Step> {
        self.rounds.heard(seat, said, floor)
    }

    fn listeners<'f>(
        &self,
        seat: Seat,
        floor: &'f Floor,
        draw: &dyn Fn() -> Seed,
    ) -> Cow<'f, [Seat]> {
        let near = floor.listeners(seat);
        if near.len() <= self.fanout {
            return Cow::Borrowed(near);
        }
        let drawn = index::sample(&mut draw().stream(), near.len(), self.fanout);
        let mut drawn: Vec<Seat> = drawn.into_iter().filter_map(|i| near.get(i).copied()).collect();
        drawn.sort_unstable();
        Cow::Owned(drawn)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{floor, order};
    use super::*;
    use crate::scenario::TopologyPlan;

    #[test]
    fn some_neighbours_hear_each_message_all_of_them_in_time() {
        let floor = floor(5, &TopologyPlan::Complete);
        let mut gossip = Gossip::new(2, 2);
        assert_eq!(order(&mut gossip, &floor), [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]);
        let mut counts = [0; 5];
        for draw in 0..400 {
            let listeners = gossip.listeners(2, &floor, &|| Seed::new(draw));
            assert!(listeners.len() == 2 && listeners[0] < listeners[1], "{listeners:?}");
            listeners.iter().for_each(|seat| counts[*seat] += 1);
        }
        assert_eq!(counts[2], 0, "nobody hears itself");
        // Each of four is expected 200 times, with a standard deviation of 10.
        assert!([0, 1, 3, 4].iter().all(|&seat| (150..250).contains(&counts[seat])), "{counts:?}");
        assert_eq!(*Gossip::new(1, 9).listeners(0, &floor, &|| Seed::new(1)), [1, 2, 3, 4]);
    }
}
