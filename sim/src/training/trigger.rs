//! Triggers: pure rules over finished episodes that say when an agent shall learn.
//!
//! A trigger knows nothing of jobs: whether there is anything to learn from is not its question.

use serde::{Deserialize, Serialize};

use crate::metric::rolling::Rolling;
use crate::scenario::{Signal, WhenPlan};

/// What triggers see of a finished episode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Share of required contents in the reply.
    pub reward: f64,
    /// Whether the intent was recognised.
    pub intent_correct: bool,
    /// Whether the verdict, cut at a half, was right.
    pub verdict_correct: bool,
}

impl Outcome {
    /// The value of a signal.
    #[must_use]
    pub fn signal(&self, signal: Signal) -> f64 {
        match signal {
            Signal::Reward => self.reward,
            Signal::IntentCorrect => f64::from(u8::from(self.intent_correct)),
            Signal::VerdictCorrect => f64::from(u8::from(self.verdict_correct)),
        }
    }
}

/// A rule with its memory.
#[derive(Clone, Debug)]
pub struct Trigger {
    when: WhenPlan,
    memory: Memory,
}

/// What a rule remembers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Memory {
    window: Rolling,
    episodes: u64,
    /// The episode at which it last fired.
    fired: Option<u64>,
}

impl Trigger {
    /// A rule that has seen nothing.
    #[must_use]
    pub fn new(when: WhenPlan) -> Self {
        let window = Rolling::new(size(when));
        Self { when, memory: Memory { window, episodes: 0, fired: None } }
    }

    /// A rule that goes on with what it, or one before it, remembered.
    #[must_use]
    pub fn with_memory(when: WhenPlan, memory: Memory) -> Self {
        let window = memory.window.resized(size(when));
        Self { when, memory: Memory { window, ..memory } }
    }

    /// What it remembers.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The rule's name in scenarios.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.when {
            WhenPlan::Threshold { .. } => "threshold",
            WhenPlan::Periodic { .. } => "periodic",
        }
    }

    /// Takes an episode in; the value the rule looked at where it fires.
    pub fn observe(&mut self, outcome: &Outcome) -> Option<f64> {
        let own = &mut self.memory;
        own.episodes += 1;
        match self.when {
            WhenPlan::Periodic { every } => {
                own.episodes.is_multiple_of(every).then_some(own.episodes as f64)
            }
            WhenPlan::Threshold { signal, below, cooldown, .. } => {
                own.window.push(outcome.signal(signal));
                let mean = own.window.mean()?;
                let rested = own.fired.is_none_or(|at| own.episodes - at >= cooldown);
                let fires = mean < below && rested;
                fires.then(|| {
                    own.fired = Some(own.episodes);
                    mean
                })
            }
        }
    }
}

/// Episodes that a rule looks back on.
fn size(when: WhenPlan) -> usize {
    match when {
        WhenPlan::Threshold { mean_of, .. } => mean_of,
        WhenPlan::Periodic { .. } => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn firings(when: WhenPlan, rewards: &[f64]) -> Vec<usize> {
        let mut trigger = Trigger::new(when);
        let outcome = |reward| Outcome { reward, intent_correct: true, verdict_correct: true };
        let fired = |(i, r): (usize, &f64)| trigger.observe(&outcome(*r)).map(|_| i);
        rewards.iter().enumerate().filter_map(fired).collect()
    }

    #[test]
    fn periodic_fires_every_so_often() {
        assert_eq!(firings(WhenPlan::Periodic { every: 3 }, &[1.0; 8]), [2, 5]);
    }

    #[test]
    fn threshold_waits_for_a_full_window_and_rests_after_firing() {
        let when =
            WhenPlan::Threshold { signal: Signal::Reward, mean_of: 2, below: 0.5, cooldown: 3 };
        assert_eq!(firings(when, &[0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]), [1, 4]);
        assert_eq!(firings(when, &[1.0; 9]), [0_usize; 0]);
    }
}
