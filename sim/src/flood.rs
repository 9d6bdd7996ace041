//! The flood breaker: silences an agent for a while that says too much within a tick.
//!
//! Counts over all episodes of a tick, so that an agent cannot spread what it says. What was said before the
//! limit is delivered, what passes it is not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::scenario::FloodPlan;
use crate::topology::Seat;

/// The breaker of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Breaker {
    /// What each said in this tick.
    #[serde(skip)]
    tallies: BTreeMap<Seat, Tally>,
    /// The last tick of each silence.
    silent: BTreeMap<Seat, u64>,
}

#[derive(Clone, Debug, Default)]
struct Tally {
    messages: u64,
    tokens: u64,
    /// How often the same words were said.
    words: BTreeMap<String, u64>,
}

/// A limit that was passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flood {
    /// Its name in scenarios.
    pub limit: &'static str,
    /// What it allows.
    pub most: u64,
    /// What there was.
    pub found: u64,
    /// The last tick of the silence that follows.
    pub until: u64,
}

impl Breaker {
    /// Counts what an agent says; a limit that it passes silences it.
    pub fn say(
        &mut self,
        plan: &FloodPlan,
        seat: Seat,
        words: &str,
        tokens: usize,
        tick: u64,
    ) -> Option<Flood> {
        let FloodPlan { messages_per_tick, tokens_per_tick, repeats_per_tick, silence_ticks } =
            *plan;
        if [messages_per_tick, tokens_per_tick, repeats_per_tick].iter().all(Option::is_none) {
            return None;
        }
        let tally = self.tallies.entry(seat).or_default();
        tally.messages += 1;
        tally.tokens += tokens as u64;
        let repeats = if repeats_per_tick.is_some() {
            let count = tally.words.entry(words.to_owned()).or_default();
            *count += 1;
            *count
        } else {
            0
        };
        let counts = [
            ("messages_per_tick", messages_per_tick, tally.messages),
            ("tokens_per_tick", tokens_per_tick, tally.tokens),
            ("repeats_per_tick", repeats_per_tick, repeats),
        ];
        let passed = counts.into_iter().find_map(|(limit, most, found)| {
            let most = most.filter(|most| found > *most)?;
            Some(Flood { limit, most, found, until: tick.saturating_add(silence_ticks) })
        })?;
        self.silent.insert(seat, passed.until);
        Some(passed)
    }

    /// The last tick of an agent's silence, while that lasts.
    #[must_use]
    pub fn silence(&self, seat: Seat, tick: u64) -> Option<u64> {
        self.silent.get(&seat).copied().filter(|until| *until >= tick)
    }

    /// Begins a tick.
    pub fn begin(&mut self, tick: u64) {
        self.tallies.clear();
        self.silent.retain(|_, until| *until >= tick);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: FloodPlan = FloodPlan {
        messages_per_tick: Some(3),
        tokens_per_tick: Some(20),
        repeats_per_tick: Some(2),
        silence_ticks: 4,
    };

    fn limit(flood: Option<Flood>) -> Option<&'static str> {
        flood.map(|flood| flood.limit)
    }

    #[test]
    fn each_limit_silences_who_passes_it_for_some_ticks() {
        let mut breaker = Breaker::default();
        let mut say = |seat, words: &str, tokens| limit(breaker.say(&PLAN, seat, words, tokens, 7));
        assert_eq!(say(0, "a", 1), None);
        assert_eq!(say(0, "a", 1), None);
        assert_eq!(say(0, "a", 1), Some("repeats_per_tick"));
        assert_eq!(say(0, "b", 1), Some("messages_per_tick"));
        assert_eq!(say(1, "a", 20), None);
        assert_eq!(say(1, "b", 1), Some("tokens_per_tick"));
        assert_eq!(say(2, "a", 1), None);
        assert_eq!(breaker.silence(0, 11), Some(11));
        assert_eq!(breaker.silence(0, 12), None);
        assert_eq!(breaker.silence(2, 7), None);
        breaker.begin(8);
        assert_eq!(limit(breaker.say(&PLAN, 2, "a", 20, 8)), None, "a tick begins at nothing");
        assert_eq!(breaker.silence(1, 8), Some(11));
    }

    #[test]
    fn without_limits_nothing_is_counted() {
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            assert_eq!(breaker.say(&FloodPlan::default(), 0, "a", 1_000, 1), None);
        }
        assert!(breaker.tallies.is_empty());
    }
}
