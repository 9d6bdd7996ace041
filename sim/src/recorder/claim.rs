//! A run directory that belongs to one process, and in which nothing that is written leads elsewhere.
//!
//! Run directories are passed on. In one of somebody else a link in place of a file that we write would have
//! us write another file of the user's, so links are looked for before anything is touched, and refused.

use std::fs::{self, File, FileType, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::{ADAPTERS, TIMES};
use crate::checkpoint;
use crate::durable::{self, PARTIAL};
use crate::recording::{COMPRESSED, LOG};

/// Is locked while a process writes a run.
const LOCK: &str = "lock";

/// Everything that is written into a run directory.
pub const WRITTEN: [&str; 9] = [
    LOCK,
    LOG,
    TIMES,
    "scenario.toml",
    "scenario.resolved.toml",
    "manifest.json",
    "summary.json",
    ADAPTERS,
    checkpoint::FOLDER,
];

/// Folders below a folder of a run directory that hold what we write.
const DEPTH: usize = 3;

/// Why a run directory cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("could not write {path}: {reason}")]
pub struct RecordError {
    /// The file or folder.
    pub path: PathBuf,
    /// What the system said, or what we say.
    pub reason: String,
    /// Who refused it.
    pub cause: Cause,
}

/// Who refused to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The system.
    System,
    /// We did, because a run is there or is being written: another place will do.
    InUse,
    /// We did, because what we would write is not an ordinary file or folder of the run directory.
    LeadsElsewhere,
}

impl RecordError {
    /// Of the system.
    #[must_use]
    pub fn new(path: &Path, reason: String) -> Self {
        Self { path: path.into(), reason, cause: Cause::System }
    }

    /// Of the system, in its words.
    #[must_use]
    pub fn of_system(path: &Path, error: &io::Error) -> Self {
        Self::new(path, error.to_string())
    }

    /// Whether the user can choose another place, or put the place in order.
    #[must_use]
    pub fn is_input(&self) -> bool {
        self.cause != Cause::System
    }
}

/// A run directory that belongs to this process: no other may write into it meanwhile.
#[derive(Debug)]
pub struct Claim {
    directory: PathBuf,
    /// Locked as long as it is open; the system lets go of it however the process ends.
    _lock: File,
}

impl Claim {
    /// Creates the directory where it is not there, and claims it.
    ///
    /// # Errors
    /// When another process has it, something in it leads elsewhere, or it cannot be written.
    pub fn of(directory: &Path) -> Result<Self, RecordError> {
        durable::make_folders(directory).map_err(|e| RecordError::of_system(directory, &e))?;
        stays(directory)?;
        let path = directory.join(LOCK);
        let refuse = |e: &io::Error| RecordError::of_system(&path, e);
        let mut options = File::options();
        // Whatever else is called so keeps its content.
        options.read(true).write(true).create(true).truncate(false);
        let lock = durable::unlinked(&mut options).open(&path).map_err(|e| refuse(&e))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { directory: directory.into(), _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                let reason = "another polylogue is writing this run; wait for it or end it first";
                Err(in_use(directory, reason))
            }
            Err(TryLockError::Error(error)) => Err(refuse(&error)),
        }
    }

    /// The same for a new run.
    ///
    /// # Errors
    /// As [`Claim::of`], and when the directory already holds a run.
    pub fn of_new(directory: &Path) -> Result<Self, RecordError> {
        // Asked twice, so that a lock is neither left beside a run nor begins one beside another.
        is_free(directory)?;
        let claim = Self::of(directory)?;
        is_free(directory)?;
        Ok(claim)
    }

    /// The same in a directory that nobody named: where there is a run already, one with a number is made.
    ///
    /// # Errors
    /// As [`Claim::of_new`], but for a run that is there.
    pub fn of_unnamed(directory: &Path) -> Result<Self, RecordError> {
        let mut name = directory.to_owned();
        for number in 2_u64.. {
            match Self::of_new(&name) {
                Err(RecordError { cause: Cause::InUse, .. }) => {
                    let mut next = directory.as_os_str().to_owned();
                    next.push(format!("_{number}"));
                    name = next.into();
                }
                other => return other,
            }
        }
        Err(in_use(directory, "all numbers are taken"))
    }

    /// Where the run is written.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes a file of the run directory, whole or not at all.
    ///
    /// # Errors
    /// When the disk refuses it.
    pub fn write(&self, name: &str, text: &str) -> Result<(), RecordError> {
        let path = self.directory.join(name);
        let written = durable::replace(&path, text.as_bytes());
        written.map_err(|e| RecordError::of_system(&path, &e))
    }
}

/// Whether a directory holds no run.
fn is_free(directory: &Path) -> Result<(), RecordError> {
    if [LOG, COMPRESSED].iter().any(|name| directory.join(name).symlink_metadata().is_ok()) {
        let reason = "there is a run in it already; choose another --out, or go on with it by \
                      `polylogue resume`";
        return Err(in_use(directory, reason));
    }
    Ok(())
}

