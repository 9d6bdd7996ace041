//! The one thread that owns a device: it batches all sampling and runs all training of that device.
//!
//! ```text
//! agents  ── Infer, Cancel ──▶ ┌──────────────────────────┐ ── answers ──▶ agents
//!                              │ engine thread            │
//! trainer ── Start, Advance ──▶│ (queue, schedule, train) │ ── reports ──▶ trainer
//!                              └──────────────────────────┘
//! ```
//! The thread takes one step after the other: of every text in progress, and of every job that was told to
//! advance. Requests join between two steps and leave when they are answered. When a request comes, and who
//! runs beside it, changes its speed and nothing else.

mod beginnings;
mod desk;
pub mod memory;
pub mod meter;
pub mod queue;
pub mod schedule;
pub mod train;
mod waiting;
pub mod witness;

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;
use std::time::Duration;

use self::meter::{Clock, Meter, Phase};
use self::queue::{Command, EngineHandle};
use self::schedule::{Limits, Scheduler};
use self::train::Jobs;
use crate::error::{ModelError, Result};

/// Stack of the engine's thread: backward passes recurse once per operation.
const STACK: usize = 256 << 20;
/// Commands that the thread takes in between two steps: who asks again whenever the engine is busy holds up nobody.
const MOST_COMMANDS: usize = 2 * queue::BOUND;

/// How long a thread may take to end before it is left behind: what it does is of no use to anybody then.
const PATIENCE: Duration = Duration::from_secs(5);

/// A running engine; dropping it ends the thread.
#[derive(Debug)]
pub struct Engine {
    handle: EngineHandle,
    limits: Limits,
    meter: Arc<Meter>,
    thread: Option<Running>,
}

/// A thread, and how its end is noticed.
#[derive(Debug)]
struct Running {
    thread: JoinHandle<()>,
    /// Closed by the thread's end, however it ends.
    ended: Receiver<()>,
}

impl Engine {
    /// Starts the thread with the usual limits and without a clock.
    ///
    /// # Errors
    /// When the system refuses another thread.
    pub fn start() -> Result<Self> {
        Self::start_with(Limits::default(), || 0)
    }

    /// Starts the thread. The clock is for the meter alone.
    ///
    /// # Errors
    /// When the system refuses another thread.
    pub fn start_with(limits: Limits, clock: Clock) -> Result<Self> {
        let meter = Arc::new(Meter::new(clock, limits));
        let (handle, commands) = queue::channel(Arc::clone(&meter));
        let thread = Some(spawn(commands, limits, Arc::clone(&meter))?);
        Ok(Self { handle, limits, meter, thread })
    }

    /// Puts a new thread in the place of one that ended or hangs; every handle leads to the new one.
    ///
    /// Jobs of the old one are lost, and what waited there is answered with an error.
    ///
    /// # Errors
    /// When the system refuses another thread.
    pub fn restart(&mut self) -> Result<()> {
        // Not joined: a thread that hangs never ends, and one that ended needs no waiting for.
        let meter = Arc::clone(&self.meter);
        self.thread = Some(spawn(self.handle.replace(), self.limits, meter)?);
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
        if let Some(Running { thread, ended }) = self.thread.take()
            && ended.recv_timeout(PATIENCE) != Err(mpsc::RecvTimeoutError::Timeout)
        {
            let _ = thread.join();
        }
    }
}

fn spawn(commands: Receiver<Command>, limits: Limits, meter: Arc<Meter>) -> Result<Running> {
    let (alive, ended) = mpsc::channel();
    let thread = std::thread::Builder::new()
        .name("engine".to_owned())
        .stack_size(STACK)
        .spawn(move || {
            let _alive: mpsc::Sender<()> = alive;
            serve(&commands, limits, &meter);
        })
        .map_err(|source| ModelError::File { path: "engine thread".into(), source })?;
    Ok(Running { thread, ended })
}

fn serve(commands: &Receiver<Command>, limits: Limits, meter: &Arc<Meter>) {
    let mut schedule = Scheduler::new(limits, Arc::clone(meter));
    let mut jobs = Jobs::default();
    loop {
        let idle = !schedule.has_work() && !jobs.has_work();
        let mut next = if idle { commands.recv().ok() } else { commands.try_recv().ok() };
        if idle && next.is_none() {
            return;
        }
        let mut taken = 0;
        while let Some(command) = next {
            match command {
                Command::Infer(request) => schedule.add(request),
                Command::Expect(keys) => schedule.expect(&keys),
                Command::Cancel(key) => schedule.cancel(&key),
                Command::Start { job, backbone, adapter, spec, snapshot, answer } => {
                    answer.send(jobs.start(job, backbone, adapter, *spec, snapshot.as_deref()));
                }
                Command::Advance { jobs: chosen, steps } => jobs.advance(chosen, steps),
                Command::Stop => return,
            }
            taken += 1;
            next = if taken < MOST_COMMANDS { commands.try_recv().ok() } else { None };
        }
        schedule.step();
        if jobs.has_work() {
            let count = meter.timed(Phase::Training, || jobs.step());
            meter.trained(count);
        }
    }
}

#[cfg(test)]
mod tests;
