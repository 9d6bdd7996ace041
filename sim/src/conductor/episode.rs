//! An episode in progress: one query on its way through the protocol.

use agents::adapter::Generation;
use agents::name::AgentName;
use serde::{Deserialize, Serialize};

use crate::event::Said;
use crate::protocol::Conversation;
use crate::task::{Item, reward};
use crate::training::trigger::Outcome;

/// A query and what was said about it so far.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Episode {
    /// Index of the item in its data set.
    pub(super) item: usize,
    pub(super) protocol: Conversation,
    /// What was delivered, by turn; nothing of turns that were skipped.
    pub(super) said: Vec<Option<Said>>,
    /// Who is asked to speak, having heard these turns.
    pub(super) asked: Option<(AgentName, Vec<u32>)>,
    /// What came of asking; taken in when the tick closes.
    pub(super) answer: Option<Reply>,
    /// Answers of the present turn that were rejected.
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

/// How an episode went.
#[derive(Debug)]
pub(super) struct Result {
    pub(super) topic: String,
    pub(super) reply: String,
    pub(super) verdict: f64,
    pub(super) resolved: bool,
    pub(super) outcome: Outcome,
}

impl Episode {
    pub(super) fn new(item: usize, protocol: Conversation) -> Self {
        Self { item, protocol, said: Vec::new(), asked: None, answer: None, rejected: 0 }
    }

    /// Scores what was said against the item.
    pub(super) fn result(&self, item: &Item, intent: &str) -> Result {
        let mut result = Result {
            topic: String::new(),
            reply: String::new(),
            verdict: 0.0,
            resolved: false,
            outcome: Outcome { reward: 0.0, intent_correct: false, verdict_correct: false },
        };
        for said in self.said.iter().flatten() {
            match said {
                Said::Label { label, .. } => result.topic.clone_from(label),
                Said::Text { text } => result.reply.clone_from(text),
                Said::Verdict { resolved } => result.verdict = *resolved,
            }
        }
        let reward = reward(item, &result.reply);
        result.resolved = reward >= 1.0;
        result.outcome = Outcome {
            reward,
            intent_correct: result.topic == intent,
            verdict_correct: (result.verdict >= 0.5) == result.resolved,
        };
        result
    }
}