fn in_use(directory: &Path, reason: &str) -> RecordError {
    RecordError { path: directory.into(), reason: reason.to_owned(), cause: Cause::InUse }
}

/// Whether everything that is written into a run directory is a file or a folder of its own.
fn stays(directory: &Path) -> Result<(), RecordError> {
    for name in WRITTEN {
        let folder = [ADAPTERS, checkpoint::FOLDER].contains(&name);
        for path in [directory.join(name), directory.join(format!("{name}{PARTIAL}"))] {
            let Ok(found) = path.symlink_metadata() else { continue };
            ordinary(&path, found.file_type(), Some(folder))?;
            if folder {
                stays_below(&path, DEPTH)?;
            }
        }
    }
    Ok(())
}

/// The same for what is in a folder.
fn stays_below(folder: &Path, depth: usize) -> Result<(), RecordError> {
    let refuse = |e: io::Error| RecordError::of_system(folder, &e);
    for entry in fs::read_dir(folder).map_err(refuse)? {
        let entry = entry.map_err(refuse)?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(refuse)?);
        ordinary(&path, kind, None)?;
        if kind.is_dir() && depth > 1 {
            stays_below(&path, depth - 1)?;
        }
    }
    Ok(())
}

/// Whether something is an ordinary file, a folder, or either.
fn ordinary(path: &Path, kind: FileType, folder: Option<bool>) -> Result<(), RecordError> {
    let what = match folder {
        _ if kind.is_symlink() => "a link",
        Some(true) if !kind.is_dir() => "not a folder",
        Some(false) if !kind.is_file() => "not an ordinary file",
        None if !kind.is_dir() && !kind.is_file() => "not an ordinary file",
        _ => return Ok(()),
    };
    let reason = format!(
        "it is {what}, and a run is written only in its own directory; remove it, put what it stands for in \
         its place, or choose another directory"
    );
    Err(RecordError { path: path.into(), reason, cause: Cause::LeadsElsewhere })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_called_lock_keeps_its_content() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(LOCK), "mine").unwrap();
        drop(Claim::of_new(folder.path()).unwrap());
        assert_eq!(fs::read(folder.path().join(LOCK)).unwrap(), b"mine");
    }

    #[test]
    fn a_directory_with_a_run_is_not_taken_compressed_or_not() {
        for name in [LOG, COMPRESSED] {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(name), "").unwrap();
            let error = Claim::of_new(folder.path()).unwrap_err();
            assert!(error.is_input() && error.to_string().contains("a run in it already"));
            assert!(!folder.path().join(LOCK).exists(), "nothing is left in it");
        }
    }

    #[test]
    fn directories_that_nobody_named_are_told_apart_by_a_number() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = folder.path().join("runs/now");
        let claims: Vec<Claim> = (0..3).map(|_| Claim::of_unnamed(&wanted).unwrap()).collect();
        let names = claims.iter().map(|claim| claim.directory().file_name().unwrap());
        assert_eq!(names.collect::<Vec<_>>(), ["now", "now_2", "now_3"]);
    }

    #[cfg(unix)]
    #[test]
    fn what_leads_elsewhere_is_refused_and_left_alone() {
        let outside = tempfile::tempdir().unwrap();
        let target = outside.path().join("precious");
        for name in [
            "lock",
            "events.jsonl",
            "times.jsonl",
            "manifest.json",
            "summary.json.partial",
            "adapters",
            "adapters/reply",
            "adapters/reply/g1",
            "checkpoints",
            "checkpoints/tick-000008",
            "checkpoints/tick-000008/state.cbor",
        ] {
            // To a file, to a folder, and to nothing.
            for kind in 0..3 {
                let _ = fs::remove_dir_all(&target).or_else(|_| fs::remove_file(&target));
                match kind {
                    0 => fs::write(&target, "precious").unwrap(),
                    1 => fs::create_dir(&target).unwrap(),
                    _ => {}
                }
                let run = tempfile::tempdir().unwrap();
                let place = run.path().join(name);
                fs::create_dir_all(place.parent().unwrap()).unwrap();
                std::os::unix::fs::symlink(&target, &place).unwrap();
                let error = Claim::of(run.path()).unwrap_err();
                assert_eq!((error.cause, &error.path), (Cause::LeadsElsewhere, &place));
                assert!(error.to_string().contains("it is a link"), "{error}");
                assert_eq!(target.exists(), kind < 2);
                assert!(kind > 0 || fs::read(&target).unwrap() == b"precious");
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_directory_itself_may_be_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (run, latest) = (folder.path().join("run"), folder.path().join("latest"));
        fs::create_dir(&run).unwrap();
        std::os::unix::fs::symlink(&run, &latest).unwrap();
        drop(Claim::of_new(&latest).unwrap());
    }
}
