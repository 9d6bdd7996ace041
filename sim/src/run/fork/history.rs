//! The part of a fork that it has from its parent: copied as far as a checkpoint goes, compared with what the
//! parent's log says, and removed again where the fork cannot be made.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::ForkError;
use crate::backbone::Devices;
use crate::checkpoint::{self, Stored};
use crate::durable::{self, PARTIAL};
use crate::recorder::{ADAPTERS, Claim, RecordError, TIMES, WRITTEN};
use crate::recording::{self, LOG, Manifest};

/// What has to go where a fork cannot be made: what was not there before.
pub(super) struct Made {
    directory: PathBuf,
    /// The names that were there; none where the directory was not.
    before: Option<Vec<OsString>>,
}

impl Made {
    /// For a directory that is not claimed yet.
    pub(super) fn before(directory: &Path) -> Self {
        let names = |entries: fs::ReadDir| entries.flatten().map(|e| e.file_name()).collect();
        let before = fs::read_dir(directory).ok().map(names);
        Self { directory: directory.into(), before }
    }

    /// For a directory that was made for the fork.
    pub(super) fn wholly(directory: &Path) -> Self {
        Self { directory: directory.into(), before: None }
    }

    /// Removes it. What the disk does not let go of stays: why there is no fork is what has to be told.
    pub(super) fn remove(self) {
        let Some(before) = self.before else {
            let _ = fs::remove_dir_all(&self.directory);
            return;
        };
        for name in WRITTEN.iter().flat_map(|name| [(*name).to_owned(), format!("{name}{PARTIAL}")])
        {
            if before.iter().any(|there| *there == *name) {
                continue;
            }
            let path = self.directory.join(name);
            let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
    }
}

/// Copies a parent's history up to a checkpoint, or only what it is made from.
pub(super) fn copy(
    parent: &Path,
    recorded: &Manifest,
    (claim, devices): (Claim, &Devices),
    stored: Option<&Stored>,
) -> Result<(), ForkError> {
    let out = claim.directory();
    let fail = |path: &Path, e: &dyn std::fmt::Display| {
        ForkError::from(RecordError::new(path, e.to_string()))
    };
    for name in ["scenario.toml", "scenario.resolved.toml"] {
        let path = parent.join(name);
        let text = fs::read_to_string(&path).map_err(|e| fail(&path, &e))?;
        claim.write(name, &text)?;
    }
    let path = parent.join("manifest.json");
    let text = fs::read_to_string(&path).map_err(|e| fail(&path, &e))?;
    let mut manifest: Value = serde_json::from_str(&text).map_err(|e| fail(&path, &e))?;
    let initial_seed = recorded.initial_seed();
    manifest["fork"] = json!({"parent": parent, "initial_seed": initial_seed, "complete": false});
    // The parent may have gone on with others after that.
    manifest["device"] = json!(devices.to_string());
    claim.write("manifest.json", &format!("{manifest:#}\n"))?;
    let Some(stored) = stored else { return Ok(()) };
    let log = &stored.manifest.log;
    let to = out.join(LOG);
    let bytes = recording::bytes(parent).map_err(|e| fail(&parent.join(LOG), &e))?;
    copied(&mut bytes.take(log.events.bytes), &to).map_err(|e| fail(&to, &e))?;
    // Times are for people, and a history is one without them.
    if let Ok(times) = File::open(parent.join(TIMES)) {
        let to = out.join(TIMES);
        copied(&mut times.take(log.times), &to).map_err(|e| fail(&to, &e))?;
    }
    let place = stored.folder();
    let to = out.join(checkpoint::FOLDER).join(place.file_name().unwrap_or_default());
    files(place, &to).map_err(|e| fail(&to, &e))?;
    for (agent, weights) in &stored.manifest.adapters {
        let from = parent.join(ADAPTERS).join(agent.as_str());
        for entry in fs::read_dir(&from).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix('g')?.parse::<u32>().ok());
            if number.is_some_and(|number| number <= weights.generation.0) {
                let to = out.join(ADAPTERS).join(agent.as_str()).join(&name);
                files(&entry.path(), &to).map_err(|e| fail(&to, &e))?;
            }
        }
    }
    durable::sync_folder(out).map_err(|e| fail(out, &e))
}

/// Copies all that can be read into a new file.
fn copied(from: &mut impl Read, to: &Path) -> io::Result<()> {
    let mut options = File::options();
    let options = durable::unlinked(options.write(true).create(true).truncate(true));
    let mut target = options.open(to)?;
    io::copy(from, &mut target)?;
    target.sync_all()
}

/// Copies the files of a folder.
fn files(from: &Path, to: &Path) -> io::Result<()> {
    durable::make_folders(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        if path.is_file() {
            let to = to.join(path.file_name().unwrap_or_default());
            copied(&mut File::open(&path)?, &to)?;
        }
    }
    durable::sync_folder(to)
}

/// Whether the fork's log so far is how the parent's begins.
pub(super) fn same_history(parent: &Path, out: &Path, stored: &Stored) -> Result<(), ForkError> {
    let read = |directory: &Path| -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let log = recording::bytes(directory)?;
        match log.take(stored.manifest.log.events.bytes).read_to_end(&mut bytes) {
            // A compressed log that was cut off: what came out of it counts.
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
            _ => Ok(bytes),
        }
    };
    let (theirs, ours) = match (read(parent), read(out)) {
        (Ok(theirs), Ok(ours)) => (theirs, ours),
        (Err(e), _) | (_, Err(e)) => return Err(ForkError::Change(format!("{LOG}: {e}"))),
    };
    // A parent that was cut off may hold less.
    let common = theirs.len().min(ours.len());
    if theirs[..common] == ours[..common] {
        return Ok(());
    }
    Err(ForkError::Change(
        "played again, the parent's history comes out differently: it was made by another version or on \
         another machine; fork at one of its checkpoints"
            .to_owned(),
    ))
}
