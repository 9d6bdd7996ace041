//! The application: what is known ([`State`]), how the person looks at it, and what a key changes.
//!
//! [`App::key`] is pure and says what the loop must do; [`App::run`] is the loop and the only place that
//! waits. Drawing is in [`crate::view`] and changes nothing. Commands reach the run through a closure, so
//! a live run and a recording are driven by the same screen.

pub(crate) mod replay;

use std::fmt;
use std::ops::ControlFlow;
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::Backend;
use ratatui::layout::{Rect, Size};
use sim::event::Event;
use sim::work::Work;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use self::replay::Replay;
use crate::input::Input;
use crate::keys::{self, Action, Key};
use crate::state::State;
use crate::terminal::owning;
use crate::view;

/// The shortest time between two frames: at most twenty a second, and none when nothing changed.
const FRAME: Duration = Duration::from_millis(50);

/// Events taken in before keys are looked at again.
const BATCH: usize = 512;

/// What the loop must ask of the run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Command {
    /// Hold the run after this tick.
    Pause,
    /// Let it go on.
    Resume,
    /// End it after this tick.
    Stop,
    /// Take the screen down now. Where the run still goes on, the person does not want to wait for it.
    Leave,
    /// Play a recording so many times as fast as its run was.
    Pace(f64),
    /// Play one tick of a recording, and hold it.
    Step,
    /// Show a recording as it was when this tick ended.
    Seek(u64),
}

/// What does not change while the screen is up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// Draw with ASCII only.
    pub(crate) ascii: bool,
    /// Use colours. Nothing is told by colour alone.
    pub(crate) colour: bool,
    /// Where the run is written; shown at the end.
    pub(crate) run_directory: String,
}

/// Where inputs and events come from.
pub(crate) struct Sources {
    /// Keys and resizes; when this ends the terminal is gone.
    pub(crate) inputs: mpsc::Receiver<Input>,
    /// Events; when this ends the run has ended.
    pub(crate) events: mpsc::Receiver<Event>,
    /// How many events were dropped so far because the screen lagged.
    pub(crate) missed: Box<dyn Fn() -> u64>,
    /// What the engine did up to the end of a tick.
    pub(crate) work: Box<dyn FnMut(u64) -> Option<Work>>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

/// The parts of the screen that a person can go to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pane {
    /// The society.
    Agents,
    /// The stream of messages.
    #[default]
    Messages,
    /// Reward and losses.
    Curves,
}

/// Where in the stream the person reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Scroll {
    /// The newest entry is always in sight.
    #[default]
    Following,
    /// An entry is held at the top.
    Held {
        /// Its number.
        top: u64,
        /// Where the stream ended when the person stopped following.
        seen: u64,
    },
}

/// The application.
#[derive(Debug, Default)]
pub(crate) struct App {
    /// What is known of the run.
    pub(crate) state: State,
    /// What does not change.
    pub(crate) options: Options,
    /// The pane that keys go to.
    pub(crate) pane: Pane,
    /// Whether it has the whole screen.
    pub(crate) enlarged: bool,
    /// Whether the help covers everything.
    pub(crate) help: bool,
    /// Whether the summary of the ended run stands in place of the messages.
    pub(crate) summary: bool,
    /// Where in the stream the person reads.
    pub(crate) scroll: Scroll,
    /// The first agent in sight.
    pub(crate) top_agent: usize,
    /// Whether the person holds the run.
    pub(crate) paused: bool,
    /// Whether the person asked the run to end.
    pub(crate) stopping: bool,
    /// Whether the screen goes once the run is over: the system asked for the end, and nobody may be there.
    pub(crate) leaving: bool,
    /// The recording that is shown; none for a run that goes on.
    pub(crate) replay: Option<Replay>,
    /// Whether what the engine does covers everything but the help.
    pub(crate) engine: bool,
    /// What the engine did so far.
    pub(crate) work: Option<Work>,
    /// The size of the terminal.
    size: Size,
}

