//! Looking into a model from outside: its loss and gradients on given tokens, for audits and comparisons.
//!
//! Trains nothing and changes nothing.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor, Var};

use crate::adapter::Adapter;
use crate::adapter::head::pooled;
use crate::backbone::{Backbone, Rows, Tokens, negative_log_likelihood};
use crate::error::{ModelError, Result};
use crate::learning::accumulation::Gradients;
use crate::learning::recomputation::{Below, backward};
use crate::tokenizer::Tokenizer;

/// Loads a model directory; one without `tokenizer.json` (a network made for a test) gets an empty
/// vocabulary.
///
/// # Errors
/// As [`Backbone::load`].
pub fn load(directory: &Path, device: &Device) -> Result<Backbone> {
    load_as(directory, DType::F32, device)
}

/// The same, computing in `dtype`.
///
/// # Errors
/// As [`Backbone::load`].
pub fn load_as(directory: &Path, dtype: DType, device: &Device) -> Result<Backbone> {
    if directory.join("tokenizer.json").exists() {
        return Backbone::load_as(directory, dtype, device);
    }
    Backbone::load_with(directory, Tokenizer::empty()?, dtype, device)
}

/// What gradients are taken of.
#[derive(Clone, Copy, Debug)]
pub enum Loss<'a> {
    /// Mean cross-entropy of each row's next tokens; for decoders.
    NextTokens,
    /// Final hidden states of all tokens times these weights `[all tokens, hidden]`, summed, over the number
    /// of tokens; for encoders, which predict nothing.
    Weighted(&'a Tensor),
    /// Mean cross-entropy of each row's class; for adapters with a head.
    Classes(&'a [u32]),
}

/// Mean loss and the gradient of every trained tensor of `adapter` on rows of tokens.
///
/// With `recompute`, each layer's activations are computed again in the backward pass.
///
/// # Errors
/// When rows are empty or too long, or the loss does not suit the model.
pub fn gradients(
    backbone: &Backbone,
    adapter: &Adapter,
    rows: &[Vec<u32>],
    wanted: Loss<'_>,
    recompute: bool,
) -> Result<Gradients> {
    let network = &backbone.network;
    let mut tracked: BTreeMap<String, Tensor> = BTreeMap::new();
    for (name, tensor) in adapter.trained() {
        tracked.insert(name.clone(), Var::from_tensor(&tensor.copy()?)?.as_tensor().clone());
    }
    let mut tensors = tracked.clone();
    tensors.extend(adapter.fixed().map(|(name, tensor)| (name.clone(), tensor.clone())));
    let live = Adapter::assemble(adapter.spec().clone(), adapter.generation(), tensors, backbone)?;
    let owners = [Rows { adapter: Some(&live), count: rows.len() }];
    let tokens = Tokens::pack(rows, &owners, network.device())?;
    let loss = |hidden: &Tensor| match wanted {
        Loss::NextTokens => next_tokens(backbone, &live, hidden, &tokens, rows),
        Loss::Weighted(weights) => weighted(hidden, &tokens, weights),
        Loss::Classes(labels) => {
            let head = live
                .head()
                .ok_or_else(|| ModelError::Examples("the adapter has no classifier".to_owned()))?;
            let logits = head.logits(&pooled(network, hidden, &tokens, head.pooling)?)?;
            let labels = Tensor::new(labels, hidden.device())?;
            Ok(negative_log_likelihood(&logits, &labels)?.mean_all()?)
        }
    };
    let below = Below { backbone, owners: &owners, tokens: &tokens, dropout: None };
    let mut all =
        backward(&below, &[&tracked], recompute, |hidden| loss(hidden).map(|loss| vec![loss]))?;
    Ok(all.pop().unwrap_or_default())
}

fn weighted(hidden: &Tensor, tokens: &Tokens, weights: &Tensor) -> Result<Tensor> {
    let rows: Vec<Tensor> = (0..tokens.spans().len())
        .map(|row| hidden.get(row)?.narrow(0, tokens.text(row).start, tokens.text(row).len()))
        .collect::<candle_core::Result<_>>()?;
    let all = Tensor::cat(&rows, 0)?;
    Ok(((&all * weights)?.sum_all()? / all.dim(0)? as f64)?)
}

fn next_tokens(
    backbone: &Backbone,
    adapter: &Adapter,
    hidden: &Tensor,
    tokens: &Tokens,
    rows: &[Vec<u32>],
) -> Result<Tensor> {
    if !backbone.network.architecture().family.is_decoder() {
        return Err(ModelError::Examples("the loss of an encoder needs weights".to_owned()));
    }
    let mut parts = Vec::new();
    let mut targets = Vec::new();
    for (row, ids) in rows.iter().enumerate() {
        let start = tokens.text(row).start;
        parts.push(hidden.get(row)?.narrow(0, start, ids.len() - 1)?);
        targets.extend_from_slice(&ids[1..]);
    }
    let all = Tensor::cat(&parts, 0)?;
    let owners = [Rows { adapter: Some(adapter), count: targets.len() }];
    let logits = backbone.network.logits(&all, &owners)?.to_dtype(DType::F32)?;
    let targets = Tensor::new(targets, hidden.device())?;
    Ok(negative_log_likelihood(&logits, &targets)?.mean_all()?)
}
