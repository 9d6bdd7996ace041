//! What was said, episode by episode: a bounded stream in the order in which episodes ended, and the
//! episodes that are under way beside it.
//!
//! Many episodes go on at once; in the order of their beginning the newest in sight would never be whole.
//! Texts are kept raw and untrusted; they are made safe where they are shown.

use std::collections::{BTreeMap, VecDeque};

use super::{Phase, Said};

/// Entries that are kept.
const ENTRIES: usize = 500;

/// Episodes under way that are kept, the newest.
const UNDER_WAY: usize = 1_024;

/// Messages of one exchange that are kept, the newest.
const MESSAGES: usize = 64;

/// Bytes of one text that are kept.
const TEXT: usize = 4_096;

/// Something said.
#[derive(Debug)]
pub(crate) struct Message {
    /// By whom.
    pub(crate) from: String,
    /// With which version of its weights.
    pub(crate) generation: u32,
    /// What, untrusted.
    pub(crate) said: Said,
    /// Tokens that the channel cut off.
    pub(crate) cut: usize,
}

impl Message {
    pub(super) fn new(from: &str, generation: u32, said: &Said, cut: usize) -> Self {
        let said = match said {
            Said::Text { text } => Said::Text { text: shortened(text) },
            Said::Label { label, confidence } => {
                Said::Label { label: shortened(label), confidence: *confidence }
            }
            Said::Verdict { resolved } => Said::Verdict { resolved: *resolved },
        };
        Self { from: from.to_owned(), generation, said, cut }
    }
}

/// How an episode ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// A query was answered.
    Answer(Answer),
    /// A talk came to its end.
    Talk {
        /// The commonest of the last words, untrusted; empty where nobody spoke.
        most: String,
        /// The share of the speakers that said it, from 0 to 1.
        agreement: f64,
    },
}

/// How a query was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The right intent.
    pub(crate) intent: String,
    /// Whether it was recognised.
    pub(crate) intent_correct: bool,
    /// From 0 to 1.
    pub(crate) reward: f64,
    /// Whether the reply had everything.
    pub(crate) resolved: bool,
    /// Whether the evaluator's verdict agreed with that.
    pub(crate) verdict_correct: bool,
}

/// One episode as it can be read.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// Its number.
    pub(crate) episode: u64,
    /// What was asked, untrusted.
    pub(crate) query: String,
    /// What was said so far.
    pub(crate) messages: Vec<Message>,
    /// How it ended; none when it was not played to its end.
    pub(crate) outcome: Option<Outcome>,
}

/// One thing in the stream.
#[derive(Debug)]
pub(crate) enum Entry {
    /// A part of the run began here.
    Phase(Phase),
    /// An episode that ended.
    Exchange(Exchange),
}

/// The stream; its entries are numbered from 0 and keep their numbers when old ones are dropped.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    entries: VecDeque<Entry>,
    first: u64,
    under_way: BTreeMap<u64, Exchange>,
}

impl Stream {
    /// Number of the oldest entry that is still there.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// Number of the next entry to come.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// An entry by its number.
    pub(crate) fn get(&self, number: u64) -> Option<&Entry> {
        let offset = number.checked_sub(self.first)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    /// Episodes under way, the oldest first.
    pub(crate) fn under_way(&self) -> impl ExactSizeIterator<Item = &Exchange> {
        self.under_way.values()
    }

    pub(super) fn divide(&mut self, phase: Phase) {
        self.abandon();
        self.push(Entry::Phase(phase));
    }

    pub(super) fn open(&mut self, episode: u64, query: &str) {
        if self.under_way.len() == UNDER_WAY {
            self.under_way.pop_first();
        }
        let query = shortened(query);
        let exchange = Exchange { episode, query, messages: Vec::new(), outcome: None };
        self.under_way.insert(episode, exchange);
    }

    pub(super) fn say(&mut self, episode: u64, message: Message) {
        if let Some(exchange) = self.under_way.get_mut(&episode) {
            if exchange.messages.len() == MESSAGES {
                exchange.messages.remove(0);
            }
            exchange.messages.push(message);
        }
    }

    pub(super) fn close(&mut self, episode: u64, outcome: Outcome) {
        if let Some(exchange) = self.under_way.remove(&episode) {
            self.push(Entry::Exchange(Exchange { outcome: Some(outcome), ..exchange }));
        }
    }

    /// Nothing under way will be played to its end.
    pub(super) fn abandon(&mut self) {
        for exchange in std::mem::take(&mut self.under_way).into_values() {
            self.push(Entry::Exchange(exchange));
        }
    }

    fn push(&mut self, entry: Entry) {
        if self.entries.len() == ENTRIES {
            self.entries.pop_front();
            self.first += 1;
        }
        self.entries.push_back(entry);
    }
}

/// The beginning of a text, as much as is kept of one.
pub(super) fn shortened(text: &str) -> String {
    if text.len() <= TEXT {
        return text.to_owned();
    }
    let end = (0..=TEXT).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    let mut kept = text[..end].to_owned();
    kept.push('…');
    kept
}
