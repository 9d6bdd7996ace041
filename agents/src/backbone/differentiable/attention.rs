//! Scaled dot-product attention with its backward.

use candle_core::{CpuStorage, CudaStorage, CustomOp3, D, Layout, Result, Shape, Tensor};

use super::Value;

/// Attention of queries `[batch, heads, tokens, width]` over keys and values
/// `[batch, key heads, seen, width]` (grouped where there are fewer key heads, Ainslie et al. 2023).
///
/// Scores are multiplied by `scale`; `mask` is added to them and broadcasts to `[batch, heads, tokens, seen]`.
pub(crate) fn attention(
    queries: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    mask: Option<&Tensor>,
    scale: f64,
) -> Result<Tensor> {
    let (batch, heads, tokens, width) = queries.dims4()?;
    let (_, key_heads, seen, _) = keys.dims4()?;
    let grouped = (batch, key_heads, heads / key_heads * tokens, width);
    let (q, k, v) = (queries.contiguous()?, keys.contiguous()?, values.contiguous()?);
    let scores = (q.detach().reshape(grouped)?.matmul(&k.detach().t()?)? * scale)?
        .reshape((batch, heads, tokens, seen))?;
    let scores = match mask {
        Some(mask) => scores.broadcast_add(mask)?,
        None => scores,
    };
    let weights = candle_nn::ops::softmax_last_dim(&scores)?.reshape((
        batch,
        key_heads,
        heads / key_heads * tokens,
        seen,
    ))?;
    let value = weights.matmul(&v.detach())?.reshape((batch, heads, tokens, width))?;
    if !q.track_op() && !k.track_op() && !v.track_op() {
        return Ok(value);
    }
    q.apply_op3(&k, &v, Attention { value: Value::new(value), weights, scale })
}

struct Attention {
    value: Value,
    /// Attention weights, `[batch, key heads, group * tokens, seen]`.
    weights: Tensor,
    scale: f64,
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.value.cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.value.cuda()
    }

    // P = softmax(s·QKᵀ):  dV = PᵀG,  dS = P∘(GVᵀ - Σ P∘GVᵀ),  dQ = s·dS·K,  dK = s·dSᵀ·Q
    fn bwd(
        &self,
        queries: &Tensor,
        keys: &Tensor,
        values: &Tensor,
        _y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (batch, key_heads, rows, _) = self.weights.dims4()?;
        let width = queries.dim(D::Minus1)?;
        let weights = &self.weights;
        let gradient = gradient.contiguous()?.reshape((batch, key_heads, rows, width))?;
        let grouped = queries.reshape((batch, key_heads, rows, width))?;
        let to_values = weights.t()?.matmul(&gradient)?;
        let to_weights = gradient.matmul(&values.t()?)?;
        let total = (weights * &to_weights)?.sum_keepdim(D::Minus1)?;
        let to_scores = ((weights * to_weights.broadcast_sub(&total)?)? * self.scale)?;
        let to_queries = to_scores.matmul(keys)?.reshape(queries.shape())?;
        let to_keys = to_scores.t()?.matmul(&grouped)?;
        Ok((Some(to_queries), Some(to_keys), Some(to_values)))
    }
}
