//! A classification head: a linear layer over the features of a text, with a label for each output.
//!
//! Features are the last token's final hidden state and the mean over all tokens of the embeddings and of
//! every layer, side by side: lower layers keep the words, upper ones what they amount to (Peters et al.
//! 2019, arXiv 1903.05987). They are brought to zero mean and unit spread by statistics of the examples that
//! the head was first trained on.

use std::collections::BTreeMap;

use candle_core::{D, DType, Device, Tensor};

use crate::backbone::decoder::find;
use crate::backbone::{Decoder, DecoderConfig, Rows, linear, normal};
use crate::error::{ModelError, Result};
use crate::seed::Seed;

/// Name of the weights, as PEFT names a sequence classifier's.
pub const WEIGHT: &str = "score.weight";
/// Name of the biases.
pub const BIAS: &str = "score.bias";
/// Name of the features' means; not trained.
pub const MEAN: &str = "feature.mean";
/// Name of the features' inverse spreads; not trained.
pub const SCALE: &str = "feature.scale";

/// A linear classifier over features.
#[derive(Clone, Debug)]
pub struct Head {
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    scale: Tensor,
}

impl Head {
    /// Picks the head out of named tensors.
    pub(crate) fn assemble(tensors: &BTreeMap<String, Tensor>) -> Result<Self> {
        Ok(Self {
            weight: find(tensors, WEIGHT)?,
            bias: find(tensors, BIAS)?,
            mean: find(tensors, MEAN)?,
            scale: find(tensors, SCALE)?,
        })
    }

    /// Logits `[rows, labels]` of features `[rows, width]`.
    ///
    /// # Errors
    /// On a tensor failure only.
    pub fn logits(&self, features: &Tensor) -> Result<Tensor> {
        let x = features.broadcast_sub(&self.mean)?.broadcast_mul(&self.scale)?;
        Ok(linear(&x, &self.weight)?.broadcast_add(&self.bias)?)
    }
}

/// The tensors a new head starts from: small random weights, no bias, features as they are.
pub(crate) fn initial(
    labels: usize,
    config: &DecoderConfig,
    seed: Seed,
    device: &Device,
) -> Result<Vec<(String, Tensor)>> {
    let width = width(config);
    Ok(vec![
        (WEIGHT.to_owned(), normal(&[labels, width], 0.01, seed.child(WEIGHT), device)?),
        (BIAS.to_owned(), Tensor::zeros(labels, DType::F32, device)?),
        (MEAN.to_owned(), Tensor::zeros(width, DType::F32, device)?),
        (SCALE.to_owned(), Tensor::ones(width, DType::F32, device)?),
    ])
}

/// Mean and inverse spread of features `[rows, width]`.
///
/// # Errors
/// On a tensor failure only.
pub fn statistics(features: &Tensor) -> Result<(Tensor, Tensor)> {
    let mean = features.mean(0)?;
    let centred = features.broadcast_sub(&mean)?;
    let spread = (centred.sqr()?.mean(0)? + 1e-4)?.sqrt()?;
    Ok((mean, spread.recip()?))
}

/// Features `[rows, width]` of the residual stream `states` of a batch, as [`Decoder::states`] gives it.
///
/// # Errors
/// On a tensor failure only.
pub fn features(
    decoder: &Decoder,
    states: &[Tensor],
    rows: &[Rows<'_>],
    padding: &[usize],
) -> Result<Tensor> {
    let Some(top) = states.last() else {
        return Err(ModelError::Examples("there are no hidden states".to_owned()));
    };
    let (count, tokens, _) = top.dims3()?;
    let mut weights = Vec::with_capacity(count * tokens);
    for &pad in padding {
        let share = 1.0 / (tokens - pad) as f32;
        weights.extend((0..tokens).map(|column| if column < pad { 0.0 } else { share }));
    }
    let weights = Tensor::from_vec(weights, (count, 1, tokens), top.device())?;
    let mut parts = Vec::with_capacity(states.len() + 1);
    for (place, state) in states.iter().enumerate() {
        let finished = decoder.finish(state, rows)?.contiguous()?;
        parts.push(weights.matmul(&finished)?.squeeze(1)?);
        if place + 1 == states.len() {
            parts.push(finished.narrow(1, tokens - 1, 1)?.squeeze(1)?);
        }
    }
    Ok(Tensor::cat(&parts, D::Minus1)?)
}

/// Number of features of a text.
#[must_use]
pub fn width(config: &DecoderConfig) -> usize {
    (config.num_hidden_layers + 2) * config.hidden_size
}
