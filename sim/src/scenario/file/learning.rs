//! Triggers as a user types them; not checked here.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::scenario::place::At;
use crate::scenario::words;

/// A condition for learning, and the learning.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct TriggerFile {
    /// The agent that learns.
    #[schemars(example = &"reply")]
    pub(in crate::scenario) agent: At<String>,
    /// The condition.
    pub(in crate::scenario) when: WhenFile,
    /// The learning.
    pub(in crate::scenario) train: TrainFile,
}

/// When to learn.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::scenario) enum WhenFile {
    /// The mean of a signal over the last episodes is too low.
    Threshold(ThresholdFile),
    /// Every so many episodes.
    Periodic(PeriodicFile),
}

/// The mean of a signal over the last episodes is too low.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct ThresholdFile {
    /// The number that is watched: each episode yields one.
    #[schemars(extend("enum" = words::names(&words::SIGNALS)), example = &"reward")]
    pub(in crate::scenario) signal: At<String>,
    /// Episodes in the mean.
    #[schemars(range(min = 1, max = 100_000), example = 32)]
    pub(in crate::scenario) mean_of: At<i64>,
    /// The trigger fires when the mean is below this.
    #[schemars(example = 0.7)]
    pub(in crate::scenario) below: At<f64>,
    /// Episodes before the trigger may fire again.
    #[schemars(range(min = 0, max = 10_000_000), example = 32)]
    pub(in crate::scenario) cooldown: At<i64>,
}

/// Every so many episodes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct PeriodicFile {
    /// Episodes between firings.
    #[schemars(range(min = 1, max = 10_000_000), example = 64)]
    pub(in crate::scenario) every: At<i64>,
}

/// How to learn.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::scenario) enum TrainFile {
    /// On labels that the task revealed, or on replies that it accepted.
    Supervised(SupervisedFile),
    /// Group-relative policy optimisation on the task's reward, for agents that write texts.
    Grpo(GrpoFile),
}

/// On labels that the task revealed, or on replies that it accepted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct SupervisedFile {
    /// Optimiser steps.
    #[schemars(range(min = 1, max = 100_000), example = 60)]
    pub(in crate::scenario) steps: At<i64>,
    /// Examples of one step.
    #[schemars(range(min = 1, max = 4096), example = 64)]
    pub(in crate::scenario) batch: At<i64>,
    /// Highest learning rate.
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 1), example = 0.01)]
    pub(in crate::scenario) learning_rate: At<f64>,
    /// Most recent episodes that examples are drawn from.
    #[schemars(range(min = 1, max = 1_000_000), example = 1024)]
    pub(in crate::scenario) buffer: At<i64>,
    /// How the steps are taken.
    #[serde(default)]
    pub(in crate::scenario) settings: SettingsFile,
}

/// Group-relative policy optimisation.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct GrpoFile {
    /// Optimiser steps.
    #[schemars(range(min = 1, max = 100_000), example = 8)]
    pub(in crate::scenario) steps: At<i64>,
    /// Prompts of one step.
    #[schemars(range(min = 1, max = 1024), example = 8)]
    pub(in crate::scenario) prompts: At<i64>,
    /// Replies sampled for each prompt; they are compared with each other, so two at least.
    #[schemars(range(min = 2, max = 256), example = 4)]
    pub(in crate::scenario) group: At<i64>,
    /// Learning rate.
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 1), example = 0.0003)]
    pub(in crate::scenario) learning_rate: At<f64>,
    /// Most recent episodes that prompts are drawn from.
    #[schemars(range(min = 1, max = 1_000_000), example = 256)]
    pub(in crate::scenario) buffer: At<i64>,
    /// How the steps are taken.
    #[serde(default)]
    pub(in crate::scenario) settings: SettingsFile,
}

/// How the steps of a training are taken; what is left out is usual.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::scenario) struct SettingsFile {
    /// How a gradient becomes a change of weights; AdamW where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("enum" = words::names(&words::OPTIMIZERS)))]
    pub(in crate::scenario) optimizer: Option<At<String>>,
    /// Share of each weight that is taken away at each step, times the learning rate (0.01).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", extend("minimum" = 0, "maximum" = 10))]
    pub(in crate::scenario) weight_decay: Option<At<f64>>,
    /// Largest norm of the gradient; a larger one is scaled down (1).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", extend("exclusiveMinimum" = 0, "maximum" = 1_000_000))]
    pub(in crate::scenario) clip: Option<At<f64>>,
    /// LoRA+: how much faster `B` learns than `A`; as fast where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", extend("minimum" = 1, "maximum" = 1_000))]
    pub(in crate::scenario) lora_plus: Option<At<f64>>,
    /// What the learning rate does after it has risen; a cosine where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("enum" = words::names(&words::SCHEDULES)))]
    pub(in crate::scenario) schedule: Option<At<String>>,
    /// Share of the steps in which the learning rate rises to its height (0.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", extend("minimum" = 0, "maximum" = 1))]
    pub(in crate::scenario) rise: Option<At<f64>>,
    /// Share of a class's target that is spread over all classes; for labels only (0).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", extend("minimum" = 0, "maximum" = 0.9))]
    pub(in crate::scenario) label_smoothing: Option<At<f64>>,
    /// Share that is dropped of what embeddings and each sub-layer add to the residual stream (0).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", extend("minimum" = 0, "maximum" = 0.9))]
    pub(in crate::scenario) hidden_dropout: Option<At<f64>>,
    /// How far classes are treated as equally likely, whatever their share of the examples: 1 is fully (0).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", extend("minimum" = 0, "maximum" = 2))]
    pub(in crate::scenario) logit_adjustment: Option<At<f64>>,
    /// Most tokens that a thread takes at once: more need more memory (256).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", extend("minimum" = 1, "maximum" = 1_048_576))]
    pub(in crate::scenario) micro_batch_tokens: Option<At<i64>>,
    /// Compute activations again for the backward pass instead of keeping them: less memory, more work.
    pub(in crate::scenario) recompute: bool,
    /// Limits: a training that passes one is thrown away, and the agent keeps its weights.
    pub(in crate::scenario) guard: GuardFile,
}

/// Limits of a training; none where it is not given.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::scenario) struct GuardFile {
    /// Largest norm of a step's gradient before it is clipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", extend("exclusiveMinimum" = 0, "maximum" = 1_000_000_000))]
    pub(in crate::scenario) norm: Option<At<f64>>,
    /// Largest mean divergence of what the agent says after the training from what it said before, in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", extend("exclusiveMinimum" = 0, "maximum" = 1_000))]
    pub(in crate::scenario) kl: Option<At<f64>>,
}
