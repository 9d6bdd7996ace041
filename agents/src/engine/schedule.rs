//! Which requests run now: sequences join and leave with every step, beside rows that want a class.
//!
//! ```text
//!  add ─▶ waiting, by agent ─ admit ─▶ running: reads its prompt in parts ─▶ one token a step ─▶ answer
//!             │                  ▲ sequences and bytes of cache are bounded
//!             └─ wants a class ─▶ read at once, beside others that want one ─▶ answer
//! ```
//! Nothing a request gets depends on when it came or on who runs beside it: a [session](crate::session) promises that of
//! its sequences and of features, each draws from its own stream, and what a session cannot read goes through
//! the network by itself. So a request begins as soon as there is room for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;

use super::desk::Desk;
use super::meter::{Meter, Phase};
use super::queue::{BOUND, Got, Key, Request, Want};
use super::waiting::{Ticket, Waiting};
use crate::backbone::Backbone;
use crate::classifying;
use crate::error::{ModelError, Result};

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

/// All requests of a device.
#[derive(Debug)]
pub(crate) struct Scheduler {
    limits: Limits,
    meter: Arc<Meter>,
    /// The number of the last announcement.
    round: u64,
    texts: Waiting<Request>,
    classes: Waiting<Request>,
    desks: Vec<Desk>,
}

impl Scheduler {
    pub(crate) fn new(limits: Limits, meter: Arc<Meter>) -> Self {
        let (texts, classes) = (Waiting::default(), Waiting::default());
        Self { limits, meter, round: 0, texts, classes, desks: Vec::new() }
    }

    /// Puts a request on the list. One that comes again (its agent was restarted) takes the place of the
    /// first; one of an earlier announcement is sent back, and one too many is told that the engine is busy.
    pub(crate) fn add(&mut self, request: Request) {
        if request.key.0 < self.round {
            request.answer.send(Err(ModelError::Cancelled));
            return;
        }
        self.cancel(&request.key);
        if self.waiting() >= BOUND {
            request.answer.send(Err(ModelError::EngineBusy { bound: BOUND }));
            return;
        }
        let waiting = match request.want {
            Want::Classes => &mut self.classes,
            Want::Text(_) => &mut self.texts,
        };
        waiting.add(request.key.clone(), request);
    }

    /// A new announcement: what was asked under an earlier number is sent back.
    pub(crate) fn expect(&mut self, keys: &[Key]) {
        let round = keys.first().map_or(self.round, |key| key.0);
        self.round = round;
        let mut dropped = self.classes.remove_before(round);
        dropped.extend(self.texts.remove_before(round));
        for request in dropped {
            request.answer.send(Err(ModelError::Cancelled));
        }
        self.desks.iter_mut().for_each(|desk| desk.drop_where(|key| key.0 < round));
    }

    /// Takes a request back, wherever it is; its answer says so.
    pub(crate) fn cancel(&mut self, key: &Key) {
        let waiting = self.classes.remove(key).or_else(|| self.texts.remove(key));
        match waiting {
            Some(request) => request.answer.send(Err(ModelError::Cancelled)),
            None => self.desks.iter_mut().for_each(|desk| desk.drop_where(|other| other == key)),
        }
    }

    /// Whether anything is to be done.
    pub(crate) fn has_work(&self) -> bool {
        self.waiting() > 0 || self.desks.iter().any(|desk| desk.running() > 0)
    }

    /// Requests that have not begun.
    pub(crate) fn waiting(&self) -> usize {
        self.texts.len() + self.classes.len()
    }

    /// One step: classes, then every sequence in progress.
    pub(crate) fn step(&mut self) {
        self.show();
        let meter = Arc::clone(&self.meter);
        let rows = self.classes.in_turn(self.limits.classes);
        if !rows.is_empty() {
            meter.timed(Phase::Classes, || self.classify(rows));
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

    /// Answers requests for a class: where weights can be read where they lie, all of a backbone together.
    fn classify(&mut self, requests: Vec<Request>) {
        let tokens = requests.iter().map(|request| request.tokens.len()).sum();
        self.meter.classified(requests.len(), tokens);
        let mut together: BTreeMap<usize, Vec<Request>> = BTreeMap::new();
        let mut apart = Vec::new();
        for request in requests {
            match self.desk(&request.backbone) {
                Ok(place) => together.entry(place).or_default().push(request),
                Err(_) => apart.push(request),
            }
        }
        for (place, requests) in together {
            apart.extend(self.desks[place].classify(requests));
        }
        classify_apart(apart);
    }

    /// Begins texts while there is room, first those of the agent that has the fewest in progress and has waited
    /// for longest.
    fn admit(&mut self) {
        self.texts.runs(self.desks.iter().flat_map(Desk::agents));
        let mut total: usize = self.desks.iter().map(Desk::running).sum();
        while total < self.limits.sequences {
            let Some(ticket) = self.texts.next() else { break };
            let agent = ticket.key.1.clone();
            match self.begin(ticket) {
                Begun::Yes => {
                    total += 1;
                    self.texts.began(&agent);
                }
                Begun::Refused => {}
                Begun::NoRoom(ticket) => {
                    // It is the next one again; what is in progress will end and make room.
                    self.texts.put_back(*ticket);
                    break;
                }
            }
        }
    }

    fn begin(&mut self, ticket: Ticket<Request>) -> Begun {
        let request = &ticket.item;
        let place = match self.desk(&request.backbone) {
            Ok(place) => place,
            Err(error) => {
                ticket.item.answer.send(Err(error));
                return Begun::Refused;
            }
        };
        let needed = self.desks[place].bytes_for(request);
        let mut spare = u64::MAX;
        if let Some(budget) = self.limits.cache_bytes {
            if needed > budget {
                let error = ModelError::CacheTooSmall { needed, budget };
                ticket.item.answer.send(Err(error));
                return Begun::Refused;
            }
            let used = |desks: &[Desk]| desks.iter().map(Desk::bytes).sum::<u64>();
            while used(&self.desks) + needed > budget {
                // Shared beginnings save work only: they go before anybody waits.
                if !self.desks.iter_mut().any(Desk::forget_a_beginning) {
                    return Begun::NoRoom(Box::new(ticket));
                }
            }
            spare = budget - used(&self.desks) - needed;
        }
        if self.desks[place].begin(ticket.item, spare, &self.meter) {
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
        self.desks.push(Desk::new(Arc::clone(backbone), self.limits.sequences)?);
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
    NoRoom(Box<Ticket<Request>>),
}

/// Answers requests for a class through the network that trains: on a GPU, and for encoders. Each goes by itself,
/// side by side on rayon's threads: padding and neighbours would change the last bits.
fn classify_apart(requests: Vec<Request>) {
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
