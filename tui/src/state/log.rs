//! What happened to agents: learning and supervision, newest last, bounded. Not the recording: that one
//! forgets nothing.

use std::collections::VecDeque;

/// Lines that are kept.
const LINES: usize = 200;

/// A kind of thing that can happen to an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// It received its first own weights.
    Transferred,
    /// A trigger fired for it.
    Fired,
    /// A job began.
    Learning,
    /// A generation came into use.
    Swapped,
    /// A job was thrown away.
    RolledBack,
    /// Its actor ended.
    Failed,
    /// Its actor was started anew.
    Restarted,
    /// An ordered fault struck it.
    Struck,
    /// The society goes on without it.
    Quarantined,
    /// Its answer could not be used.
    Rejected,
    /// Its turn passed without a message.
    Skipped,
    /// It said too much.
    Silenced,
}

impl Notice {
    /// A word for people.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Transferred => "transferred",
            Self::Fired => "trigger",
            Self::Learning => "learns",
            Self::Swapped => "swap",
            Self::RolledBack => "rollback",
            Self::Failed => "failed:",
            Self::Restarted => "restart",
            Self::Struck => "fault",
            Self::Quarantined => "quarantined:",
            Self::Rejected => "rejected:",
            Self::Skipped => "skipped:",
            Self::Silenced => "silenced",
        }
    }
}

/// One line.
#[derive(Debug)]
pub(crate) struct LogLine {
    /// When, in virtual time.
    pub(crate) tick: u64,
    /// What kind.
    pub(crate) notice: Notice,
    /// To whom.
    pub(crate) agent: String,
    /// What more is known, untrusted.
    pub(crate) words: String,
}

/// The lines.
#[derive(Debug, Default)]
pub(crate) struct Log(VecDeque<LogLine>);

impl Log {
    pub(super) fn push(&mut self, tick: u64, notice: Notice, agent: &str, words: String) {
        if self.0.len() == LINES {
            self.0.pop_front();
        }
        let words = super::exchange::shortened(&words);
        self.0.push_back(LogLine { tick, notice, agent: agent.to_owned(), words });
    }

    /// The newest lines, at most so many, oldest of them first.
    pub(crate) fn newest(&self, count: usize) -> impl Iterator<Item = &LogLine> {
        self.0.range(self.0.len().saturating_sub(count)..)
    }
}