impl App {
    /// An application that knows nothing yet.
    pub(crate) fn new(options: Options) -> Self {
        Self { options, ..Self::default() }
    }

    /// Takes in an event.
    pub(crate) fn handle(&mut self, event: &Event) {
        if event.seq == 0 && self.state.run.seen > 0 {
            self.begin_anew();
        }
        let over = self.state.run.is_over();
        self.state.apply(event);
        self.celebrate(over);
        if self.replay.is_some_and(|replay| replay.ends_with(event.seq)) {
            self.close_feed();
        }
    }

    /// Events will not come any more.
    pub(crate) fn close_feed(&mut self) {
        let over = self.state.run.is_over();
        self.state.close_feed();
        self.celebrate(over);
    }

    /// How many events were dropped so far; true when that is news.
    pub(crate) fn missed(&mut self, missed: u64) -> bool {
        std::mem::replace(&mut self.state.run.missed, missed) != missed
    }

    /// What the engine did so far; true when that is news to the person.
    pub(crate) fn work(&mut self, work: Option<Work>) -> bool {
        let before = std::mem::replace(&mut self.work, work);
        let last = |work: Option<Work>| work.map(|work| work.last);
        last(before) != last(work) || self.engine && before != work
    }

    /// The terminal has another size.
    pub(crate) fn resize(&mut self, size: Size) {
        self.size = size;
    }

    /// Shows the summary at the moment when the run ends.
    fn celebrate(&mut self, was_over: bool) {
        if !was_over && self.state.run.is_over() {
            (self.summary, self.stopping) = (true, false);
            // A recording can go back and on.
            self.paused &= self.replay.is_some();
        }
    }

    /// Acts on a key; what is returned must be done by the loop.
    pub(crate) fn key(&mut self, key: Key) -> Option<Command> {
        match keys::meaning(key, self.replay.is_some())? {
            Action::Quit => return Some(self.quit()),
            Action::TogglePause => return self.toggle_pause(),
            Action::ToggleHelp => self.help = !self.help,
            Action::Back => self.back(),
            _ if self.help => {}
            Action::ToggleEngine => self.engine = !self.engine,
            Action::NextPane => self.go(self.pane.next()),
            Action::PreviousPane => self.go(self.pane.next().next()),
            Action::FocusAgents => self.go(Pane::Agents),
            Action::FocusMessages => self.go(Pane::Messages),
            Action::FocusCurves => self.go(Pane::Curves),
            Action::ToggleEnlarged => {
                self.enlarged = self.engine || !self.enlarged;
                self.engine = false;
            }
            Action::ToggleSummary => self.summary = !self.summary && self.state.run.is_over(),
            Action::ScrollUp => self.scroll_by(-1),
            Action::ScrollDown => self.scroll_by(1),
            Action::PageUp => self.scroll_by(-self.page()),
            Action::PageDown => self.scroll_by(self.page()),
            Action::ToOldest => self.scroll_by(i64::MIN),
            Action::ToNewest => self.scroll_by(i64::MAX),
            action @ (Action::Step
            | Action::Faster
            | Action::Slower
            | Action::JumpBack
            | Action::JumpOn) => return self.replay_key(action),
        }
        None
    }

    fn quit(&mut self) -> Command {
        if self.state.run.is_over() || self.stopping || self.replay.is_some() {
            return Command::Leave;
        }
        self.stopping = true;
        Command::Stop
    }

    fn toggle_pause(&mut self) -> Option<Command> {
        if self.state.run.is_over() || self.stopping {
            return None;
        }
        self.paused = !self.paused;
        Some(if self.paused { Command::Pause } else { Command::Resume })
    }

    /// Undoes the one thing that covers most.
    fn back(&mut self) {
        if self.help {
            self.help = false;
        } else if self.engine {
            self.engine = false;
        } else if self.enlarged {
            self.enlarged = false;
        } else if self.summary {
            self.summary = false;
        } else {
            self.scroll = Scroll::Following;
        }
    }

