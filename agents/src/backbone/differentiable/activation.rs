//! Nonlinearities, alone and as gates, with their backwards.

use candle_core::{Result, Tensor};

use super::{fused, graft, scalar};
use crate::backbone::architecture::Activation;

/// `activation(x)`.
pub(crate) fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    let value = apply(&x.detach(), activation)?;
    graft::one("activate", value, x, move |[x], gradient| {
        let to_x = match fused::zip(x, gradient, |x, g| g * scalar::slope(activation, x)) {
            Some(to_x) => to_x?,
            None => (gradient * slope(x, activation)?)?,
        };
        Ok([Some(to_x)])
    })
}

/// `activation(gate) * up`, as in SwiGLU and GeGLU (Shazeer 2020, arXiv 2002.05202).
pub(crate) fn gated(gate: &Tensor, up: &Tensor, activation: Activation) -> Result<Tensor> {
    let value = match fused::zip(gate, up, |gate, up| scalar::value(activation, gate) * up) {
        Some(value) => value?,
        None => (apply(&gate.detach(), activation)? * up.detach())?,
    };
    graft::two("gated", value, [gate, up], move |[gate, up], gradient| {
        let both = |gate, up, g| {
            (g * up * scalar::slope(activation, gate), g * scalar::value(activation, gate))
        };
        let (to_gate, to_up) = match fused::zip_to_two(gate, up, gradient, both) {
            Some(both) => both?,
            None => (
                ((gradient * up)? * slope(gate, activation)?)?,
                (gradient * apply(gate, activation)?)?,
            ),
        };
        Ok([Some(to_gate), Some(to_up)])
    })
}

fn apply(x: &Tensor, activation: Activation) -> Result<Tensor> {
    if let Some(value) = fused::map(x, |x| scalar::value(activation, x)) {
        return value;
    }
    match activation {
        Activation::Silu => x.silu(),
        Activation::Gelu => x.gelu_erf(),
        Activation::GeluTanh => x.gelu(),
        Activation::Relu => x.relu(),
        Activation::Tanh => x.tanh(),
    }
}

/// The derivative of `activation` at `x`.
fn slope(x: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        // σ(x)·(1 + x·(1 - σ(x))) = σ + xσ - xσ²
        Activation::Silu => {
            let sigmoid = candle_nn::ops::sigmoid(x)?;
            let silu = (x * &sigmoid)?;
            (&sigmoid + &silu)? - (silu * &sigmoid)?
        }
        // Φ(x) + x·φ(x)
        Activation::Gelu => {
            let cumulative =
                ((x * std::f64::consts::FRAC_1_SQRT_2)?.erf()? + 1.0)?.affine(0.5, 0.0)?;
            let density = (x.sqr()? * -0.5)?.exp()?;
            let factor = 1.0 / std::f64::consts::TAU.sqrt();
            cumulative + (x * density)?.affine(factor, 0.0)?
        }
        // ½(1 + t) + ½x(1 - t²)·c(1 + 3·0.044715·x²), t = tanh(c(x + 0.044715·x³))
        Activation::GeluTanh => {
            let c = (2.0 / std::f64::consts::PI).sqrt();
            let square = x.sqr()?;
            let t = (x * square.affine(0.044_715, 1.0)?)?.affine(c, 0.0)?.tanh()?;
            let inner = square.affine(3.0 * 0.044_715 * c, c)?;
            let right = ((x * t.sqr()?.affine(-0.5, 0.5)?)? * inner)?;
            t.affine(0.5, 0.5)? + right
        }
        Activation::Relu => x.gt(0.0)?.to_dtype(x.dtype()),
        Activation::Tanh => x.tanh()?.sqr()?.affine(-1.0, 1.0),
    }
}
