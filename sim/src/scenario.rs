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
use agents::backbone::Precision;
use agents::hub::HubModel;
use agents::learning::job::Settings;
use agents::name::AgentName;
use agents::sampler::Filter;

use crate::script::Script;

pub(crate) use self::load::stays;
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
    /// What an episode is about and how it is scored.
    pub task: TaskPlan,
    /// Who speaks when.
    pub protocol: ProtocolPlan,
    /// Who hears whom, where the protocol does not say it.
    pub topology: TopologyPlan,
    /// What happens to messages on their way.
    pub channel: ChannelPlan,
    /// How much an agent may say before it is silenced.
    pub flood: FloodPlan,
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
    /// What it computes in.
    pub precision: Precision,
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
    /// What it thinks with.
    pub mind: MindPlan,
    /// What happens when it fails.
    pub supervision: AgentSupervision,
}

/// What an agent thinks with.
#[derive(Clone, Debug, PartialEq)]
pub enum MindPlan {
    /// A transferred model.
    Model(Box<ModelPlan>),
    /// A script.
    Script(Script),
}

impl AgentPlan {
    /// Its model; none of a scripted agent.
    #[must_use]
    pub fn model(&self) -> Option<&ModelPlan> {
        match &self.mind {
            MindPlan::Model(model) => Some(model),
            MindPlan::Script(_) => None,
        }
    }
}

/// A transferred model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelPlan {
    /// The name of its backbone.
    pub backbone: String,
    /// How it is transferred to its part.
    pub transfer: TransferPlan,
    /// How knowledge is first put into its adapter.
    pub warm_up: WarmUpPlan,
    /// Sampling temperature of its replies; 0 picks the likeliest token.
    pub temperature: f64,
    /// Which tokens of its replies may be drawn at all.
    pub filter: Filter,
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

/// What episodes are about.
#[derive(Clone, Debug, PartialEq)]
pub enum TaskPlan {
    /// Queries of customers.
    Support(SupportPlan),
    /// Free talk.
    Talk(TalkPlan),
}

/// Free talk: nothing is right or wrong, only how far the agents agree is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TalkPlan {
    /// What episodes begin with, one after another.
    pub openings: Vec<String>,
}

/// Queries and what resolves them.
#[derive(Clone, Debug, PartialEq)]
pub struct SupportPlan {
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
        let model = self.agents.get(agent).and_then(AgentPlan::model);
        let warm_up = model.map(|model| model.warm_up.settings);
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
        /// The order; in customer support: understand, reply, evaluate.
        order: Vec<AgentName>,
    },
    /// One after another, again and again; each is heard by its neighbours.
    RoundRobin {
        /// The order.
        order: Vec<AgentName>,
        /// How often each speaks.
        rounds: u32,
    },
    /// All at once; each is heard by its neighbours.
    Broadcast {
        /// How often each speaks.
        rounds: u32,
    },
    /// All at once; each is heard by some of its neighbours, drawn anew each time.
    Gossip {
        /// How often each speaks.
        rounds: u32,
        /// How many hear a message.
        fanout: usize,
    },
}

impl ProtocolPlan {
    /// Turns of an episode among so many agents.
    #[must_use]
    pub fn turns(&self, agents: usize) -> u64 {
        let rounds = match self {
            Self::Pipeline { .. } => 1,
            Self::RoundRobin { rounds, .. }
            | Self::Broadcast { rounds }
            | Self::Gossip { rounds, .. } => *rounds,
        };
        u64::from(rounds).saturating_mul(agents as u64)
    }
}

/// Who hears whom.
#[derive(Clone, Debug, PartialEq)]
pub enum TopologyPlan {
    /// Everyone hears everyone.
    Complete,
    /// Each hears the two beside it; the last sits beside the first.
    Ring,
    /// Each hears those beside it.
    Line,
    /// All hear one, and it hears all.
    Star {
        /// The one in the middle.
        hub: AgentName,
    },
    /// Each pair hears each other with the same probability (Erdős and Rényi 1959).
    Random {
        /// Probability of a pair.
        probability: f64,
    },
    /// What is listed.
    Edges {
        /// Who is heard, and by whom.
        edges: Vec<(AgentName, AgentName)>,
    },
}

/// What happens to messages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChannelPlan {
    /// Longest message in tokens, or in words of a scripted agent; the rest is cut off.
    pub max_tokens: usize,
    /// Unread messages of one speaker that each listener has room for; further ones are refused.
    pub credits: u32,
    /// What goes wrong on the way.
    pub impair: ImpairPlan,
}

/// What goes wrong with messages on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ImpairPlan {
    /// Probability that a listener does not get a message.
    pub loss: f64,
    /// Most ticks that a message takes beyond the usual; each takes its own number, all equally likely.
    pub delay_ticks: u64,
}

/// How much an agent may say within a tick before it is silenced; none where nothing limits it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FloodPlan {
    /// Messages.
    pub messages_per_tick: Option<u64>,
    /// Tokens.
    pub tokens_per_tick: Option<u64>,
    /// The same words.
    pub repeats_per_tick: Option<u64>,
    /// Ticks of silence.
    pub silence_ticks: u64,
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
