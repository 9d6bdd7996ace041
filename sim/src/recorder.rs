//! The run directory: the append-only event log, which is the truth, and what a researcher needs beside it.
//!
//! `events.jsonl` begins with a version header and is the same byte for byte for the same scenario, seed
//! and binary; wall times stand in `times.jsonl`. Loses nothing: what the disk refuses waits for the next try.

mod lines;
pub(crate) mod visible;

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use agents::adapter::file::FILES;
use agents::adapter::{Adapter, Generation};
use agents::engine::meter::Usage;
use agents::name::AgentName;
use serde::{Deserialize, Serialize};
use serde_json::json;

use self::lines::Lines;
pub use self::lines::Position;
use crate::clock::Stopwatch;
use crate::durable;
use crate::event::Event;
use crate::recording::LOG;

/// Version of the event log: a reader that knows another major version refuses it.
pub const FORMAT: &str = "polylogue-events/1.1";

/// Wall times of ticks.
const TIMES: &str = "times.jsonl";
/// Is locked while a process writes a run.
const LOCK: &str = "lock";
/// More bytes than a line of times has.
const LONGEST_TIME: u64 = 4096;

/// Why a run directory cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("could not write {path}: {reason}")]
pub struct RecordError {
    /// The file or folder.
    pub path: PathBuf,
    /// What the system said.
    pub reason: String,
    /// Whether a run is there already: another place will do.
    pub in_use: bool,
}

/// Sees every line of a log at the moment when it is written.
pub trait Observer: std::fmt::Debug + Send {
    /// A line, without its end.
    fn line(&mut self, line: &str);
    /// A tick has ended.
    fn tick_ended(&mut self, tick: u64);
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
    /// When another process has it, or it cannot be written.
    pub fn of(directory: &Path) -> Result<Self, RecordError> {
        fs::create_dir_all(directory).map_err(|e| refusal(directory, &e))?;
        let path = directory.join(LOCK);
        let lock = File::create(&path).map_err(|e| refusal(&path, &e))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { directory: directory.into(), _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                let reason = "another polylogue is writing this run; wait for it or end it first";
                let reason = reason.to_owned();
                Err(RecordError { path: directory.into(), reason, in_use: true })
            }
            Err(TryLockError::Error(error)) => Err(refusal(&path, &error)),
        }
    }

    /// The same for a new run.
    ///
    /// # Errors
    /// As [`Claim::of`], and when the directory already holds a run.
    pub fn of_new(directory: &Path) -> Result<Self, RecordError> {
        let claim = Self::of(directory)?;
        if claim.directory.join(LOG).exists() {
            let reason = "there is a run in it already; choose another --out, or go on with it by \
                          `polylogue resume`";
            let reason = reason.to_owned();
            return Err(RecordError { path: directory.into(), reason, in_use: true });
        }
        Ok(claim)
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
        durable::replace(&path, text.as_bytes()).map_err(|e| refusal(&path, &e))
    }
}

/// How far the two logs of a run are on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEnd {
    /// `events.jsonl`.
    pub events: Position,
    /// Bytes of `times.jsonl`.
    pub times: u64,
}

/// Writes a run directory.
#[derive(Debug)]
pub struct Recorder {
    claim: Claim,
    events: Lines<File>,
    times: Lines<File>,
    watch: Stopwatch,
    /// Milliseconds that the run took before it was taken up again.
    before: u64,
    /// What the engine had done when the last tick ended.
    engine: Usage,
    /// What it did in the present one.
    did: Usage,
    /// The tick whose time was noted last.
    noted: Option<u64>,
    observer: Option<Box<dyn Observer>>,
    /// Whether nothing is logged.
    silent: bool,
}

impl Recorder {
    /// Begins the logs.
    ///
    /// # Errors
    /// When the disk refuses it.
    pub fn create(claim: Claim) -> Result<Self, RecordError> {
        let open = |name: &str| {
            let path = claim.directory.join(name);
            File::create(&path).map_err(|e| refusal(&path, &e))
        };
        let (events, times) = (Lines::new(open(LOG)?), Lines::new(open(TIMES)?));
        let mut recorder = Self::of(claim, events, times, 0);
        let header = json!({"format": FORMAT}).to_string();
        recorder.events.push(&header);
        Ok(recorder)
    }

