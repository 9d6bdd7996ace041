//! Optimisers over named tensors: AdamW, SGD with momentum and Lion, with gradient clipping, decoupled
//! weight decay and the two learning rates of LoRA+.
//!
//! Weights and moments are f32 whatever the model computes in, and kept in name order, so a state is
//! reproducible and can be saved. On the CPU a step rewrites them in place, on other devices it is
//! composed of tensor operations. The learning rate comes from the caller.

pub mod adamw;
mod in_place;
pub mod lion;
pub mod sgd;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use self::adamw::AdamW;
pub use self::lion::Lion;
pub use self::sgd::Sgd;
use crate::error::{ModelError, Result};

/// The name of the step count in a saved state.
pub(crate) const STEP: &str = "step";

/// How a gradient becomes a change of weights.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Adaptive rate for each number.
    #[serde(rename = "adamw")]
    AdamW(AdamW),
    /// Momentum.
    Sgd(Sgd),
    /// Sign of the momentum.
    Lion(Lion),
}

impl Method {
    fn moments(self) -> usize {
        match self {
            Self::AdamW(_) => 2,
            Self::Sgd(_) | Self::Lion(_) => 1,
        }
    }
}

/// LoRA+ (Hayou et al. 2024, arXiv 2402.12354): `B` learns faster than `A`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoraPlus {
    /// Rate of `B` over rate of `A`, at least 1; the paper suggests 16.
    pub ratio: f64,
}

impl LoraPlus {
    /// What the learning rate of a tensor of that name and rank is multiplied with. As in PEFT, vectors
    /// learn as fast as `B`.
    #[must_use]
    pub fn rate_factor(&self, name: &str, rank: usize) -> f64 {
        if name.contains("lora_B") || rank == 1 { self.ratio } else { 1.0 }
    }
}

/// Everything about an optimiser but its learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerSpec {
    /// How a gradient becomes a change of weights.
    pub method: Method,
    /// Decoupled weight decay, applied to matrices only.
    pub weight_decay: f64,
    /// Largest norm of the whole gradient; larger ones are scaled down.
    pub clip: Option<f64>,
    /// A faster rate for `B`.
    pub lora_plus: Option<LoraPlus>,
}

impl Default for OptimizerSpec {
    fn default() -> Self {
        AdamW::default().into()
    }
}

impl From<AdamW> for OptimizerSpec {
    fn from(numbers: AdamW) -> Self {
        let method = Method::AdamW(numbers);
        Self { method, weight_decay: 0.01, clip: Some(1.0), lora_plus: None }
    }
}

/// Parameters being trained, with their moments.
#[derive(Debug)]
pub struct Optimizer {
    spec: OptimizerSpec,
    parameters: BTreeMap<String, Parameter>,
    step: i32,
}

#[derive(Debug)]
struct Parameter {
    var: Var,
    moments: Vec<Tensor>,
    rate_factor: f64,
}

/// What one step is for one parameter.
#[derive(Clone, Copy, Debug)]
struct Step {
    /// Counted from 1.
    number: i32,
    rate: f64,
    /// What weight decay leaves of a weight.
    keep: f64,
    /// What clipping leaves of the gradient.
    shrink: f64,
}

