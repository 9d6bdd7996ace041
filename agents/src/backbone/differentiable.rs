//! Operations that run as fused kernels and still carry gradients.
//!
//! candle's fused kernels (RMSNorm, rotary embedding, softmax) cut the gradient silently, and its
//! matrix product stores a gradient even for frozen weights. Each operation here computes its value
//! with the fast kernels outside the tape and is grafted onto the tape with an analytic backward.
//! A frozen operand receives no gradient and costs no memory. Every backward is checked against
//! finite differences in the tests below. Nothing here knows what a layer is.

use std::sync::Mutex;

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, D, Layout, Result, Shape, Storage,
    Tensor,
};

/// A value computed outside the tape, waiting to be grafted onto it.
struct Value(Mutex<Option<Tensor>>);

impl Value {
    fn new(tensor: Tensor) -> Self {
        Self(Mutex::new(Some(tensor)))
    }

    fn take(&self) -> Result<Tensor> {
        let slot = self.0.lock().ok().and_then(|mut slot| slot.take());
        slot.ok_or_else(|| candle_core::Error::Msg("a value was grafted twice".to_owned()))
    }

    fn cpu(&self) -> Result<(CpuStorage, Shape)> {
        let value = self.take()?;
        let (storage, layout) = value.storage_and_layout();
        match &*storage {
            Storage::Cpu(storage) => Ok((storage.try_clone(layout)?, value.shape().clone())),
            _ => candle_core::bail!("expected a value on the CPU"),
        }
    }

    fn cuda(&self) -> Result<(CudaStorage, Shape)> {
        let value = self.take()?;
        let (storage, layout) = value.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => Ok((storage.try_clone(layout)?, value.shape().clone())),
            _ => candle_core::bail!("expected a value on the CUDA device"),
        }
    }
}

/// `x · wᵀ`, with `x` of shape `[.., k]` and `w` of shape `[n, k]`.
///
/// The gradient of `w` is computed only where `w` is trained.
pub(crate) fn linear(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    let (n, k) = w.dims2()?;
    let mut shape = x.dims().to_vec();
    let rows = x.elem_count() / k;
    let flat = x.contiguous()?.reshape((rows, k))?;
    if let Some(last) = shape.last_mut() {
        *last = n;
    }
    flat.apply_op2(w, Linear)?.reshape(shape)
}

struct Linear;

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (m, k) = x_layout.shape().dims2()?;
        let (n, _) = w_layout.shape().dims2()?;
        Ok((x.matmul(w, (1, m, n, k), x_layout, &w_layout.transpose(0, 1)?)?, (m, n).into()))
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        w: &CudaStorage,
        w_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (m, k) = x_layout.shape().dims2()?;
        let (n, _) = w_layout.shape().dims2()?;
        Ok((x.matmul(w, (1, m, n, k), x_layout, &w_layout.transpose(0, 1)?)?, (m, n).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let to_x = if x.track_op() { Some(gradient.matmul(w)?) } else { None };
        let to_w = if w.track_op() { Some(gradient.t()?.matmul(x)?) } else { None };
        Ok((to_x, to_w))
    }
}

/// RMSNorm (Zhang and Sennrich 2019): `x / sqrt(mean(x²) + epsilon) * weight` over the last axis.
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, epsilon: f64) -> Result<Tensor> {
    let x = x.contiguous()?;
    let value = candle_nn::ops::rms_norm(&x.detach(), &weight.detach(), epsilon as f32)?;
    if !x.track_op() && !weight.track_op() {
        return Ok(value);
    }
    x.apply_op2(weight, RmsNorm { value: Value::new(value), epsilon })
}

struct RmsNorm {
    value: Value,
    epsilon: f64,
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
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
    ) -> Result<(CudaStorage, Shape)> {
        self.value.cuda()
    }

    // r = 1/sqrt(mean(x²)+ε);  dx = r·(g·w) - x · r³/d · Σ(g·w·x);  dw = Σ over rows of g·x·r
    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let width = x.dim(D::Minus1)? as f64;
        let mean_square = (x.sqr()?.sum_keepdim(D::Minus1)? / width)?;
        let r = (mean_square + self.epsilon)?.sqrt()?.recip()?;
        let to_x = if x.track_op() {
            let scaled = gradient.broadcast_mul(weight)?;
            let along = ((&scaled * x)?.sum_keepdim(D::Minus1)? * r.powf(3.0)?)?;
            let along = along.affine(1.0 / width, 0.0)?;
            Some((scaled.broadcast_mul(&r)? - x.broadcast_mul(&along)?)?)
        } else {
            None
        };
        let to_weight = if weight.track_op() {
            let contribution = (gradient * x.broadcast_mul(&r)?)?;
            Some(contribution.flatten_to(x.rank() - 2)?.sum(0)?)
        } else {
            None
        };
        Ok((to_x, to_weight))
    }
}

