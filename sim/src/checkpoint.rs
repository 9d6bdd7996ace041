//! A run between two ticks, on disk: `checkpoints/tick-NNNNNN/`.
//!
//! A checkpoint is a folder that appears whole or not at all. It holds the stage and the summary (CBOR, which
//! keeps every number as it is), each job in progress with the state of its optimiser, and last of all a
//! manifest: SHA-256 and size of each file, how far the log went, with its SHA-256, and the files of the
//! weights that every agent had. Weights themselves lie in `adapters/`. `docs/recording.md` is the reference.

mod problem;
mod stored;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use agents::adapter::file::FILES;
use agents::adapter::{Adapter, Generation};
use agents::backbone::digest;
use agents::name::AgentName;
use serde::{Deserialize, Serialize};

pub use self::problem::{Damage, Unreadable};
pub use self::stored::{LARGEST_STATE, Search, Stored, find};
use crate::conductor::stage::{Moment, Snapshot};
use crate::durable;
use crate::event::Phase;
use crate::recorder::{LogEnd, RecordError, adapter_folder};
use crate::scenario::CheckpointPlan;
use crate::summary::{Summary, Unfinished};

/// Version of checkpoints: another one is refused.
pub const FORMAT: &str = "polylogue-checkpoint/2";
/// The folder of checkpoints in a run directory.
pub const FOLDER: &str = "checkpoints";
/// Begins the name of each.
const PREFIX: &str = "tick-";
/// Says what is in a checkpoint; written last.
const MANIFEST: &str = "manifest.json";
/// The stage and the summary.
const STATE: &str = "state.cbor";

/// What a checkpoint says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the format.
    pub format: String,
    /// The tick that had ended.
    pub tick: u64,
    /// The part of the run.
    pub phase: Phase,
    /// Whether it is the first one of its part, which is kept.
    pub opens_phase: bool,
    /// How far the logs went.
    pub log: LogEnd,
    /// The files beside this one.
    pub files: BTreeMap<String, FileDigest>,
    /// The weights that each agent had.
    pub adapters: BTreeMap<AgentName, Weights>,
}

/// Size and digest of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDigest {
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256 in hexadecimal.
    pub sha256: String,
}

/// A version of an agent's weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weights {
    /// Its number.
    pub generation: Generation,
    /// Digest of kind and weights.
    pub digest: String,
    /// SHA-256 of its files under `adapters/AGENT/gN`; none for what the agent began with.
    pub files: BTreeMap<String, String>,
}

impl Weights {
    /// What is recorded of weights that lie in a folder, or of those that an agent begins with, which do not.
    pub(crate) fn of(adapter: &Adapter, folder: &Path) -> Result<Self, String> {
        let mut files = BTreeMap::new();
        // What an agent begins with is made again, not read.
        if folder.exists() {
            for name in FILES {
                let sha256 = digest::of_file(&folder.join(name)).map_err(|e| e.to_string())?;
                files.insert(name.to_owned(), sha256);
            }
        }
        let digest = adapter.digest().map_err(|e| e.to_string())?;
        Ok(Self { generation: adapter.generation(), digest, files })
    }
}

/// What is in `state.cbor`.
#[derive(Serialize, Deserialize)]
struct State {
    stage: Snapshot,
    summary: Unfinished,
}

/// A checkpoint that is there.
#[derive(Clone, Copy, Debug)]
struct Kept {
    tick: u64,
    opens_phase: bool,
}

/// Takes the checkpoints of a run, and removes those that are not needed any more.
#[derive(Debug)]
pub struct Checkpoints {
    plan: CheckpointPlan,
    /// The run directory.
    directory: PathBuf,
    /// Ascending by tick.
    kept: Vec<Kept>,
    last: Option<(u64, Phase)>,
    /// What is known of each agent's present weights, so that they are read once.
    weights: BTreeMap<AgentName, Weights>,
}

impl Checkpoints {
    /// For a run that begins.
    #[must_use]
    pub fn new(plan: CheckpointPlan, directory: &Path) -> Self {
        let (kept, weights) = (Vec::new(), BTreeMap::new());
        Self { plan, directory: directory.into(), kept, last: None, weights }
    }

    /// For a run that goes on from a checkpoint; later and unfinished ones are removed.
    ///
    /// # Errors
    /// When the disk refuses that.
    pub fn after(
        plan: CheckpointPlan,
        directory: &Path,
        stored: &Stored,
    ) -> Result<Self, RecordError> {
        let mut own = Self::new(plan, directory);
        stored::sweep(directory).map_err(|e| refusal(&directory.join(FOLDER), &e))?;
        let manifest = &stored.manifest;
        own.last = Some((manifest.tick, manifest.phase));
        own.weights.clone_from(&manifest.adapters);
        for (tick, path) in stored::folders(directory) {
            match Manifest::read(&path) {
                Ok(Manifest { opens_phase, .. }) if tick <= manifest.tick => {
                    own.kept.push(Kept { tick, opens_phase });
                }
                _ => fs::remove_dir_all(&path).map_err(|e| refusal(&path, &e))?,
            }
        }
        own.kept.sort_by_key(|kept| kept.tick);
        Ok(own)
    }

    /// Whether one shall be taken after a tick.
    #[must_use]
    pub fn is_due(&self, tick: u64, phase: Phase) -> bool {
        self.plan.keep > 0
            && self.last.is_none_or(|(last, of)| {
                phase != of || tick.saturating_sub(last) >= self.plan.every_ticks
            })
    }

