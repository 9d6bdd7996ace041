//! What the engines of a run did, tick by tick, for people who watch it: a line of `times.jsonl`, and sums of them.
//!
//! Beside the events, never among them: how requests fall into steps depends on who was faster.

use std::collections::VecDeque;

pub use agents::engine::memory::mib;
pub use agents::engine::meter::Usage;
use serde::{Deserialize, Serialize};

use crate::engines::EngineHandles;

/// A tick that has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TickWork {
    /// Which.
    pub tick: u64,
    /// When it ended, in milliseconds since the run began.
    pub milliseconds: u64,
    /// What the engines did in it, and how full they were at most.
    #[serde(default, skip_serializing_if = "is_idle")]
    pub engine: Usage,
}

fn is_idle(did: &Usage) -> bool {
    *did == Usage::default()
}

/// What was done up to the end of a tick.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// The last tick.
    pub last: TickWork,
    /// What the engines did in all of them, and how full they were at most.
    pub whole: Usage,
    /// Milliseconds that the last tick took.
    pub last_took: u64,
    /// Milliseconds that all of them took.
    pub took: u64,
    /// What they do at this moment; none for a recording.
    pub now: Option<Now>,
}

/// Engines at this moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Now {
    /// How full they are.
    pub usage: Usage,
    /// Sequences that they can have in progress at once.
    pub sequences: usize,
    /// Bytes of keys and values that they may keep; none for as many as the sequences need.
    pub cache_bytes: Option<u64>,
}

impl Work {
    /// Nothing yet; the ticks before took so many milliseconds.
    #[must_use]
    pub fn after(milliseconds: u64) -> Self {
        let last = TickWork { milliseconds, ..TickWork::default() };
        Self { last, ..Self::default() }
    }

    /// Takes in a tick that has ended.
    pub fn add(&mut self, tick: &TickWork) {
        self.last_took = tick.milliseconds.saturating_sub(self.last.milliseconds);
        self.took += self.last_took;
        self.whole = self.whole.and(&tick.engine);
        self.last = *tick;
    }
}

/// What was done in a run that goes on, on its way to who watches.
#[derive(Debug, Default)]
pub(crate) struct Works {
    /// Ticks that nobody has asked for yet.
    ahead: VecDeque<TickWork>,
    work: Option<Work>,
    engines: Option<EngineHandles>,
}

impl Works {
    /// The run begins, or goes on after so many milliseconds.
    pub(crate) fn begin(&mut self, engines: EngineHandles, milliseconds: u64) {
        (self.work, self.engines) = (Some(Work::after(milliseconds)), Some(engines));
    }

    pub(crate) fn push(&mut self, tick: TickWork) {
        self.ahead.push_back(tick);
    }

    /// What was done up to the end of a tick; none before the run begins. Ticks before the one that was asked for
    /// last are not known any more.
    pub(crate) fn until(&mut self, tick: u64) -> Option<Work> {
        let work = self.work.as_mut()?;
        let ended = self.ahead.partition_point(|next| next.tick <= tick);
        self.ahead.drain(..ended).for_each(|next| work.add(&next));
        let now = self.engines.as_ref().map(|engines| {
            let (sequences, cache_bytes) = engines.room();
            Now { usage: engines.usage(), sequences, cache_bytes }
        });
        Some(Work { now, ..*work })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(tick: u64, milliseconds: u64, steps: u64, waiting: u64) -> TickWork {
        let engine = Usage { steps, waiting, ..Usage::default() };
        TickWork { tick, milliseconds, engine }
    }

    #[test]
    fn ticks_add_up_as_far_as_is_asked() {
        let mut works = Works::default();
        assert_eq!(works.until(9), None);
        works.work = Some(Work::after(100));
        for ended in [tick(4, 150, 2, 7), tick(5, 250, 3, 1), tick(7, 260, 1, 5)] {
            works.push(ended);
        }
        let found = works.until(5).unwrap();
        assert_eq!((found.last.tick, found.last_took, found.took), (5, 100, 150));
        assert_eq!((found.whole.steps, found.whole.waiting), (5, 7));
        assert_eq!(works.until(6), Some(found));
        assert_eq!(works.until(u64::MAX).unwrap().whole.steps, 6);
    }

    #[test]
    fn a_line_without_work_is_short_and_read_back() {
        let idle = TickWork { tick: 3, milliseconds: 20, engine: Usage::default() };
        let line = serde_json::to_string(&idle).unwrap();
        assert_eq!(line, r#"{"tick":3,"milliseconds":20}"#);
        assert_eq!(serde_json::from_str::<TickWork>(&line).unwrap(), idle);
        let busy = tick(4, 30, 2, 1);
        let line = serde_json::to_string(&busy).unwrap();
        assert_eq!(serde_json::from_str::<TickWork>(&line).unwrap(), busy);
    }
}
