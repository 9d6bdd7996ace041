//! Why a checkpoint cannot be used.

use std::path::PathBuf;

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

/// Why nothing is known of a checkpoint: the system does not give us a file of it.
#[derive(Debug, thiserror::Error)]
#[error("could not read the checkpoint {}: {}", message(folder.display()), message(reason))]
pub struct Unreadable {
    /// Its folder.
    pub folder: PathBuf,
    /// The file, and what the system said.
    pub reason: String,
}
