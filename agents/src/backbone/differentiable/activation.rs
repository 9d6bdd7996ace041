//! Nonlinearities, alone and as gates, with their backwards.

use candle_core::{CpuStorage, CudaStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};

use super::{Value, fused, scalar};
use crate::backbone::architecture::Activation;

/// `activation(x)`.
pub(crate) fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    let value = apply(&x.detach(), activation)?;
    if !x.track_op() {
        return Ok(value);
    }
    x.apply_op1(Activate { value: Value::new(value), activation })
}

/// `activation(gate) * up`, as in SwiGLU and GeGLU (Shazeer 2020, arXiv 2002.05202).
pub(crate) fn gated(gate: &Tensor, up: &Tensor, activation: Activation) -> Result<Tensor> {
    let value = match fused::zip(gate, up, |gate, up| scalar::value(activation, gate) * up) {
        Some(value) => value?,
        None => (apply(&gate.detach(), activation)? * up.detach())?,
    };
    if !gate.track_op() && !up.track_op() {
        return Ok(value);
    }
    gate.apply_op2(up, Gated { value: Value::new(value), activation })
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

struct Activate {
    value: Value,
    activation: Activation,
}

impl CustomOp1 for Activate {
    fn name(&self) -> &'static str {
        "activate"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.value.cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.value.cuda()
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let activation = self.activation;
        match fused::zip(x, gradient, |x, g| g * scalar::slope(activation, x)) {
            Some(to_x) => to_x.map(Some),
            None => (gradient * slope(x, activation)?).map(Some),
        }
    }
}

struct Gated {
    value: Value,
    activation: Activation,
}

impl CustomOp2 for Gated {
    fn name(&self) -> &'static str {
        "gated"
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

    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let activation = self.activation;
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
        Ok((Some(to_gate), Some(to_up)))
    }
}
