//! What a run directory held before its run began again: put aside under another name, for nothing that was
//! played is lost without a word.

use std::fs;
use std::path::{Path, PathBuf};

use crate::checkpoint;
use crate::durable;
use crate::recorder::{ADAPTERS, Claim, RecordError, TIMES};
use crate::recording::{self, LOG, RecordingError};

/// Begins the names of the folders.
const ASIDE: &str = "put-aside-";

/// What is moved. The log goes first: without it no checkpoint can be used, so a process that is killed between
/// two of these leaves nothing that could be taken for a whole run. Checkpoints, which say that there was more
/// than a beginning, go last.
const MOVED: [&str; 5] = [LOG, TIMES, ADAPTERS, "summary.json", checkpoint::FOLDER];

/// Moves a run's log, and what belongs to it, into a folder of the run directory, and names that; none where
/// there was no more than the beginning of a first tick. With `checkpoints` there were some, so there was more.
///
/// # Errors
/// When the disk refuses it.
pub(super) fn put_aside(claim: &Claim, checkpoints: bool) -> Result<Option<PathBuf>, RecordError> {
    let directory = claim.directory();
    if !checkpoints && !goes_beyond_first_tick(directory) {
        return Ok(None);
    }
    let there = |name: &&str| directory.join(name).symlink_metadata().is_ok();
    let there: Vec<&str> = MOVED.into_iter().filter(there).collect();
    if there.is_empty() {
        return Ok(None);
    }
    let folder = made(directory)?;
    for name in there {
        let (from, to) = (directory.join(name), folder.join(name));
        fs::rename(&from, &to).map_err(|e| RecordError::of_system(&to, &e))?;
    }
    for folder in [&folder, directory] {
        durable::sync_folder(folder).map_err(|e| RecordError::of_system(folder, &e))?;
    }
    Ok(Some(folder))
}

/// A new folder.
fn made(directory: &Path) -> Result<PathBuf, RecordError> {
    let mut number = 1_u64;
    loop {
        let folder = directory.join(format!("{ASIDE}{number}"));
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(RecordError::of_system(&folder, &error)),
        }
    }
}

/// Whether a log holds what took time to play. What cannot be read may be just that.
fn goes_beyond_first_tick(directory: &Path) -> bool {
    let mut log = match recording::open(directory) {
        Ok(log) => log,
        Err(RecordingError::NoLog { .. } | RecordingError::Empty { .. }) => return false,
        Err(_) => return true,
    };
    log.any(|recorded| recorded.map_or(true, |recorded| recorded.event.tick > 0))
}
