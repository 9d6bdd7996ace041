//! What a job minimises: a loss over a batch of examples, given tracked weights.

pub mod grpo;
pub mod supervised;

use candle_core::Tensor;

use crate::adapter::Adapter;
use crate::backbone::{Backbone, Rows, Tokens, negative_log_likelihood};
use crate::error::Result;

/// A prompt and what shall be said after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextExample {
    /// The prompt; no loss falls on it.
    pub prompt: Vec<u32>,
    /// The tokens that shall follow, the ending one included.
    pub reply: Vec<u32>,
}

/// Weighted negative log-likelihood of replies: `Σ weight · Σ -ln p(token)` over all examples, and the
/// number of reply tokens.
///
/// The output head is computed only where a reply token is predicted.
pub(crate) fn reply_loss(
    backbone: &Backbone,
    adapter: &Adapter,
    examples: &[(&TextExample, f64)],
) -> Result<(Tensor, usize)> {
    let decoder = &backbone.decoder;
    let device = decoder.device();
    let inputs: Vec<Vec<u32>> = examples
        .iter()
        .map(|(example, _)| {
            let all = [example.prompt.as_slice(), example.reply.as_slice()].concat();
            all[..all.len() - 1].to_vec()
        })
        .collect();
    let tokens = Tokens::pack(&inputs, device)?;
    let rows = [Rows { adapter: Some(adapter), count: inputs.len() }];
    let hidden = decoder.hidden(&tokens, &rows, None)?;
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
    let flat = hidden.reshape((examples.len() * width, decoder.config().hidden_size))?;
    let at = flat.index_select(&Tensor::new(places, device)?, 0)?;
    let losses = negative_log_likelihood(&decoder.logits(&at)?, &Tensor::new(targets, device)?)?;
    Ok(((losses * Tensor::new(weights, device)?)?.sum_all()?, count))
}
