//! Supervision and ordered faults of a checked scenario.

use agents::name::AgentName;
use serde::{Deserialize, Serialize};

use crate::restart::{Backoff, Intensity, Strategy};

/// What happens to the society when a part of it fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SupervisionPlan {
    /// Who is started anew with the failed one.
    pub strategy: Strategy,
    /// How often the engine, the trainer, the log and the society as a whole may fail.
    pub intensity: Intensity,
    /// How long to wait before each restart of engine, trainer and log.
    pub backoff: Backoff,
    /// What follows when an essential part failed too often.
    pub escalation: Escalation,
    /// The longest that a turn may take, in milliseconds of wall time.
    pub turn_deadline: u64,
    /// How often an answer that cannot be used is asked for before the turn is skipped; at least 1.
    pub attempts: u32,
}

/// What follows when an essential part failed too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escalation {
    /// The run ends.
    EndRun,
    /// Everything is started anew, as often as the society's intensity allows; then the run ends.
    RestartAll,
}

/// What happens to an agent when it fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AgentSupervision {
    /// How often it may fail.
    pub intensity: Intensity,
    /// How long to wait before each restart.
    pub backoff: Backoff,
    /// Whether the society cannot do without it; otherwise its turns are skipped once it failed too often.
    pub essential: bool,
}

/// A fault that the experiment orders.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultPlan {
    /// What.
    pub kind: FaultKind,
    /// Whose turn it strikes; none for faults of the engine, the trainer and the disk.
    pub agent: Option<AgentName>,
    /// When.
    pub when: FaultTime,
    /// How often at most.
    pub times: u64,
}

/// When a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FaultTime {
    /// As soon as it can, at or after this tick.
    AtTick(u64),
    /// In every tick in which it can, with this probability.
    Chance(f64),
}

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The agent's actor panics.
    Panic,
    /// The agent never answers; the deadline of the turn notices.
    Hang,
    /// The agent's answer comes so many milliseconds late.
    SlowReply(u64),
    /// The model's answer is damaged.
    MalformedReply,
    /// The engine answers that its memory is exhausted.
    OutOfMemory,
    /// The engine's thread ends.
    LostEngine,
    /// The trainer's actor panics.
    LostTrainer,
    /// The disk refuses the log once.
    DiskFull,
}

impl FaultKind {
    /// Its word in scenarios and events.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Hang => "hang",
            Self::SlowReply(_) => "slow_reply",
            Self::MalformedReply => "malformed_reply",
            Self::OutOfMemory => "out_of_memory",
            Self::LostEngine => "lost_engine",
            Self::LostTrainer => "lost_trainer",
            Self::DiskFull => "disk_full",
        }
    }

    /// Whether it strikes the turn of an agent.
    #[must_use]
    pub fn is_of_an_agent(self) -> bool {
        !matches!(self, Self::LostEngine | Self::LostTrainer | Self::DiskFull)
    }
}
