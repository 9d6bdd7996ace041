//! What an agent with a model makes of a turn: the prompt, the request, and the meaning of the answer.
//!
//! Runs nothing: requests go to the engine.

use std::sync::Arc;

use agents::adapter::Adapter;
use agents::backbone::Backbone;
use agents::engine::queue::{Got, Want};
use agents::error::{ModelError, Result};
use agents::prompt;
use agents::prompt::provenance::{Prompt, Words};
use agents::sampler::Filter;
use agents::seed::Seed;
use agents::writing::{Draw, Text};

use super::{Role, Turn};
use crate::event::Said;

/// A transferred model and the part it plays.
#[derive(Clone, Debug)]
pub struct ModelMind {
    /// The part.
    pub role: Role,
    /// The network it shares.
    pub backbone: Arc<Backbone>,
    /// The device that both are on, by its place among those of the run.
    pub device: usize,
    /// Its own weights.
    pub adapter: Arc<Adapter>,
    /// Sampling temperature.
    pub temperature: f64,
    /// Which tokens may be drawn at all.
    pub filter: Filter,
    /// Longest reply in tokens.
    pub max_tokens: usize,
}

impl ModelMind {
    /// The prompt of a turn.
    pub(super) fn prompt(&self, turn: &Turn) -> Result<Prompt> {
        let tokenizer = &self.backbone.tokenizer;
        let query = Words::of_task(&turn.query);
        let label = turn.heard.iter().rev().find_map(|spoken| match &**spoken {
            Said::Label { label, .. } => Some(Words::of(spoken.origin(), label)),
            _ => None,
        });
        let text = turn.heard.iter().rev().find_map(|spoken| match &**spoken {
            Said::Text { text } => Some(Words::of(spoken.origin(), text)),
            _ => None,
        });
        match self.role {
            Role::Understand => prompt::understand(tokenizer, query),
            Role::Reply => prompt::reply(tokenizer, query, label),
            Role::Evaluate => prompt::evaluate(tokenizer, query, label, text),
        }
    }

    /// What is wanted of the model; `seed` is the agent's.
    pub(super) fn want(&self, turn: &Turn, seed: Seed) -> Result<Want> {
        if self.role != Role::Reply {
            return Ok(Want::Classes);
        }
        Ok(Want::Text(Draw {
            max_tokens: self.max_tokens,
            temperature: if turn.greedy { 0.0 } else { self.temperature },
            filter: self.filter,
            stop: prompt::stops(&self.backbone.tokenizer)?,
            stream: Box::new(seed.index(turn.episode).index(u64::from(turn.turn)).stream()),
        }))
    }

    /// What an answer means.
    pub(super) fn said(&self, got: Got) -> Result<Said> {
        self.check(&got)?;
        Ok(match got {
            Got::Text(Text { tokens, .. }) => {
                let text = self.backbone.tokenizer.decode(&tokens)?;
                Said::Text { text: text.trim().to_owned() }
            }
            Got::Classes(probabilities) if self.role == Role::Evaluate => {
                Said::Verdict { resolved: probabilities.get(1).copied().unwrap_or_default() }
            }
            Got::Classes(probabilities) => {
                let (best, confidence) = likeliest(&probabilities);
                let label = self.adapter.labels().get(best).cloned();
                Said::Label { label: label.unwrap_or_default(), confidence }
            }
        })
    }

    /// Refuses an answer that means nothing.
    fn check(&self, got: &Got) -> Result<()> {
        let malformed = |reason: String| Err(ModelError::MalformedAnswer(reason));
        match got {
            Got::Text(Text { tokens, .. }) => {
                let known = self.backbone.network.architecture().vocabulary;
                match tokens.iter().find(|token| **token as usize >= known) {
                    Some(token) => malformed(format!("token {token} is none of {known}")),
                    None => Ok(()),
                }
            }
            Got::Classes(probabilities) => {
                let (found, labels) = (probabilities.len(), self.adapter.labels().len());
                if found != labels {
                    return malformed(format!("{found} probabilities for {labels} labels"));
                }
                if probabilities.iter().any(|p| !p.is_finite()) {
                    return malformed("a probability is not finite".to_owned());
                }
                Ok(())
            }
        }
    }
}

/// An answer as a fault leaves it.
pub(super) fn damaged(got: Got) -> Got {
    match got {
        Got::Classes(probabilities) => Got::Classes(vec![f64::NAN; probabilities.len()]),
        Got::Text(Text { stop, .. }) => Got::Text(Text { tokens: vec![u32::MAX], stop }),
    }
}

fn likeliest(probabilities: &[f64]) -> (usize, f64) {
    let mut best = (0, 0.0);
    for (index, &p) in probabilities.iter().enumerate() {
        if p > best.1 {
            best = (index, p);
        }
    }
    best
}
