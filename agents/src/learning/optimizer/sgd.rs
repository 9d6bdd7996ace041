//! Stochastic gradient descent with momentum, as PyTorch's `SGD` with `dampening = 0`.
//!
//! Weight decay is decoupled as in AdamW ("SGDW", arXiv 1711.05101), not added to the gradient.

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use super::Step;
use super::in_place::Elementwise;

/// The numbers of gradient descent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sgd {
    /// Share of the past direction that is kept.
    pub momentum: f64,
    /// Looks one step of momentum ahead.
    pub nesterov: bool,
}

impl Sgd {
    /// The usual numbers.
    pub const USUAL: Self = Self { momentum: 0.9, nesterov: false };
}

impl Default for Sgd {
    fn default() -> Self {
        Self::USUAL
    }
}

impl Sgd {
    pub(super) fn in_place(
        self,
        value: &Tensor,
        moment: &Tensor,
        gradient: &Tensor,
        step: Step,
    ) -> Result<()> {
        let (momentum, shrink) = (self.momentum as f32, step.shrink as f32);
        let (keep, rate) = (step.keep as f32, step.rate as f32);
        let carry = |m: f32, [g]: [f32; 1]| momentum * m + g * shrink;
        moment.inplace_op2(gradient, &Elementwise(carry))?;
        if self.nesterov {
            let ahead = |w: f32, [m, g]: [f32; 2]| w * keep - rate * (g * shrink + momentum * m);
            value.inplace_op3(moment, gradient, &Elementwise(ahead))
        } else {
            value.inplace_op2(moment, &Elementwise(|w, [m]: [f32; 1]| w * keep - rate * m))
        }
    }

    pub(super) fn composed(
        self,
        value: &Tensor,
        moment: &Tensor,
        gradient: &Tensor,
        step: Step,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let gradient = (gradient * step.shrink)?;
        let moment = ((moment * self.momentum)? + &gradient)?;
        let direction =
            if self.nesterov { (gradient + (&moment * self.momentum)?)? } else { moment.clone() };
        Ok((((value * step.keep)? - (direction * step.rate)?)?, vec![moment]))
    }
}
