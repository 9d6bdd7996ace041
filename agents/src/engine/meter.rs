//! What the engine has done and how full it is, for whoever wants to look.
//!
//! Counts and times beside a run, never in its events: how requests fall into steps depends on who was
//! faster. Reading costs nothing and holds nobody up.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::schedule::Limits;

/// Nanoseconds since some moment that stays the same.
pub type Clock = fn() -> u64;

/// What the engine spends time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Reading prompts and writing texts.
    Texts,
    /// Rows that want a class.
    Classes,
    /// Steps of fine-tuning jobs.
    Training,
}

/// Counters of an engine since it began, and how full it is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Steps in which texts were read or written.
    pub steps: u64,
    /// Sequences that took part in them, one for each step.
    pub rows: u64,
    /// Tokens of prompts that were read.
    pub prompt_tokens: u64,
    /// Tokens of prompts that were read before, for another prompt of the same agent and generation.
    pub shared_tokens: u64,
    /// Tokens that were written.
    pub written_tokens: u64,
    /// Rows that wanted a class.
    pub classes: u64,
    /// Their tokens.
    pub class_tokens: u64,
    /// Steps of fine-tuning jobs, one for each job.
    pub training_steps: u64,
    /// Nanoseconds with texts.
    pub text_time: u64,
    /// Nanoseconds with classes.
    pub class_time: u64,
    /// Nanoseconds with fine-tuning.
    pub training_time: u64,
    /// Requests that have not begun: now, or at most.
    pub waiting: u64,
    /// Sequences in progress: now, or at most.
    pub running: u64,
    /// Bytes of keys and values that are promised or kept: now, or at most.
    pub cache_bytes: u64,
}

impl Usage {
    /// What was counted here and later; how full it was at most.
    #[must_use]
    pub fn and(&self, later: &Self) -> Self {
        Self {
            steps: self.steps + later.steps,
            rows: self.rows + later.rows,
            prompt_tokens: self.prompt_tokens + later.prompt_tokens,
            shared_tokens: self.shared_tokens + later.shared_tokens,
            written_tokens: self.written_tokens + later.written_tokens,
            classes: self.classes + later.classes,
            class_tokens: self.class_tokens + later.class_tokens,
            training_steps: self.training_steps + later.training_steps,
            text_time: self.text_time + later.text_time,
            class_time: self.class_time + later.class_time,
            training_time: self.training_time + later.training_time,
            waiting: self.waiting.max(later.waiting),
            running: self.running.max(later.running),
            cache_bytes: self.cache_bytes.max(later.cache_bytes),
        }
    }

    /// What was counted after `earlier`; how full it is stays as it is.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            steps: self.steps.saturating_sub(earlier.steps),
            rows: self.rows.saturating_sub(earlier.rows),
            prompt_tokens: self.prompt_tokens.saturating_sub(earlier.prompt_tokens),
            shared_tokens: self.shared_tokens.saturating_sub(earlier.shared_tokens),
            written_tokens: self.written_tokens.saturating_sub(earlier.written_tokens),
            classes: self.classes.saturating_sub(earlier.classes),
            class_tokens: self.class_tokens.saturating_sub(earlier.class_tokens),
            training_steps: self.training_steps.saturating_sub(earlier.training_steps),
            text_time: self.text_time.saturating_sub(earlier.text_time),
            class_time: self.class_time.saturating_sub(earlier.class_time),
            training_time: self.training_time.saturating_sub(earlier.training_time),
            ..*self
        }
    }

    /// Several engines as one: what they counted is added, and times are those of the one that took longest,
    /// because engines work side by side.
    #[must_use]
    pub fn beside(&self, other: &Self) -> Self {
        Self {
            text_time: self.text_time.max(other.text_time),
            class_time: self.class_time.max(other.class_time),
            training_time: self.training_time.max(other.training_time),
            waiting: self.waiting + other.waiting,
            running: self.running + other.running,
            cache_bytes: self.cache_bytes + other.cache_bytes,
            ..self.and(other)
        }
    }

    /// Tokens that went through the network for answers.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.prompt_tokens + self.written_tokens + self.class_tokens
    }

    /// Tokens a second while answering; 0 where no time was measured.
    #[must_use]
    pub fn tokens_per_second(&self) -> f64 {
        let seconds = (self.text_time + self.class_time) as f64 / 1e9;
        if seconds > 0.0 { self.tokens() as f64 / seconds } else { 0.0 }
    }

    /// Nanoseconds of work of all kinds.
    #[must_use]
    pub fn time(&self) -> u64 {
        self.text_time + self.class_time + self.training_time
    }

    /// Mean number of sequences in a step.
    #[must_use]
    pub fn occupancy(&self) -> f64 {
        if self.steps == 0 { 0.0 } else { self.rows as f64 / self.steps as f64 }
    }
}

