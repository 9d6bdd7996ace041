//! Why a recording cannot be read, and what would help.

use std::io;
use std::path::{Path, PathBuf};

use super::{LOG, Version};
use crate::scenario::suggestion::message;

/// Why a recording cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// There is no log.
    #[error("{} holds no {LOG}: give the directory of a run, such as one under runs/", message(directory.display()))]
    NoLog {
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// The system does not give us the file.
    #[error("could not read {}: {}", message(path.display()), message(reason))]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The log was opened and nothing was written to it yet.
    #[error("{} holds no events: its run ended before its first tick did", message(path.display()))]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The first line is not ours.
    #[error("{} is no recording: its first line is not {{\"format\":\"{ours}\"}}", message(path.display()))]
    Header {
        /// The file.
        path: PathBuf,
        /// The version that is written here.
        ours: &'static str,
    },
    /// Another major version.
    #[error(
        "{} was written as {found}, and this program reads {}: use the polylogue that manifest.json names as its writer",
        message(path.display()),
        Version::OURS
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says of itself.
        found: Version,
    },
    /// A line is not the event that should stand there.
    #[error("{}, line {line} is damaged: {}", message(path.display()), message(reason))]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1; the header is line 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
}

impl RecordingError {
    pub(super) fn file(path: &Path, error: &io::Error) -> Self {
        Self::File { path: path.into(), reason: error.to_string() }
    }
}
