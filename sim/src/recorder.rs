//! The run directory: the append-only event log, which is the truth, and what a researcher needs beside it.
//!
//! `events.jsonl` begins with a version header and is the same byte for byte for the same scenario, seed
//! and binary; wall times stand in `times.jsonl`. Loses nothing: what the disk refuses waits for the next try.

mod claim;
mod lines;
pub(crate) mod visible;

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use agents::adapter::file::FILES;
use agents::adapter::{Adapter, Generation};
use agents::engine::meter::Usage;
use agents::name::AgentName;
use serde::{Deserialize, Serialize};
use serde_json::json;

pub use self::claim::{Cause, Claim, RecordError, WRITTEN};
use self::lines::Lines;
pub use self::lines::Position;
use crate::clock::Stopwatch;
use crate::durable;
use crate::event::Event;
use crate::recording::LOG;
use crate::work::TickWork;

/// Version of the event log: a reader that knows another major version refuses it.
pub const FORMAT: &str = "polylogue-events/1.1";

/// Wall times of ticks.
pub(crate) const TIMES: &str = "times.jsonl";
/// The folder of all generations of weights in a run directory.
pub(crate) const ADAPTERS: &str = "adapters";
/// More bytes than a line of times has.
const LONGEST_TIME: u64 = 4096;

/// Sees every line of a log at the moment when it is written.
pub trait Observer: std::fmt::Debug + Send {
    /// A line, without its end.
    fn line(&mut self, line: &str);
    /// A tick has ended.
    fn tick_ended(&mut self, tick: u64);
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
            let path = claim.directory().join(name);
            let mut options = File::options();
            let options = durable::unlinked(options.write(true).create(true).truncate(true));
            options.open(&path).map_err(|e| refusal(&path, &e))
        };
        let (events, times) = (Lines::new(open(LOG)?), Lines::new(open(TIMES)?));
        sync(claim.directory())?;
        let mut recorder = Self::of(claim, events, times, 0);
        let header = json!({"format": FORMAT}).to_string();
        recorder.events.push(&header);
        Ok(recorder)
    }

    /// Goes on with the logs of a run from where a checkpoint was taken; what was written after it is cut off.
    /// Times are for people: what of them is lost stays lost, and is no reason not to go on.
    ///
    /// # Errors
    /// When the log is not what it was, or cannot be read and written.
    pub fn reopen(claim: Claim, end: &LogEnd) -> Result<Self, RecordError> {
        let open = |name: &str| {
            let path = claim.directory().join(name);
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false);
            durable::unlinked(&mut options).open(&path).map_err(|e| refusal(&path, &e))
        };
        let (mut events, mut times) = (open(LOG)?, open(TIMES)?);
        let refuse = |name: &str| {
            let path = claim.directory().join(name);
            move |e: io::Error| refusal(&path, &e)
        };
        // Nothing is cut off before it is known that the rest is what it was.
        let digest = lines::digest(&mut events, end.events.bytes).map_err(refuse(LOG))?;
        let known = Lines::continued(events, end.events.bytes, digest);
        if known.position() != end.events {
            let path = claim.directory().join(LOG);
            return Err(failure(&path, "it is not what it was at the checkpoint".to_owned()));
        }
        let left = lines::whole(&mut times, end.times).map_err(refuse(TIMES))?;
        let digest = lines::digest(&mut times, left).map_err(refuse(TIMES))?;
        lines::cut(known.file(), end.events.bytes).map_err(refuse(LOG))?;
        lines::cut(&times, left).map_err(refuse(TIMES))?;
        let before = last_time(&mut times).unwrap_or_default();
        sync(claim.directory())?;
        let times = Lines::continued(times, left, digest);
        Ok(Self::of(claim, known, times, before))
    }

    fn of(claim: Claim, events: Lines<File>, times: Lines<File>, before: u64) -> Self {
        let engine = Usage::default();
        let (watch, noted, observer) = (Stopwatch::start(), None, None);
        Self { claim, events, times, watch, before, engine, noted, observer, silent: false }
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
        self.claim.directory()
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

    /// Milliseconds that the run took before it was taken up again.
    #[must_use]
    pub fn milliseconds_before(&self) -> u64 {
        self.before
    }

    /// What is noted of a tick that ends, where `total` is what the engines have done since the run began.
    pub fn work(&mut self, tick: u64, total: &Usage) -> TickWork {
        let engine = total.since(&self.engine);
        self.engine = *total;
        TickWork { tick, milliseconds: self.before + self.watch.milliseconds(), engine }
    }

    /// Ends a tick: all of it is handed to the system, and its wall time noted. Where that fails it may be
    /// tried again.
    ///
    /// # Errors
    /// When the disk refuses it.
    pub fn end_tick(&mut self, work: &TickWork) -> Result<(), RecordError> {
        let tick = work.tick;
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
            self.times.push(&json!(work).to_string());
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
    directory.join(format!("{ADAPTERS}/{agent}/{generation}"))
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

/// Hands the names of new logs to the disk.
fn sync(directory: &Path) -> Result<(), RecordError> {
    durable::sync_folder(directory).map_err(|e| refusal(directory, &e))
}

fn refusal(path: &Path, error: &io::Error) -> RecordError {
    RecordError::of_system(path, error)
}

fn failure(path: &Path, reason: String) -> RecordError {
    RecordError::new(path, reason)
}

#[cfg(test)]
mod tests;
