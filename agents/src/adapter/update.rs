//! What an adapter does to one linear map: the formulas of each method, as PEFT has them.
//!
//! Weights arrive assembled; where they come from is the business of each method's own file.

use candle_core::{D, Tensor};

use crate::backbone::block::Linear;
use crate::backbone::{LowRank, low_rank, matmul};
use crate::error::Result;
use crate::learning::dropout::{dropout, mask};
use crate::seed::Seed;

/// The change of one linear map.
#[derive(Clone, Debug)]
pub enum Update {
    /// `y + scale · B(A x)`.
    Lora(Lora),
    /// LoRA whose direction and magnitude are trained apart.
    Dora {
        /// The direction.
        lora: Lora,
        /// Wanted norm of each output's weights over their present norm, `[out]`.
        stretch: Tensor,
    },
    /// `l ∘ y`, with `l` of shape `[out]`.
    Output(Tensor),
    /// The map applied to `l ∘ x`, with `l` of shape `[in]`.
    Input(Tensor),
    /// `y + b ∘ B(d ∘ A x)`, with `A` and `B` shared and frozen.
    Vera {
        /// `[rank, in]`.
        a: Tensor,
        /// `[out, rank]`.
        b: Tensor,
        /// `[rank]`.
        inner: Tensor,
        /// `[out]`.
        outer: Tensor,
        /// Share of inputs dropped in training.
        dropout: f64,
    },
}

/// A low-rank update (Hu et al. 2021, arXiv 2106.09685).
#[derive(Clone, Debug)]
pub struct Lora {
    /// `[rank, in]`.
    pub a: Tensor,
    /// `[out, rank]`.
    pub b: Tensor,
    /// `alpha / rank`, or `alpha / √rank` where rank-stabilised.
    pub scale: f64,
    /// Share of inputs dropped in training.
    pub dropout: f64,
}

impl Lora {
    fn delta(&self, x: &Tensor) -> Result<Tensor> {
        // The scale falls on the narrow side, where it costs next to nothing.
        let inner = (matmul(x, &self.a)? * self.scale)?;
        Ok(matmul(&inner, &self.b)?)
    }
}

impl Update {
    /// The adapted map applied to `x` `[.., in]`; inputs are dropped only where a seed is given.
    pub(crate) fn forward(&self, map: &Linear, x: &Tensor, seed: Option<Seed>) -> Result<Tensor> {
        match self {
            Self::Lora(lora) => {
                let mask = match seed {
                    Some(seed) if lora.dropout > 0.0 => Some(mask(x, lora.dropout, seed)?),
                    _ => None,
                };
                let Lora { a, b, scale, .. } = lora;
                let update = LowRank { a, b, scale: *scale, mask: mask.as_ref() };
                Ok(low_rank(x, &map.weight, map.bias.as_ref(), update)?)
            }
            Self::Dora { lora, stretch } => {
                let base = map.forward(x)?;
                let dropped = dropped(x, lora.dropout, seed)?;
                let x = dropped.as_ref().unwrap_or(x);
                let plain = Linear { weight: map.weight.clone(), bias: None };
                let direction = plain.forward(x)?;
                let grown = (stretch - 1.0)?;
                let change = direction.broadcast_mul(&grown)?;
                Ok((base + change)?.add(&lora.delta(x)?.broadcast_mul(stretch)?)?)
            }
            Self::Output(scale) => Ok(map.forward(x)?.broadcast_mul(scale)?),
            Self::Input(scale) => map.forward(&x.broadcast_mul(scale)?),
            Self::Vera { a, b, inner, outer, dropout } => {
                let dropped = dropped(x, *dropout, seed)?;
                let narrow = matmul(dropped.as_ref().unwrap_or(x), a)?.broadcast_mul(inner)?;
                Ok((map.forward(x)? + matmul(&narrow, b)?.broadcast_mul(outer)?)?)
            }
        }
    }
}

fn dropped(x: &Tensor, rate: f64, seed: Option<Seed>) -> Result<Option<Tensor>> {
    match seed {
        Some(seed) if rate > 0.0 => Ok(Some(dropout(x, rate, seed)?)),
        _ => Ok(None),
    }
}

/// DoRA's factor `m / ‖W + scale·B A‖`, one number an output; the norm carries no gradient
/// (Liu et al. 2024, arXiv 2402.09353, section 4.3).
pub(crate) fn stretch(map: &Linear, lora: &Lora, magnitude: &Tensor) -> Result<Tensor> {
    let update = (lora.b.detach().matmul(&lora.a.detach())? * lora.scale)?;
    let weight = (map.weight.dequantize()?.to_dtype(update.dtype())? + update)?;
    let norm = weight.sqr()?.sum(D::Minus1)?.sqrt()?;
    Ok(magnitude.div(&norm.detach())?)
}
