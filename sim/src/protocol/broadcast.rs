//! All at once: in each round every agent speaks, and is heard by all of its neighbours in the next.
//!
//! A round ends when everyone has spoken or was skipped.

use std::borrow::Cow;

use agents::seed::Seed;
use serde::{Deserialize, Serialize};

use super::{Protocol, Step};
use crate::event::Said;
use crate::topology::{Floor, Seat};

/// Rounds in progress.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Broadcast {
    rounds: u32,
    /// Rounds that are over.
    over: u32,
    /// Agents whose turn of this round is over.
    spoken: usize,
}

impl Broadcast {
    /// Before the first round.
    #[must_use]
    pub fn new(rounds: u32) -> Self {
        Self { rounds, over: 0, spoken: 0 }
    }

    fn round(&self, floor: &Floor) -> Vec<Step> {
        if self.over < self.rounds && !floor.is_empty() {
            floor.seats().iter().map(|&seat| Step::Speak(seat)).collect()
        } else {
            vec![Step::End]
        }
    }
}

impl Protocol for Broadcast {
    fn begin(&mut self, floor: &Floor) -> Vec<Step> {
        self.round(floor)
    }

    fn heard(&mut self, _seat: Seat, _said: Option<&Said>, floor: &Floor) -> Vec<Step> {
        self.spoken += 1;
        if self.spoken < floor.len() {
            return Vec::new();
        }
        (self.over, self.spoken) = (self.over + 1, 0);
        self.round(floor)
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
    fn everyone_speaks_in_every_round() {
        let floor = floor(3, &TopologyPlan::Line);
        let mut broadcast = Broadcast::new(2);
        assert_eq!(order(&mut broadcast, &floor), [[0, 1, 2], [0, 1, 2]]);
        assert_eq!(*broadcast.listeners(1, &floor, &|| Seed::new(1)), [0, 2]);
    }
}
