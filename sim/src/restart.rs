//! Who is started anew after a failure, how soon, and when that has been tried often enough.
//!
//! Pure: failures and ticks go in, decisions come out; nothing here waits or starts anything. The words are
//! those of Erlang's supervisors (OTP Design Principles, "Supervisor Behaviour"), but a period is counted in
//! ticks, so that the same run decides the same.

use std::collections::VecDeque;

use agents::seed::Seed;
use rand::Rng;
use serde::{Deserialize, Serialize};

/// Who is started anew when one fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Only the one.
    OneForOne,
    /// Everyone.
    OneForAll,
    /// The one and everyone who was started after it.
    RestForOne,
}

impl Strategy {
    /// Who is started anew, in the order in which they are started; nobody where the failed one is unknown.
    ///
    /// ```
    /// use sim::restart::Strategy;
    /// assert_eq!(Strategy::RestForOne.affected(&["a", "b", "c"], &"b"), ["b", "c"]);
    /// ```
    pub fn affected<T: Clone + PartialEq>(self, started: &[T], failed: &T) -> Vec<T> {
        let Some(place) = started.iter().position(|one| one == failed) else { return Vec::new() };
        match self {
            Self::OneForOne => vec![failed.clone()],
            Self::OneForAll => started.to_vec(),
            Self::RestForOne => started[place..].to_vec(),
        }
    }
}

/// How often one may be started anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intensity {
    /// Restarts within a period; one more is too many.
    pub restarts: u32,
    /// Length of the period in ticks, at least 1: restarts that lie further back are forgotten.
    pub period: u64,
}

/// How long to wait before a restart: longer after each one that did not last.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backoff {
    /// Wait before the first restart, in milliseconds.
    pub first: u64,
    /// What the wait is multiplied by after each restart within the period.
    pub factor: f64,
    /// The longest wait, in milliseconds.
    pub most: u64,
    /// Share of the wait, from 0 to 1, that chance may take away, so that many do not come back at once.
    pub jitter: f64,
}

impl Backoff {
    /// The wait in milliseconds before a restart that follows so many others within the period.
    #[must_use]
    pub fn wait(&self, earlier: usize, seed: Seed) -> u64 {
        let exponent = i32::try_from(earlier).unwrap_or(i32::MAX);
        let full = (self.first as f64 * self.factor.powi(exponent)).min(self.most as f64);
        let taken = self.jitter * seed.stream().random::<f64>();
        // From 0 to `most`, so it fits.
        (full * (1.0 - taken)).round() as u64
    }
}

/// The ticks of the restarts that are not forgotten, oldest first; at most as many as are allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History(VecDeque<u64>);

impl History {
    /// Notes a failure: how many restarts of the period came before, or none where this is one too many.
    ///
    /// Ticks must not go backwards.
    pub fn note(&mut self, tick: u64, intensity: Intensity) -> Option<usize> {
        let earliest = tick.saturating_sub(intensity.period.max(1) - 1);
        while self.0.front().is_some_and(|&at| at < earliest) {
            self.0.pop_front();
        }
        let earlier = self.0.len();
        if earlier >= intensity.restarts as usize {
            return None;
        }
        self.0.push_back(tick);
        Some(earlier)
    }

    /// Begins anew.
    pub fn forget(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests;