/// Counts for one engine; shared with who watches.
#[derive(Debug)]
pub struct Meter {
    clock: Clock,
    limits: Limits,
    numbers: [AtomicU64; 14],
    /// The most of the last three numbers since it was asked for.
    most: [AtomicU64; 3],
}

/// Where each number of [`Usage`] stands, in its order.
#[derive(Clone, Copy)]
enum Number {
    Steps,
    Rows,
    PromptTokens,
    SharedTokens,
    WrittenTokens,
    Classes,
    ClassTokens,
    TrainingSteps,
    TextTime,
    ClassTime,
    TrainingTime,
    Waiting,
    Running,
    CacheBytes,
}

impl Meter {
    pub(crate) fn new(clock: Clock, limits: Limits) -> Self {
        Self { clock, limits, numbers: Default::default(), most: Default::default() }
    }

    /// What the engine keeps to.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The counters, and how full it was at most since this was asked last.
    #[must_use]
    pub fn read_most(&self) -> Usage {
        let now = self.read();
        let most = [now.waiting, now.running, now.cache_bytes];
        let mut most = most.iter().zip(&self.most);
        let mut next = || most.next().map_or(0, |(now, most)| most.swap(*now, Ordering::Relaxed));
        Usage { waiting: next(), running: next(), cache_bytes: next(), ..now }
    }

    /// The counters as they are now.
    #[must_use]
    pub fn read(&self) -> Usage {
        let get = |number: Number| self.numbers[number as usize].load(Ordering::Relaxed);
        Usage {
            steps: get(Number::Steps),
            rows: get(Number::Rows),
            prompt_tokens: get(Number::PromptTokens),
            shared_tokens: get(Number::SharedTokens),
            written_tokens: get(Number::WrittenTokens),
            classes: get(Number::Classes),
            class_tokens: get(Number::ClassTokens),
            training_steps: get(Number::TrainingSteps),
            text_time: get(Number::TextTime),
            class_time: get(Number::ClassTime),
            training_time: get(Number::TrainingTime),
            waiting: get(Number::Waiting),
            running: get(Number::Running),
            cache_bytes: get(Number::CacheBytes),
        }
    }

    fn add(&self, number: Number, more: usize) {
        self.numbers[number as usize].fetch_add(more as u64, Ordering::Relaxed);
    }

    pub(crate) fn timed<T>(&self, phase: Phase, work: impl FnOnce() -> T) -> T {
        let start = (self.clock)();
        let done = work();
        let number = match phase {
            Phase::Texts => Number::TextTime,
            Phase::Classes => Number::ClassTime,
            Phase::Training => Number::TrainingTime,
        };
        let took = (self.clock)().saturating_sub(start);
        self.numbers[number as usize].fetch_add(took, Ordering::Relaxed);
        done
    }

    pub(crate) fn stepped(&self, rows: usize, prompt_tokens: usize, written: usize) {
        self.add(Number::Steps, 1);
        self.add(Number::Rows, rows);
        self.add(Number::PromptTokens, prompt_tokens);
        self.add(Number::WrittenTokens, written);
    }

    pub(crate) fn shared(&self, tokens: usize) {
        self.add(Number::SharedTokens, tokens);
    }

    pub(crate) fn classified(&self, rows: usize, tokens: usize) {
        self.add(Number::Classes, rows);
        self.add(Number::ClassTokens, tokens);
    }

    pub(crate) fn trained(&self, jobs: usize) {
        self.add(Number::TrainingSteps, jobs);
    }

    pub(crate) fn show(&self, waiting: usize, running: usize, cache_bytes: u64) {
        let numbers = [Number::Waiting, Number::Running, Number::CacheBytes];
        let values = [waiting as u64, running as u64, cache_bytes];
        for ((number, value), most) in numbers.into_iter().zip(values).zip(&self.most) {
            self.numbers[number as usize].store(value, Ordering::Relaxed);
            most.fetch_max(value, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_is_that_since_it_was_asked_last() {
        let meter = Meter::new(|| 0, Limits::default());
        let most = || {
            let most = meter.read_most();
            (most.waiting, most.running, most.cache_bytes)
        };
        meter.show(9, 0, 5);
        meter.show(2, 7, 80);
        meter.show(0, 3, 80);
        assert_eq!((meter.read().waiting, meter.read().running), (0, 3));
        assert_eq!(most(), (9, 7, 80));
        // What is still so counts anew.
        assert_eq!(most(), (0, 3, 80));
        meter.show(0, 1, 0);
        assert_eq!((most(), most()), ((0, 3, 80), (0, 1, 0)));
    }
}
