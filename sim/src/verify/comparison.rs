//! Compares each line of the second run with the recording, at the moment when it is written.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use super::Progress;
use crate::control::Control;
use crate::divergence::{Context, Divergence};
use crate::recorder::Observer;
use crate::recording::{Recorded, RecordingError, RecordingFile, Survey};

/// What is known so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// Events found equal.
    pub(super) events: u64,
    /// The last tick compared.
    pub(super) tick: u64,
    /// The first difference.
    pub(super) divergence: Option<Divergence>,
    /// SHA-256 of the equal part of the log.
    pub(super) sha256: String,
    /// The difference there is if no further line comes: the recording goes on.
    pub(super) missing: Option<Divergence>,
    /// Whether all of the recording was found equal.
    pub(super) complete: bool,
}

/// The comparison under way.
pub(super) struct Comparison {
    recording: RecordingFile,
    /// The line that should come next.
    expected: Option<Recorded>,
    recent: Context,
    context: usize,
    hash: Sha256,
    /// Events of the recording.
    of: u64,
    /// Whether the recorded run came to its end.
    finished: bool,
    /// The run was ended early in this tick.
    stopped_in: Option<u64>,
    control: Control,
    outcome: Arc<Mutex<Outcome>>,
    hear: Box<dyn FnMut(Progress) + Send>,
}

impl fmt::Debug for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Comparison").field("expected", &self.expected).finish_non_exhaustive()
    }
}

impl Comparison {
    pub(super) fn new(
        mut recording: RecordingFile,
        survey: &Survey,
        context: usize,
        control: Control,
        outcome: Arc<Mutex<Outcome>>,
        hear: Box<dyn FnMut(Progress) + Send>,
    ) -> Result<Self, RecordingError> {
        let mut hash = Sha256::new();
        hash.update(format!("{{\"format\":\"{}\"}}\n", recording.version()));
        let expected = recording.read()?;
        Ok(Self {
            recording,
            expected,
            recent: Context::default(),
            context,
            hash,
            of: survey.events,
            finished: survey.finished,
            stopped_in: survey.summary.stopped.then_some(survey.last_tick),
            control,
            outcome,
            hear,
        })
    }

    fn found(&self, change: impl FnOnce(&mut Outcome)) {
        change(&mut self.outcome.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn is_over(&self) -> bool {
        let outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        outcome.divergence.is_some() || (outcome.complete && !self.finished)
    }

    /// The second run need not go on.
    fn end(&self) {
        self.control.stop();
    }

    fn diverge(&self, expected: Option<&str>, line: &str) {
        let divergence = Divergence::new(&self.recent, expected, Some(line));
        self.found(|outcome| outcome.divergence = Some(divergence));
        self.end();
    }
}

impl Observer for Comparison {
    fn line(&mut self, line: &str) {
        if self.is_over() {
            return;
        }
        let Some(expected) = self.expected.take() else {
            return self.diverge(None, line);
        };
        if expected.line != line {
            return self.diverge(Some(&expected.line), line);
        }
        self.hash.update(line);
        self.hash.update("\n");
        self.recent.push(line, self.context);
        // What was read once can be read again, unless the file was changed meanwhile.
        self.expected = self.recording.read().ok().flatten();
        let missing = self
            .expected
            .as_ref()
            .map(|next| Divergence::new(&self.recent, Some(&next.line), None));
        let complete = self.expected.is_none();
        let sha256 = agents::backbone::digest::hexadecimal(&self.hash.clone().finalize());
        self.found(|outcome| {
            outcome.events = expected.event.seq + 1;
            outcome.tick = expected.event.tick;
            (outcome.sha256, outcome.missing, outcome.complete) = (sha256, missing, complete);
        });
        if complete && !self.finished {
            self.end();
        }
    }

    fn tick_ended(&mut self, tick: u64) {
        if self.stopped_in.is_some_and(|stopped| stopped <= tick + 1) {
            self.end();
        }
        let events = self.outcome.lock().unwrap_or_else(PoisonError::into_inner).events;
        (self.hear)(Progress { events, of: self.of, tick });
    }
}
