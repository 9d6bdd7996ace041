//! Checkpoints read back: looked for, checked against their manifest, and loaded.
//!
//! Nothing is believed before its digest was compared; sizes are compared before anything is read.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use agents::backbone::digest;
use agents::error::ModelError;
use agents::learning::job::JobSnapshot;
use agents::name::AgentName;
use ciborium::Value;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{
    Damage, FOLDER, FORMAT, FileDigest, MANIFEST, Manifest, PREFIX, STATE, State, Unreadable,
};
use super::{job_files, state};
use crate::conductor::stage::{Member, Snapshot};
use crate::durable::{self, PARTIAL};
use crate::recorder::adapter_folder;
use crate::recording::{self, LOG};
use crate::summary::{Summary, Unfinished};

/// The largest manifest that is read, in bytes.
const LARGEST_MANIFEST: u64 = 16 << 20;
/// The largest state of a stage that is read, in bytes.
pub const LARGEST_STATE: u64 = 256 << 20;
/// The largest file of a job that is read, in bytes.
const LARGEST: u64 = 16 << 30;
/// No run counts further than this: what does would overflow sooner or later.
const LARGEST_COUNT: i128 = 1 << 31;

/// A checkpoint that was read and found whole.
#[derive(Debug)]
pub struct Stored {
    /// What it says of itself.
    pub manifest: Manifest,
    /// The stage.
    pub stage: Snapshot,
    summary: Unfinished,
    /// Its folder.
    path: PathBuf,
}

/// What a search came to.
#[derive(Debug, Default)]
pub struct Search {
    /// The checkpoint; none where there is no good one.
    pub found: Option<Stored>,
    /// Those that were passed over, latest first.
    pub damaged: Vec<Damage>,
    /// Those of which the system does not give us a file, latest first: they may be good.
    pub unreadable: Vec<Unreadable>,
    /// The format of the latest that another version of the program wrote.
    pub foreign: Option<String>,
}

/// Why a checkpoint is passed over.
pub(super) enum Flaw {
    /// Another version of the program wrote it, in this format.
    Foreign(String),
    /// It is not what it was.
    Damaged(String),
    /// The system does not give us a file of it.
    Unreadable(String),
}

impl Flaw {
    /// What is not there, or is something else, was lost; all other errors say nothing of what is on the disk.
    fn of(path: &Path, error: &io::Error) -> Self {
        use io::ErrorKind::{IsADirectory, NotADirectory, NotFound, UnexpectedEof};
        let name = path.file_name().unwrap_or_default().display();
        let reason = format!("{name}: {error}");
        match error.kind() {
            NotFound | NotADirectory | IsADirectory | UnexpectedEof => Self::Damaged(reason),
            _ => Self::Unreadable(reason),
        }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign(format) => write!(f, "it is in the format {format}"),
            Self::Damaged(reason) | Self::Unreadable(reason) => f.write_str(reason),
        }
    }
}

impl From<String> for Flaw {
    fn from(reason: String) -> Self {
        Self::Damaged(reason)
    }
}

/// What a manifest of any version has.
#[derive(Deserialize)]
struct Format {
    format: String,
}

/// Looks for the last good checkpoint of a run directory that is not later than a tick.
#[must_use]
pub fn find(directory: &Path, latest: Option<u64>) -> Search {
    let mut search = Search::default();
    let mut all = folders(directory);
    all.retain(|(tick, _)| latest.is_none_or(|latest| *tick <= latest));
    all.sort_by_key(|(tick, _)| std::cmp::Reverse(*tick));
    for (tick, path) in all {
        match Stored::read(directory, tick, &path) {
            Ok(found) => {
                search.found = Some(found);
                break;
            }
            Err(Flaw::Foreign(format)) => {
                search.foreign.get_or_insert(format);
            }
            Err(Flaw::Damaged(reason)) => search.damaged.push(Damage { tick, reason }),
            Err(Flaw::Unreadable(reason)) => {
                search.unreadable.push(Unreadable { folder: path, reason });
            }
        }
    }
    search
}

/// The folders of checkpoints, in no order.
pub(super) fn folders(directory: &Path) -> Vec<(u64, PathBuf)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory.join(FOLDER)).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse().ok());
        found.extend(number.map(|tick| (tick, entry.path())));
    }
    found
}

