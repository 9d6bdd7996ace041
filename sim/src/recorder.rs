//! The run directory: the append-only event log, which is the truth, and what a researcher needs beside it.
//!
//! `events.jsonl` begins with a version header and is the same byte for byte for the same scenario, seed
//! and binary; wall times stand in `times.jsonl`. Loses nothing: what the disk refuses waits for the next try.

mod lines;
pub(crate) mod visible;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use agents::adapter::Adapter;
use agents::engine::meter::Usage;
use agents::name::AgentName;
use serde_json::json;

use self::lines::Lines;
use crate::clock::Stopwatch;
use crate::event::Event;

/// Version of the event log: a reader that knows another major version refuses it.
pub const FORMAT: &str = "polylogue-events/1";

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

/// Writes a run directory.
#[derive(Debug)]
pub struct Recorder {
    directory: PathBuf,
    events: Lines<File>,
    times: Lines<File>,
    watch: Stopwatch,
    /// What the engine had done when the last tick ended.
    engine: Usage,
    /// What it did in the present one.
    did: Usage,
    observer: Option<Box<dyn Observer>>,
}

impl Recorder {
    /// Creates the directory and the logs in it.
    ///
    /// # Errors
    /// When the directory already holds a run, or cannot be written.
    pub fn create(directory: &Path) -> Result<Self, RecordError> {
        let events = directory.join("events.jsonl");
        fs::create_dir_all(directory).map_err(|e| refusal(directory, &e))?;
        if events.exists() {
            let reason = "there is a run in it already; choose another --out".to_owned();
            return Err(RecordError { path: directory.into(), reason, in_use: true });
        }
        let open = |path: &Path| File::create(path).map_err(|e| refusal(path, &e));
        let mut recorder = Self {
            events: Lines::new(open(&events)?),
            times: Lines::new(open(&directory.join("times.jsonl"))?),
            directory: directory.into(),
            watch: Stopwatch::start(),
            engine: Usage::default(),
            did: Usage::default(),
            observer: None,
        };
        let header = json!({"format": FORMAT}).to_string();
        recorder.events.push(&header);
        Ok(recorder)
    }

    /// Where the run is written.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Appends an event; it is on its way to the disk once its tick has ended.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn record(&mut self, event: &Event) -> Result<(), RecordError> {
        let line = visible::line(event).map_err(|e| failure(&self.directory, e.to_string()))?;
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
        let result = self.events.write();
        self.check(result, "events.jsonl")?;
        let mut line = json!({"tick": tick, "milliseconds": self.watch.milliseconds()});
        let did = std::mem::take(&mut self.did);
        if did != Usage::default() {
            line["engine"] = json!(did);
        }
        self.times.push(&line.to_string());
        let result = self.times.write();
        self.check(result, "times.jsonl")?;
        if let Some(observer) = &mut self.observer {
            observer.tick_ended(tick);
        }
        Ok(())
    }

    /// Has every further line seen by somebody.
    pub fn observe(&mut self, observer: Box<dyn Observer>) {
        self.observer = Some(observer);
    }

    /// Has the disk refuse the log once: an ordered fault.
    pub fn refuse_once(&mut self) {
        self.events.refuse_once();
    }

    /// Writes a file of the run directory in one go.
    ///
    /// # Errors
    /// When the disk refuses it.
    pub fn write(&self, name: &str, text: &str) -> Result<(), RecordError> {
        self.check(fs::write(self.directory.join(name), text), name)
    }

    /// Keeps a generation of an agent's weights under `adapters/AGENT/gN`.
    ///
    /// # Errors
    /// When the disk refuses it.
    pub fn keep(&self, agent: &AgentName, adapter: &Adapter) -> Result<(), RecordError> {
        let name = format!("adapters/{agent}/{}", adapter.generation());
        let path = self.directory.join(&name);
        adapter.save(&path).map_err(|e| failure(&path, e.to_string()))
    }

    fn check(&self, result: io::Result<()>, name: &str) -> Result<(), RecordError> {
        result.map_err(|e| refusal(&self.directory.join(name), &e))
    }
}

fn refusal(path: &Path, error: &io::Error) -> RecordError {
    failure(path, error.to_string())
}

fn failure(path: &Path, reason: String) -> RecordError {
    RecordError { path: path.into(), reason, in_use: false }
}
