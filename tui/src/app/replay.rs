//! What an application knows of the recording that it shows, and what its keys do to it.

use sim::recording::Survey;

use super::{App, Command, Options};
use crate::keys::Action;

/// Ticks are jumped over in parts of the whole recording.
const JUMPS: u64 = 20;

/// A recording that is shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Replay {
    /// So many times as fast as the run was.
    pub(crate) pace: f64,
    /// The last tick there is.
    pub(crate) last_tick: u64,
    /// The number of the last event.
    last_event: Option<u64>,
}

impl Replay {
    /// The slowest pace.
    pub(crate) const SLOWEST: f64 = 1.0 / 64.0;
    /// The fastest pace.
    pub(crate) const FASTEST: f64 = 4_096.0;

    /// A recording at its beginning.
    pub(crate) fn new(pace: f64, survey: &Survey) -> Self {
        Self { pace, last_tick: survey.last_tick, last_event: survey.events.checked_sub(1) }
    }

    /// The pace as people write it: `4x`, `1/2x`.
    pub(crate) fn pace_in_words(&self) -> String {
        if self.pace >= 1.0 || self.pace <= 0.0 {
            format!("{}x", (self.pace * 10.0).round() / 10.0)
        } else {
            format!("1/{}x", ((10.0 / self.pace).round()) / 10.0)
        }
    }

    /// Whether an event is the last one.
    pub(crate) fn ends_with(&self, seq: u64) -> bool {
        self.last_event == Some(seq)
    }
}

impl App {
    /// An application that shows a recording.
    pub(crate) fn of_recording(options: Options, replay: Replay) -> Self {
        Self { replay: Some(replay), ..Self::new(options) }
    }

    /// Acts on a key that only a recording has.
    pub(super) fn replay_key(&mut self, action: Action) -> Option<Command> {
        let tick = self.state.run.tick;
        let replay = self.replay.as_mut()?;
        let jump = (replay.last_tick / JUMPS).max(1);
        match action {
            Action::Faster => replay.pace = (replay.pace * 2.0).min(Replay::FASTEST),
            Action::Slower => replay.pace = (replay.pace / 2.0).max(Replay::SLOWEST),
            Action::Step => {
                self.paused = true;
                return Some(Command::Step);
            }
            Action::JumpBack => return Some(Command::Seek(tick.saturating_sub(jump))),
            Action::JumpOn => return Some(Command::Seek(tick.saturating_add(jump))),
            _ => return None,
        }
        Some(Command::Pace(replay.pace))
    }

    /// The recording begins anew: nothing is known again.
    pub(super) fn begin_anew(&mut self) {
        self.state = crate::state::State::default();
        (self.scroll, self.summary) = (super::Scroll::default(), false);
    }
}
