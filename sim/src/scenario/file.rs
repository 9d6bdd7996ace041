//! What a user types: the scenario file, field by field, before any check.
//!
//! The JSON schema and the walk of [`super::structure`] are made from these types; doc comments become the
//! schema's descriptions and the advice of error messages. Numbers are signed so that a negative one gets our
//! message. Nothing here leaves `scenario/`, and nothing here is trusted.

mod agents;
mod learning;
mod meeting;
mod supervision;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

pub(super) use self::agents::{
    AdapterFile, AgentFile, BackboneFile, Ia3File, LoraFile, ScriptFile, TransferFile,
};
pub(super) use self::learning::{SettingsFile, TrainFile, TriggerFile, WhenFile};
pub(super) use self::meeting::{
    ChannelFile, FloodFile, ProtocolFile, TalkFile, TextChannelFile, TopologyFile,
};
pub(super) use self::supervision::{AgentSupervisionFile, BackoffFile, FaultFile, SupervisionFile};
use super::place::At;

/// A society of agents and what it shall do.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Polylogue scenario")]
pub(super) struct ScenarioFile {
    /// Where all randomness comes from: the same seed, the same run.
    #[schemars(required, range(min = 0, max = i64::MAX), example = 7)]
    pub(super) seed: Option<At<i64>>,
    /// Training episodes to play; an episode is one query and what the agents make of it.
    #[schemars(required, range(min = 1, max = 10_000_000), example = 400)]
    pub(super) episodes: Option<At<i64>>,
    /// Episodes that are played side by side and share batches.
    #[serde(default = "concurrent_episodes")]
    #[schemars(range(min = 1, max = 4096))]
    pub(super) concurrent_episodes: At<i64>,
    /// Optimiser steps that each training job takes per tick.
    #[serde(default = "training_steps_per_tick")]
    #[schemars(range(min = 1, max = 1000))]
    pub(super) training_steps_per_tick: At<i64>,
    /// What happens when a part of the society fails.
    #[serde(default)]
    pub(super) supervision: SupervisionFile,
    /// Pretrained networks by name; a society of scripted agents needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "BTreeMap<At<String>, BackboneFile>")]
    pub(super) backbone: Option<BTreeMap<At<String>, BackboneFile>>,
    /// The agents by name: 1 to 32 of a-z, 0-9, `_` and `-`, starting with a letter.
    #[schemars(required)]
    pub(super) agents: Option<At<BTreeMap<At<String>, AgentFile>>>,
    /// What episodes are about.
    #[schemars(required)]
    pub(super) task: Option<TaskFile>,
    /// Who speaks when.
    #[schemars(required)]
    pub(super) protocol: Option<ProtocolFile>,
    /// Who hears whom; everyone hears everyone where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TopologyFile")]
    pub(super) topology: Option<At<TopologyFile>>,
    /// What happens to messages on their way.
    #[schemars(required)]
    pub(super) channel: Option<ChannelFile>,
    /// How much an agent may say within a tick before it is silenced.
    #[serde(default)]
    pub(super) flood: FloodFile,
    /// When the run is saved on the way, so that it can go on from there after a crash.
    #[serde(default)]
    pub(super) checkpoints: CheckpointsFile,
    /// When agents learn while the society plays, and how.
    #[serde(default)]
    pub(super) triggers: Vec<TriggerFile>,
    /// Faults that the experiment orders.
    #[serde(default)]
    pub(super) faults: Vec<FaultFile>,
}

impl ScenarioFile {
    /// The agents with their names, where the file has any.
    pub(super) fn agents(&self) -> impl Iterator<Item = (&At<String>, &AgentFile)> {
        self.agents.iter().flat_map(|all| &all.value)
    }

    /// The agent of a name; of one among copies, what it is a copy of.
    pub(super) fn agent(&self, name: &At<String>) -> Option<&AgentFile> {
        let agents = &self.agents.as_ref()?.value;
        let own = agents.get(name).filter(|agent| agent.copies.value < 2);
        own.or_else(|| {
            let (original, _) = name.value.rsplit_once('-')?;
            let agent = agents.get(&At::untyped(original.to_owned()))?;
            agent.names(original).contains(&name.value).then_some(agent)
        })
    }
}

fn concurrent_episodes() -> At<i64> {
    At::untyped(16)
}

fn training_steps_per_tick() -> At<i64> {
    At::untyped(2)
}

/// When the run is saved on the way.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct CheckpointsFile {
    /// Ticks between two checkpoints; one is also taken where a part of the run begins.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub(super) every_ticks: At<i64>,
    /// Checkpoints that are kept besides those where a part of the run begins; 0 takes none at all.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub(super) keep: At<i64>,
}

impl Default for CheckpointsFile {
    fn default() -> Self {
        Self { every_ticks: At::untyped(8), keep: At::untyped(3) }
    }
}

/// What episodes are about.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum TaskFile {
    /// Customer queries, each with an intent and contents that a good reply has.
    Support(Box<SupportFile>),
    /// Free talk among scripted agents.
    Talk(TalkFile),
}

/// Customer queries, each with an intent and contents that a good reply has.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SupportFile {
    /// File with the queries that are played, below the scenario's folder: `.jsonl` or `.csv`.
    #[schemars(example = &"travel.jsonl")]
    pub(super) train: At<String>,
    /// File with queries that nothing is learned from.
    #[schemars(example = &"travel-holdout.jsonl")]
    pub(super) holdout: At<String>,
    /// At most this many queries of the holdout are used.
    #[serde(default = "holdout_limit")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) holdout_limit: At<i64>,
    /// Names of the columns in both files.
    #[serde(default)]
    pub(super) columns: ColumnsFile,
}

fn holdout_limit() -> At<i64> {
    At::untyped(400)
}

/// Names of the columns.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ColumnsFile {
    /// The column of the query.
    pub(super) text: At<String>,
    /// The column of its intent.
    pub(super) intent: At<String>,
    /// The column of what a reply must contain; without it, the intent's own words.
    pub(super) must: At<String>,
    /// The column of a good reply; without it, one is made from the intent's name.
    pub(super) reply: At<String>,
}

impl Default for ColumnsFile {
    fn default() -> Self {
        let column = |name: &str| At::untyped(name.to_owned());
        Self {
            text: column("text"),
            intent: column("intent"),
            must: column("must"),
            reply: column("reply"),
        }
    }
}
