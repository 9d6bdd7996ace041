//! What the engine can be asked, and how the answer finds its way back.
//!
//! The queue is bounded, and so is what waits behind it; who finds either full is told so at once and never waits.

use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};

use super::meter::{Meter, Usage};
use super::schedule::Limits;
use super::train::Advance;
use super::witness::Witness;
use crate::adapter::Adapter;
use crate::backbone::Backbone;
use crate::error::{ModelError, Result};
use crate::learning::job::{JobSnapshot, JobSpec};
use crate::name::AgentName;
use crate::writing::{Draw, Text};

/// Requests that may wait, and commands on their way: far more than a tick of the largest society asks for.
pub(super) const BOUND: usize = 65_536;

/// Identifies a request: which announcement it belongs to, who asks, in which episode.
///
/// Announcements are numbered upwards; what is asked again after a failure has a new number.
pub type Key = (u64, AgentName, u64);

/// Takes one answer; an engine that ends without giving one answers with an error.
pub struct Answer<T: Send + 'static>(Option<Box<dyn FnOnce(Result<T>) + Send>>);

impl<T: Send> Answer<T> {
    /// Calls `receive` with the answer, on the engine's thread: it must not block.
    pub fn new(receive: impl FnOnce(Result<T>) + Send + 'static) -> Self {
        Self(Some(Box::new(receive)))
    }

    pub(crate) fn send(mut self, answer: Result<T>) {
        if let Some(receive) = self.0.take() {
            receive(answer);
        }
    }
}

impl<T: Send> Drop for Answer<T> {
    fn drop(&mut self) {
        if let Some(receive) = self.0.take() {
            receive(Err(ModelError::EngineStopped));
        }
    }
}

impl<T: Send> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer")
    }
}

/// What a request wants to know.
#[derive(Debug)]
pub enum Want {
    /// Probabilities of the adapter's labels.
    Classes,
    /// A text.
    Text(Draw),
}

/// What a request got.
#[derive(Clone, Debug, PartialEq)]
pub enum Got {
    /// Probabilities in the order of the adapter's labels.
    Classes(Vec<f64>),
    /// A text.
    Text(Text),
}

/// A wish for a class or a text.
#[derive(Debug)]
pub struct Request {
    /// Who asks, in which episode.
    pub key: Key,
    /// The network.
    pub backbone: Arc<Backbone>,
    /// The agent's own weights.
    pub adapter: Arc<Adapter>,
    /// The prompt.
    pub tokens: Vec<u32>,
    /// What is wanted.
    pub want: Want,
    /// Where the answer goes.
    pub answer: Answer<Got>,
}

/// Everything the engine understands.
#[derive(Debug)]
pub(crate) enum Command {
    Infer(Request),
    Expect(Vec<Key>),
    Cancel(Key),
    Start {
        job: u64,
        backbone: Arc<Backbone>,
        adapter: Arc<Adapter>,
        spec: Box<JobSpec>,
        snapshot: Option<Arc<JobSnapshot>>,
        answer: Answer<()>,
    },
    Advance {
        jobs: Vec<(u64, Answer<Advance>)>,
        steps: usize,
    },
    Stop,
}

/// Sends requests to an engine; to its successor once it was restarted. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EngineHandle {
    queue: Arc<RwLock<SyncSender<Command>>>,
    meter: Arc<Meter>,
    witness: Option<Arc<dyn Witness>>,
}

pub(crate) fn channel(meter: Arc<Meter>) -> (EngineHandle, Receiver<Command>) {
    let (sender, receiver) = sync_channel(BOUND);
    (EngineHandle { queue: Arc::new(RwLock::new(sender)), meter, witness: None }, receiver)
}

impl EngineHandle {
    /// The same handle, with somebody who hears what is sent with it and with its clones.
    #[must_use]
    pub fn witnessed(self, witness: Arc<dyn Witness>) -> Self {
        Self { witness: Some(witness), ..self }
    }