    /// Goes on with the logs of a run from where a checkpoint was taken; what was written after it is cut off.
    ///
    /// # Errors
    /// When the log is not what it was, or cannot be read and written.
    pub fn reopen(claim: Claim, end: &LogEnd) -> Result<Self, RecordError> {
        let open = |name: &str| {
            let path = claim.directory.join(name);
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false);
            options.open(&path).map_err(|e| refusal(&path, &e))
        };
        let events = lines::cut(open(LOG)?, end.events.bytes);
        let (events, digest) = events.map_err(|e| refusal(&claim.directory.join(LOG), &e))?;
        let times = lines::cut(open(TIMES)?, end.times);
        let (mut times, times_digest) =
            times.map_err(|e| refusal(&claim.directory.join(TIMES), &e))?;
        let before = last_time(&mut times).unwrap_or_default();
        let events = Lines::continued(events, end.events.bytes, digest);
        if events.position() != end.events {
            let path = claim.directory.join(LOG);
            return Err(failure(&path, "it is not what it was at the checkpoint".to_owned()));
        }
        let times = Lines::continued(times, end.times, times_digest);
        Ok(Self::of(claim, events, times, before))
    }

    fn of(claim: Claim, events: Lines<File>, times: Lines<File>, before: u64) -> Self {
        let (engine, did) = (Usage::default(), Usage::default());
        let (watch, noted, observer) = (Stopwatch::start(), None, None);
        Self { claim, events, times, watch, before, engine, did, noted, observer, silent: false }
    }

    /// Hands everything that was recorded to the disk, and says how far that is.
    ///
    /// # Errors
    /// When the disk refuses it.
    pub fn commit(&mut self) -> Result<LogEnd, RecordError> {
        let result = self.events.write().and_then(|()| self.events.file().sync_data());
        self.check(result, LOG)?;
        let result = self.times.write().and_then(|()| self.times.file().sync_data());
        self.check(result, TIMES)?;
        Ok(LogEnd { events: self.events.position(), times: self.times.position().bytes })
    }

    /// Where the run is written.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.claim.directory
    }

    /// Appends an event; it is on its way to the disk once its tick has ended.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn record(&mut self, event: &Event) -> Result<(), RecordError> {
        if self.silent {
            return Ok(());
        }
        let line = visible::line(event).map_err(|e| failure(self.directory(), e.to_string()))?;
        self.events.push(&line);
        if let Some(observer) = &mut self.observer {
            observer.line(&line);
        }
        Ok(())
    }

    /// What the engine has done since the run began; what of it belongs to the present tick comes back, and
    /// is noted when the tick ends.
    pub fn engine_did(&mut self, total: &Usage) -> Usage {
        self.did = total.since(&self.engine);
        self.engine = *total;
        self.did
    }

    /// Ends a tick: all of it is handed to the system, and its wall time noted. Where that fails it may be
    /// tried again.
    ///
    /// # Errors
    /// When the disk refuses it.
    pub fn end_tick(&mut self, tick: u64) -> Result<(), RecordError> {
        if self.silent {
            if let Some(observer) = &mut self.observer {
                observer.tick_ended(tick);
            }
            return Ok(());
        }
        let result = self.events.write();
        self.check(result, LOG)?;
        // Once, however often the disk refuses it.
        if self.noted.replace(tick) != Some(tick) {
            let milliseconds = self.before + self.watch.milliseconds();
            let mut line = json!({"tick": tick, "milliseconds": milliseconds});
            let did = std::mem::take(&mut self.did);
            if did != Usage::default() {
                line["engine"] = json!(did);
            }
            self.times.push(&line.to_string());
        }
        let result = self.times.write();
        self.check(result, TIMES)?;
        if let Some(observer) = &mut self.observer {
            observer.tick_ended(tick);
        }
        Ok(())
    }

    /// Has every further line seen by somebody.
    pub fn observe(&mut self, observer: Box<dyn Observer>) {
        self.observer = Some(observer);
    }

    /// Logs nothing from now on: for measuring what the society itself costs.
    pub fn be_silent(&mut self) {
        self.silent = true;
    }

    /// Has the disk refuse the log once: an ordered fault.
    pub fn refuse_once(&mut self) {
        self.events.refuse_once();
    }

    /// Writes a file of the run directory, whole or not at all.
    ///
    /// # Errors
    /// When the disk refuses it.
    pub fn write(&self, name: &str, text: &str) -> Result<(), RecordError> {
        self.claim.write(name, text)
    }

    /// Keeps a generation of an agent's weights under `adapters/AGENT/gN`, whole or not at all.
    ///
    /// # Errors
    /// When the disk refuses it.
    pub fn keep(&self, agent: &AgentName, adapter: &Adapter) -> Result<(), RecordError> {
        keep(self.directory(), agent, adapter)
    }

    fn check(&self, result: io::Result<()>, name: &str) -> Result<(), RecordError> {
        result.map_err(|e| refusal(&self.directory().join(name), &e))
    }
}

/// Keeps a generation of an agent's weights in a run directory, whole or not at all.
///
/// # Errors
/// When the disk refuses it.
pub fn keep(directory: &Path, agent: &AgentName, adapter: &Adapter) -> Result<(), RecordError> {
    let path = adapter_folder(directory, agent, adapter.generation());
    let refuse = |e: io::Error| refusal(&path, &e);
    let partial = durable::begin(&path).map_err(refuse)?;
    adapter.save(&partial).map_err(|e| failure(&path, e.to_string()))?;
    for name in FILES {
        durable::sync_file(&partial.join(name)).map_err(refuse)?;
    }
    durable::publish(&partial, &path).map_err(refuse)
}

/// Where a generation of an agent's weights lies in a run directory.
#[must_use]
pub fn adapter_folder(directory: &Path, agent: &AgentName, generation: Generation) -> PathBuf {
    directory.join(format!("adapters/{agent}/{generation}"))
}

/// The last time in `times.jsonl`, in milliseconds since the run began.
fn last_time(times: &mut File) -> Option<u64> {
    let end = times.stream_position().ok()?;
    times.seek(SeekFrom::Start(end.saturating_sub(LONGEST_TIME))).ok()?;
    let mut text = String::new();
    times.read_to_string(&mut text).ok()?;
    let last: serde_json::Value = serde_json::from_str(text.lines().last()?).ok()?;
    last["milliseconds"].as_u64()
}

fn refusal(path: &Path, error: &io::Error) -> RecordError {
    failure(path, error.to_string())
}

fn failure(path: &Path, reason: String) -> RecordError {
    RecordError { path: path.into(), reason, in_use: false }
}
