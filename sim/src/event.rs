//! Everything that anyone can observe of a run, in the past tense, in one closed enum.
//!
//! The conductor is the only writer: it numbers events in one order. Screens, recorder, metrics and tests
//! see nothing else. Wall-clock times are not in here: they would make two equal runs differ.

mod spoken;

use std::collections::BTreeMap;

use agents::adapter::Generation;
use agents::name::AgentName;
use serde::{Deserialize, Deserializer, Serialize};

pub use self::spoken::Spoken;

/// Listeners: nothing for none, a name for one, a list for several.
mod listeners {
    use agents::name::AgentName;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Listeners {
        None(()),
        One(AgentName),
        Several(Vec<AgentName>),
    }

    pub(super) fn serialize<S: Serializer>(all: &[AgentName], to: S) -> Result<S::Ok, S::Error> {
        match all {
            [] => Listeners::None(()).serialize(to),
            [one] => one.serialize(to),
            several => several.serialize(to),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<AgentName>, D::Error> {
        Ok(match Listeners::deserialize(from)? {
            Listeners::None(()) => Vec::new(),
            Listeners::One(one) => vec![one],
            Listeners::Several(several) => several,
        })
    }
}

/// Reads a number. One that is not finite was written as null, and is none.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Position in the run, from 0, without gaps.
    pub seq: u64,
    /// Virtual time.
    pub tick: u64,
    /// What happened.
    #[serde(rename = "event")]
    pub kind: EventKind,
}

/// The parts of a run, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Each agent gets its first own weights from a few examples.
    Transfer,
    /// The society plays the holdout; nothing is learned from it.
    Before,
    /// The society plays, and learns on its triggers.
    Play,
    /// The holdout again.
    After,
}

impl Phase {
    /// A word for people.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Transfer => "transfer",
            Self::Before => "holdout before",
            Self::Play => "play",
            Self::After => "holdout after",
        }
    }
}

/// What is known of an agent from the start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentCard {
    /// Its name.
    pub name: AgentName,
    /// How it was transferred, as scenarios name it: `feature`, `lora`, …; of a scripted agent its rule.
    pub transfer: String,
    /// Its backbone's name in the scenario; empty for a scripted agent.
    pub backbone: String,
    /// How many numbers it trains.
    pub trainable: usize,
}

/// What an agent said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// A class and how sure the agent is, from 0 to 1.
    Label {
        /// The class.
        label: String,
        /// Probability of the class.
        #[serde(deserialize_with = "number")]
        confidence: f64,
    },
    /// A text.
    Text {
        /// The words, untrusted.
        text: String,
    },
    /// A probability that the query is resolved.
    Verdict {
        /// From 0 to 1.
        #[serde(deserialize_with = "number")]
        resolved: f64,
    },
}

