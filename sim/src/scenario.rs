//! A checked scenario: after validation nobody asks again whether something is valid.
//!
//! What the user typed is in [`file`]; its form is checked in [`structure`], its meaning in [`validate`]; the
//! mistakes are in [`problem`]. Only [`load()`] touches the disk.

mod file;
mod load;
mod origin;
mod overrides;
mod place;
pub mod problem;
mod schema;
mod structure;
pub(crate) mod suggestion;
mod supervision;
mod validate;
mod words;

use std::collections::BTreeMap;
use std::path::PathBuf;

use agents::adapter::Method;
use agents::hub::HubModel;
use agents::learning::job::Settings;
use agents::name::AgentName;

pub use self::load::{changed_since, load, recorded};
pub use self::origin::Origin;
pub use self::schema::schema;
pub use self::supervision::{
    AgentSupervision, Escalation, FaultKind, FaultPlan, FaultTime, SupervisionPlan,
};

/// A society and what it shall do.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// The folder's name, or the file's where it is not called `scenario.toml`.
    pub name: String,
    /// Exact text of the scenario file, for the run directory.
    pub source: String,
    /// The text after overrides; equal to `source` without any.
    pub resolved: String,
    /// What its paths are relative to.
    pub origin: Origin,
    /// Where all randomness comes from.
    pub seed: u64,
    /// Training episodes to play.
    pub episodes: u64,
    /// How many are played side by side.
    pub concurrent_episodes: usize,
    /// Pretrained networks by name.
    pub backbones: BTreeMap<String, BackbonePlan>,
    /// The agents, by name.
    pub agents: BTreeMap<AgentName, AgentPlan>,
    /// Where queries come from and how replies are scored.
    pub task: TaskPlan,
    /// Who speaks when.
    pub protocol: ProtocolPlan,
    /// What happens to messages on their way.
    pub channel: ChannelPlan,
    /// When agents learn, and how.
    pub triggers: Vec<TriggerPlan>,
    /// Training steps that each job takes per tick.
    pub training_steps_per_tick: usize,
    /// What happens when a part of the society fails.
    pub supervision: SupervisionPlan,
    /// When the run is saved on the way.
    pub checkpoints: CheckpointPlan,
    /// Faults that the experiment orders.
    pub faults: Vec<FaultPlan>,
}

/// A pretrained network.
#[derive(Clone, Debug, PartialEq)]
pub struct BackbonePlan {
    /// Where its weights come from.
    pub source: BackboneSource,
    /// Replace the weights by random ones: the control without transfer.
    pub from_scratch: bool,
}

/// Where weights come from.
#[derive(Clone, Debug, PartialEq)]
pub enum BackboneSource {
    /// `polylogue-tiny`, embedded in the binary.
    Builtin,
    /// A folder in Hugging Face layout, or a `.gguf` file.
    Path(PathBuf),
    /// A model of the Hugging Face hub.
    Hub(HubModel),
}

/// An agent.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentPlan {
    /// The name of its backbone.
    pub backbone: String,
    /// How it is transferred to its part.
    pub transfer: TransferPlan,
    /// How knowledge is first put into its adapter.
    pub warm_up: WarmUpPlan,
    /// Sampling temperature of its replies; 0 picks the likeliest token.
    pub temperature: f64,
    /// What happens when it fails.
    pub supervision: AgentSupervision,
}

/// The transfer methods.
#[derive(Clone, Debug, PartialEq)]
pub enum TransferPlan {
    /// Frozen features and a classifier.
    Feature {
        /// What is classified.
        labels: Labels,
    },
    /// The backbone changed by a method; the agent writes texts.
    Text(Method),
    /// Upper layers and a new head trained.
    Head {
        /// Layers that stay frozen.
        freeze_layers: usize,
        /// What is classified.
        labels: Labels,
    },
    /// An adapter that was trained before.
    Adapter {
        /// Its folder.
        folder: PathBuf,
        /// What its head classifies; none for a writer.
        labels: Option<Labels>,
    },
}

impl TransferPlan {
    /// The method's name in scenarios.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Feature { .. } => "feature",
            Self::Text(method) => match method {
                Method::Frozen => "frozen",
                Method::Lora(_) => "lora",
                Method::Ia3(_) => "ia3",
                Method::Vera(_) => "vera",
                Method::Prompt { .. } => "prompt",
                Method::Prefix { .. } => "prefix",
                Method::Layers { .. } => "layers",
                Method::Full => "full",
            },
            Self::Head { .. } => "head",
            Self::Adapter { .. } => "adapter",
        }
    }

    /// What the agent classifies; none for a writer.
    #[must_use]
    pub fn labels(&self) -> Option<Labels> {
        match self {
            Self::Feature { labels } | Self::Head { labels, .. } => Some(*labels),
            Self::Adapter { labels, .. } => *labels,
            Self::Text(_) => None,
        }
    }
}

