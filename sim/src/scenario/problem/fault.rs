//! Mistakes of ordered faults.

use miette::{Diagnostic, SourceSpan};
use thiserror::Error;

/// One mistake of a `[[faults]]` entry.
#[derive(Debug, Error, Diagnostic)]
#[expect(missing_docs, reason = "the fields are the holes of the message above each variant")]
#[non_exhaustive]
pub enum FaultProblem {
    /// A fault of an unknown kind.
    #[error("there is no fault {name}")]
    Unknown {
        name: String,
        #[label("not known")]
        at: SourceSpan,
        #[help]
        help: String,
    },
    /// A fault that never strikes.
    #[error("the fault {name} has neither `at_tick` nor `probability`")]
    #[diagnostic(help("write `at_tick = 120` for once, or `probability = 0.05` for every tick"))]
    NoTime {
        name: String,
        #[label("when?")]
        at: SourceSpan,
    },
    /// A fault with two times.
    #[error("a fault has both `at_tick` and `probability`")]
    #[diagnostic(help("keep one of them; for both, write two entries"))]
    TwoTimes {
        #[label("at a tick")]
        first: SourceSpan,
        #[label("or by chance?")]
        at: SourceSpan,
    },
    /// A fault of an agent without one.
    #[error("the fault {name} strikes an agent, and none is named")]
    #[diagnostic(help("write `agent = \"NAME\"`"))]
    NoAgent {
        name: String,
        #[label("whose?")]
        at: SourceSpan,
    },
    /// An agent for a fault that strikes none.
    #[error("the fault {name} strikes no agent")]
    #[diagnostic(help("remove `agent`: engine, trainer and disk are shared by all"))]
    NotOfAnAgent {
        name: String,
        #[label("not needed")]
        at: SourceSpan,
    },
    /// A duration for a fault that has none.
    #[error("the fault {name} takes no `seconds`")]
    #[diagnostic(help("remove `seconds`, or write `kind = \"slow_reply\"`"))]
    NotSlow {
        name: String,
        #[label("not needed")]
        at: SourceSpan,
    },
    /// A fault of what is not there.
    #[error("the fault {name} strikes what models run on, and no agent has a model")]
    #[diagnostic(help("remove it: scripted agents use neither engine nor trainer"))]
    NoModel {
        name: String,
        #[label("strikes nothing")]
        at: SourceSpan,
    },
}
