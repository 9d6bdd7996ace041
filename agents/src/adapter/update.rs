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
    /// Factors on the update's input: none where nothing is dropped.
    pub(crate) fn mask(&self, x: &Tensor, seed: Option<Seed>) -> Result<Option<Tensor>> {
        match seed {
            Some(seed) if self.dropout > 0.0 => Ok(Some(mask(x, self.dropout, seed)?)),
            _ => Ok(None),
        }
    }

    pub(crate) fn low_rank<'a>(&'a self, mask: Option<&'a Tensor>) -> LowRank<'a> {
        LowRank { a: &self.a, b: &self.b, scale: self.scale, mask }
    }

    fn delta(&self, x: &Tensor) -> Result<Tensor> {
        // The scale falls on the narrow side, where it costs next to nothing.
        let inner = (matmul(x, &self.a)? * self.scale)?;
        Ok(matmul(&inner, &self.b)?)
    }
}

impl Update {
    /// The adapted map applied to `x` `[.., in]`; inputs are dropped only where a seed is given.
    pub(crate) fn forward(&self, map: &Linear, x: &Tensor, seed: Option<Seed>) -> Result<Tensor> {
        if let Self::Lora(lora) = self {
            let mask = lora.mask(x, seed)?;
            let update = lora.low_rank(mask.as_ref());
            return Ok(low_rank(x, &map.weight, map.bias.as_ref(), update)?);
        }
        let scaled = self.input(x)?;
        let x = scaled.as_ref().unwrap_or(x);
        self.output(map, x, map.forward(x)?, seed)
    }

    /// What the map shall read instead of `x`, where that is not `x`.
    pub(crate) fn input(&self, x: &Tensor) -> Result<Option<Tensor>> {
        match self {
            Self::Input(scale) => Ok(Some(x.broadcast_mul(scale)?)),
            _ => Ok(None),
        }
    }

    /// What becomes of `y`, the bare map's output for the input `x`.
    pub(crate) fn output(
        &self,
        map: &Linear,
        x: &Tensor,
        y: Tensor,
        seed: Option<Seed>,
    ) -> Result<Tensor> {
        match self {
            Self::Input(_) => Ok(y),
            Self::Output(scale) => Ok(y.broadcast_mul(scale)?),
            Self::Lora(lora) => {
                let dropped = dropped(x, lora.dropout, seed)?;
                Ok((y + lora.delta(dropped.as_ref().unwrap_or(x))?)?)
            }
            Self::Dora { lora, stretch } => {
                let dropped = dropped(x, lora.dropout, seed)?;
                let direction = match (&dropped, &map.bias) {
                    (None, None) => y.clone(),
                    (None, Some(bias)) => y.broadcast_sub(bias)?,
                    (Some(x), _) => Linear { weight: map.weight.clone(), bias: None }.forward(x)?,
                };
                let change = direction.broadcast_mul(&(stretch - 1.0)?)?;
                let delta = lora.delta(dropped.as_ref().unwrap_or(x))?;
                Ok((y + change)?.add(&delta.broadcast_mul(stretch)?)?)
            }
            Self::Vera { a, b, inner, outer, dropout } => {
                let dropped = dropped(x, *dropout, seed)?;
                let narrow = matmul(dropped.as_ref().unwrap_or(x), a)?.broadcast_mul(inner)?;
                Ok((y + matmul(&narrow, b)?.broadcast_mul(outer)?)?)
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