/// Rotary embedding (Su et al. 2021) of `x` `[batch, heads, tokens, width]`; the tables are
/// `[tokens, width/2]`, or `[batch, tokens, width/2]` where rows sit at different positions.
pub(crate) fn rotary(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let x = x.contiguous()?;
    let value = candle_nn::rotary_emb::rope(&x.detach(), cos, sin)?;
    if !x.track_op() {
        return Ok(value);
    }
    let inverse = (cos.clone(), sin.neg()?);
    x.apply_op1(Rotary { value: Value::new(value), inverse })
}

struct Rotary {
    value: Value,
    inverse: (Tensor, Tensor),
}

impl CustomOp1 for Rotary {
    fn name(&self) -> &'static str {
        "rotary"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.value.cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.value.cuda()
    }

    // A rotation is undone by the opposite rotation.
    fn bwd(&self, _x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (cos, sin) = &self.inverse;
        candle_nn::rotary_emb::rope(&gradient.contiguous()?, cos, sin).map(Some)
    }
}

/// Attention of queries `[batch, heads, tokens, width]` over keys and values
/// `[batch, key heads, seen, width]` (grouped where there are fewer key heads, Ainslie et al. 2023).
///
/// `mask` is added to the scores and broadcasts to `[batch, heads, tokens, seen]`.
pub(crate) fn attention(
    queries: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    mask: Option<&Tensor>,
) -> Result<Tensor> {
    let (batch, heads, tokens, width) = queries.dims4()?;
    let (_, key_heads, seen, _) = keys.dims4()?;
    let grouped = (batch, key_heads, heads / key_heads * tokens, width);
    let scale = 1.0 / (width as f64).sqrt();
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

/// `silu(gate) * up`, the gated activation of SwiGLU (Shazeer 2020).
pub(crate) fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let value = (gate.detach().silu()? * up.detach())?;
    if !gate.track_op() && !up.track_op() {
        return Ok(value);
    }
    gate.apply_op2(up, Swiglu(Value::new(value)))
}

struct Swiglu(Value);

impl CustomOp2 for Swiglu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.0.cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.0.cuda()
    }

    // σ = sigmoid(gate):  silu' = σ·(1 + gate·(1-σ))
    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let sigmoid = candle_nn::ops::sigmoid(gate)?;
        let silu = (gate * &sigmoid)?;
        let to_up = (gradient * &silu)?;
        // σ + silu·(1-σ) = σ + silu - silu·σ
        let slope = ((&sigmoid + &silu)? - (&silu * &sigmoid)?)?;
        let to_gate = ((gradient * up)? * slope)?;
        Ok((Some(to_gate), Some(to_up)))
    }
}

/// Negative log-likelihood in nats of `targets` `[n]` (u32) under `logits` `[n, classes]`; one value
/// a row, so that callers can weight or mask rows.
pub(crate) fn negative_log_likelihood(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let values = logits.detach();
    let chosen = values.gather(&targets.unsqueeze(1)?, 1)?.squeeze(1)?;
    let value = (values.log_sum_exp(D::Minus1)? - chosen)?;
    if !logits.track_op() {
        return Ok(value);
    }
    logits.apply_op1(NegativeLogLikelihood { value: Value::new(value), targets: targets.clone() })
}

struct NegativeLogLikelihood {
    value: Value,
    targets: Tensor,
}

impl CustomOp1 for NegativeLogLikelihood {
    fn name(&self) -> &'static str {
        "negative-log-likelihood"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.value.cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.value.cuda()
    }

    // d/dlogits = (softmax - one-hot) · g
    fn bwd(&self, logits: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let column = gradient.unsqueeze(1)?.contiguous()?;
        let spread = candle_nn::ops::softmax_last_dim(&logits.detach())?.broadcast_mul(&column)?;
        spread.scatter_add(&self.targets.unsqueeze(1)?, &column.neg()?, 1).map(Some)
    }
}

#[cfg(test)]
mod tests;
