//! One after another, again and again: each agent speaks once a round and is heard by its neighbours.
//!
//! An agent speaks with what has reached it by then; it does not wait for what is late.

use std::borrow::Cow;

use agents::seed::Seed;
use serde::{Deserialize, Serialize};

use super::{Protocol, Step};
use crate::event::Said;
use crate::topology::{Floor, Seat};

/// A round robin in progress.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RoundRobin {
    rounds: u32,
    /// Turns that were taken.
    taken: usize,
}

impl RoundRobin {
    /// Before its first turn.
    #[must_use]
    pub fn new(rounds: u32) -> Self {
        Self { rounds, taken: 0 }
    }

    fn step(&self, floor: &Floor) -> Vec<Step> {
        let turns = (self.rounds as usize).saturating_mul(floor.len());
        if self.taken < turns {
            vec![Step::Speak(self.taken % floor.len())]
        } else {
            vec![Step::End]
        }
    }
}

impl Protocol for RoundRobin {
    fn begin(&mut self, floor: &Floor) -> Vec<Step> {
        self.step(floor)
    }

    fn heard(&mut self, seat: Seat, _said: Option<&Said>, floor: &Floor) -> Vec<Step> {
        if self.step(floor) != [Step::Speak(seat)] {
            return Vec::new();
        }
        self.taken += 1;
        self.step(floor)
    }

    fn listeners<'f>(
        &self,
        seat: Seat,
        floor: &'f Floor,
        _draw: &dyn Fn() -> Seed,
    ) -> Cow<'f, [Seat]> {
        Cow::Borrowed(floor.listeners(seat))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{floor, order};
    use super::*;
    use crate::scenario::TopologyPlan;

    #[test]
    fn all_speak_in_turn_as_often_as_there_are_rounds() {
        let floor = floor(3, &TopologyPlan::Ring);
        let mut rounds = RoundRobin::new(2);
        assert_eq!(order(&mut rounds, &floor), [[0], [1], [2], [0], [1], [2]]);
        assert_eq!(*rounds.listeners(1, &floor, &|| Seed::new(1)), [0, 2]);
        let mut rounds = RoundRobin::new(2);
        rounds.begin(&floor);
        assert_eq!(rounds.heard(2, None, &floor), [], "2 is out of turn");
        assert_eq!(rounds.heard(0, None, &floor), [Step::Speak(1)]);
    }
}
