//! Events on their way to screens: a bounded channel that would rather lose an event than hold up a run,
//! and says how many it lost. Recorder, metrics and triggers do not sit behind it: they lose nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use crate::engines::EngineHandles;
use crate::event::Event;
use crate::work::{TickWork, Work, Works};

/// Events that may wait for a screen.
const BOUND: usize = 16_384;

/// The conductor's end.
#[derive(Clone, Debug, Default)]
pub struct Feed {
    sender: Option<mpsc::Sender<Event>>,
    missed: Arc<AtomicU64>,
    works: Arc<Mutex<Works>>,
}

/// The screen's end.
#[derive(Debug)]
pub struct Watch {
    /// Events in order; ends when the run has ended.
    events: mpsc::Receiver<Event>,
    missed: Arc<AtomicU64>,
    works: Arc<Mutex<Works>>,
}

/// A feed and its watcher.
#[must_use]
pub fn channel() -> (Feed, Watch) {
    let (sender, events) = mpsc::channel(BOUND);
    let missed = Arc::new(AtomicU64::new(0));
    let works = Arc::new(Mutex::new(Works::default()));
    let feed =
        Feed { sender: Some(sender), missed: Arc::clone(&missed), works: Arc::clone(&works) };
    (feed, Watch { events, missed, works })
}

impl Feed {
    /// A feed that nobody watches.
    #[must_use]
    pub fn unwatched() -> Self {
        Self::default()
    }

    /// Whether somebody watches.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.sender.is_some()
    }

    /// Shows an event of the past, and waits for the watcher where that is needed: no run is held up.
    pub async fn catch_up(&self, event: Event) {
        if let Some(sender) = &self.sender {
            // A watcher that has left needs no past.
            let _ = sender.send(event).await;
        }
    }

    /// Shows an event to who watches; counts it as missed where the watcher lags too far.
    pub fn show(&self, event: &Event) {
        if let Some(sender) = &self.sender
            && sender.try_send(event.clone()).is_err()
        {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Feed {
    /// Shows who works for a run that begins, or goes on after so many milliseconds.
    pub fn begin_work(&self, engines: EngineHandles, milliseconds: u64) {
        self.works().begin(engines, milliseconds);
    }

    /// Shows what was done in a tick, before the events of the next one.
    pub fn show_work(&self, tick: TickWork) {
        if self.is_watched() {
            self.works().push(tick);
        }
    }

    fn works(&self) -> MutexGuard<'_, Works> {
        self.works.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// What was done up to the end of a tick, each asked for after those before it; none before the run begins.
    pub fn work(&self) -> impl FnMut(u64) -> Option<Work> + Send + 'static {
        let works = Arc::clone(&self.works);
        move |tick| works.lock().unwrap_or_else(PoisonError::into_inner).until(tick)
    }

    /// The events, and how many were dropped so far because the watcher lagged.
    pub fn into_parts(self) -> (mpsc::Receiver<Event>, impl Fn() -> u64 + Send + 'static) {
        (self.events, move || self.missed.load(Ordering::Relaxed))
    }
}
