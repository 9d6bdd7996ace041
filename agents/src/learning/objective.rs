//! What a job minimises: a loss over a batch of examples, given tracked weights.

pub mod grpo;
pub mod supervised;

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::accumulation::Gradients;
use super::recomputation::{Below, backward};
use crate::adapter::Adapter;
use crate::backbone::{Backbone, Rows, Tokens, negative_log_likelihood};
use crate::error::Result;
use crate::seed::Seed;

/// A prompt and what shall be said after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextExample {
    /// The prompt; no loss falls on it.
    pub prompt: Vec<u32>,
    /// The tokens that shall follow, the ending one included.
    pub reply: Vec<u32>,
}

/// A summed loss as a function of the final hidden states `[rows, columns, hidden]`.
pub(crate) type Loss<'a> = dyn Fn(&Tensor) -> Result<Tensor> + 'a;

/// A batch made ready: its tokens, and its summed loss as a function of the final hidden states
/// `[rows, columns, hidden]`.
pub(crate) struct Batch<'a> {
    pub(crate) tokens: Tokens,
    pub(crate) loss: Box<Loss<'a>>,
}

/// How the gradients of a part of a step are computed.
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
    pub(crate) dropout: Option<Seed>,
    pub(crate) recompute: bool,
}

impl Way<'_> {
    /// The backward pass of a batch.
    pub(crate) fn gradients(&self, batch: Batch<'_>) -> Result<Gradients> {
        let Self { backbone, adapter, dropout, .. } = *self;
        let below = Below { backbone, adapter, tokens: &batch.tokens, dropout };
        backward(&below, self.tracked, self.recompute, |hidden| {
            Ok(((batch.loss)(hidden)? / self.weight)?)
        })
    }
}

/// Weighted negative log-likelihood of replies: `Σ weight · Σ -ln p(token)` over all examples.
///
/// The output head is computed only where a reply token is predicted.
pub(crate) fn replies<'a>(
    backbone: &'a Backbone,
    adapter: &'a Adapter,
    examples: &[(&TextExample, f64)],
) -> Result<Batch<'a>> {
    let network = &backbone.network;
    let device = network.device();
    let inputs: Vec<Vec<u32>> = examples
        .iter()
        .map(|(example, _)| {
            let all = [example.prompt.as_slice(), example.reply.as_slice()].concat();
            all[..all.len() - 1].to_vec()
        })
        .collect();
    let rows = [Rows { adapter: Some(adapter), count: inputs.len() }];
    let tokens = Tokens::pack(&inputs, &rows, device)?;
    let width = tokens.width();
    let (mut places, mut targets, mut weights) = (Vec::new(), Vec::new(), Vec::new());
    for (row, (example, weight)) in examples.iter().enumerate() {
        // Rows end at the last column, which predicts the last reply token.
        let first = width - example.reply.len();
        for (offset, &target) in example.reply.iter().enumerate() {
            places.push((row * width + first + offset) as u32);
            targets.push(target);
            weights.push(*weight as f32);
        }
    }
    let count = targets.len();
    let (places, targets) = (Tensor::new(places, device)?, Tensor::new(targets, device)?);
    let weights = Tensor::new(weights, device)?;
    let loss = move |hidden: &Tensor| {
        let at = hidden.flatten(0, 1)?.index_select(&places, 0)?;
        let rows = [Rows { adapter: Some(adapter), count }];
        let logits = network.logits(&at, &rows)?.to_dtype(DType::F32)?;
        Ok((negative_log_likelihood(&logits, &targets)? * &weights)?.sum_all()?)
    };
    Ok(Batch { tokens, loss: Box::new(loss) })
}
