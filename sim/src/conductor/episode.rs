//! An episode in progress: what it is about on its way through the protocol, and what waits for whom.

use agents::adapter::Generation;
use agents::prompt::provenance::Quote;
use serde::{Deserialize, Serialize};

use crate::event::{Said, Spoken};
use crate::mailbox::Mailbox;
use crate::protocol::{Conversation, Step};
use crate::task::support::{Item, reward};
use crate::task::talk::agreement;
use crate::topology::Seat;
use crate::training::trigger::Outcome;

/// What was said so far, and who is asked to speak.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Episode {
    /// Index of what it is about in its data set.
    pub(super) item: usize,
    pub(super) protocol: Conversation,
    /// What was delivered, by turn; nothing of turns that are open or were skipped.
    pub(super) said: Vec<Option<Spoken>>,
    /// Open turns, by number.
    pub(super) asked: Vec<Asked>,
    /// The agents, by seat.
    pub(super) seated: Vec<Seated>,
}

/// An agent within an episode.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Seated {
    pub(super) mailbox: Mailbox,
    /// The turn at which it last said something.
    pub(super) last: Option<u32>,
}

/// An open turn.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Asked {
    pub(super) turn: u32,
    pub(super) seat: Seat,
    /// The turns it has heard, once it has read its mailbox.
    pub(super) heard: Option<Vec<u32>>,
    /// What came of asking; taken in when the tick closes.
    pub(super) answer: Option<Reply>,
    /// Answers that were rejected.
    pub(super) rejected: u32,
}

/// What came of asking an agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// It said something under these weights.
    Said(Generation, Said),
    /// What it said cannot be used.
    Rejected(String),
    /// It will not say anything on this turn, for this reason.
    Silent(String),
}

/// How an episode of customer support went.
#[derive(Debug)]
pub(super) struct Result {
    pub(super) topic: Option<Quote>,
    pub(super) reply: Option<Quote>,
    pub(super) verdict: f64,
    pub(super) resolved: bool,
    pub(super) outcome: Outcome,
}

impl Episode {
    pub(super) fn new(item: usize, protocol: Conversation, seats: usize) -> Self {
        let seated = vec![Seated::default(); seats];
        Self { item, protocol, said: Vec::new(), asked: Vec::new(), seated }
    }

    /// Opens the turns that a protocol asks for; whether the episode goes on.
    pub(super) fn follow(&mut self, steps: Vec<Step>) -> bool {
        for step in steps {
            let Step::Speak(seat) = step else { return false };
            let turn = self.said.len() as u32;
            self.said.push(None);
            self.asked.push(Asked { turn, seat, heard: None, answer: None, rejected: 0 });
        }
        true
    }

    /// An open turn by its number.
    pub(super) fn asked(&mut self, turn: u32) -> Option<&mut Asked> {
        let place = self.asked.binary_search_by_key(&turn, |asked| asked.turn).ok()?;
        self.asked.get_mut(place)
    }

    /// What was said on a turn.
    pub(super) fn spoken(&self, turn: u32) -> Option<&Spoken> {
        self.said.get(turn as usize)?.as_ref()
    }

    /// Whether it is one of a society of so many agents.
    pub(super) fn fits(&self, seats: usize) -> bool {
        self.seated.len() == seats
            && self.asked.iter().all(|a| a.seat < seats && (a.turn as usize) < self.said.len())
            && self.asked.is_sorted_by_key(|asked| asked.turn)
    }

    /// Scores what was said against a query's item.
    pub(super) fn result(&self, item: &Item, intent: &str) -> Result {
        let mut result = Result {
            topic: None,
            reply: None,
            verdict: 0.0,
            resolved: false,
            outcome: Outcome { reward: 0.0, intent_correct: false, verdict_correct: false },
        };
        for spoken in self.said.iter().flatten() {
            let quote =
                |text: &String| Some(Quote { origin: spoken.origin().clone(), text: text.clone() });
            match &**spoken {
                Said::Label { label, .. } => result.topic = quote(label),
                Said::Text { text } => result.reply = quote(text),
                Said::Verdict { resolved } => result.verdict = *resolved,
            }
        }
        let reward = reward(item, text(&result.reply));
        result.resolved = reward >= 1.0;
        result.outcome = Outcome {
            reward,
            intent_correct: text(&result.topic) == intent,
            verdict_correct: (result.verdict >= 0.5) == result.resolved,
        };
        result
    }

    /// The commonest of the agents' last words, and the share of the speakers that said it.
    pub(super) fn agreement(&self) -> (Option<String>, f64) {
        let last = self.seated.iter().filter_map(|seated| self.spoken(seated.last?));
        let texts = last.filter_map(|spoken| match &**spoken {
            Said::Text { text } => Some(text.as_str()),
            Said::Label { label, .. } => Some(label.as_str()),
            Said::Verdict { .. } => None,
        });
        agreement(texts).map_or((None, 0.0), |(most, share)| (Some(most.to_owned()), share))
    }
}

/// The words of a quote; none where there is none.
fn text(quote: &Option<Quote>) -> &str {
    quote.as_ref().map_or("", |quote| &quote.text)
}
