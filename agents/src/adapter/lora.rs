//! Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685): `y = Wx + scale·B(Ax)`, and its relatives
//! rsLoRA (Kalajdzievski 2023, arXiv 2312.03732), DoRA (Liu et al. 2024, arXiv 2402.09353) and PiSSA
//! (Meng et al. 2024, arXiv 2404.02948).
//!
//! `A` `[rank, in]` starts uniform (Kaiming, as PEFT does) or normal, `B` `[out, rank]` at zero, so a new
//! adapter changes nothing. PiSSA starts at the principal part of the weight instead; so that the backbone
//! can stay shared, that part is taken away again by a second pair that is not trained.

use std::collections::BTreeMap;

use candle_core::{D, DType, Tensor};
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::pissa::pissa;
use super::update::{Lora, Update, stretch};
use crate::backbone::block::{Linear, find};
use crate::backbone::names::Module;
use crate::backbone::{Backbone, normal};
use crate::error::{ModelError, Result};
use crate::seed::Seed;

/// End of the name of PiSSA's untrained `A`.
pub(crate) const FIXED_A: &str = "pissa_A.weight";
/// End of the name of PiSSA's untrained `B`.
pub(crate) const FIXED_B: &str = "pissa_B.weight";

/// How a LoRA adapter is shaped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoraSpec {
    /// Rank of the update.
    pub rank: usize,
    /// Numerator of the scale.
    pub alpha: f64,
    /// Which maps are adapted, in every layer, as PEFT names them: `q_proj`, `query`, `all-linear`.
    pub targets: Vec<String>,
    /// Divide by the root of the rank instead of the rank.
    #[serde(default)]
    pub rank_stabilized: bool,
    /// Train direction and magnitude apart.
    #[serde(default)]
    pub dora: bool,
    /// Share of inputs dropped in training.
    #[serde(default)]
    pub dropout: f64,
    /// Where it starts.
    #[serde(default)]
    pub init: Init,
}

/// Where a LoRA adapter starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// `A` uniform within `1/√in`, `B` zero.
    #[default]
    Kaiming,
    /// `A` normal with deviation `1/rank`, `B` zero.
    Gaussian,
    /// The principal singular directions of the weight.
    Pissa,
}

impl LoraSpec {
    /// A plain update of these targets.
    #[must_use]
    pub fn new(rank: usize, alpha: f64, targets: &[&str]) -> Self {
        Self {
            rank,
            alpha,
            targets: targets.iter().map(|&t| t.to_owned()).collect(),
            rank_stabilized: false,
            dora: false,
            dropout: 0.0,
            init: Init::Kaiming,
        }
    }

    /// Factor on the update.
    #[must_use]
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rank_stabilized { rank.sqrt() } else { rank }
    }
}

/// The maps that `targets` name, with their paths: `(layer, module, path)`.
///
/// # Errors
/// When a target is none of this backbone's.
pub(crate) fn sites(
    targets: &[String],
    backbone: &Backbone,
) -> Result<Vec<(usize, Module, String)>> {
    let architecture = backbone.network.architecture();
    let mut modules = Vec::new();
    for target in targets {
        let found = architecture.targets(target);
        if found.is_empty() {
            return Err(ModelError::Target {
                target: target.clone(),
                family: architecture.family.name(),
                known: known(backbone).join(", "),
            });
        }
        modules.extend(found);
    }
    modules.sort_unstable();
    modules.dedup();
    let at = |layer| {
        let path = move |module| Some((layer, module, architecture.path(layer, module)?));
        modules.iter().copied().filter_map(path)
    };
    Ok((0..architecture.depth()).flat_map(at).collect())
}

/// The targets a backbone has.
fn known(backbone: &Backbone) -> Vec<&'static str> {
    let family = backbone.network.architecture().family;
    Module::ALL.iter().filter_map(|module| module.path(family)).collect()
}

/// The backbone's linear map at a site.
pub(crate) fn map(backbone: &Backbone, layer: usize, module: Module) -> Result<&Linear> {
    let missing = || ModelError::MissingWeight { name: format!("layer {layer}") };
    backbone.network.block(layer).ok_or_else(missing)?.map(module)
}

/// The tensors a new adapter starts from.
pub(crate) fn initial(
    spec: &LoraSpec,
    backbone: &Backbone,
    seed: Seed,
) -> Result<BTreeMap<String, Tensor>> {
    let device = backbone.network.device();
    let mut tensors = BTreeMap::new();
    for (layer, module, path) in sites(&spec.targets, backbone)? {
        let linear = map(backbone, layer, module)?;
        let (a, b) = (format!("{path}.lora_A.weight"), format!("{path}.lora_B.weight"));
        let &[out, width] = linear.weight.dims() else { continue };
        let seed = seed.child(&a);
        if spec.rank == 0 || spec.rank > out.min(width) {
            return Err(ModelError::Rank { rank: spec.rank, path, largest: out.min(width) });
        }
        let shape = [spec.rank, width];
        let (start_a, start_b) = match spec.init {
            Init::Kaiming => {
                // Kaiming uniform with a = sqrt(5): the bound is 1/sqrt(in).
                let bound = 1.0 / (width as f32).sqrt();
                let mut stream = seed.stream();
                let count = spec.rank * width;
                let values: Vec<f32> =
                    (0..count).map(|_| stream.random_range(-bound..bound)).collect();
                (Tensor::from_vec(values, &shape, device)?, None)
            }
            Init::Gaussian => (normal(&shape, 1.0 / spec.rank as f32, seed, device)?, None),
            Init::Pissa => {
                let weight = linear.weight.dequantize()?.to_dtype(DType::F32)?;
                let start = pissa(&weight, spec.rank, spec.scale(), seed)?;
                tensors.insert(format!("{path}.{FIXED_A}"), start.a.copy()?);
                tensors.insert(format!("{path}.{FIXED_B}"), start.b.copy()?);
                (start.a, Some(start.b))
            }
        };
        let zeros = || Tensor::zeros((out, spec.rank), DType::F32, device);
        tensors.insert(a, start_a);
        tensors.insert(b, start_b.map_or_else(zeros, Ok)?);
        if spec.dora {
            let weight = linear.weight.dequantize()?.to_dtype(DType::F32)?;
            let magnitude = weight.sqr()?.sum(D::Minus1)?.sqrt()?;
            tensors.insert(format!("{path}.lora_magnitude_vector"), magnitude);
        }
    }
    Ok(tensors)
}

/// The updates of every site.
pub(crate) fn assemble(
    spec: &LoraSpec,
    tensors: &BTreeMap<String, Tensor>,
    backbone: &Backbone,
) -> Result<BTreeMap<(usize, Module), Update>> {
    let mut updates = BTreeMap::new();
    for (layer, module, path) in sites(&spec.targets, backbone)? {
        let get = |name: &str| find(tensors, &format!("{path}.{name}"));
        let (mut a, mut b) = (get("lora_A.weight")?, get("lora_B.weight")?);
        if spec.init == Init::Pissa {
            a = Tensor::cat(&[a, get(FIXED_A)?], 0)?;
            b = Tensor::cat(&[b, get(FIXED_B)?.neg()?], 1)?;
        }
        let lora = Lora { a, b, scale: spec.scale(), dropout: spec.dropout };
        let update = if spec.dora {
            let magnitude = get("lora_magnitude_vector")?;
            let stretch = stretch(map(backbone, layer, module)?, &lora, &magnitude)?;
            Update::Dora { lora, stretch }
        } else {
            Update::Lora(lora)
        };
        updates.insert((layer, module), update);
    }
    Ok(updates)
}