/// Removes what a crash left unfinished.
pub(super) fn sweep(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory.join(FOLDER)).into_iter().flatten() {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.ends_with(PARTIAL)) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

impl Manifest {
    /// Reads the manifest in a checkpoint's folder.
    pub(super) fn read(path: &Path) -> Result<Self, Flaw> {
        let bytes = read(&path.join(MANIFEST), LARGEST_MANIFEST)?;
        let fail = |e: serde_json::Error| format!("{MANIFEST}: {e}");
        let Format { format } = serde_json::from_slice(&bytes).map_err(fail)?;
        if format != FORMAT {
            return Err(Flaw::Foreign(format));
        }
        Ok(serde_json::from_slice(&bytes).map_err(fail)?)
    }
}

impl Stored {
    fn read(directory: &Path, tick: u64, path: &Path) -> Result<Self, Flaw> {
        let manifest = Manifest::read(path)?;
        Self::checked(directory, tick, path, manifest)
    }

    /// Reads what a manifest says is there.
    fn checked(directory: &Path, tick: u64, path: &Path, manifest: Manifest) -> Result<Self, Flaw> {
        if manifest.tick != tick {
            return Err(format!("it is of tick {}", manifest.tick).into());
        }
        // Names are used as paths below.
        if let Some(name) = manifest.files.keys().find(|name| name.contains(['/', '\\'])) {
            return Err(format!("`{name}` is no name of a file").into());
        }
        for (name, file) in &manifest.files {
            same(&path.join(name), file)?;
        }
        for (agent, weights) in &manifest.adapters {
            let folder = adapter_folder(directory, agent, weights.generation);
            for (name, sha256) in weights.files.iter().filter(|(name, _)| !name.contains('/')) {
                if of_file(&folder.join(name))? != *sha256 {
                    let generation = weights.generation;
                    return Err(format!("{name} of {agent} {generation} was changed").into());
                }
            }
        }
        log(directory, &manifest)?;
        let bytes = read(&path.join(STATE), LARGEST_STATE)?;
        let fail = |e: ciborium::de::Error<io::Error>| format!("{STATE}: {e}");
        if !is_countable(&ciborium::from_reader(bytes.as_slice()).map_err(fail)?) {
            return Err(format!("{STATE} counts further than any run does").into());
        }
        let State { stage, summary } = ciborium::from_reader(bytes.as_slice()).map_err(fail)?;
        if stage.tick() != tick {
            return Err(format!("{STATE} is of tick {}", stage.tick()).into());
        }
        Ok(Self { manifest, stage, summary, path: path.into() })
    }

    /// The summary so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        self.summary.clone().into()
    }

    /// The jobs in progress.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn jobs(
        &self,
        members: &BTreeMap<AgentName, Member>,
    ) -> Result<BTreeMap<u64, JobSnapshot>, Damage> {
        let damage = |reason: String| Damage { tick: self.manifest.tick, reason };
        let mut jobs = BTreeMap::new();
        for (job, agent) in self.stage.learners() {
            let model = members.get(agent).and_then(Member::model);
            let model = model.ok_or_else(|| damage(format!("there is no agent `{agent}`")))?;
            let [one, other] = job_files(job);
            let read = |path: &Path| read(path, LARGEST).map_err(|flaw| damage(flaw.to_string()));
            let state = read(&self.path.join(&one))?;
            let other = self.path.join(other);
            let tensors = read(&other)?;
            let device = model.backbone.network.device();
            let snapshot = JobSnapshot::from_bytes(&state, tensors, &other, device);
            jobs.insert(job, snapshot.map_err(|e| damage(e.to_string()))?);
        }
        Ok(jobs)
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.path
    }

    /// Writes the checkpoint again with its stage and weights changed: what a fork begins with, and keeps.
    ///
    /// # Errors
    /// When the disk refuses it.
    pub fn rewrite_as_first(&mut self) -> Result<(), Damage> {
        let tick = self.manifest.tick;
        let bytes = state(&self.stage, self.summary.clone());
        let bytes = bytes.map_err(|reason| Damage { tick, reason })?;
        let sha256 = digest::of_bytes(&bytes);
        let entry = FileDigest { bytes: bytes.len() as u64, sha256 };
        self.manifest.files.insert(STATE.to_owned(), entry);
        self.manifest.opens_phase = true;
        let text = serde_json::to_vec_pretty(&self.manifest);
        let text = text.map_err(|e| Damage { tick, reason: e.to_string() })?;
        // Not in one go: until the fork's own manifest is written it counts for nothing.
        durable::replace(&self.path.join(STATE), &bytes)
            .and_then(|()| durable::replace(&self.path.join(MANIFEST), &text))
            .map_err(|e| Damage { tick, reason: e.to_string() })
    }
}

