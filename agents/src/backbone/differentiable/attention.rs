//! Scaled dot-product attention with its backward.

use candle_core::{D, Result, Tensor};

use super::graft;

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
    // P = softmax(s·QKᵀ):  dV = PᵀG,  dS = P∘(GVᵀ - Σ P∘GVᵀ),  dQ = s·dS·K,  dK = s·dSᵀ·Q
    graft::three("attention", value, [&q, &k, &v], move |[queries, keys, values], gradient| {
        let gradient = gradient.contiguous()?.reshape(grouped)?;
        let to_values = weights.t()?.matmul(&gradient)?;
        let to_weights = gradient.matmul(&values.t()?)?;
        let total = (&weights * &to_weights)?.sum_keepdim(D::Minus1)?;
        let to_scores = ((&weights * to_weights.broadcast_sub(&total)?)? * scale)?;
        let to_queries = to_scores.matmul(keys)?.reshape(queries.shape())?;
        let to_keys = to_scores.t()?.matmul(&queries.reshape(grouped)?)?;
        Ok([Some(to_queries), Some(to_keys), Some(to_values)])
    })
}
