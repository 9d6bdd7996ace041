//! The one thread that owns a device: it batches all sampling and runs all training of that device.
//!
//! ```text
//! agents  ── Infer ──▶ ┌────────────────┐ ── answers ──▶ agents
//! conductor ─ Expect ─▶│ engine thread  │
//! trainer ── Start ───▶│ (queue, batch, │ ── reports ──▶ trainer
//!         ── Advance ─▶│  decode, train)│
//!                      └────────────────┘
//! ```
//! Requests wait until every one that the conductor announced is there; then they run as one batch, in
//! the order of their keys, so the batch never depends on who was faster. Training steps run between
//! batches, when asked for.

pub mod batch;
pub mod decode;
pub mod queue;
pub mod train;

use std::thread::JoinHandle;

use self::batch::Waiting;
use self::queue::{Command, EngineHandle};
use self::train::Jobs;
use crate::error::{ModelError, Result};

/// Stack of the engine's thread: backward passes recurse once per operation.
const STACK: usize = 256 << 20;

/// A running engine; dropping it ends the thread.
#[derive(Debug)]
pub struct Engine {
    handle: EngineHandle,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system refuses another thread.
    pub fn start() -> Result<Self> {
        let (handle, commands) = queue::channel();
        let thread = Some(spawn(commands)?);
        Ok(Self { handle, thread })
    }

    /// Puts a new thread in the place of one that ended or hangs; every handle leads to the new one.
    ///
    /// Jobs of the old one are lost, and what waited there is answered with an error.
    ///
    /// # Errors
    /// When the system refuses another thread.
    pub fn restart(&mut self) -> Result<()> {
        // Not joined: a thread that hangs never ends, and one that ended needs no waiting for.
        self.thread = Some(spawn(self.handle.replace())?);
        Ok(())
    }

    /// A handle to send requests with.
    #[must_use]
    pub fn handle(&self) -> EngineHandle {
        self.handle.clone()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // A thread that already ended by a panic has answered everyone with an error.
        let _ = self.handle.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn spawn(commands: std::sync::mpsc::Receiver<Command>) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name("engine".to_owned())
        .stack_size(STACK)
        .spawn(move || serve(&commands))
        .map_err(|source| ModelError::File { path: "engine thread".into(), source })
}

fn serve(commands: &std::sync::mpsc::Receiver<Command>) {
    let mut waiting = Waiting::default();
    let mut jobs = Jobs::default();
    while let Ok(command) = commands.recv() {
        match command {
            Command::Infer(request) => waiting.add(request),
            Command::Expect(keys) => waiting.expect(keys),
            Command::Start { job, backbone, adapter, spec, snapshot, answer } => {
                answer.send(jobs.start(job, backbone, adapter, spec, snapshot.as_deref()));
            }
            Command::Advance { jobs: chosen, steps } => {
                jobs.advance(chosen, steps);
                while jobs.has_work() {
                    jobs.step();
                }
            }
            Command::Stop => break,
        }
        if let Some(batch) = waiting.take_complete() {
            batch::run(batch);
        }
    }
}
