//! An adapter folded into the weights of a copy of its backbone, for an agent that is only served: it then
//! runs as fast as the bare network.
//!
//! The backbone itself is never changed, so dropping the copy undoes a merge; [`unmerge`] is for a copy whose
//! base is gone. Quantised weights that change become plain, and take the memory of plain ones. A head is
//! no part of a backbone and is not merged. [`crate::backbone::export`] writes the result as a folder.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};

use super::update::Update;
use super::{Adapter, Method};
use crate::backbone::names::Module;
use crate::backbone::{Architecture, Backbone, Weight};
use crate::error::{ModelError, Result};

/// A backbone whose weights contain the adapter's change: without the adapter it answers as `backbone` does
/// with it, to rounding. Weights that stay the same are shared, not copied.
///
/// # Errors
/// When the method is prompt or prefix tuning, which change no weight, or the adapter is of another
/// backbone.
pub fn merge(adapter: &Adapter, backbone: &Backbone) -> Result<Backbone> {
    let mut weights = match &adapter.spec.method {
        Method::Layers { .. } | Method::Full => own(adapter, backbone)?,
        Method::Prompt { .. } | Method::Prefix { .. } => {
            return Err(refused("merge", "virtual tokens are no part of any weight"));
        }
        Method::Frozen | Method::Lora(_) | Method::Ia3(_) | Method::Vera(_) => BTreeMap::new(),
    };
    for (&(layer, module), update) in &adapter.parts.updates {
        let change = Change::of(update)?;
        change.on_map(backbone, layer, module, &mut weights, Change::apply)?;
    }
    with(backbone, weights)
}

/// The base weights again, to rounding: takes out of `merged` what [`merge`] put in.
///
/// `adapter` must be as it was, assembled on the base: DoRA's norms come from there. What was quantised
/// stays plain.
///
/// # Errors
/// When the method has overwritten the base (own layers), changes no weight (virtual tokens), or has
/// multiplied by zero, or the adapter is of another backbone.
pub fn unmerge(adapter: &Adapter, merged: &Backbone) -> Result<Backbone> {
    match &adapter.spec.method {
        Method::Layers { .. } | Method::Full => {
            return Err(refused("unmerge", "own layers have taken the place of the base weights"));
        }
        Method::Prompt { .. } | Method::Prefix { .. } => {
            return Err(refused("unmerge", "virtual tokens are no part of any weight"));
        }
        Method::Frozen | Method::Lora(_) | Method::Ia3(_) | Method::Vera(_) => {}
    }
    let mut weights = BTreeMap::new();
    for (&(layer, module), update) in &adapter.parts.updates {
        let change = Change::of(update)?;
        if change.has_zero()? {
            return Err(refused("unmerge", "a factor is zero, and what it multiplied is gone"));
        }
        change.on_map(merged, layer, module, &mut weights, Change::undo)?;
    }
    with(merged, weights)
}

fn refused(doing: &'static str, reason: &str) -> ModelError {
    ModelError::Incompatible { doing, reason: reason.to_owned() }
}

/// The adapter's own copies of weights, without its head.
fn own(adapter: &Adapter, backbone: &Backbone) -> Result<BTreeMap<String, Weight>> {
    let is_weight = |(name, _): &(&String, &Tensor)| backbone.weights().contains_key(*name);
    let dtype = backbone.network.dtype();
    let cast = |(name, tensor): (&String, &Tensor)| -> Result<(String, Weight)> {
        Ok((name.clone(), tensor.detach().to_dtype(dtype)?.into()))
    };
    adapter.tensors.iter().filter(is_weight).map(cast).collect()
}

/// A copy of a backbone in which some weights are others.
fn with(backbone: &Backbone, changed: BTreeMap<String, Weight>) -> Result<Backbone> {
    let mut weights = backbone.weights().clone();
    weights.extend(changed);
    let architecture = Architecture::clone(backbone.network.architecture());
    Backbone::assemble(architecture, weights, backbone.tokenizer.clone())
}

