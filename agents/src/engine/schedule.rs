//! Which requests run now: sequences join and leave with every step, beside rows that want a class.
//!
//! ```text
//!  add ─▶ waiting, by agent ─ admit ─▶ running: reads its prompt in parts ─▶ one token a step ─▶ answer
//!             │                  ▲ sequences and bytes of cache are bounded
//!             └─ wants a class ─▶ one pass of its own ─▶ answer
//! ```
//! Nothing a request gets depends on when it came or on who runs beside it: a [`Session`] promises that of
//! its sequences, each draws from its own stream, and a row that wants a class goes through the network by
//! itself. So a request begins as soon as there is room for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;

use super::desk::Desk;
use super::meter::{Meter, Phase};
use super::queue::{Got, Key, Request, Want};
use crate::backbone::Backbone;
use crate::classifying;
use crate::error::{ModelError, Result};
use crate::name::AgentName;

/// What the scheduler keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sequences in progress at once.
    pub sequences: usize,
    /// Tokens of prompts that one step reads, beside one token of every sequence that writes.
    pub prompt_tokens: usize,
    /// Rows that want a class and are answered in one step.
    pub classes: usize,
    /// Bytes of keys and values; none for as many as the sequences need.
    pub cache_bytes: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { sequences: 256, prompt_tokens: 512, classes: 128, cache_bytes: None }
    }
}

/// Requests that wait, in the order they came, by who asks.
type Waiting = BTreeMap<AgentName, Vec<Request>>;

/// All requests of a device.
#[derive(Debug)]
pub(crate) struct Scheduler {
    limits: Limits,
    meter: Arc<Meter>,
    /// The number of the last announcement.
    round: u64,
    texts: Waiting,
    classes: Waiting,
    desks: Vec<Desk>,
}

impl Scheduler {
    pub(crate) fn new(limits: Limits, meter: Arc<Meter>) -> Self {
        let (texts, classes) = (Waiting::new(), Waiting::new());
        Self { limits, meter, round: 0, texts, classes, desks: Vec::new() }
    }

    /// Puts a request on the list. One that comes again (its agent was restarted) takes the place of the
    /// first; one of an earlier announcement is sent back.
    pub(crate) fn add(&mut self, request: Request) {
        if request.key.0 < self.round {
            request.answer.send(Err(ModelError::Cancelled));
            return;
        }
        self.cancel(&request.key);
        let waiting = match request.want {
            Want::Classes => &mut self.classes,
            Want::Text(_) => &mut self.texts,
        };
        waiting.entry(request.key.1.clone()).or_default().push(request);
        self.show();
    }

    /// A new announcement: what was asked under an earlier number is sent back.
    pub(crate) fn expect(&mut self, keys: &[Key]) {
        let round = keys.first().map_or(self.round, |key| key.0);
        self.round = round;
        self.drop_where(|key| key.0 < round);
    }

    /// Takes a request back, wherever it is; its answer says so.
    pub(crate) fn cancel(&mut self, key: &Key) {
        self.drop_where(|other| other == key);
    }

    fn drop_where(&mut self, is_dropped: impl Fn(&Key) -> bool) {
        for waiting in [&mut self.classes, &mut self.texts] {
            for own in waiting.values_mut() {
                while let Some(place) = own.iter().position(|request| is_dropped(&request.key)) {
                    own.remove(place).answer.send(Err(ModelError::Cancelled));
                }
            }
            waiting.retain(|_, own| !own.is_empty());
        }
        for desk in &mut self.desks {
            desk.drop_where(&is_dropped);
        }
        self.show();
    }

    /// Whether anything is to be done.
    pub(crate) fn has_work(&self) -> bool {
        self.waiting() > 0 || self.desks.iter().any(|desk| desk.running() > 0)
    }

    /// Requests that have not begun.
    pub(crate) fn waiting(&self) -> usize {
        self.texts.values().chain(self.classes.values()).map(Vec::len).sum()
    }

    /// One step: classes, then every sequence in progress.
    pub(crate) fn step(&mut self) {
        let meter = Arc::clone(&self.meter);
        let rows = self.take_classes();
        if !rows.is_empty() {
            meter.timed(Phase::Classes, || classify(rows, &meter));
        }
        self.admit();
        let limits = self.limits;
        for desk in &mut self.desks {
            if desk.running() > 0 {
                meter.timed(Phase::Texts, || desk.step(&limits, &meter));
            }
        }
        self.show();
    }