    fn go(&mut self, pane: Pane) {
        (self.pane, self.engine) = (pane, false);
    }

    /// Entries in a page.
    fn page(&self) -> i64 {
        let visible = match self.pane {
            Pane::Agents => 4,
            Pane::Messages | Pane::Curves => view::messages::visible(self, self.messages_area()),
        };
        i64::try_from(visible).unwrap_or(1).max(1)
    }

    /// Moves up or down in the agents, or else in the messages: curves have nothing to scroll.
    fn scroll_by(&mut self, by: i64) {
        if self.pane == Pane::Agents {
            let last = self.state.agents.len().saturating_sub(1) as i64;
            let top = (self.top_agent as i64).saturating_add(by).clamp(0, last);
            self.top_agent = usize::try_from(top).unwrap_or(0);
            return;
        }
        self.summary = false;
        let area = self.messages_area();
        let (first, end) = (self.state.stream.first(), self.state.stream.end());
        let (top, seen) = match self.scroll {
            Scroll::Following if by > 0 => return,
            Scroll::Following => (view::messages::first_in_sight(self, area), end),
            Scroll::Held { top, seen } => (top.max(first), seen),
        };
        let top = top.saturating_add_signed(by).clamp(first, end);
        let follows = by > 0 && view::messages::reaches_the_end(self, top, area);
        self.scroll = if follows { Scroll::Following } else { Scroll::Held { top, seen } };
    }

    fn messages_area(&self) -> Rect {
        view::messages_area(self, Rect::new(0, 0, self.size.width, self.size.height))
    }

    /// Draws, takes in events and acts on keys until the person leaves. Never ends by itself: the screen
    /// of a run that ended stays. What `obey` is given it must do at once and without waiting.
    ///
    /// # Errors
    /// When the terminal cannot be drawn on.
    pub(crate) async fn run<B: Backend>(
        &mut self,
        terminal: &mut Terminal<B>,
        mut sources: Sources,
        mut obey: impl FnMut(Command),
    ) -> Result<(), B::Error> {
        let mut frames = interval(FRAME);
        frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH);
        let (mut stale, mut open) = (true, true);
        self.resize(terminal.size()?);
        loop {
            tokio::select! {
                biased;
                input = sources.inputs.recv() => {
                    stale = true;
                    if owning(|| self.accept(input, &mut obey)).is_break() {
                        return Ok(());
                    }
                    self.resize(terminal.size()?);
                }
                _ = frames.tick() => {
                    stale |= self.missed((sources.missed)());
                    stale |= self.work((sources.work)(self.state.run.tick));
                    if std::mem::take(&mut stale) {
                        owning(|| terminal.draw(|frame| view::render(self, frame)))?;
                    }
                }
                taken = sources.events.recv_many(&mut batch, BATCH), if open => {
                    (stale, open) = (true, taken > 0);
                    owning(|| self.take_in(&mut batch, open));
                    if self.leaving && self.state.run.is_over() {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn accept(&mut self, input: Option<Input>, obey: &mut impl FnMut(Command)) -> ControlFlow<()> {
        let command = match input {
            Some(Input::Resized) => None,
            Some(Input::Key(key)) => self.key(key),
            Some(Input::Asked) => {
                self.leaving = true;
                self.key(Key::Interrupt)
            }
            None => Some(Command::Leave),
        };
        if let Some(command) = command {
            obey(command);
        }
        if command == Some(Command::Leave) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn take_in(&mut self, batch: &mut Vec<Event>, open: bool) {
        for event in batch.drain(..) {
            self.handle(&event);
        }
        if !open {
            self.close_feed();
        }
    }
}

impl Pane {
    fn next(self) -> Self {
        match self {
            Self::Agents => Self::Messages,
            Self::Messages => Self::Curves,
            Self::Curves => Self::Agents,
        }
    }
}

#[cfg(test)]
pub(crate) mod screenplay;
#[cfg(test)]
mod tests;
