//! RMSNorm and LayerNorm with their backwards.

use candle_core::{D, Result, Tensor};

use super::{fused, graft};

/// RMSNorm (Zhang and Sennrich 2019): `x / sqrt(mean(x²) + epsilon) * weight` over the last axis.
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, epsilon: f64) -> Result<Tensor> {
    let x = x.contiguous()?;
    let value = candle_nn::ops::rms_norm(&x.detach(), &weight.detach(), epsilon as f32)?;
    // r = 1/sqrt(mean(x²)+ε);  dx = r·(g·w) - x · r³/d · Σ(g·w·x);  dw = Σ over rows of g·x·r
    graft::two("rms-norm", value, [&x, weight], move |[x, weight], gradient| {
        if x.track_op()
            && !weight.track_op()
            && let Some(to_x) = fused::rows(x, gradient, weight, |x, g, w, out| {
                rms_norm_backward(x, g, w, epsilon as f32, out);
            })
        {
            return Ok([Some(to_x?), None]);
        }
        let width = x.dim(D::Minus1)? as f64;
        let mean_square = (x.sqr()?.sum_keepdim(D::Minus1)? / width)?;
        let r = (mean_square + epsilon)?.sqrt()?.recip()?;
        let to_x = if x.track_op() {
            let scaled = gradient.broadcast_mul(weight)?;
            let along = ((&scaled * x)?.sum_keepdim(D::Minus1)? * r.powf(3.0)?)?;
            let along = along.affine(1.0 / width, 0.0)?;
            Some((scaled.broadcast_mul(&r)? - x.broadcast_mul(&along)?)?)
        } else {
            None
        };
        let to_weight = if weight.track_op() {
            Some(over_rows(&(gradient * x.broadcast_mul(&r)?)?)?)
        } else {
            None
        };
        Ok([to_x, to_weight])
    })
}

/// LayerNorm (Ba et al. 2016): `(x - mean) / sqrt(variance + epsilon) * weight + bias` over the last axis.
pub(crate) fn layer_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    epsilon: f64,
) -> Result<Tensor> {
    let x = x.contiguous()?;
    let (w, b) = (weight.detach(), bias.detach());
    let value = candle_nn::ops::layer_norm(&x.detach(), &w, &b, epsilon as f32)?;
    // n = (x - μ)·r, h = g·w:  dx = r·(h - mean(h) - n·mean(h·n)),  dw = Σ g·n,  db = Σ g over rows
    graft::three("layer-norm", value, [&x, weight, bias], move |[x, weight, bias], gradient| {
        if x.track_op()
            && !weight.track_op()
            && !bias.track_op()
            && let Some(to_x) = fused::rows(x, gradient, weight, |x, g, w, out| {
                layer_norm_backward(x, g, w, epsilon as f32, out);
            })
        {
            return Ok([Some(to_x?), None, None]);
        }
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let r = (variance + epsilon)?.sqrt()?.recip()?;
        let normed = centred.broadcast_mul(&r)?;
        let to_x = if x.track_op() {
            let scaled = gradient.broadcast_mul(weight)?;
            let along = (&scaled * &normed)?.mean_keepdim(D::Minus1)?;
            let centre = scaled.broadcast_sub(&scaled.mean_keepdim(D::Minus1)?)?;
            Some((centre - normed.broadcast_mul(&along)?)?.broadcast_mul(&r)?)
        } else {
            None
        };
        let to_weight =
            if weight.track_op() { Some(over_rows(&(gradient * &normed)?)?) } else { None };
        let to_bias = if bias.track_op() { Some(over_rows(gradient)?) } else { None };
        Ok([to_x, to_weight, to_bias])
    })
}

/// The sum over every axis but the last.
fn over_rows(x: &Tensor) -> Result<Tensor> {
    x.flatten_to(x.rank() - 2)?.sum(0)
}

/// `dx = r·(g·w) - x · r³/d · Σ(g·w·x)` of one row.
fn rms_norm_backward(x: &[f32], g: &[f32], w: &[f32], epsilon: f32, out: &mut [f32]) {
    let width = x.len() as f32;
    let r = (fused::sum(x, x, |a, b| a * b) / width + epsilon).sqrt().recip();
    for ((out, &g), &w) in out.iter_mut().zip(g).zip(w) {
        *out = g * w;
    }
    let along = fused::sum(out, x, |a, b| a * b) * r * r * r / width;
    for (out, &x) in out.iter_mut().zip(x) {
        *out = r * *out - x * along;
    }
}

/// `dx = r·(h - mean(h) - n·mean(h·n))` of one row, with `h = g·w` and `n = (x - mean(x))·r`.
fn layer_norm_backward(x: &[f32], g: &[f32], w: &[f32], epsilon: f32, out: &mut [f32]) {
    let width = x.len() as f32;
    let mean = fused::sum(x, x, |a, _| a) / width;
    let r = (fused::sum(x, x, |a, _| (a - mean) * (a - mean)) / width + epsilon).sqrt().recip();
    for ((out, &g), &w) in out.iter_mut().zip(g).zip(w) {
        *out = g * w;
    }
    let centre = fused::sum(out, out, |h, _| h) / width;
    let along = fused::sum(out, x, |h, x| h * (x - mean) * r) / width;
    for (out, &x) in out.iter_mut().zip(x) {
        *out = r * (*out - centre - (x - mean) * r * along);
    }
}