impl Optimizer {
    /// Starts training f32 copies of the given tensors.
    ///
    /// # Errors
    /// On a tensor failure only.
    pub fn new<'a>(
        spec: impl Into<OptimizerSpec>,
        tensors: impl Iterator<Item = (&'a String, &'a Tensor)>,
    ) -> Result<Self> {
        let spec = spec.into();
        let parameters = tensors
            .map(|(name, tensor)| {
                let value = tensor.detach().to_dtype(DType::F32)?.contiguous()?;
                let zeros = || value.zeros_like();
                let parameter = Parameter {
                    moments: (0..spec.method.moments())
                        .map(|_| zeros())
                        .collect::<Result<_, _>>()?,
                    rate_factor: spec
                        .lora_plus
                        .map_or(1.0, |plus| plus.rate_factor(name, value.rank())),
                    var: Var::from_tensor(&value)?,
                };
                Ok((name.clone(), parameter))
            })
            .collect::<Result<_>>()?;
        Ok(Self { spec, parameters, step: 0 })
    }

    /// The tracked tensors, f32, to build a model from.
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

    /// Takes one step along `gradients` and returns their norm before clipping. A parameter without a
    /// gradient stays as it is.
    ///
    /// # Errors
    /// When the norm is not finite: nothing is changed then.
    pub fn step(&mut self, gradients: &BTreeMap<String, Tensor>, rate: f64) -> Result<f64> {
        let norm = norm(gradients)?;
        if !norm.is_finite() {
            let step = self.steps() + 1;
            return Err(ModelError::Diverged { step, reason: "the gradient is not finite" });
        }
        self.step += 1;
        let (spec, number) = (self.spec, self.step);
        let shrink = spec.clip.map_or(1.0, |clip| if norm > clip { clip / norm } else { 1.0 });
        self.parameters.par_iter_mut().try_for_each(|(name, parameter)| {
            let Some(gradient) = gradients.get(name) else { return Ok(()) };
            let rate = rate * parameter.rate_factor;
            let decay = if parameter.var.rank() > 1 { rate * spec.weight_decay } else { 0.0 };
            let step = Step { number, rate, keep: 1.0 - decay, shrink };
            parameter.step(spec.method, &gradient.to_dtype(DType::F32)?.contiguous()?, step)
        })?;
        Ok(norm)
    }

    /// Copies of everything a later run needs to go on: `<name>.value`, `<name>.moment<n>` and `step`.
    ///
    /// # Errors
    /// On a tensor failure only.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::new();
        for (name, parameter) in &self.parameters {
            for (key, tensor) in parameter.state(name) {
                state.insert(key, tensor.copy()?);
            }
        }
        state.insert(STEP.to_owned(), Tensor::new(&[i64::from(self.step)], &Device::Cpu)?);
        Ok(state)
    }

    /// Goes on from a saved state of the same parameters and the same method.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape: nothing is changed then.
    pub fn restore(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let find = |name: &str| {
            state.get(name).ok_or_else(|| ModelError::MissingWeight { name: name.to_owned() })
        };
        let step = find(STEP)?.to_vec1::<i64>()?;
        for (name, parameter) in &self.parameters {
            for (key, tensor) in parameter.state(name) {
                let found = find(&key)?.dims().to_vec();
                if found != tensor.dims() {
                    let expected = tensor.dims().to_vec();
                    return Err(ModelError::WeightShape { name: key, expected, found });
                }
            }
        }
        for (name, parameter) in &mut self.parameters {
            parameter.var.set(find(&format!("{name}.value"))?)?;
            for (index, moment) in parameter.moments.iter_mut().enumerate() {
                *moment = find(&format!("{name}.moment{index}"))?.copy()?;
            }
        }
        self.step = step.first().and_then(|&step| i32::try_from(step).ok()).unwrap_or(0);
        Ok(())
    }
}

impl Parameter {
    fn step(&mut self, method: Method, gradient: &Tensor, step: Step) -> Result<()> {
        let value = self.var.as_detached_tensor();
        let m = &self.moments;
        if value.device().is_cpu() {
            match method {
                Method::AdamW(rule) => rule.in_place(&value, [&m[0], &m[1]], gradient, step)?,
                Method::Sgd(rule) => rule.in_place(&value, &m[0], gradient, step)?,
                Method::Lion(rule) => rule.in_place(&value, &m[0], gradient, step)?,
            }
            return Ok(());
        }
        self.composed(method, gradient, step)
    }

    fn composed(&mut self, method: Method, gradient: &Tensor, step: Step) -> Result<()> {
        let value = self.var.as_detached_tensor();
        let m = &self.moments;
        let (value, moments) = match method {
            Method::AdamW(rule) => rule.composed(&value, [&m[0], &m[1]], gradient, step)?,
            Method::Sgd(rule) => rule.composed(&value, &m[0], gradient, step)?,
            Method::Lion(rule) => rule.composed(&value, &m[0], gradient, step)?,
        };
        self.var.set(&value)?;
        self.moments = moments;
        Ok(())
    }

    fn state(&self, name: &str) -> Vec<(String, Tensor)> {
        let moments = self.moments.iter().enumerate();
        std::iter::once((format!("{name}.value"), self.var.as_detached_tensor()))
            .chain(moments.map(|(index, m)| (format!("{name}.moment{index}"), m.clone())))
            .collect()
    }
}

/// The norm of all gradients together.
fn norm(gradients: &BTreeMap<String, Tensor>) -> Result<f64> {
    let squares: Vec<Result<f64>> = gradients
        .par_iter()
        .map(|(_, gradient)| {
            let gradient = gradient.to_dtype(DType::F32)?;
            Ok(f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?))
        })
        .collect();
    Ok(squares.into_iter().sum::<Result<f64>>()?.sqrt())
}

#[cfg(test)]
mod tests;