/// Scores of a pass over the holdout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Number of queries.
    pub items: usize,
    /// Share of queries whose intent was recognised.
    #[serde(deserialize_with = "number")]
    pub intent_accuracy: f64,
    /// Share of replies that resolve their query.
    #[serde(deserialize_with = "number")]
    pub resolved_rate: f64,
    /// Area under the evaluator's ROC curve on pairs of a right and a wrong reply to each query.
    #[serde(deserialize_with = "number")]
    pub evaluator_auc: f64,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The run began.
    RunStarted {
        /// The scenario's name.
        scenario: String,
        /// The seed all randomness comes from.
        seed: u64,
        /// Training episodes to play.
        episodes: u64,
        /// The protocol's name.
        protocol: String,
        /// The society, in speaking order.
        agents: Vec<AgentCard>,
    },
    /// A part of the run began.
    PhaseStarted {
        /// Which part.
        phase: Phase,
        /// Steps or episodes it will take.
        length: u64,
    },
    /// An agent received its first own weights.
    TransferFinished {
        /// Who.
        agent: AgentName,
        /// Number of examples.
        examples: usize,
        /// Optimiser steps.
        steps: usize,
        /// Loss of the first step.
        #[serde(deserialize_with = "number")]
        loss_before: f64,
        /// Loss of the last step.
        #[serde(deserialize_with = "number")]
        loss_after: f64,
    },
    /// A task instance began.
    EpisodeStarted {
        /// Number of the episode within the run.
        episode: u64,
        /// Index of the query in its data set.
        item: usize,
        /// The query, untrusted.
        query: String,
    },
    /// A message crossed the channel.
    MessageDelivered {
        /// The episode it belongs to.
        episode: u64,
        /// The sender's turn within the episode, from 0.
        turn: u32,
        /// Who said it.
        from: AgentName,
        /// Who hears it, by speaking order; none for the last in a pipeline.
        #[serde(default, with = "listeners")]
        to: Vec<AgentName>,
        /// Who does not, because the channel lost it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        lost: Vec<AgentName>,
        /// Who does not, because too much of the sender was unread there.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        refused: Vec<AgentName>,
        /// Ticks that it takes beyond the usual.
        #[serde(default, skip_serializing_if = "is_zero")]
        delay: u64,
        /// The version of the sender's weights.
        generation: Generation,
        /// Turns of this episode whose words the sender was given: who said which part of its prompt.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        heard: Vec<u32>,
        /// What was said, as delivered.
        said: Said,
        /// Tokens of the message.
        tokens: usize,
        /// Tokens that the channel cut off.
        cut: usize,
    },
    /// A task instance ended.
    EpisodeFinished {
        /// Number of the episode within the run.
        episode: u64,
        /// The right intent.
        intent: String,
        /// Whether it was recognised.
        intent_correct: bool,
        /// Share of the required contents that the reply has, from 0 to 1.
        #[serde(deserialize_with = "number")]
        reward: f64,
        /// Whether all of them are there.
        resolved: bool,
        /// The evaluator's probability that they are.
        #[serde(deserialize_with = "number")]
        verdict: f64,
    },
    /// A talk ended.
    TalkFinished {
        /// Number of the episode within the run.
        episode: u64,
        /// The commonest of the agents' last words, untrusted; none where nobody spoke.
        most: Option<String>,
        /// The share of those who spoke that said it, from 0 to 1.
        #[serde(deserialize_with = "number")]
        agreement: f64,
    },
    /// An agent said too much within a tick: what passed the limit was not delivered.
    AgentSilenced {
        /// Who.
        agent: AgentName,
        /// The limit, as scenarios name it.
        limit: String,
        /// What it allows.
        most: u64,
        /// What there was.
        found: u64,
        /// The last tick in which its turns are skipped.
        until: u64,
    },
    /// A condition for learning was met.
    TriggerFired {
        /// Position of the trigger in the scenario, from 0.
        trigger: usize,
        /// `threshold` or `periodic`.
        rule: String,
        /// Who shall learn.
        agent: AgentName,
        /// The value that the rule looked at.
        #[serde(deserialize_with = "number")]
        value: f64,
        /// The job it starts; none while the agent is already learning or has nothing to learn from.
        job: Option<u64>,
    },
    /// A fine-tuning job began.
    TrainingStarted {
        /// Number of the job.
        job: u64,
        /// Who learns.
        agent: AgentName,
        /// `supervised` or `grpo`.
        objective: String,
        /// Number of examples or prompts.
        examples: usize,
        /// Steps it will take.
        steps: usize,
        /// The version it starts from.
        from: Generation,
    },
    /// A fine-tuning job took a step.
    TrainingStepped {
        /// Number of the job.
        job: u64,
        /// Who learns.
        agent: AgentName,
        /// The step, from 1.
        step: usize,
        /// Its loss.
        #[serde(deserialize_with = "number")]
        loss: f64,
        /// Norm of its gradient before clipping.
        #[serde(deserialize_with = "number")]
        norm: f64,
        /// Mean reward of sampled replies, for `grpo`.
        reward: Option<f64>,
    },
    /// A new version of an agent's weights came into use.
    GenerationPublished {
        /// Whose.
        agent: AgentName,
        /// The version.
        generation: Generation,
        /// The job that made it.
        job: u64,
        /// Digest of the weights.
        digest: String,
    },
    /// A job was thrown away and the old version kept.
    TrainingRolledBack {
        /// The job.
        job: u64,
        /// Whose.
        agent: AgentName,
        /// Why.
        reason: String,
    },
    /// An agent's actor ended unexpectedly.
    AgentFailed {
        /// Who.
        agent: AgentName,
        /// What was known of the cause.
        reason: String,
    },
    /// An agent's actor was started anew.
    AgentRestarted {
        /// Who.
        agent: AgentName,
        /// How many times so far.
        restarts: u32,
        /// The version of its weights it got back.
        generation: Generation,
    },
    /// An ordered fault struck.
    FaultInjected {
        /// Its kind, as in scenarios.
        fault: String,
        /// Whom, where it strikes an agent.
        agent: Option<AgentName>,
        /// In which episode.
        episode: Option<u64>,
    },
    /// An agent failed too often, and the society goes on without it.
    AgentQuarantined {
        /// Who.
        agent: AgentName,
        /// Its last failure.
        reason: String,
    },
    /// An answer could not be used.
    ReplyRejected {
        /// Whose.
        agent: AgentName,
        /// In which episode.
        episode: u64,
        /// Why.
        reason: String,
        /// How many answers of this turn were rejected so far.
        attempt: u32,
    },
    /// A turn passed without a message; nobody hears anything.
    TurnSkipped {
        /// The episode.
        episode: u64,
        /// The turn within the episode, from 0.
        turn: u32,
        /// Whose turn it was.
        agent: AgentName,
        /// Why it said nothing.
        reason: String,
    },
    /// The engine ended unexpectedly.
    EngineFailed {
        /// What was known of the cause.
        reason: String,
    },
    /// The engine was started anew.
    EngineRestarted {
        /// How many times so far.
        restarts: u32,
        /// Jobs that are brought back to where they were.
        jobs: usize,
    },
    /// The trainer's actor ended unexpectedly.
    TrainerFailed {
        /// What was known of the cause.
        reason: String,
    },
    /// The trainer's actor was started anew.
    TrainerRestarted {
        /// How many times so far.
        restarts: u32,
        /// Jobs that are brought back to where they were.
        jobs: usize,
    },
    /// The disk refused the recording; the run waits and tries again.
    RecordingPaused {
        /// What the system said.
        reason: String,
    },
    /// The disk took what it had refused.
    RecordingResumed {
        /// How often it was tried again.
        retries: u32,
    },
    /// A part failed too often, and the whole society is started anew.
    SocietyRestarted {
        /// What had failed, and why.
        reason: String,
        /// How many times so far.
        restarts: u32,
    },
    /// The holdout was scored.
    HoldoutScored {
        /// Before or after play.
        phase: Phase,
        /// The scores.
        scores: Scores,
    },
    /// The run ended by itself or was asked to.
    RunFinished {
        /// Episodes played to the end.
        episodes: u64,
        /// Whether a person ended it early.
        stopped: bool,
        /// The last version of each agent's weights.
        generations: BTreeMap<AgentName, Generation>,
    },
}

impl EventKind {
    /// Whether it tells of a fault and of what was done about it. Without these events, a run with faults that
    /// were all mended equals the run without faults.
    #[must_use]
    pub fn is_supervision(&self) -> bool {
        matches!(
            self,
            Self::FaultInjected { .. }
                | Self::AgentFailed { .. }
                | Self::AgentRestarted { .. }
                | Self::AgentQuarantined { .. }
                | Self::ReplyRejected { .. }
                | Self::EngineFailed { .. }
                | Self::EngineRestarted { .. }
                | Self::TrainerFailed { .. }
                | Self::TrainerRestarted { .. }
                | Self::RecordingPaused { .. }
                | Self::RecordingResumed { .. }
                | Self::SocietyRestarted { .. }
        )
    }
}
