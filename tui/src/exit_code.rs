//! How a command ended, as a number for scripts.

use std::process::ExitCode;

/// The ways a command can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It did what was asked.
    Done,
    /// The run failed: of itself, or for the network or the disk; or what was compared differs.
    RunFailed,
    /// The scenario, the data, a model or the arguments are at fault.
    BadInput,
    /// We made a mistake: something panicked that should not.
    OurBug,
    /// A person ended the run early, with `q` or Ctrl-C.
    Stopped,
    /// The system ended the run early.
    Terminated,
    /// The terminal of the run is gone.
    HungUp,
}

impl Exit {
    fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::RunFailed => 1,
            Self::BadInput => 2,
            Self::OurBug => 70,
            Self::HungUp => 129,
            Self::Stopped => 130,
            Self::Terminated => 143,
        }
    }

    /// Ends the process now. The log of a run is on disk up to its last finished tick.
    pub(crate) fn leave_at_once(self) -> ! {
        std::process::exit(i32::from(self.code()))
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
