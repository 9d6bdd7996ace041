//! Protocols, topologies, channels and talk as a user types them; not checked here.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::scenario::place::At;

/// Free talk: nothing is right or wrong, only how far the agents agree is measured.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct TalkFile {
    /// What episodes begin with, one after another.
    #[schemars(example = ["Where shall we eat?"])]
    pub(in crate::scenario) openings: At<Vec<String>>,
}

/// Who speaks when.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::scenario) enum ProtocolFile {
    /// One after another, each having heard all before it.
    Pipeline(PipelineFile),
    /// One after another, again and again; each is heard by its neighbours.
    RoundRobin(RoundRobinFile),
    /// All at once; each is heard by its neighbours.
    Broadcast(BroadcastFile),
    /// All at once; each is heard by some of its neighbours, drawn anew each time.
    Gossip(GossipFile),
}

/// One after another.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct PipelineFile {
    /// Who speaks first, second, third; in customer support an intent classifier, a writer, a judge of replies.
    #[schemars(example = ["understand", "reply", "evaluate"])]
    pub(in crate::scenario) order: At<Vec<At<String>>>,
}

/// One after another, again and again.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct RoundRobinFile {
    /// How often each speaks.
    #[schemars(range(min = 1, max = 100_000), example = 3)]
    pub(in crate::scenario) rounds: At<i64>,
    /// Who speaks first, second, third, …; by the alphabet where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<String>")]
    pub(in crate::scenario) order: Option<At<Vec<At<String>>>>,
}

/// All at once.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct BroadcastFile {
    /// How often each speaks.
    #[schemars(range(min = 1, max = 100_000), example = 3)]
    pub(in crate::scenario) rounds: At<i64>,
}

/// All at once, to some.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct GossipFile {
    /// How often each speaks.
    #[schemars(range(min = 1, max = 100_000), example = 3)]
    pub(in crate::scenario) rounds: At<i64>,
    /// How many hear a message.
    #[serde(default = "fanout")]
    #[schemars(range(min = 1, max = 4096))]
    pub(in crate::scenario) fanout: At<i64>,
}

fn fanout() -> At<i64> {
    At::untyped(2)
}

/// Who hears whom.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::scenario) enum TopologyFile {
    /// Everyone hears everyone.
    Complete(PlainFile),
    /// Each hears the two beside it, in speaking order; the last sits beside the first.
    Ring(PlainFile),
    /// Each hears those beside it, in speaking order.
    Line(PlainFile),
    /// All hear one, and it hears all.
    Star(StarFile),
    /// Each pair hears each other with the same probability, drawn from the seed.
    Random(RandomFile),
    /// Who is heard by whom, one by one.
    Edges(EdgesFile),
}

/// There is nothing to choose.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct PlainFile {}

/// A star.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct StarFile {
    /// The agent in the middle.
    #[schemars(example = &"chair")]
    pub(in crate::scenario) hub: At<String>,
}

/// Random pairs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct RandomFile {
    /// Probability that two agents hear each other.
    #[schemars(range(min = 0.0, max = 1.0), example = 0.1)]
    pub(in crate::scenario) probability: At<f64>,
}

/// Listed pairs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct EdgesFile {
    /// Pairs of agents: the first is heard by the second.
    #[schemars(example = [["anna", "ben"], ["ben", "anna"]])]
    pub(in crate::scenario) pairs: At<Vec<At<Vec<At<String>>>>>,
    /// Whether the second is heard by the first as well.
    #[serde(default = "both_ways")]
    pub(in crate::scenario) both_ways: bool,
}

fn both_ways() -> bool {
    true
}

/// What happens to messages.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::scenario) enum ChannelFile {
    /// Messages are texts.
    Text(TextChannelFile),
}

/// Messages are texts.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct TextChannelFile {
    /// Longest message in tokens, or in words of a scripted agent; the rest is cut off.
    #[schemars(range(min = 1, max = 4096), example = 48)]
    pub(in crate::scenario) max_tokens: At<i64>,
    /// Unread messages of one speaker that each listener has room for; further ones are refused there.
    #[serde(default = "credits")]
    #[schemars(range(min = 1, max = 100_000))]
    pub(in crate::scenario) credits: At<i64>,
    /// What goes wrong on the way.
    #[serde(default)]
    pub(in crate::scenario) impair: ImpairFile,
}

fn credits() -> At<i64> {
    At::untyped(64)
}

/// What goes wrong with messages on their way.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::scenario) struct ImpairFile {
    /// Probability that a listener does not get a message.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(in crate::scenario) loss: At<f64>,
    /// Most ticks that a message takes beyond the usual; each takes its own number, all equally likely.
    #[schemars(range(min = 0, max = 100_000))]
    pub(in crate::scenario) delay_ticks: At<i64>,
}

impl Default for ImpairFile {
    fn default() -> Self {
        Self { loss: At::untyped(0.0), delay_ticks: At::untyped(0) }
    }
}

/// How much an agent may say within a tick, over all episodes, before it is silenced.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::scenario) struct FloodFile {
    /// Messages; as many as it likes where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", extend("minimum" = 1, "maximum" = 1_000_000))]
    pub(in crate::scenario) messages_per_tick: Option<At<i64>>,
    /// Tokens, or words of a scripted agent; as many as it likes where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", extend("minimum" = 1, "maximum" = 1_000_000_000))]
    pub(in crate::scenario) tokens_per_tick: Option<At<i64>>,
    /// Messages with the same words; as many as it likes where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", extend("minimum" = 1, "maximum" = 1_000_000))]
    pub(in crate::scenario) repeats_per_tick: Option<At<i64>>,
    /// Ticks for which one who passed a limit is silenced.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub(in crate::scenario) silence_ticks: At<i64>,
}

impl Default for FloodFile {
    fn default() -> Self {
        Self {
            messages_per_tick: None,
            tokens_per_tick: None,
            repeats_per_tick: None,
            silence_ticks: At::untyped(8),
        }
    }
}
