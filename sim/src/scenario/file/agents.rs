//! Backbones and agents as a user types them; not checked here.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::learning::SettingsFile;
use super::supervision::AgentSupervisionFile;
use crate::scenario::place::At;
use crate::scenario::words;

/// A pretrained network: exactly one of `builtin`, `path` and `hub`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct BackboneFile {
    /// A network inside the binary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("enum" = words::names(&words::BUILTINS)))]
    pub(in crate::scenario) builtin: Option<At<String>>,
    /// A folder in Hugging Face layout or a `.gguf` file, below the scenario's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub(in crate::scenario) path: Option<At<String>>,
    /// A model of the Hugging Face hub, fetched before the run: `owner/name@revision`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"HuggingFaceTB/SmolLM2-135M@main")]
    pub(in crate::scenario) hub: Option<At<String>>,
    /// Replace the weights by random ones: the control without transfer.
    #[serde(default)]
    pub(in crate::scenario) from_scratch: bool,
    /// What the network computes in; adapters are trained in f32 all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("enum" = words::names(&words::PRECISIONS)))]
    pub(in crate::scenario) dtype: Option<At<String>>,
}

/// An agent: either a model, with `backbone` and `transfer`, or a `script`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct AgentFile {
    /// The name of its backbone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"base")]
    pub(in crate::scenario) backbone: Option<At<String>>,
    /// How the backbone's knowledge is transferred to the agent's part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TransferFile")]
    pub(in crate::scenario) transfer: Option<TransferFile>,
    /// How many such agents there are; from 2 on they are called NAME-1, NAME-2, …, with as many digits as the
    /// last one needs.
    #[serde(default = "copies")]
    #[schemars(range(min = 1, max = 4096))]
    pub(in crate::scenario) copies: At<i64>,
    /// What it says instead of a model, for societies whose protocol or channel is the question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ScriptFile")]
    pub(in crate::scenario) script: Option<ScriptFile>,
    /// First training on a few labelled examples, before the society plays.
    #[serde(default)]
    pub(in crate::scenario) warm_up: WarmUpFile,
    /// Sampling temperature of its replies; 0 picks the likeliest token.
    #[serde(default = "temperature")]
    #[schemars(range(min = 0.0, max = 2.0))]
    pub(in crate::scenario) temperature: At<f64>,
    /// Only the so many likeliest tokens may be drawn; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "usize", range(min = 1, max = 1_000_000), example = &40)]
    pub(in crate::scenario) top_k: Option<At<i64>>,
    /// Only the fewest tokens may be drawn whose probabilities reach this sum; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", range(min = 0.0, max = 1.0), example = &0.9)]
    pub(in crate::scenario) top_p: Option<At<f64>>,
    /// Only tokens may be drawn that are at least this share as likely as the likeliest; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", range(min = 0.0, max = 1.0), example = &0.05)]
    pub(in crate::scenario) min_p: Option<At<f64>>,
    /// What happens when it fails.
    #[serde(default)]
    pub(in crate::scenario) supervision: AgentSupervisionFile,
}

fn copies() -> At<i64> {
    At::untyped(1)
}

impl AgentFile {
    /// The names of the agents that it stands for, given the one that it has in the file.
    pub(in crate::scenario) fn names(&self, name: &str) -> Vec<String> {
        match self.copies.value {
            ..2 => vec![name.to_owned()],
            copies => {
                let most = copies.min(4096);
                let digits = most.to_string().len();
                (1..=most).map(|number| format!("{name}-{number:0digits$}")).collect()
            }
        }
    }
}

fn temperature() -> At<f64> {
    At::untyped(0.7)
}

/// What a scripted agent says.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::scenario) enum ScriptFile {
    /// What it heard last.
    Echo(EchoFile),
    /// Always the same.
    Fixed(FixedFile),
    /// An answer to each thing that it may hear last.
    Table(TableFile),
    /// Random words.
    RandomWords(RandomWordsFile),
    /// A random one of the opinions that it hears (the voter model).
    Voter(OpinionsFile),
    /// The commonest of its own opinion and those that it hears (majority rule).
    Majority(OpinionsFile),
}

/// There is nothing to choose.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct EchoFile {}

/// Always the same.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct FixedFile {
    /// Its words.
    pub(in crate::scenario) text: String,
}

/// Answers.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct TableFile {
    /// What it hears, and what it answers.
    pub(in crate::scenario) answers: BTreeMap<String, String>,
    /// What it says to everything else.
    pub(in crate::scenario) otherwise: String,
}

/// Random words.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct RandomWordsFile {
    /// The words it knows.
    #[schemars(example = ["yes", "no", "maybe"])]
    pub(in crate::scenario) words: At<Vec<String>>,
    /// How many it says.
    #[serde(default = "length")]
    #[schemars(range(min = 1, max = 4096))]
    pub(in crate::scenario) length: At<i64>,
}

fn length() -> At<i64> {
    At::untyped(4)
}

/// Opinions.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct OpinionsFile {
    /// The opinions; an agent begins with a random one.
    #[schemars(example = ["red", "blue"])]
    pub(in crate::scenario) among: At<Vec<String>>,
}

