//! Numbers over time, thinned so that a run of any length fits, and the marks upon them.
//!
//! Rolling means here are for the eye: triggers look at windows of their own.

use std::collections::VecDeque;

/// Points a curve keeps; twice as many are halved.
const POINTS: usize = 1_024;

/// Marks that are kept, the newest.
const MARKS: usize = 512;

/// Episodes in a rolling mean.
pub(crate) const WINDOW: usize = 32;

/// One number per step.
#[derive(Debug)]
pub(crate) struct Curve {
    /// Step and value, steps from 1.
    points: Vec<(u64, f64)>,
    /// Only every so many steps are kept.
    stride: u64,
    /// Steps so far.
    steps: u64,
    /// The last value, kept or not.
    last: Option<f64>,
}

impl Default for Curve {
    fn default() -> Self {
        Self { points: Vec::new(), stride: 1, steps: 0, last: None }
    }
}

impl Curve {
    /// Adds the value of the next step. A value that is not finite leaves a gap.
    pub(crate) fn push(&mut self, value: f64) {
        self.steps += 1;
        self.last = Some(value);
        if !value.is_finite() || !(self.steps - 1).is_multiple_of(self.stride) {
            return;
        }
        self.points.push((self.steps, value));
        if self.points.len() >= 2 * POINTS {
            self.stride *= 2;
            let stride = self.stride;
            self.points.retain(|(step, _)| (step - 1).is_multiple_of(stride));
        }
    }

    /// What was kept.
    pub(crate) fn points(&self) -> &[(u64, f64)] {
        &self.points
    }

    /// Steps so far, kept or not.
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// The first value.
    pub(crate) fn first(&self) -> Option<f64> {
        self.points.first().map(|(_, value)| *value)
    }

    /// The last value.
    pub(crate) fn last(&self) -> Option<f64> {
        self.last
    }
}

/// The mean of the last values.
#[derive(Debug, Default)]
struct Rolling(VecDeque<f64>);

impl Rolling {
    fn push(&mut self, value: f64) -> f64 {
        if self.0.len() == WINDOW {
            self.0.pop_front();
        }
        self.0.push_back(value);
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }
}

/// What can happen on the way of a curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mark {
    /// A trigger fired.
    Trigger,
    /// A generation came into use.
    Swap,
    /// A job was thrown away.
    Rollback,
}

/// How well the society does over the episodes of play.
#[derive(Debug, Default)]
pub(crate) struct Curves {
    /// Rolling mean of the reward.
    pub(crate) reward: Curve,
    /// Rolling share of recognised intents.
    pub(crate) accuracy: Curve,
    /// Rolling mean of the agreement, where agents just talk.
    pub(crate) agreement: Curve,
    /// What happened, by the number of episodes finished before.
    pub(crate) marks: VecDeque<(u64, Mark)>,
    rewards: Rolling,
    recognised: Rolling,
}

impl Curves {
    pub(super) fn finish_episode(&mut self, reward: f64, recognised: bool) {
        let mean = self.rewards.push(reward);
        self.reward.push(mean);
        let mean = self.recognised.push(f64::from(u8::from(recognised)));
        self.accuracy.push(mean);
    }

    pub(super) fn finish_talk(&mut self, agreement: f64) {
        let mean = self.rewards.push(agreement);
        self.agreement.push(mean);
    }

    pub(super) fn mark(&mut self, mark: Mark) {
        if self.marks.len() == MARKS {
            self.marks.pop_front();
        }
        self.marks.push_back((self.reward.steps(), mark));
    }
}
