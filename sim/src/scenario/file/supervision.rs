//! Supervision and ordered faults as a user types them; not checked here.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::scenario::place::At;
use crate::scenario::words;

/// What happens when a part of the society fails.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::scenario) struct SupervisionFile {
    /// Who is started anew when one fails: it alone, all, or it and those who were started after it.
    #[schemars(extend("enum" = words::names(&words::STRATEGIES)))]
    pub(in crate::scenario) strategy: At<String>,
    /// Restarts that each part may need within a period; one more is too many.
    #[schemars(range(min = 0, max = 100_000))]
    pub(in crate::scenario) restarts: At<i64>,
    /// Ticks after which a restart is forgotten.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub(in crate::scenario) period: At<i64>,
    /// How long to wait before a restart.
    pub(in crate::scenario) backoff: BackoffFile,
    /// What follows when a part without which there is no society failed too often.
    #[schemars(extend("enum" = words::names(&words::ESCALATIONS)))]
    pub(in crate::scenario) escalation: At<String>,
    /// Seconds of wall time that a turn may take; an agent that has not answered then is started anew.
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 1_000_000))]
    pub(in crate::scenario) turn_seconds: At<f64>,
    /// How often an answer that cannot be used is asked for before the turn is skipped.
    #[schemars(range(min = 1, max = 100))]
    pub(in crate::scenario) attempts: At<i64>,
}

impl Default for SupervisionFile {
    fn default() -> Self {
        Self {
            strategy: At::untyped("one_for_one".to_owned()),
            restarts: At::untyped(3),
            period: At::untyped(1_000),
            backoff: BackoffFile::default(),
            escalation: At::untyped("end_run".to_owned()),
            turn_seconds: At::untyped(600.0),
            attempts: At::untyped(3),
        }
    }
}

/// What happens when an agent fails; what is left out is as in `[supervision]`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::scenario) struct AgentSupervisionFile {
    /// Restarts that the agent may need within a period; one more is too many.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", extend("minimum" = 0, "maximum" = 100_000))]
    pub(in crate::scenario) restarts: Option<At<i64>>,
    /// Ticks after which a restart is forgotten.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", extend("minimum" = 1, "maximum" = 1_000_000_000))]
    pub(in crate::scenario) period: Option<At<i64>>,
    /// How long to wait before a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "BackoffFile")]
    pub(in crate::scenario) backoff: Option<BackoffFile>,
    /// Whether the society cannot do without it; otherwise its turns are skipped once it failed too often.
    pub(in crate::scenario) essential: bool,
}

impl Default for AgentSupervisionFile {
    fn default() -> Self {
        Self { restarts: None, period: None, backoff: None, essential: true }
    }
}

/// How long to wait before a restart: longer after each one that did not last.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::scenario) struct BackoffFile {
    /// Seconds before the first restart.
    #[schemars(range(min = 0.0, max = 3_600.0))]
    pub(in crate::scenario) first: At<f64>,
    /// What the wait is multiplied by after each restart within the period.
    #[schemars(range(min = 1.0, max = 100.0))]
    pub(in crate::scenario) factor: At<f64>,
    /// The longest wait in seconds.
    #[schemars(range(min = 0.0, max = 3_600.0))]
    pub(in crate::scenario) most: At<f64>,
    /// Share of the wait that chance may take away.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(in crate::scenario) jitter: At<f64>,
}

impl Default for BackoffFile {
    fn default() -> Self {
        Self {
            first: At::untyped(0.05),
            factor: At::untyped(2.0),
            most: At::untyped(5.0),
            jitter: At::untyped(0.2),
        }
    }
}

/// A fault that the experiment orders.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct FaultFile {
    /// What goes wrong.
    #[schemars(extend("enum" = words::names(&words::FAULTS)), example = &"panic")]
    pub(in crate::scenario) kind: At<String>,
    /// The agent whose turn it strikes; for the kinds of which agents are struck.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"reply")]
    pub(in crate::scenario) agent: Option<At<String>>,
    /// It strikes as soon as it can, at or after this tick.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", extend("minimum" = 0, "maximum" = 1_000_000_000, "examples" = [120]))]
    pub(in crate::scenario) at_tick: Option<At<i64>>,
    /// It strikes in every tick in which it can, with this probability, drawn from the seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", extend("exclusiveMinimum" = 0, "maximum" = 1, "examples" = [0.05]))]
    pub(in crate::scenario) probability: Option<At<f64>>,
    /// How often it strikes at most, once in a tick: once at a tick, without end by probability.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", extend("minimum" = 1, "maximum" = 1_000_000_000, "examples" = [1]))]
    pub(in crate::scenario) times: Option<At<i64>>,
    /// How much later a slow reply comes, in seconds of wall time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", extend("minimum" = 0, "maximum" = 1_000_000, "examples" = [0.5]))]
    pub(in crate::scenario) seconds: Option<At<f64>>,
}
