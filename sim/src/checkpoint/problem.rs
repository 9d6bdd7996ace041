//! Why a checkpoint cannot be used.

use crate::scenario::suggestion::message;

/// Why a checkpoint cannot be used; the one before it may do.
#[derive(Debug, thiserror::Error)]
#[error("the checkpoint of tick {tick} cannot be used: {}", message(reason))]
pub struct Damage {
    /// Its tick.
    pub tick: u64,
    /// What is wrong.
    pub reason: String,
}
