//! What the engine has done and how full it is, for whoever wants to look.
//!
//! Counts and times beside a run, never in its events: how requests fall into steps depends on who was
//! faster. Reading costs nothing and holds nobody up.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

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
    /// Requests that have not begun, now.
    pub waiting: u64,
    /// Sequences in progress, now.
    pub running: u64,
    /// Bytes of keys and values that are promised or kept, now.
    pub cache_bytes: u64,
}

impl Usage {
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
            steps: self.steps + other.steps,
            rows: self.rows + other.rows,
            prompt_tokens: self.prompt_tokens + other.prompt_tokens,
            shared_tokens: self.shared_tokens + other.shared_tokens,
            written_tokens: self.written_tokens + other.written_tokens,
            classes: self.classes + other.classes,
            class_tokens: self.class_tokens + other.class_tokens,
            training_steps: self.training_steps + other.training_steps,
            text_time: self.text_time.max(other.text_time),
            class_time: self.class_time.max(other.class_time),
            training_time: self.training_time.max(other.training_time),
            waiting: self.waiting + other.waiting,
            running: self.running + other.running,
            cache_bytes: self.cache_bytes + other.cache_bytes,
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
    numbers: [AtomicU64; 14],
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
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, numbers: Default::default() }
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
        let set = |number: Number, value: u64| {
            self.numbers[number as usize].store(value, Ordering::Relaxed);
        };
        set(Number::Waiting, waiting as u64);
        set(Number::Running, running as u64);
        set(Number::CacheBytes, cache_bytes);
    }
}