    /// What the engine has done so far.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.meter.read()
    }

    /// The same, and how full it was at most since this was asked last.
    #[must_use]
    pub fn usage_at_most(&self) -> Usage {
        self.meter.read_most()
    }

    /// What the engine keeps to.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.meter.limits()
    }

    /// Asks for a class or a text.
    ///
    /// # Errors
    /// When the engine has ended or its queue is full.
    pub fn infer(&self, request: Request) -> Result<()> {
        if let Some(witness) = &self.witness {
            witness.asked(&request);
        }
        self.send(Command::Infer(request))
    }

    /// Announces requests under the number of their round. What was asked under an earlier number and has no
    /// answer is dropped, and so answered with an error: nobody waits for it.
    ///
    /// # Errors
    /// When the engine has ended or its queue is full.
    pub fn expect(&self, keys: Vec<Key>) -> Result<()> {
        self.send(Command::Expect(keys))
    }

    /// Takes a request back, wherever it is; its answer then says that it was cancelled. Nothing happens
    /// where it was answered already.
    ///
    /// # Errors
    /// When the engine has ended or its queue is full.
    pub fn cancel(&self, key: Key) -> Result<()> {
        self.send(Command::Cancel(key))
    }

    /// Prepares a fine-tuning job; from a snapshot, one that was begun before.
    ///
    /// # Errors
    /// When the engine has ended or its queue is full.
    pub fn start(
        &self,
        job: u64,
        backbone: Arc<Backbone>,
        adapter: Arc<Adapter>,
        spec: JobSpec,
        snapshot: Option<Arc<JobSnapshot>>,
        answer: Answer<()>,
    ) -> Result<()> {
        if let Some(witness) = self.witness.as_ref().filter(|_| snapshot.is_none()) {
            witness.began(job, &backbone, &adapter, &spec);
        }
        self.send(Command::Start { job, backbone, adapter, spec: Box::new(spec), snapshot, answer })
    }

    /// Takes up to `steps` steps of a job; the last one brings the new generation.
    ///
    /// # Errors
    /// When the engine has ended or its queue is full.
    pub fn advance(&self, job: u64, steps: usize, answer: Answer<Advance>) -> Result<()> {
        self.advance_together(vec![(job, answer)], steps)
    }

    /// Takes up to `steps` steps of each of several jobs. Those on the same backbone go through it together,
    /// which costs less than one after another.
    ///
    /// # Errors
    /// When the engine has ended or its queue is full.
    pub fn advance_together(&self, jobs: Vec<(u64, Answer<Advance>)>, steps: usize) -> Result<()> {
        if let Some(witness) = &self.witness {
            let numbers: Vec<u64> = jobs.iter().map(|(job, _)| *job).collect();
            witness.advanced(&numbers, steps);
        }
        self.send(Command::Advance { jobs, steps })
    }

    /// Ends the engine's thread as a crash would: what waits is answered with an error, jobs are lost.
    ///
    /// # Errors
    /// When the engine has ended or its queue is full.
    pub fn lose(&self) -> Result<()> {
        self.send(Command::Stop)
    }

    pub(crate) fn stop(&self) -> Result<()> {
        self.send(Command::Stop)
    }

    /// Leads every clone of this handle to a new queue.
    pub(crate) fn replace(&self) -> Receiver<Command> {
        let (sender, receiver) = sync_channel(BOUND);
        *self.queue.write().unwrap_or_else(PoisonError::into_inner) = sender;
        receiver
    }

    fn send(&self, command: Command) -> Result<()> {
        // A refused command is dropped here, and its answer with it: the sender hears of it twice.
        let sender = self.queue.read().unwrap_or_else(PoisonError::into_inner);
        sender.try_send(command).map_err(|refused| match refused {
            TrySendError::Full(_) => ModelError::EngineBusy { bound: BOUND },
            TrySendError::Disconnected(_) => ModelError::EngineStopped,
        })
    }
}
