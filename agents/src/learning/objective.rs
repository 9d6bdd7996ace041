//! What a job minimises: a loss over a batch of examples, given tracked weights.

pub mod grpo;
pub mod supervised;

use candle_core::{DType, Tensor};

use crate::adapter::Adapter;
use crate::backbone::{Backbone, Pass, Rows, Tokens, negative_log_likelihood};
use crate::error::Result;
use crate::seed::Seed;

/// A prompt and what shall be said after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextExample {
    /// The prompt; no loss falls on it.
    pub prompt: Vec<u32>,
    /// The tokens that shall follow, the ending one included.
    pub reply: Vec<u32>,
}

/// Weighted negative log-likelihood of replies: `Σ weight · Σ -ln p(token)` over all examples.
///
/// The output head is computed only where a reply token is predicted.
pub(crate) fn reply_loss(
    backbone: &Backbone,
    adapter: &Adapter,
    examples: &[(&TextExample, f64)],
    dropout: Option<Seed>,
) -> Result<Tensor> {
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
    let hidden = network.hidden(&tokens, Pass { dropout, ..Pass::of(&rows) })?;
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
    let flat = hidden.reshape((examples.len() * width, network.architecture().hidden))?;
    let at = flat.index_select(&Tensor::new(places, device)?, 0)?;
    let rows = [Rows { adapter: Some(adapter), count }];
    let logits = network.logits(&at, &rows)?.to_dtype(DType::F32)?;
    let losses = negative_log_likelihood(&logits, &Tensor::new(targets, device)?)?;
    Ok((losses * Tensor::new(weights, device)?)?.sum_all()?)
}
