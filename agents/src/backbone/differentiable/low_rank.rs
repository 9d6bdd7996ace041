//! A frozen linear map with a low-rank update, as one operation.
//!
//! Composed of its parts the update would keep three more outputs of the map for the backward pass; here
//! only the input and the narrow product are kept.

use candle_core::{Result, Tensor};

use super::linear::{flatten, linear};
use super::{graft, matmul};
use crate::backbone::weight::Weight;

/// A low-rank update (Hu et al. 2021, arXiv 2106.09685).
#[derive(Clone, Copy, Debug)]
pub(crate) struct LowRank<'a> {
    /// `[rank, in]`.
    pub(crate) a: &'a Tensor,
    /// `[out, rank]`.
    pub(crate) b: &'a Tensor,
    /// Factor on the update.
    pub(crate) scale: f64,
    /// Factors on the update's input, of the input's shape: a dropout mask.
    pub(crate) mask: Option<&'a Tensor>,
}

/// `x · wᵀ + bias + scale · (x ∘ mask) · aᵀ · bᵀ`, with `x` of shape `[.., in]`; `w` and `bias` get no gradient.
pub(crate) fn low_rank(
    x: &Tensor,
    w: &Weight,
    bias: Option<&Tensor>,
    update: LowRank<'_>,
) -> Result<Tensor> {
    let LowRank { a, b, scale, mask } = update;
    let (flat, shape) = flatten(x, b.dim(0)?)?;
    let mask = mask.map(|mask| mask.reshape(flat.shape())).transpose()?;
    let base = linear(&flat.detach(), &w.detach(), bias.map(Tensor::detach).as_ref())?;
    let read = masked(&flat.detach(), mask.as_ref())?;
    // The scale falls on the narrow side, where it costs next to nothing.
    let inner = (matmul(&read, &a.detach())? * scale)?;
    let value = (base + matmul(&inner, &b.detach())?)?;
    let w = w.detach();
    // With u = s·(x∘m)·Aᵀ:  dB = gᵀ·u,  dA = s·(g·B)ᵀ·(x∘m),  dx = g·W + s·(g·B·A)∘m
    graft::three("low-rank", value, [&flat, a, b], move |[x, a, b], gradient| {
        let gradient = gradient.contiguous()?;
        let narrow = (gradient.matmul(b)? * scale)?;
        let to_x = if x.track_op() {
            let through = masked(&narrow.matmul(a)?, mask.as_ref())?;
            Some((w.transposed_product(&gradient)? + through)?)
        } else {
            None
        };
        let to_a =
            if a.track_op() { Some(narrow.t()?.matmul(&masked(x, mask.as_ref())?)?) } else { None };
        let to_b = if b.track_op() { Some(gradient.t()?.matmul(&inner)?) } else { None };
        Ok([to_x, to_a, to_b])
    })?
    .reshape(shape)
}

fn masked(x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    match mask {
        Some(mask) => x * mask,
        None => Ok(x.clone()),
    }
}
