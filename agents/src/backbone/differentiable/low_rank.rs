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

/// Consecutive rows of a flat input, with an update of their own or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run<'a> {
    /// How many rows.
    pub(crate) count: usize,
    /// Their update.
    pub(crate) update: Option<LowRank<'a>>,
}

/// What the backward pass needs of a run that has an update.
struct Kept {
    start: usize,
    count: usize,
    a: Tensor,
    b: Tensor,
    scale: f64,
    mask: Option<Tensor>,
    /// `scale · (x ∘ mask) · aᵀ`.
    inner: Tensor,
}

/// One frozen linear map over rows whose updates differ: the map is applied once, to all rows.
///
/// The runs cover the rows of `x` `[.., in]` in order. Ranks may differ.
pub(crate) fn low_rank_runs(
    x: &Tensor,
    w: &Weight,
    bias: Option<&Tensor>,
    runs: &[Run<'_>],
) -> Result<Tensor> {
    if runs.iter().all(|run| run.update.is_none()) {
        return linear(x, &w.detach(), bias.map(Tensor::detach).as_ref());
    }
    let (flat, shape) = flatten(x, w.dims()[0])?;
    let read = flat.detach();
    let base = linear(&read, &w.detach(), bias.map(Tensor::detach).as_ref())?;
    let (mut parts, mut kept, mut start) = (Vec::with_capacity(runs.len()), Vec::new(), 0);
    for &Run { count, update } in runs {
        let y = base.narrow(0, start, count)?;
        match update {
            None => parts.push(y),
            Some(LowRank { a, b, scale, mask }) => {
                let own = read.narrow(0, start, count)?;
                let mask = mask.map(|mask| mask.reshape(own.shape())).transpose()?;
                let (a, b) = (a.detach(), b.detach());
                let inner = (matmul(&masked(&own, mask.as_ref())?, &a)? * scale)?;
                parts.push((y + matmul(&inner, &b)?)?);
                kept.push(Kept { start, count, a, b, scale, mask, inner });
            }
        }
        start += count;
    }
    let value = Tensor::cat(&parts, 0)?;
    let updates = || runs.iter().filter_map(|run| run.update);
    if !x.track_op() && !updates().any(|update| update.a.track_op() || update.b.track_op()) {
        return value.reshape(shape);
    }
    // Side by side the updates are two tensors, which is what the tape can hold of them.
    let a = Tensor::cat(&updates().map(|update| update.a).collect::<Vec<_>>(), 0)?;
    let b = Tensor::cat(&updates().map(|update| update.b).collect::<Vec<_>>(), 1)?;
    let w = w.detach();
    graft::three("low-rank-runs", value, [&flat, &a, &b], move |[x, a, b], gradient| {
        backward_of_runs([x, a, b], &w, &kept, &gradient.contiguous()?)
    })?
    .reshape(shape)
}

/// As of one update, for each run by itself.
fn backward_of_runs(
    [x, a, b]: [&Tensor; 3],
    w: &Weight,
    kept: &[Kept],
    gradient: &Tensor,
) -> Result<[Option<Tensor>; 3]> {
    let (mut to_x, mut to_a, mut to_b) = (Vec::new(), Vec::new(), Vec::new());
    let through = if x.track_op() { Some(w.transposed_product(gradient)?) } else { None };
    let mut reached = 0;
    for run in kept {
        let own = gradient.narrow(0, run.start, run.count)?;
        let narrow = (own.matmul(&run.b)? * run.scale)?;
        if let Some(through) = &through {
            if reached < run.start {
                to_x.push(through.narrow(0, reached, run.start - reached)?);
            }
            let own = through.narrow(0, run.start, run.count)?;
            to_x.push((own + masked(&narrow.matmul(&run.a)?, run.mask.as_ref())?)?);
            reached = run.start + run.count;
        }
        if a.track_op() {
            let read = masked(&x.narrow(0, run.start, run.count)?, run.mask.as_ref())?;
            to_a.push(narrow.t()?.matmul(&read)?);
        }
        if b.track_op() {
            to_b.push(own.t()?.matmul(&run.inner)?);
        }
    }
    if let Some(through) = through {
        let rest = through.dim(0)? - reached;
        if rest > 0 {
            to_x.push(through.narrow(0, reached, rest)?);
        }
    }
    let joined = |parts: Vec<Tensor>, axis| {
        if parts.is_empty() { Ok(None) } else { Tensor::cat(&parts, axis).map(Some) }
    };
    Ok([joined(to_x, 0)?, joined(to_a, 0)?, joined(to_b, 1)?])
}

fn masked(x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    match mask {
        Some(mask) => x * mask,
        None => Ok(x.clone()),
    }
}
