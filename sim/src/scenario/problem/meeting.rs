//! Mistakes of who meets: scripted agents, talk, topologies.

use miette::{Diagnostic, SourceSpan};
use thiserror::Error;

/// One mistake of who meets, and how.
#[derive(Debug, Error, Diagnostic)]
#[expect(missing_docs, reason = "the fields are the holes of the message above each variant")]
#[non_exhaustive]
pub enum MeetingProblem {
    /// An agent that cannot say anything.
    #[error("the agent {name} has neither a model nor a script")]
    #[diagnostic(help(
        "write `transfer.lora = {{ … }}` or another transfer, with `backbone = \"NAME\"`; or, for an agent \
         without a model, `script.echo = {{}}`"
    ))]
    NoMind {
        name: String,
        #[label("what does it think with?")]
        at: SourceSpan,
    },
    /// Half a model.
    #[error("the agent {name} lacks `{missing}`")]
    #[diagnostic(help(
        "a model needs `backbone = \"NAME\"` and a transfer, such as `transfer.lora = {{ … }}` (docs/scenario.md has \
         all); a scripted agent has neither"
    ))]
    HalfAModel {
        name: String,
        missing: &'static str,
        #[label("`{missing}` is missing here")]
        at: SourceSpan,
    },
    /// Both.
    #[error("the agent {name} has a script, and `{also}` as well")]
    #[diagnostic(help("remove one of the two: a scripted agent has no model"))]
    TwoMinds {
        name: String,
        also: &'static str,
        #[label("a script or a model?")]
        at: SourceSpan,
    },
    /// A script where models are scored.
    #[error("customer support is for agents with models, and {name} has a script")]
    #[diagnostic(help("give it a `transfer`, or write `[task.talk]`"))]
    ScriptInSupport {
        name: String,
        #[label("a script")]
        at: SourceSpan,
    },
    /// A model where nothing is scored.
    #[error("`[task.talk]` is for scripted agents, and {name} has a model")]
    #[diagnostic(help("give it a `script`, or write `[task.support]`"))]
    ModelInTalk {
        name: String,
        #[label("a model")]
        at: SourceSpan,
    },
    /// A protocol that customer support does not know.
    #[error("customer support is played as a pipeline")]
    #[diagnostic(help("write `[protocol.pipeline]`, or `[task.talk]` with scripted agents"))]
    SupportWithoutPipeline {
        #[label("played like this?")]
        at: SourceSpan,
    },
    /// A list that must have something in it.
    #[error("`{key}` is empty")]
    #[diagnostic(help("write at least one, as in `{example}`"))]
    Empty {
        key: &'static str,
        example: &'static str,
        #[label("nothing here")]
        at: SourceSpan,
    },
    /// An edge that does not join two agents.
    #[error("an edge joins two different agents")]
    #[diagnostic(help("write `pairs = [[\"anna\", \"ben\"]]`: the first is heard by the second"))]
    NotAPair {
        #[label("not a pair")]
        at: SourceSpan,
    },
    /// Two answers to one question.
    #[error("a pipeline says itself who hears whom")]
    #[diagnostic(help("remove `[topology]`, or choose `[protocol.round_robin]`"))]
    TopologyOfAPipeline {
        #[label("not needed")]
        at: SourceSpan,
    },
    /// A scripted agent that shall learn.
    #[error("the scripted agent {name} cannot learn")]
    #[diagnostic(help("remove the trigger, or give the agent a model"))]
    ScriptLearns {
        name: String,
        #[label("has a script")]
        at: SourceSpan,
    },
    /// Two agents of one name.
    #[error("there are two agents {name}")]
    #[diagnostic(help("copies are called NAME-1, NAME-2, …: give the other one another name"))]
    SameName {
        name: String,
        #[label("makes the second")]
        at: SourceSpan,
    },
}