/// What a classifier tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labels {
    /// The intents of the task's data.
    Intent,
    /// Whether a reply resolves its query.
    Resolved,
}

/// First training of an adapter, before the society plays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WarmUpPlan {
    /// Labelled queries per intent that the agent sees.
    pub examples_per_intent: usize,
    /// Optimiser steps.
    pub steps: usize,
    /// Examples of one step.
    pub batch: usize,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// How the steps are taken.
    pub settings: Settings,
}

/// Queries and what resolves them.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskPlan {
    /// File with the queries that are played; `.jsonl` or `.csv`.
    pub train: PathBuf,
    /// File with queries that nothing is learned from.
    pub holdout: PathBuf,
    /// At most this many holdout queries are used.
    pub holdout_limit: usize,
    /// Names of the columns.
    pub columns: Columns,
}

/// The columns of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    /// The query.
    pub text: String,
    /// Its intent.
    pub intent: String,
    /// Groups of alternatives a reply must contain; the intent's own words where the data has none.
    pub must: String,
    /// A good reply; made from the intent's name where the data has none.
    pub reply: String,
}

impl Scenario {
    /// How the steps of an agent's trainings are taken: those of its warm-up, then of each of its triggers.
    #[must_use]
    pub fn settings_of(&self, agent: &AgentName) -> Vec<Settings> {
        let warm_up = self.agents.get(agent).map(|plan| plan.warm_up.settings);
        let triggers = self.triggers.iter().filter(|trigger| trigger.agent == *agent);
        let settings = triggers.map(|trigger| match trigger.train {
            TrainPlan::Supervised { settings, .. } | TrainPlan::Grpo { settings, .. } => settings,
        });
        warm_up.into_iter().chain(settings).collect()
    }
}

/// Who speaks when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProtocolPlan {
    /// One after another.
    Pipeline {
        /// The order: understand, reply, evaluate.
        order: Vec<AgentName>,
    },
}

/// What happens to messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelPlan {
    /// Longest message in tokens; the rest is cut off.
    pub max_tokens: usize,
}

/// When a run is saved on the way, so that it can go on from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointPlan {
    /// Ticks between two checkpoints; one is also taken where a part of the run begins.
    pub every_ticks: u64,
    /// Checkpoints that are kept besides those where a part of the run begins; 0 takes none at all.
    pub keep: usize,
}

/// A condition for learning, and the learning.
#[derive(Clone, Debug, PartialEq)]
pub struct TriggerPlan {
    /// Who learns.
    pub agent: AgentName,
    /// When.
    pub when: WhenPlan,
    /// How.
    pub train: TrainPlan,
}

/// When to learn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WhenPlan {
    /// The mean of a signal over the last episodes is too low.
    Threshold {
        /// The signal.
        signal: Signal,
        /// Episodes in the mean.
        mean_of: usize,
        /// Fires below this.
        below: f64,
        /// Episodes before it may fire again.
        cooldown: u64,
    },
    /// Every so many episodes.
    Periodic {
        /// Episodes between firings.
        every: u64,
    },
}

/// A number that each episode yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Share of required contents in the reply.
    Reward,
    /// 1 where the intent was recognised.
    IntentCorrect,
    /// 1 where the evaluator's verdict was right.
    VerdictCorrect,
}

/// How to learn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TrainPlan {
    /// On labels that the task revealed, or on replies that it accepted.
    Supervised {
        /// Optimiser steps.
        steps: usize,
        /// Examples of one step.
        batch: usize,
        /// Highest learning rate.
        learning_rate: f64,
        /// Most recent episodes that examples are drawn from.
        buffer: usize,
        /// How the steps are taken.
        settings: Settings,
    },
    /// Group-relative policy optimisation on the task's reward.
    Grpo {
        /// Optimiser steps.
        steps: usize,
        /// Prompts of one step.
        prompts: usize,
        /// Replies sampled for each prompt.
        group: usize,
        /// Learning rate.
        learning_rate: f64,
        /// Most recent episodes that prompts are drawn from.
        buffer: usize,
        /// How the steps are taken.
        settings: Settings,
    },
}
