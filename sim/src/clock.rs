//! Time: virtual ticks decide everything; wall time is only ever shown or noted beside a run.
//!
//! The only file that asks the machine what time it is.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Measures how long something takes.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Seconds since the start.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }

    /// Milliseconds since the start.
    #[must_use]
    pub fn milliseconds(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Nanoseconds since this was first asked; for counters of time spent.
#[must_use]
pub fn nanoseconds() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = START.get_or_init(Instant::now);
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// The present moment in UTC as `2026-11-24T03-48-20Z`, fit for a folder's name.
#[must_use]
pub fn stamp() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H-%M-%SZ").to_string()
}

/// Waits of wall time: real ones or, in tests, none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timer {
    /// By the machine's clock.
    #[default]
    Wall,
    /// What is waited for on purpose has passed at once; what nobody ordered never takes too long.
    Jump,
}

impl Timer {
    /// Waits on purpose: before a restart, for a reply that shall be late, for one that shall not come.
    pub async fn pause(self, milliseconds: u64) {
        if self == Self::Wall {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        }
    }

    /// Returns when something takes longer than it may.
    pub async fn deadline(self, milliseconds: u64) {
        match self {
            Self::Wall => tokio::time::sleep(Duration::from_millis(milliseconds)).await,
            Self::Jump => std::future::pending().await,
        }
    }
}
