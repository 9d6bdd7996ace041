//! What the stage tells the conductor to do.

use std::sync::Arc;

use agents::adapter::Adapter;
use agents::engine::queue::Key;
use agents::name::AgentName;

use crate::agent::Turn;
use crate::training::trainer::NewJob;

/// Parts that are started anew together.
#[derive(Clone, Debug, Default)]
pub struct Restart {
    /// Agents, each with the weights it gets back where it has any.
    pub agents: Vec<(AgentName, Option<Arc<Adapter>>)>,
    /// The trainer.
    pub trainer: bool,
    /// The engine.
    pub engine: bool,
}

/// What the conductor shall do.
#[derive(Debug)]
pub enum Order {
    /// Let an agent speak.
    Speak {
        /// Who.
        agent: AgentName,
        /// About what.
        turn: Turn,
    },
    /// Announce requests to the engine.
    Expect(Vec<Key>),
    /// Begin jobs and take steps of all.
    Train {
        /// Jobs to begin.
        begin: Vec<NewJob>,
        /// Steps of each job.
        steps: usize,
    },
    /// Give an agent its new weights, and keep them on disk.
    Publish {
        /// Whose.
        agent: AgentName,
        /// The weights.
        adapter: Arc<Adapter>,
    },
    /// Start parts of the society anew.
    Restart {
        /// Which.
        parts: Restart,
        /// How long to wait before, in milliseconds.
        milliseconds: u64,
    },
    /// Tell when an announcement is still unanswered after so many milliseconds.
    Deadline {
        /// The announcement.
        round: u64,
        /// How long it may take.
        milliseconds: u64,
    },
    /// Tell when the time of an agent is over that was ordered not to answer.
    Hang {
        /// Who.
        agent: AgentName,
        /// To which announcement.
        round: u64,
        /// How long it may take.
        milliseconds: u64,
    },
    /// End the engine's thread: an ordered fault.
    LoseEngine,
    /// Let the trainer's actor panic: an ordered fault.
    LoseTrainer,
    /// Let the disk refuse the log once: an ordered fault.
    FillDisk,
    /// This tick is over.
    EndTick(u64),
    /// Nothing is on its way: save the run if that is due, and open the next tick.
    GoOn,
    /// A person asked for an early end: save the run as it stands, then finish it.
    Stop,
    /// The run is over: its last tick ends.
    Finish(u64),
    /// The whole log is on the disk: write the summary, and end.
    Summarize,
    /// The run cannot go on.
    Fail(String),
}
