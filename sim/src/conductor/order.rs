//! What the stage tells the conductor to do.

use std::sync::Arc;

use agents::adapter::Adapter;
use agents::engine::queue::Key;
use agents::name::AgentName;

use crate::agent::Turn;
use crate::training::trainer::NewJob;

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
    /// Start an agent's actor anew.
    Restart {
        /// Whose.
        agent: AgentName,
        /// The weights it gets back.
        adapter: Arc<Adapter>,
    },
    /// This tick is over.
    EndTick(u64),
    /// The run is over.
    Finish(u64),
    /// The run cannot go on.
    Fail(String),
}
