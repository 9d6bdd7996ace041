//! Linear maps with their backward: dense or quantised weights, frozen or trained.

use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::quantized::QTensor;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};

use super::graft;
use crate::backbone::weight::Weight;

/// `x · wᵀ + b`, with `x` of shape `[.., k]`, `w` of shape `[n, k]` and `b` of shape `[n]`.
///
/// Gradients of `w` and `b` are computed only where they are trained; a quantised `w` never is.
pub(crate) fn linear(x: &Tensor, w: &Weight, bias: Option<&Tensor>) -> Result<Tensor> {
    let product = match w {
        Weight::Dense(w) => matmul(x, w)?,
        Weight::Quantized(w) => {
            let (n, _) = w.shape().dims2()?;
            let (flat, shape) = flatten(x, n)?;
            flat.apply_op1(QuantizedLinear(Arc::clone(w)))?.reshape(shape)?
        }
    };
    match bias {
        Some(bias) if bias.track_op() => product.broadcast_add(bias),
        Some(bias) => shift(&product, bias),
        None => Ok(product),
    }
}

/// `x · wᵀ`, with `x` of shape `[.., k]` and `w` of shape `[n, k]`.
pub(crate) fn matmul(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    let (n, _) = w.dims2()?;
    let (flat, shape) = flatten(x, n)?;
    flat.apply_op2(w, Linear)?.reshape(shape)
}

/// `x` as a matrix, and the shape of a result with `n` columns.
pub(super) fn flatten(x: &Tensor, n: usize) -> Result<(Tensor, Vec<usize>)> {
    let mut shape = x.dims().to_vec();
    let k = shape.last().copied().unwrap_or(1).max(1);
    if let Some(last) = shape.last_mut() {
        *last = n;
    }
    Ok((x.contiguous()?.reshape((x.elem_count() / k, k))?, shape))
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

/// A product with a quantised matrix. The backward expands that one matrix and drops it again.
struct QuantizedLinear(Arc<QTensor>);

impl CustomOp1 for QuantizedLinear {
    fn name(&self) -> &'static str {
        "quantized-linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.0.as_ref().cpu_fwd(x, layout)
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        self.0.as_ref().cuda_fwd(x, layout)
    }

    fn bwd(&self, _x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        Weight::Quantized(Arc::clone(&self.0)).transposed_product(&gradient.contiguous()?).map(Some)
    }
}

/// Adds a frozen bias: the gradient passes through unchanged.
fn shift(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let value = x.detach().broadcast_add(bias)?;
    graft::one("shift", value, x, |_, gradient| Ok([Some(gradient.clone())]))
}
