//! A classification head: a linear layer over the features of a text, with a label for each output.
//!
//! Features are the final hidden state of the last token and the mean over all tokens, side by side,
//! brought to zero mean and unit spread by statistics of the examples the head was first trained on.

use std::collections::BTreeMap;

use candle_core::{D, DType, Device, Tensor};

use crate::backbone::decoder::find;
use crate::backbone::{DecoderConfig, linear, normal};
use crate::error::Result;
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

    /// Logits `[rows, labels]` of features `[rows, 2 * hidden]`.
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
    let width = 2 * config.hidden_size;
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

/// Features `[rows, 2 * hidden]` of finished hidden states `[rows, tokens, hidden]` whose rows begin
/// after `padding` columns.
///
/// # Errors
/// On a tensor failure only.
pub fn features(hidden: &Tensor, padding: &[usize]) -> Result<Tensor> {
    let (rows, tokens, _) = hidden.dims3()?;
    let last = hidden.narrow(1, tokens - 1, 1)?.squeeze(1)?;
    let mut weights = Vec::with_capacity(rows * tokens);
    for &pad in padding {
        let share = 1.0 / (tokens - pad) as f32;
        weights.extend((0..tokens).map(|column| if column < pad { 0.0 } else { share }));
    }
    let weights = Tensor::from_vec(weights, (rows, 1, tokens), hidden.device())?;
    let mean = weights.matmul(&hidden.contiguous()?)?.squeeze(1)?;
    Ok(Tensor::cat(&[last, mean], D::Minus1)?)
}
