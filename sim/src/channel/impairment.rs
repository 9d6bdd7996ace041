//! What goes wrong with a message on its way: it may be late, and some listeners may not get it at all.
//!
//! Every message has its own draws, so what happens to one does not depend on any other.

use agents::seed::{Seed, Stream};
use rand::Rng;

use crate::scenario::ImpairPlan;

/// The fate of one message.
#[derive(Debug)]
pub struct Fate {
    loss: f64,
    delay: u64,
    stream: Option<Stream>,
}

impl Fate {
    /// Draws how late a message is; `seed` makes its own seed.
    #[must_use]
    pub fn new(plan: &ImpairPlan, seed: &dyn Fn() -> Seed) -> Self {
        let mut stream = (*plan != ImpairPlan::default()).then(|| seed().stream());
        let delay = match &mut stream {
            Some(stream) if plan.delay_ticks > 0 => stream.random_range(0..=plan.delay_ticks),
            _ => 0,
        };
        Self { loss: plan.loss, delay, stream }
    }

    /// Ticks that the message takes beyond the usual.
    #[must_use]
    pub fn delay(&self) -> u64 {
        self.delay
    }

    /// Whether the next listener, in the order of seats, does not get it.
    pub fn loses(&mut self) -> bool {
        self.stream.as_mut().is_some_and(|stream| stream.random::<f64>() < self.loss)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_and_delays_are_as_often_as_asked_and_follow_from_the_seed() {
        let plan = ImpairPlan { loss: 0.25, delay_ticks: 3 };
        let (mut lost, mut delays) = (0, [0; 4]);
        for number in 0..1_000 {
            let seed = move || Seed::new(number);
            let mut fate = Fate::new(&plan, &seed);
            delays[fate.delay() as usize] += 1;
            assert_eq!(Fate::new(&plan, &seed).delay(), fate.delay());
            lost += (0..4).filter(|_| fate.loses()).count();
        }
        // 4,000 draws at a quarter: 1,000 with a standard deviation of 27; delays 250 with one of 14.
        assert!((890..1_110).contains(&lost), "{lost}");
        assert!(delays.iter().all(|count| (190..310).contains(count)), "{delays:?}");
    }

    #[test]
    fn nothing_is_drawn_where_nothing_goes_wrong() {
        let mut fate = Fate::new(&ImpairPlan::default(), &|| panic!("no seed is needed"));
        assert_eq!((fate.delay(), fate.loses()), (0, false));
    }
}