/// What an update does to a map, in f32: `W' = rows ∘ (W + delta) ∘ columns`, `b' = rows ∘ b`.
struct Change {
    /// `[out, in]`.
    delta: Option<Tensor>,
    /// `[out, 1]`.
    rows: Option<Tensor>,
    /// Whether the bias is an output like any other; in DoRA it is added afterwards.
    bias: bool,
    /// `[1, in]`.
    columns: Option<Tensor>,
}

impl Change {
    fn of(update: &Update) -> Result<Self> {
        let none = Self { delta: None, rows: None, bias: false, columns: None };
        let plain = |t: &Tensor| t.detach().to_dtype(DType::F32);
        let lora =
            |lora: &super::update::Lora| plain(&lora.b)?.matmul(&plain(&lora.a)?)? * lora.scale;
        Ok(match update {
            Update::Lora(pair) => Self { delta: Some(lora(pair)?), ..none },
            Update::Dora { lora: pair, stretch } => {
                let rows = Some(plain(stretch)?.unsqueeze(1)?);
                Self { delta: Some(lora(pair)?), rows, ..none }
            }
            Update::Output(scale) => {
                Self { rows: Some(plain(scale)?.unsqueeze(1)?), bias: true, ..none }
            }
            Update::Input(scale) => Self { columns: Some(plain(scale)?.unsqueeze(0)?), ..none },
            Update::Vera { a, b, inner, outer, .. } => {
                let a = plain(a)?.broadcast_mul(&plain(inner)?.unsqueeze(1)?)?;
                let b = plain(b)?.broadcast_mul(&plain(outer)?.unsqueeze(1)?)?;
                Self { delta: Some(b.matmul(&a)?), ..none }
            }
        })
    }

    fn has_zero(&self) -> Result<bool> {
        for factor in [&self.rows, &self.columns].into_iter().flatten() {
            if factor.abs()?.flatten_all()?.min(0)?.to_scalar::<f32>()? == 0.0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn apply(&self, weight: Tensor, bias: Option<Tensor>) -> Result<(Tensor, Option<Tensor>)> {
        let mut weight = weight;
        if let Some(delta) = &self.delta {
            weight = (weight + delta)?;
        }
        for factor in [&self.rows, &self.columns].into_iter().flatten() {
            weight = weight.broadcast_mul(factor)?;
        }
        let bias = match (bias, &self.rows) {
            (Some(bias), Some(rows)) if self.bias => Some(bias.mul(&rows.squeeze(1)?)?),
            (bias, _) => bias,
        };
        Ok((weight, bias))
    }

    fn undo(&self, weight: Tensor, bias: Option<Tensor>) -> Result<(Tensor, Option<Tensor>)> {
        let mut weight = weight;
        for factor in [&self.rows, &self.columns].into_iter().flatten() {
            weight = weight.broadcast_div(factor)?;
        }
        if let Some(delta) = &self.delta {
            weight = (weight - delta)?;
        }
        let bias = match (bias, &self.rows) {
            (Some(bias), Some(rows)) if self.bias => Some(bias.div(&rows.squeeze(1)?)?),
            (bias, _) => bias,
        };
        Ok((weight, bias))
    }

    /// Puts what `how` makes of a map of `backbone` into `weights`.
    fn on_map(
        &self,
        backbone: &Backbone,
        layer: usize,
        module: Module,
        weights: &mut BTreeMap<String, Weight>,
        how: impl Fn(&Self, Tensor, Option<Tensor>) -> Result<(Tensor, Option<Tensor>)>,
    ) -> Result<()> {
        let architecture = backbone.network.architecture();
        let path = architecture.path(layer, module).unwrap_or_default();
        let (name, bias_name) = (format!("{path}.weight"), format!("{path}.bias"));
        let read = |name: &str| -> Result<Tensor> {
            Ok(backbone.weight(name)?.dequantize()?.to_dtype(DType::F32)?)
        };
        let bias = architecture.has_bias(module).then(|| read(&bias_name)).transpose()?;
        let (weight, bias) = how(self, read(&name)?, bias)?;
        let dtype = backbone.network.dtype();
        weights.insert(name, weight.to_dtype(dtype)?.into());
        if let Some(bias) = bias {
            weights.insert(bias_name, bias.to_dtype(dtype)?.into());
        }
        Ok(())
    }
}
