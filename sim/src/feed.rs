//! Events on their way to screens: a bounded channel that would rather lose an event than hold up a run,
//! and says how many it lost. Recorder, metrics and triggers do not sit behind it: they lose nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

pub use agents::engine::memory::mib;
pub use agents::engine::meter::Usage;

use crate::event::Event;

/// Events that may wait for a screen.
const BOUND: usize = 16_384;

/// The conductor's end.
#[derive(Clone, Debug, Default)]
pub struct Feed {
    sender: Option<mpsc::Sender<Event>>,
    missed: Arc<AtomicU64>,
    engine: Arc<Mutex<Option<Usage>>>,
}

/// The screen's end.
#[derive(Debug)]
pub struct Watch {
    /// Events in order; ends when the run has ended.
    events: mpsc::Receiver<Event>,
    missed: Arc<AtomicU64>,
    engine: Arc<Mutex<Option<Usage>>>,
}

/// A feed and its watcher.
#[must_use]
pub fn channel() -> (Feed, Watch) {
    let (sender, events) = mpsc::channel(BOUND);
    let missed = Arc::new(AtomicU64::new(0));
    let engine = Arc::new(Mutex::new(None));
    let feed =
        Feed { sender: Some(sender), missed: Arc::clone(&missed), engine: Arc::clone(&engine) };
    (feed, Watch { events, missed, engine })
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
    /// Shows what the engine did in the last tick. It is beside the events: equal runs differ in it.
    pub fn show_engine(&self, did: Usage) {
        *self.engine.lock().unwrap_or_else(PoisonError::into_inner) = Some(did);
    }
}

impl Watch {
    /// What the engine did in the last tick, whenever it is asked for; none before the first.
    pub fn engine(&self) -> impl Fn() -> Option<Usage> + Send + 'static {
        let engine = Arc::clone(&self.engine);
        move || *engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The events, and how many were dropped so far because the watcher lagged.
    pub fn into_parts(self) -> (mpsc::Receiver<Event>, impl Fn() -> u64 + Send + 'static) {
        (self.events, move || self.missed.load(Ordering::Relaxed))
    }
}