    /// The next rows that want a class, one of each agent in turn.
    fn take_classes(&mut self) -> Vec<Request> {
        let mut taken = Vec::new();
        while taken.len() < self.limits.classes && !self.classes.is_empty() {
            let mut left = self.limits.classes - taken.len();
            for own in self.classes.values_mut() {
                if left > 0 {
                    taken.push(own.remove(0));
                    left -= 1;
                }
            }
            self.classes.retain(|_, own| !own.is_empty());
        }
        taken
    }

    /// Begins texts while there is room, first those of the agent that has the fewest in progress.
    fn admit(&mut self) {
        let mut running: BTreeMap<AgentName, usize> = BTreeMap::new();
        for desk in &self.desks {
            for agent in desk.agents() {
                *running.entry(agent.clone()).or_default() += 1;
            }
        }
        let mut total: usize = running.values().sum();
        while total < self.limits.sequences {
            let fewest = self.texts.keys().min_by_key(|agent| running.get(*agent).unwrap_or(&0));
            let Some(agent) = fewest.cloned() else { break };
            let Some(own) = self.texts.get_mut(&agent) else { break };
            let request = own.remove(0);
            if own.is_empty() {
                self.texts.remove(&agent);
            }
            match self.begin(request) {
                Begun::Yes => {
                    total += 1;
                    *running.entry(agent).or_default() += 1;
                }
                Begun::Refused => {}
                Begun::NoRoom(request) => {
                    // It keeps its place; what is in progress will end and make room.
                    self.texts.entry(agent).or_default().insert(0, *request);
                    break;
                }
            }
        }
    }

    fn begin(&mut self, request: Request) -> Begun {
        let place = match self.desk(&request.backbone) {
            Ok(place) => place,
            Err(error) => {
                request.answer.send(Err(error));
                return Begun::Refused;
            }
        };
        let needed = self.desks[place].bytes_for(&request);
        let mut spare = u64::MAX;
        if let Some(budget) = self.limits.cache_bytes {
            if needed > budget {
                let error = ModelError::CacheTooSmall { needed, budget };
                request.answer.send(Err(error));
                return Begun::Refused;
            }
            let used = |desks: &[Desk]| desks.iter().map(Desk::bytes).sum::<u64>();
            while used(&self.desks) + needed > budget {
                // Shared beginnings save work only: they go before anybody waits.
                if !self.desks.iter_mut().any(Desk::forget_a_beginning) {
                    return Begun::NoRoom(Box::new(request));
                }
            }
            spare = budget - used(&self.desks) - needed;
        }
        if self.desks[place].begin(request, spare, &self.meter) {
            Begun::Yes
        } else {
            Begun::Refused
        }
    }

    /// The desk of a backbone.
    fn desk(&mut self, backbone: &Arc<Backbone>) -> Result<usize> {
        if let Some(place) = self.desks.iter().position(|desk| desk.is_of(backbone)) {
            return Ok(place);
        }
        self.desks.push(Desk::new(Arc::clone(backbone))?);
        Ok(self.desks.len() - 1)
    }

    fn show(&self) {
        let running = self.desks.iter().map(Desk::running).sum();
        let bytes = self.desks.iter().map(Desk::bytes).sum();
        self.meter.show(self.waiting(), running, bytes);
    }
}

/// What came of an attempt to begin a text.
enum Begun {
    Yes,
    /// It was answered already.
    Refused,
    NoRoom(Box<Request>),
}

/// Answers rows that want a class. Each goes through the network by itself, side by side on rayon's threads:
/// padding and neighbours would change the last bits.
fn classify(requests: Vec<Request>, meter: &Meter) {
    let tokens = requests.iter().map(|request| request.tokens.len()).sum();
    meter.classified(requests.len(), tokens);
    let answers: Vec<_> = requests
        .into_par_iter()
        .map(|request| {
            let Request { backbone, adapter, tokens, answer, .. } = request;
            let got = classifying::classify(&backbone, &adapter, &[tokens]);
            let missing = || ModelError::Step("a row got no answer".to_owned());
            (answer, got.and_then(|mut got| got.pop().map(Got::Classes).ok_or_else(missing)))
        })
        .collect();
    for (answer, got) in answers {
        answer.send(got);
    }
}

#[cfg(test)]
mod tests;
