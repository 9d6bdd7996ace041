//! One after another: each agent speaks once, having heard all before it.
//!
//! Ends after the last one. Waits for what is on its way: a later part without the earlier ones' words would
//! make no sense. Out-of-turn speech changes nothing.

use std::borrow::Cow;

use agents::seed::Seed;
use serde::{Deserialize, Serialize};

use super::{Protocol, Step};
use crate::event::Said;
use crate::topology::{Floor, Seat};

/// A pipeline in progress.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Pipeline {
    position: Seat,
}

impl Pipeline {
    fn step(&self, floor: &Floor) -> Vec<Step> {
        if self.position < floor.len() { vec![Step::Speak(self.position)] } else { vec![Step::End] }
    }
}

impl Protocol for Pipeline {
    fn begin(&mut self, floor: &Floor) -> Vec<Step> {
        self.step(floor)
    }

    fn heard(&mut self, seat: Seat, _said: Option<&Said>, floor: &Floor) -> Vec<Step> {
        if seat != self.position {
            return Vec::new();
        }
        self.position += 1;
        self.step(floor)
    }

    fn listeners<'f>(
        &self,
        seat: Seat,
        floor: &'f Floor,
        _draw: &dyn Fn() -> Seed,
    ) -> Cow<'f, [Seat]> {
        Cow::Borrowed(floor.seats().get(seat + 1..).unwrap_or_default())
    }

    fn waits(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::floor;
    use super::*;
    use crate::scenario::TopologyPlan;

    #[test]
    fn each_speaks_once_in_order_and_then_it_ends() {
        let floor = floor(3, &TopologyPlan::Complete);
        let mut pipeline = Pipeline::default();
        let said = Said::Text { text: "x".into() };
        assert_eq!(pipeline.begin(&floor), [Step::Speak(0)]);
        assert_eq!(pipeline.heard(1, Some(&said), &floor), [], "1 is out of turn");
        assert_eq!(pipeline.heard(0, None, &floor), [Step::Speak(1)]);
        assert_eq!(pipeline.heard(1, Some(&said), &floor), [Step::Speak(2)]);
        assert_eq!(pipeline.heard(2, Some(&said), &floor), [Step::End]);
        assert_eq!(*pipeline.listeners(0, &floor, &|| Seed::new(1)), [1, 2]);
        assert!(pipeline.listeners(2, &floor, &|| Seed::new(1)).is_empty());
    }
}