/// The transfer methods.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::scenario) enum TransferFile {
    /// Frozen features of the backbone and a classifier on top.
    Feature(FeatureFile),
    /// Low-rank updates of the backbone's linear maps; the agent writes texts.
    Lora(LoraFile),
    /// A new head, and the upper layers trained with it.
    Head(HeadFile),
    /// Learned scales of activations (IA3); the agent writes texts.
    Ia3(Ia3File),
    /// Shared random projections with learned scales; the agent writes texts.
    Vera(VeraFile),
    /// Learned embeddings before every text; the agent writes texts.
    Prompt(VirtualFile),
    /// Learned keys and values before every text, in every layer; the agent writes texts.
    Prefix(VirtualFile),
    /// A copy of the whole backbone, all of it trained; the agent writes texts.
    Full(FullFile),
    /// An adapter that was trained before, here or by PEFT.
    Adapter(AdapterFile),
}

/// An adapter that was trained before.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct AdapterFile {
    /// A folder in PEFT's layout, below the scenario's folder.
    #[schemars(example = &"my-adapter")]
    pub(in crate::scenario) path: At<String>,
    /// What its head classifies; an adapter without a head writes texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("enum" = words::names(&words::LABELS)))]
    pub(in crate::scenario) labels: Option<At<String>>,
}

/// Frozen features and a classifier.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct FeatureFile {
    /// What is classified.
    #[schemars(extend("enum" = words::names(&words::LABELS)), example = &"intent")]
    pub(in crate::scenario) labels: At<String>,
}

/// Low-rank updates.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct LoraFile {
    /// Rank of the updates: more can express more and costs more.
    #[schemars(range(min = 1, max = 256), example = 8)]
    pub(in crate::scenario) rank: At<i64>,
    /// Numerator of the scale `alpha / rank`; twice the rank where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", extend("exclusiveMinimum" = 0, "maximum" = 4096))]
    pub(in crate::scenario) alpha: Option<At<f64>>,
    /// The linear maps that are updated, in every layer.
    #[schemars(extend("items" = module()), example = ["q_proj", "v_proj"])]
    pub(in crate::scenario) targets: At<Vec<At<String>>>,
    /// Share of inputs that are dropped in training.
    #[serde(default = "zero")]
    #[schemars(range(min = 0.0, max = 0.9))]
    pub(in crate::scenario) dropout: At<f64>,
    /// Scale by `alpha` over the root of the rank instead of the rank (rsLoRA).
    #[serde(default)]
    pub(in crate::scenario) rank_stabilized: bool,
    /// Train direction and magnitude of the weights apart (DoRA).
    #[serde(default)]
    pub(in crate::scenario) dora: bool,
    /// Where the updates start; `pissa` starts at the weight's principal directions.
    #[serde(default = "init")]
    #[schemars(extend("enum" = words::names(&words::INITS)))]
    pub(in crate::scenario) init: At<String>,
}

fn zero() -> At<f64> {
    At::untyped(0.0)
}

fn init() -> At<String> {
    At::untyped("kaiming".to_owned())
}

/// Learned scales.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct Ia3File {
    /// The linear maps that are scaled, in every layer.
    #[schemars(extend("items" = module()), example = ["k_proj", "v_proj", "down_proj"])]
    pub(in crate::scenario) targets: At<Vec<At<String>>>,
    /// Which of them are scaled on their input instead of their output.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("items" = module()), example = ["down_proj"])]
    pub(in crate::scenario) feedforward: Vec<At<String>>,
}

/// Shared random projections.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct VeraFile {
    /// Rank of the projections; they are not trained, so it may be large.
    #[schemars(range(min = 1, max = 4096), example = 64)]
    pub(in crate::scenario) rank: At<i64>,
    /// The linear maps that are updated, in every layer.
    #[schemars(extend("items" = module()), example = ["q_proj", "v_proj"])]
    pub(in crate::scenario) targets: At<Vec<At<String>>>,
}

/// Virtual tokens.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct VirtualFile {
    /// How many virtual tokens stand before every text; they take their share of the context.
    #[schemars(range(min = 1, max = 1024), example = 8)]
    pub(in crate::scenario) tokens: At<i64>,
}

/// Everything; there is nothing to choose.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct FullFile {}

fn module() -> serde_json::Value {
    serde_json::json!({ "type": "string", "enum": words::targets() })
}

/// A new head.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct HeadFile {
    /// Lower layers that stay as they were pretrained.
    #[schemars(range(min = 0, max = 256), example = 2)]
    pub(in crate::scenario) freeze_layers: At<i64>,
    /// What is classified.
    #[schemars(extend("enum" = words::names(&words::LABELS)), example = &"resolved")]
    pub(in crate::scenario) labels: At<String>,
}

/// First training of an agent's adapter.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::scenario) struct WarmUpFile {
    /// Labelled queries per intent that the agent sees.
    #[schemars(range(min = 1, max = 10_000))]
    pub(in crate::scenario) examples_per_intent: At<i64>,
    /// Optimiser steps; 0 leaves the adapter as it starts.
    #[schemars(range(min = 0, max = 100_000))]
    pub(in crate::scenario) steps: At<i64>,
    /// Examples of one step.
    #[schemars(range(min = 1, max = 4096))]
    pub(in crate::scenario) batch: At<i64>,
    /// Highest learning rate.
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 1))]
    pub(in crate::scenario) learning_rate: At<f64>,
    /// How the steps are taken.
    pub(in crate::scenario) settings: SettingsFile,
}

impl Default for WarmUpFile {
    fn default() -> Self {
        Self {
            examples_per_intent: At::untyped(4),
            steps: At::untyped(60),
            batch: At::untyped(64),
            learning_rate: At::untyped(1e-2),
            settings: SettingsFile::default(),
        }
    }
}
