//! What the conductor remembers of failures: which parts are down, how often each was started anew, which
//! ordered faults have struck, and what the society is waiting for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use agents::name::AgentName;
use serde::{Deserialize, Serialize};

use crate::restart::History;

/// A part of the society that can fail, in the order in which they are started.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The engine's thread.
    Engine,
    /// The trainer's actor.
    Trainer,
    /// An agent's actor.
    Agent(AgentName),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine => f.write_str("the engine"),
            Self::Trainer => f.write_str("the trainer"),
            Self::Agent(name) => write!(f, "{name}"),
        }
    }
}

/// What the open tick waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Awaited {
    /// Nothing: the tick is over or begins.
    #[default]
    Nothing,
    /// Agents' answers.
    Answers,
    /// The jobs' steps.
    Steps,
}

/// What is remembered of one part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Its own failures.
    pub(super) failures: History,
    /// Restarts so far, those for another's failure included.
    pub(super) restarts: u32,
}

/// Everything that is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Oversight {
    /// The number of the last announcement: answers to an earlier one are of no use.
    pub(super) round: u64,
    pub(super) awaited: Awaited,
    pub(super) engine: Record,
    pub(super) trainer: Record,
    pub(super) agents: BTreeMap<AgentName, Record>,
    /// Restarts of everything at once.
    pub(super) society: Record,
    /// Parts that are being started anew.
    pub(super) down: BTreeSet<Part>,
    /// Agents whose turns are skipped.
    pub(super) quarantined: BTreeSet<AgentName>,
    /// How often each ordered fault has struck.
    pub(super) struck: Vec<u64>,
    /// How often the recording was tried again since it last succeeded.
    pub(super) retries: u32,
    /// How long it has waited meanwhile, in milliseconds.
    pub(super) waited: u64,
}

impl Oversight {
    pub(super) fn record(&mut self, part: &Part) -> &mut Record {
        match part {
            Part::Engine => &mut self.engine,
            Part::Trainer => &mut self.trainer,
            Part::Agent(name) => self.agents.entry(name.clone()).or_default(),
        }
    }

    /// Begins to count failures anew, except those of the whole society.
    pub(super) fn forget(&mut self) {
        let records = [&mut self.engine, &mut self.trainer];
        records.into_iter().chain(self.agents.values_mut()).for_each(|one| one.failures.forget());
    }
}
