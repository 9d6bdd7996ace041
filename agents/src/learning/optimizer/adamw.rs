//! AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101): the gradient's mean over the root of its mean
//! square, both corrected for their start at zero.

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use super::Step;
use super::in_place::Elementwise;

/// The numbers of AdamW.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
}

impl AdamW {
    /// The usual numbers.
    pub const USUAL: Self = Self { beta1: 0.9, beta2: 0.99, epsilon: 1e-8 };
}

impl Default for AdamW {
    fn default() -> Self {
        Self::USUAL
    }
}

impl AdamW {
    pub(super) fn in_place(
        self,
        value: &Tensor,
        [first, second]: [&Tensor; 2],
        gradient: &Tensor,
        step: Step,
    ) -> Result<()> {
        let (b1, b2) = (self.beta1 as f32, self.beta2 as f32);
        let (rest1, rest2) = ((1.0 - self.beta1) as f32, (1.0 - self.beta2) as f32);
        let shrink = step.shrink as f32;
        first
            .inplace_op2(gradient, &Elementwise(|m, [g]: [f32; 1]| b1 * m + rest1 * g * shrink))?;
        let square = |v: f32, [g]: [f32; 1]| b2 * v + rest2 * (g * shrink) * (g * shrink);
        second.inplace_op2(gradient, &Elementwise(square))?;
        let (keep, rate) = (step.keep as f32, step.rate as f32);
        let (correct1, correct2) = self.corrections(step);
        let epsilon = self.epsilon as f32;
        let update = |w: f32, [m, v]: [f32; 2]| {
            w * keep - rate * (m * correct1) / ((v * correct2).sqrt() + epsilon)
        };
        value.inplace_op3(first, second, &Elementwise(update))
    }

    pub(super) fn composed(
        self,
        value: &Tensor,
        [first, second]: [&Tensor; 2],
        gradient: &Tensor,
        step: Step,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let gradient = (gradient * step.shrink)?;
        let first = ((first * self.beta1)? + (&gradient * (1.0 - self.beta1))?)?;
        let second = ((second * self.beta2)? + (gradient.sqr()? * (1.0 - self.beta2))?)?;
        let (correct1, correct2) = self.corrections(step);
        let root = ((&second * f64::from(correct2))?.sqrt()? + self.epsilon)?;
        let direction = ((&first * f64::from(correct1))? / root)?;
        let value = ((value * step.keep)? - (direction * step.rate)?)?;
        Ok((value, vec![first, second]))
    }

    fn corrections(self, step: Step) -> (f32, f32) {
        let correct = |beta: f64| (1.0 / (1.0 - beta.powi(step.number))) as f32;
        (correct(self.beta1), correct(self.beta2))
    }
}