/// Whether all whole numbers in a state are such that a run can count on from them.
fn is_countable(value: &Value) -> bool {
    match value {
        Value::Integer(number) => (-LARGEST_COUNT..=LARGEST_COUNT).contains(&i128::from(*number)),
        Value::Array(values) => values.iter().all(is_countable),
        Value::Map(entries) => {
            entries.iter().all(|(key, value)| is_countable(key) && is_countable(value))
        }
        Value::Tag(_, value) => is_countable(value),
        _ => true,
    }
}

/// Whether a file is what the manifest says.
fn same(path: &Path, wanted: &FileDigest) -> Result<(), Flaw> {
    let name = path.file_name().unwrap_or_default().display();
    let size = fs::metadata(path).map_err(|e| Flaw::of(path, &e))?.len();
    if size != wanted.bytes {
        return Err(format!("{name} has {size} bytes, not {}", wanted.bytes).into());
    }
    if of_file(path)? == wanted.sha256 { Ok(()) } else { Err(format!("{name} was changed").into()) }
}

/// The digest of a file.
fn of_file(path: &Path) -> Result<String, Flaw> {
    digest::of_file(path).map_err(|error| match error {
        ModelError::File { path, source } => Flaw::of(&path, &source),
        other => Flaw::Damaged(other.to_string()),
    })
}

/// Whether the log still begins as it did.
fn log(directory: &Path, manifest: &Manifest) -> Result<(), Flaw> {
    let wanted = &manifest.log.events;
    let mut digest = Sha256::new();
    let path = directory.join(LOG);
    let fail = |e: io::Error| Flaw::of(&path, &e);
    let mut bytes = recording::bytes(directory).map_err(fail)?.take(wanted.bytes);
    let found = match io::copy(&mut bytes, &mut digest) {
        // A compressed log that was cut off.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => wanted.bytes - bytes.limit(),
        found => found.map_err(fail)?,
    };
    if found < wanted.bytes {
        return Err(format!("{LOG} has {found} bytes, and had {}", wanted.bytes).into());
    }
    if digest::hexadecimal(&digest.finalize()) == wanted.sha256 {
        return Ok(());
    }
    Err(format!("the first {} bytes of {LOG} were changed", wanted.bytes).into())
}

fn read(path: &Path, largest: u64) -> Result<Vec<u8>, Flaw> {
    let name = path.file_name().unwrap_or_default().display();
    let fail = |e: io::Error| Flaw::of(path, &e);
    let mut bytes = Vec::new();
    File::open(path).map_err(fail)?.take(largest + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > largest {
        return Err(format!("{name} is larger than {largest} bytes").into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the system does not give us may be good: it is not taken for damage.
    #[cfg(unix)]
    #[test]
    fn a_checkpoint_that_cannot_be_read_is_not_one_that_is_damaged() {
        let run = tempfile::tempdir().unwrap();
        for tick in [1, 2, 3] {
            fs::create_dir_all(super::super::folder(run.path(), tick)).unwrap();
        }
        let manifest = |tick| super::super::folder(run.path(), tick).join(MANIFEST);
        fs::write(manifest(1), "{}").unwrap();
        // It leads to itself, which no system follows.
        std::os::unix::fs::symlink(manifest(2), manifest(2)).unwrap();
        let search = find(run.path(), None);
        let damaged: Vec<u64> = search.damaged.iter().map(|damage| damage.tick).collect();
        assert_eq!(damaged, [3, 1], "not there, and not whole");
        let [unreadable] = search.unreadable.as_slice() else { panic!("{search:?}") };
        assert!(unreadable.to_string().contains("tick-000002"), "{unreadable}");
    }
}
