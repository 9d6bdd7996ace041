//! Plays a recording into the channel that a live run would fill: at the pace at which it was recorded or
//! another one, held, tick by tick, or from another tick on.
//!
//! Going back is playing from the beginning: an event numbered 0 tells the screen to begin anew.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sim::event::Event;
use sim::recording::{self, Recorded, RecordingError, RecordingFile, Times};
use tokio::sync::mpsc;
use tokio::time::sleep;

/// The longest wait between two ticks, whatever the recording says: nobody wants to watch nothing.
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// Between two ticks without a recorded time.
const USUAL_WAIT: Duration = Duration::from_millis(250);

/// What a player can be told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Wish {
    /// Stop after this tick.
    Hold,
    /// Go on.
    GoOn,
    /// So many times as fast as the run was; more than 0.
    Pace(f64),
    /// One tick, then hold.
    Step,
    /// Be where this tick has just ended.
    Seek(u64),
}

/// A recording that is being played.
#[derive(Debug)]
pub(crate) struct Player {
    directory: PathBuf,
    recording: RecordingFile,
    /// The next event.
    ahead: Option<Event>,
    /// The tick that was played last.
    tick: u64,
    times: Times,
    pace: f64,
    playing: bool,
}

/// The screen is gone: there is nobody to play to.
struct Gone;

impl Player {
    /// At the beginning of a recording.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn open(directory: &Path, pace: f64) -> Result<Self, RecordingError> {
        let mut player = Self {
            directory: directory.into(),
            recording: recording::open(directory)?,
            ahead: None,
            tick: 0,
            times: Times::of(directory),
            pace,
            playing: true,
        };
        player.advance()?;
        Ok(player)
    }

    /// Plays until nobody watches any more; at the end it waits for what else is wished.
    ///
    /// # Errors
    /// When the recording is damaged.
    pub(crate) async fn play(
        mut self,
        from: u64,
        events: mpsc::Sender<Event>,
        mut wishes: mpsc::Receiver<Wish>,
    ) -> Result<(), RecordingError> {
        if from > 0 && self.until(from, &events).await?.is_err() {
            return Ok(());
        }
        loop {
            let wait = self.wait();
            let watched = tokio::select! {
                biased;
                wish = wishes.recv() => match wish {
                    Some(wish) => self.grant(wish, &events).await?,
                    None => Err(Gone),
                },
                () = sleep(wait.unwrap_or_default()), if wait.is_some() => self.play_tick(&events).await?,
            };
            if watched.is_err() {
                return Ok(());
            }
        }
    }

    /// How long until the next tick; none while it is held and at the end.
    fn wait(&self) -> Option<Duration> {
        let next = self.ahead.as_ref().filter(|_| self.playing)?;
        let recorded = self.times.between(self.tick, next.tick).map(Duration::from_millis);
        let seconds = recorded.unwrap_or(USUAL_WAIT).as_secs_f64() / self.pace;
        Some(Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT))
    }

    async fn grant(
        &mut self,
        wish: Wish,
        events: &mpsc::Sender<Event>,
    ) -> Result<Result<(), Gone>, RecordingError> {
        match wish {
            Wish::Hold => self.playing = false,
            Wish::GoOn => self.playing = true,
            Wish::Pace(pace) => self.pace = pace,
            Wish::Step => {
                self.playing = false;
                return self.play_tick(events).await;
            }
            Wish::Seek(tick) => {
                if tick < self.tick {
                    self.recording = recording::open(&self.directory)?;
                    self.tick = 0;
                    self.advance()?;
                }
                return self.until(tick, events).await;
            }
        }
        Ok(Ok(()))
    }

    /// Plays all events of the next tick.
    async fn play_tick(
        &mut self,
        events: &mpsc::Sender<Event>,
    ) -> Result<Result<(), Gone>, RecordingError> {
        match self.ahead.as_ref().map(|event| event.tick) {
            Some(tick) => self.until(tick, events).await,
            None => Ok(Ok(())),
        }
    }

    /// Plays all events up to the end of a tick.
    async fn until(
        &mut self,
        tick: u64,
        events: &mpsc::Sender<Event>,
    ) -> Result<Result<(), Gone>, RecordingError> {
        while let Some(event) = self.ahead.take_if(|event| event.tick <= tick) {
            self.tick = event.tick;
            if events.send(event).await.is_err() {
                return Ok(Err(Gone));
            }
            self.advance()?;
        }
        Ok(Ok(()))
    }

    fn advance(&mut self) -> Result<(), RecordingError> {
        self.ahead = self.recording.read()?.map(|Recorded { event, .. }| event);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
