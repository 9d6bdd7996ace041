//! AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) over named tensors, with gradient clipping.
//!
//! Moments are f32 and kept in name order, so the state is reproducible and can be saved.

use std::collections::BTreeMap;

use candle_core::{Tensor, Var};

use crate::error::{ModelError, Result};

/// The numbers of AdamW.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay, applied to matrices only.
    pub weight_decay: f64,
    /// Largest norm of the whole gradient; larger ones are scaled down.
    pub clip: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weight_decay: 0.01, clip: 1.0 }
    }
}

/// Parameters being trained, with their moments.
#[derive(Debug)]
pub struct Optimizer {
    numbers: AdamW,
    parameters: BTreeMap<String, Parameter>,
    step: i32,
}

#[derive(Debug)]
struct Parameter {
    var: Var,
    first: Tensor,
    second: Tensor,
}

impl Optimizer {
    /// Starts training copies of the given tensors.
    ///
    /// # Errors
    /// On a tensor failure only.
    pub fn new<'a>(
        numbers: AdamW,
        tensors: impl Iterator<Item = (&'a String, &'a Tensor)>,
    ) -> Result<Self> {
        let parameters = tensors
            .map(|(name, tensor)| {
                let parameter = Parameter {
                    var: Var::from_tensor(&tensor.copy()?)?,
                    first: tensor.zeros_like()?,
                    second: tensor.zeros_like()?,
                };
                Ok((name.clone(), parameter))
            })
            .collect::<Result<_>>()?;
        Ok(Self { numbers, parameters, step: 0 })
    }

    /// The tracked tensors, to build a model from.
    #[must_use]
    pub fn tracked(&self) -> BTreeMap<String, Tensor> {
        let tensor = |p: &Parameter| p.var.as_tensor().clone();
        self.parameters.iter().map(|(name, p)| (name.clone(), tensor(p))).collect()
    }

    /// Copies of the present values that later steps do not touch.
    ///
    /// # Errors
    /// On a tensor failure only.
    pub fn values(&self) -> Result<BTreeMap<String, Tensor>> {
        self.parameters
            .iter()
            .map(|(name, p)| Ok((name.clone(), p.var.as_detached_tensor().copy()?)))
            .collect()
    }

    /// Steps taken so far.
    #[must_use]
    pub fn steps(&self) -> usize {
        usize::try_from(self.step).unwrap_or(0)
    }

    /// Takes one step along `gradients` and returns their norm before clipping.
    ///
    /// # Errors
    /// When the norm is not finite: nothing is changed then.
    pub fn step(&mut self, gradients: &BTreeMap<String, Tensor>, rate: f64) -> Result<f64> {
        let mut square = 0.0;
        for gradient in gradients.values() {
            square += f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?);
        }
        let norm = square.sqrt();
        if !norm.is_finite() {
            let step = self.steps() + 1;
            return Err(ModelError::Diverged { step, reason: "the gradient is not finite" });
        }
        self.step += 1;
        let AdamW { beta1, beta2, epsilon, weight_decay, clip } = self.numbers;
        let shrink = if norm > clip { clip / norm } else { 1.0 };
        let correct1 = 1.0 - beta1.powi(self.step);
        let correct2 = 1.0 - beta2.powi(self.step);
        for (name, parameter) in &mut self.parameters {
            let Some(gradient) = gradients.get(name) else { continue };
            let gradient = (gradient * shrink)?;
            parameter.first = ((&parameter.first * beta1)? + (&gradient * (1.0 - beta1))?)?;
            parameter.second = ((&parameter.second * beta2)? + (gradient.sqr()? * (1.0 - beta2))?)?;
            let direction = ((&parameter.first / correct1)?
                / ((&parameter.second / correct2)?.sqrt()? + epsilon)?)?;
            let value = parameter.var.as_detached_tensor();
            let decay = if value.rank() > 1 { rate * weight_decay } else { 0.0 };
            let updated = ((value * (1.0 - decay))? - (direction * rate)?)?;
            parameter.var.set(&updated)?;
        }
        Ok(norm)
    }
}
