//! How a command ended, as a number for scripts.

use std::process::ExitCode;

/// The ways a command can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It did what was asked.
    Done,
    /// The run failed: of itself, or for the network or the disk.
    RunFailed,
    /// The scenario, the data, a model or the arguments are at fault.
    BadInput,
    /// We made a mistake: something panicked that should not.
    OurBug,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::RunFailed => 1,
            Exit::BadInput => 2,
            Exit::OurBug => 70,
        })
    }
}
