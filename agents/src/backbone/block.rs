//! The weights of one block, whatever its family: linear maps and norms, picked by name.
//!
//! A block is the backbone's own or an adapter's copy; both look the same here. Running one is in
//! [`super::network`].

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::architecture::{Architecture, NormKind};
use super::differentiable;
use super::names::{Module, Place};
use super::weight::Weight;
use crate::error::{ModelError, Result};

/// Where weights come from, by name.
pub(crate) type Source<'a> = dyn Fn(&str) -> Result<Weight> + 'a;

/// The source that looks into named tensors.
pub(crate) fn named(tensors: &BTreeMap<String, Tensor>) -> impl Fn(&str) -> Result<Weight> + '_ {
    |name| find(tensors, name).map(Weight::Dense)
}

/// The tensor or weight of this name.
pub(crate) fn find<T: Clone>(tensors: &BTreeMap<String, T>, name: &str) -> Result<T> {
    let missing = || ModelError::MissingWeight { name: name.to_owned() };
    tensors.get(name).cloned().ok_or_else(missing)
}

/// A linear map `x · wᵀ + b`.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    pub(crate) weight: Weight,
    pub(crate) bias: Option<Tensor>,
}

impl Linear {
    pub(crate) fn assemble(path: &str, bias: bool, get: &Source<'_>) -> Result<Self> {
        let name = format!("{path}.bias");
        let bias = if bias { Some(get(&name)?.dense(&name)?) } else { None };
        Ok(Self { weight: get(&format!("{path}.weight"))?, bias })
    }

    /// Applies the map to the last axis.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(differentiable::linear(x, &self.weight, self.bias.as_ref())?)
    }
}

/// A norm over the last axis.
#[derive(Clone, Debug)]
pub(crate) struct Norm {
    kind: NormKind,
    epsilon: f64,
    weight: Tensor,
    bias: Tensor,
}

impl Norm {
    pub(crate) fn assemble(
        path: &str,
        architecture: &Architecture,
        get: &Source<'_>,
    ) -> Result<Self> {
        let dense = |name: String| get(&name)?.dense(&name);
        let weight = dense(format!("{path}.weight"))?;
        let kind = architecture.norm;
        let weight = if kind == NormKind::RmsFromOne { (weight + 1.0)? } else { weight };
        let bias = if kind == NormKind::Layer && architecture.biases.norm {
            dense(format!("{path}.bias"))?
        } else {
            weight.zeros_like()?.detach()
        };
        Ok(Self { kind, epsilon: architecture.epsilon, weight, bias })
    }

    /// Its factors, `[width]`.
    pub(crate) fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// Norms the last axis.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(match self.kind {
            NormKind::Layer => {
                differentiable::layer_norm(x, &self.weight, &self.bias, self.epsilon)?
            }
            NormKind::Rms | NormKind::RmsFromOne => {
                differentiable::rms_norm(x, &self.weight, self.epsilon)?
            }
        })
    }
}

/// The weights of one block.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    maps: [Option<Linear>; 9],
    norms: [Option<Norm>; 6],
    /// Norm of each query head and of each key head.
    pub(crate) head_norms: Option<[Norm; 2]>,
}

impl Block {
    /// Picks the weights of block `layer`.
    ///
    /// # Errors
    /// When one is missing.
    pub(crate) fn assemble(
        architecture: &Architecture,
        layer: usize,
        get: &Source<'_>,
    ) -> Result<Self> {
        let family = architecture.family;
        let prefix = family.block(layer);
        let mut maps: [Option<Linear>; 9] = Default::default();
        for (slot, module) in maps.iter_mut().zip(Module::ALL) {
            if let Some(path) = module.path(family) {
                let bias = architecture.has_bias(module);
                *slot = Some(Linear::assemble(&format!("{prefix}.{path}"), bias, get)?);
            }
        }
        let mut norms: [Option<Norm>; 6] = Default::default();
        for (slot, place) in norms.iter_mut().zip(Place::ALL) {
            if let Some(path) = place.path(family, layer) {
                *slot = Some(Norm::assemble(&format!("{prefix}.{path}"), architecture, get)?);
            }
        }
        let head_norm =
            |name: &str| Norm::assemble(&format!("{prefix}.self_attn.{name}"), architecture, get);
        let head_norms = if architecture.query_key_norm {
            Some([head_norm("q_norm")?, head_norm("k_norm")?])
        } else {
            None
        };
        Ok(Self { maps, norms, head_norms })
    }

    /// A linear map of the block.
    ///
    /// # Errors
    /// When this family has no such map.
    pub(crate) fn map(&self, module: Module) -> Result<&Linear> {
        self.maps[module as usize]
            .as_ref()
            .ok_or_else(|| ModelError::MissingWeight { name: format!("{module:?}") })
    }

    pub(crate) fn has(&self, module: Module) -> bool {
        self.maps[module as usize].is_some()
    }

    pub(crate) fn norm(&self, place: Place) -> Option<&Norm> {
        self.norms[place as usize].as_ref()
    }
}

/// The weights outside blocks.
#[derive(Clone, Debug)]
pub(crate) struct Outer {
    pub(crate) embedding: Tensor,
    pub(crate) positions: Option<Tensor>,
    /// Row 0 of the token-type table: texts here have one segment.
    pub(crate) token_type: Option<Tensor>,
    pub(crate) embedding_norm: Option<Norm>,
    pub(crate) final_norm: Option<Norm>,
    /// The output head of a language model.
    pub(crate) head: Option<Weight>,
    /// BERT's pooler, where the checkpoint has one.
    pub(crate) pooler: Option<Linear>,
}

impl Outer {
    /// Picks the weights outside blocks.
    ///
    /// # Errors
    /// When one is missing.
    pub(crate) fn assemble(architecture: &Architecture, get: &Source<'_>) -> Result<Self> {
        use super::names::{HEAD, POSITIONS, TOKEN_TYPES};
        let family = architecture.family;
        let weight = |name: &str| get(&format!("{name}.weight"));
        let norm = |path: Option<&str>| {
            path.map(|path| Norm::assemble(path, architecture, get)).transpose()
        };
        let table = weight(family.embedding())?;
        let head = match (family.is_decoder(), architecture.tied) {
            (false, _) => None,
            (true, true) => Some(table.clone()),
            (true, false) => Some(weight(HEAD)?),
        };
        let positions = match architecture.first_position {
            Some(_) => Some(weight(POSITIONS)?.dense(POSITIONS)?),
            None => None,
        };
        let token_type = if architecture.token_types > 0 {
            Some(weight(TOKEN_TYPES)?.dense(TOKEN_TYPES)?.narrow(0, 0, 1)?.squeeze(0)?)
        } else {
            None
        };
        Ok(Self {
            embedding: table.dequantize()?,
            positions,
            token_type,
            embedding_norm: norm(family.embedding_norm())?,
            final_norm: norm(family.final_norm())?,
            head,
            // A pooler is optional by design: absence is not an error.
            pooler: Linear::assemble(super::names::POOLER, true, get).ok(),
        })
    }
}
