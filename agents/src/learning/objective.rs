//! What a job minimises: a loss over a batch of examples, given tracked weights.

pub mod grpo;
pub mod supervised;

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use self::supervised::{Supervised, TagExample};
use super::accumulation::Gradients;
use super::recomputation::{Below, backward};
use crate::adapter::Adapter;
use crate::backbone::{Backbone, Rows, Tokens, negative_log_likelihood};
use crate::error::{ModelError, Result};
use crate::learning::dropout::Dropout;

/// A prompt and what shall be said after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextExample {
    /// The prompt; no loss falls on it.
    pub prompt: Vec<u32>,
    /// The tokens that shall follow, the ending one included.
    pub reply: Vec<u32>,
}

/// How the gradients of a part of a step are computed.
#[derive(Clone, Copy)]
pub(crate) struct Way<'a> {
    pub(crate) backbone: &'a Backbone,
    /// The adapter with tracked weights.
    pub(crate) adapter: &'a Adapter,
    /// Those weights.
    pub(crate) tracked: &'a BTreeMap<String, Tensor>,
    /// What the summed loss is divided by.
    pub(crate) weight: f64,
    /// Share of a class's target that is spread over all classes.
    pub(crate) label_smoothing: f64,
    pub(crate) dropout: Option<Dropout>,
    pub(crate) recompute: bool,
}

/// What a learner's rows in a micro-batch shall become.
pub(crate) enum Aim<'a> {
    /// Replies, each with the weight of its loss.
    Replies(Vec<(&'a TextExample, f64)>),
    /// Texts with a class each.
    Classes { lesson: &'a Supervised, texts: Vec<&'a [u32]>, labels: Vec<u32> },
    /// Texts with a class for each token.
    Tags { lesson: &'a Supervised, examples: Vec<&'a TagExample> },
}

impl Aim<'_> {
    /// What the network reads.
    fn rows(&self) -> Vec<Vec<u32>> {
        match self {
            Self::Replies(examples) => {
                let row = |(example, _): &(&TextExample, f64)| {
                    let all = [example.prompt.as_slice(), example.reply.as_slice()].concat();
                    all[..all.len() - 1].to_vec()
                };
                examples.iter().map(row).collect()
            }
            Self::Classes { texts, .. } => texts.iter().map(|text| text.to_vec()).collect(),
            Self::Tags { examples, .. } => examples.iter().map(|e| e.tokens.clone()).collect(),
        }
    }
}

/// A learner's part of a micro-batch.
pub(crate) struct Portion<'a> {
    pub(crate) way: Way<'a>,
    pub(crate) aim: Aim<'a>,
}

/// Loss and gradients of every learner out of one forward and one backward pass.
///
/// All portions share the backbone of the first, its dropout and its way of keeping activations.
pub(crate) fn gradients(portions: &[Portion<'_>]) -> Result<Vec<Gradients>> {
    let Some(Portion { way: first, .. }) = portions.first() else { return Ok(Vec::new()) };
    let network = &first.backbone.network;
    let rows: Vec<Vec<Vec<u32>>> = portions.iter().map(|portion| portion.aim.rows()).collect();
    let mut owners = Vec::with_capacity(portions.len());
    for (portion, rows) in portions.iter().zip(&rows) {
        owners.push(Rows { adapter: Some(portion.way.adapter), count: rows.len() });
    }
    let tokens = Tokens::pack(&rows.concat(), &owners, network.device())?;
    let (mut parts, mut start) = (Vec::with_capacity(portions.len()), 0);
    for owner in &owners {
        parts.push(start..start + owner.count);
        start += owner.count;
    }
    let losses = |hidden: &Tensor| losses(portions, &parts, hidden, &tokens);
    let Way { backbone, dropout, recompute, .. } = *first;
    let below = Below { backbone, owners: &owners, tokens: &tokens, dropout };
    let learners: Vec<_> = portions.iter().map(|portion| portion.way.tracked).collect();
    backward(&below, &learners, recompute, losses)
}

/// Each portion's summed loss over its weight; `parts` are its rows.
fn losses(
    portions: &[Portion<'_>],
    parts: &[Range<usize>],
    hidden: &Tensor,
    tokens: &Tokens,
) -> Result<Vec<Tensor>> {
    let replied = replies(portions, parts, hidden, tokens)?;
    let mut replied = replied.into_iter();
    let mut all = Vec::with_capacity(portions.len());
    for (portion, rows) in portions.iter().zip(parts) {
        let own = || -> Result<(Tensor, Tokens)> {
            if rows.len() == tokens.spans().len() {
                return Ok((hidden.clone(), tokens.clone()));
            }
            Ok((hidden.narrow(0, rows.start, rows.len())?, tokens.part(rows.clone())?))
        };
        let summed = match &portion.aim {
            Aim::Replies(_) => replied.next(),
            Aim::Classes { lesson, labels, .. } => {
                let (hidden, tokens) = own()?;
                Some(lesson.pooled_loss(&portion.way, &hidden, &tokens, labels)?)
            }
            Aim::Tags { lesson, examples } => {
                let (hidden, tokens) = own()?;
                Some(lesson.tag_loss(&portion.way, &hidden, &tokens, examples)?)
            }
        };
        let missing = || ModelError::Examples("a part of the batch has no loss".to_owned());
        all.push((summed.ok_or_else(missing)? / portion.way.weight)?);
    }
    Ok(all)
}

/// Weighted negative log-likelihood of replies, `Σ weight · Σ -ln p(token)`, of each portion that has some.
///
/// The output head is computed only where a reply token is predicted, and once for all portions.
fn replies(
    portions: &[Portion<'_>],
    parts: &[Range<usize>],
    hidden: &Tensor,
    tokens: &Tokens,
) -> Result<Vec<Tensor>> {
    let Some(Portion { way: first, .. }) = portions.first() else { return Ok(Vec::new()) };
    let (network, device, width) = (&first.backbone.network, hidden.device(), tokens.width());
    let (mut places, mut targets, mut weights) = (Vec::new(), Vec::new(), Vec::new());
    let mut owners = Vec::new();
    for (portion, rows) in portions.iter().zip(parts) {
        let Aim::Replies(examples) = &portion.aim else { continue };
        let before = targets.len();
        for (row, (example, weight)) in rows.clone().zip(examples) {
            // Rows end at the last column, which predicts the last reply token.
            let first = width - example.reply.len();
            for (offset, &target) in example.reply.iter().enumerate() {
                places.push((row * width + first + offset) as u32);
                targets.push(target);
                weights.push(*weight as f32);
            }
        }
        let count = targets.len() - before;
        owners.push(Rows { adapter: Some(portion.way.adapter), count });
    }
    if targets.is_empty() {
        return Ok(Vec::new());
    }
    let (places, targets) = (Tensor::new(places, device)?, Tensor::new(targets, device)?);
    let weights = Tensor::new(weights, device)?;
    let at = hidden.flatten(0, 1)?.index_select(&places, 0)?;
    let logits = network.logits(&at, &owners)?.to_dtype(DType::F32)?;
    let losses = (negative_log_likelihood(&logits, &targets)? * &weights)?;
    let (mut all, mut start) = (Vec::with_capacity(owners.len()), 0);
    for owner in &owners {
        let own = if owners.len() == 1 {
            losses.clone()
        } else {
            losses.narrow(0, start, owner.count)?
        };
        all.push(own.sum_all()?);
        start += owner.count;
    }
    Ok(all)
}
