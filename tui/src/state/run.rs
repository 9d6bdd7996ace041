//! Which run it is and how far it got. Holds no wall time: events have none.

use sim::event::Phase;

/// How a run stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It goes on.
    #[default]
    Running,
    /// It played all of its episodes.
    Done,
    /// A person ended it early.
    Stopped,
    /// Its events ceased without a last one: it failed, or the recording was cut.
    Lost,
}

/// The header of a run.
#[derive(Debug, Default)]
pub(crate) struct Run {
    /// The scenario's name, untrusted; empty until the run began.
    pub(crate) scenario: String,
    /// The protocol's name.
    pub(crate) protocol: String,
    /// Where all randomness comes from.
    pub(crate) seed: u64,
    /// Training episodes to play.
    pub(crate) episodes: u64,
    /// The present part; none before the first.
    pub(crate) phase: Option<Phase>,
    /// Steps or episodes of this part that are done.
    pub(crate) done: u64,
    /// Steps or episodes of this part.
    pub(crate) length: u64,
    /// Whether agents just talk: such a run has no other part than play.
    pub(crate) is_talk: bool,
    /// Virtual time.
    pub(crate) tick: u64,
    /// Events taken in.
    pub(crate) seen: u64,
    /// Events dropped because the screen lagged.
    pub(crate) missed: u64,
    /// How it stands.
    pub(crate) ending: Ending,
}

impl Run {
    pub(super) fn begin(&mut self, scenario: &str, seed: u64, episodes: u64, protocol: &str) {
        scenario.clone_into(&mut self.scenario);
        protocol.clone_into(&mut self.protocol);
        (self.seed, self.episodes) = (seed, episodes);
    }

    pub(super) fn enter(&mut self, phase: Phase, length: u64) {
        self.is_talk |= phase == Phase::Play && self.phase.is_none();
        (self.phase, self.length, self.done) = (Some(phase), length, 0);
    }

    pub(super) fn finish_episode(&mut self) {
        self.done += 1;
    }

    /// Agents are transferred side by side: the furthest one says how far that is.
    pub(super) fn step_of_transfer(&mut self, step: u64) {
        self.done = self.done.max(step);
    }

    /// Share of the present part that is done, from 0 to 1.
    pub(crate) fn share(&self) -> f64 {
        share(self.done, self.length)
    }

    /// Whether no further events will come.
    pub(crate) fn is_over(&self) -> bool {
        self.ending != Ending::Running
    }
}

/// `done` of `length`, from 0 to 1; nothing of nothing is 0.
pub(crate) fn share(done: u64, length: u64) -> f64 {
    if length == 0 { 0.0 } else { (done as f64 / length as f64).min(1.0) }
}
