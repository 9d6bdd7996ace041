//! What a person may ask of a run in progress: pause, go on, end early. Read by the conductor between
//! ticks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// A switch board shared by who runs and who watches. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Control(Arc<Switches>);

#[derive(Debug, Default)]
struct Switches {
    paused: AtomicBool,
    stopped: AtomicBool,
    changed: Notify,
}

impl Control {
    /// Holds the run after the present tick.
    pub fn pause(&self) {
        self.0.paused.store(true, Ordering::SeqCst);
    }

    /// Lets a held run go on.
    pub fn resume(&self) {
        self.0.paused.store(false, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }

    /// Ends the run after the present tick, paused or not.
    pub fn stop(&self) {
        self.0.stopped.store(true, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }

    /// Whether the run is held.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.0.paused.load(Ordering::SeqCst)
    }

    /// Whether the run shall end.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.stopped.load(Ordering::SeqCst)
    }

    /// Waits while the run is held and not stopped.
    pub async fn ready(&self) {
        loop {
            let changed = self.0.changed.notified();
            if !self.is_paused() || self.is_stopped() {
                return;
            }
            changed.await;
        }
    }
}