    /// Whether one may be taken after a tick, and was not yet.
    #[must_use]
    pub fn is_wanted(&self, tick: u64) -> bool {
        self.plan.keep > 0 && self.last.is_none_or(|(last, _)| last != tick)
    }

    /// Takes one; the log has been handed to the disk as far as `log` says.
    ///
    /// # Errors
    /// When the disk refuses it: the ones before are as they were.
    pub fn take(
        &mut self,
        moment: &Moment,
        summary: &Summary,
        log: LogEnd,
    ) -> Result<(), RecordError> {
        let (tick, phase) = (moment.stage.tick(), moment.stage.phase());
        let path = folder(&self.directory, tick);
        let opens_phase = self.last.is_none_or(|(_, of)| phase != of);
        let partial = durable::begin(&path).map_err(|e| refusal(&path, &e))?;
        let mut files = BTreeMap::new();
        for (name, bytes) in contents(moment, summary).map_err(|e| failure(&path, e))? {
            if name == STATE && bytes.len() as u64 > LARGEST_STATE {
                let reason = "too much is waiting to be read for a checkpoint that could be read again: \
                              choose fewer concurrent_episodes, or checkpoints.keep = 0";
                return Err(failure(&path, reason.to_owned()));
            }
            durable::write(&partial.join(&name), &bytes).map_err(|e| refusal(&path, &e))?;
            let sha256 = digest::of_bytes(&bytes);
            files.insert(name, FileDigest { bytes: bytes.len() as u64, sha256 });
        }
        let format = FORMAT.to_owned();
        let adapters = self.weights(&moment.adapters)?;
        let manifest = Manifest { format, tick, phase, opens_phase, log, files, adapters };
        let text = serde_json::to_string_pretty(&manifest);
        let text = text.map_err(|e| failure(&path, e.to_string()))? + "\n";
        durable::write(&partial.join(MANIFEST), text.as_bytes())
            .and_then(|()| durable::publish(&partial, &path))
            .map_err(|e| refusal(&path, &e))?;
        self.last = Some((tick, phase));
        self.kept.retain(|kept| kept.tick != tick);
        self.kept.push(Kept { tick, opens_phase });
        self.forget()
    }

    /// Removes the oldest, but not those that open a part of the run.
    fn forget(&mut self) -> Result<(), RecordError> {
        let passing: Vec<u64> =
            self.kept.iter().filter(|kept| !kept.opens_phase).map(|kept| kept.tick).collect();
        let many = passing.len().saturating_sub(self.plan.keep);
        for &tick in &passing[..many] {
            let path = folder(&self.directory, tick);
            fs::remove_dir_all(&path).map_err(|e| refusal(&path, &e))?;
            self.kept.retain(|kept| kept.tick != tick);
        }
        Ok(())
    }

    /// What is recorded of the agents' weights.
    fn weights(
        &mut self,
        adapters: &BTreeMap<AgentName, std::sync::Arc<Adapter>>,
    ) -> Result<BTreeMap<AgentName, Weights>, RecordError> {
        for (agent, adapter) in adapters {
            let generation = adapter.generation();
            if self.weights.get(agent).is_some_and(|known| known.generation == generation) {
                continue;
            }
            let path = adapter_folder(&self.directory, agent, generation);
            let weights = Weights::of(adapter, &path).map_err(|e| failure(&path, e))?;
            self.weights.insert(agent.clone(), weights);
        }
        Ok(self.weights.clone())
    }
}

/// Removes all checkpoints but one: what lies before a fork's change would lose it.
pub(crate) fn remove_others(directory: &Path, tick: u64) -> Result<(), RecordError> {
    for (other, path) in stored::folders(directory) {
        if other != tick {
            fs::remove_dir_all(&path).map_err(|e| refusal(&path, &e))?;
        }
    }
    Ok(())
}

/// The files of a checkpoint, without the manifest.
fn contents(moment: &Moment, summary: &Summary) -> Result<Vec<(String, Vec<u8>)>, String> {
    let mut files = vec![(STATE.to_owned(), state(&moment.stage, summary.into())?)];
    for (job, snapshot) in &moment.jobs {
        let [state, tensors] = snapshot.to_bytes().map_err(|e| e.to_string())?;
        let [one, other] = job_files(*job);
        files.extend([(one, state), (other, tensors)]);
    }
    Ok(files)
}

/// The bytes of `state.cbor`.
fn state(stage: &Snapshot, summary: Unfinished) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let state = State { stage: stage.clone(), summary };
    ciborium::into_writer(&state, &mut bytes).map_err(|e| e.to_string())?;
    Ok(bytes)
}

/// The names of a job's two files.
fn job_files(job: u64) -> [String; 2] {
    [format!("job-{job}.cbor"), format!("job-{job}.safetensors")]
}

/// Where the checkpoint of a tick lies.
fn folder(directory: &Path, tick: u64) -> PathBuf {
    directory.join(FOLDER).join(format!("{PREFIX}{tick:06}"))
}

fn refusal(path: &Path, error: &io::Error) -> RecordError {
    RecordError::of_system(path, error)
}

fn failure(path: &Path, reason: String) -> RecordError {
    RecordError::new(path, reason)
}
