//! The engines of a run, one for each device.
//!
//! To the society they are one part: where one of them ends, all are started anew, and what any of them was
//! doing is asked again. Who has which is told by [`crate::placement`].

use std::sync::Arc;

use agents::engine::Engine;
use agents::engine::meter::{Clock, Usage};
use agents::engine::queue::{EngineHandle, Key};
use agents::engine::schedule::Limits;
use agents::engine::witness::Witness;
use agents::error::Result;

/// Running engines; dropping them ends their threads.
#[derive(Debug)]
pub struct Engines {
    all: Vec<Engine>,
    witness: Option<Arc<dyn Witness>>,
}

impl Engines {
    /// Starts one with each of the limits.
    ///
    /// # Errors
    /// When the system refuses another thread.
    pub fn start(limits: &[Limits], clock: Clock) -> Result<Self> {
        let start = |limits: &Limits| Engine::start_with(*limits, clock);
        Ok(Self { all: limits.iter().map(start).collect::<Result<_>>()?, witness: None })
    }

    /// The same with somebody who hears what they are asked from now on.
    #[must_use]
    pub fn witnessed(self, witness: Option<Arc<dyn Witness>>) -> Self {
        Self { witness, ..self }
    }

    /// Puts a new thread in the place of each.
    ///
    /// # Errors
    /// When the system refuses another thread.
    pub fn restart(&mut self) -> Result<()> {
        for engine in &mut self.all {
            // One that still works ends after its present step; one that hangs is left behind.
            let _ = engine.handle().lose();
            engine.restart()?;
        }
        Ok(())
    }

    /// Handles to send requests with.
    #[must_use]
    pub fn handles(&self) -> EngineHandles {
        let handle = |engine: &Engine| match &self.witness {
            Some(witness) => engine.handle().witnessed(Arc::clone(witness)),
            None => engine.handle(),
        };
        EngineHandles(self.all.iter().map(handle).collect())
    }
}

/// Sends requests to engines. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EngineHandles(Arc<[EngineHandle]>);

impl EngineHandles {
    /// The engine of a device, by its place in the list.
    ///
    /// # Panics
    /// Where there is no such device.
    #[must_use]
    pub fn of(&self, device: usize) -> &EngineHandle {
        &self.0[device]
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Announces requests to all of them: what was asked of any under an earlier number is dropped.
    ///
    /// # Errors
    /// When one has ended or its queue is full.
    pub fn expect(&self, keys: &[Key]) -> Result<()> {
        self.0.iter().try_for_each(|engine| engine.expect(keys.to_vec()))
    }

    /// Ends their threads as a crash would.
    pub fn lose(&self) {
        for engine in self.0.iter() {
            // One that is gone already is lost as ordered.
            let _ = engine.lose();
        }
    }

    /// What they have done so far, together.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let all = self.0.iter().map(EngineHandle::usage);
        all.reduce(|one, other| one.beside(&other)).unwrap_or_default()
    }

    /// The same, and how full they were at most since this was asked last.
    #[must_use]
    pub fn usage_at_most(&self) -> Usage {
        let all = self.0.iter().map(EngineHandle::usage_at_most);
        all.reduce(|one, other| one.beside(&other)).unwrap_or_default()
    }

    /// How many sequences they can have in progress, and how many bytes of keys and values, where that has a
    /// bound; together.
    #[must_use]
    pub fn room(&self) -> (usize, Option<u64>) {
        let limits = || self.0.iter().map(EngineHandle::limits);
        let sequences = limits().map(|limits| limits.sequences).sum();
        (sequences, limits().map(|limits| limits.cache_bytes).sum())
    }
}
