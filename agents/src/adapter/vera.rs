//! VeRA (Kopiczko et al. 2024, arXiv 2310.11454): one pair of random projections shared by all maps and
//! never trained, with two learned vectors a map.
//!
//! The projections are as large as the largest map needs; a smaller map uses their first columns and rows.
//! They are always written to disk, so an adapter needs no generator to be read again.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::lora::{map, sites};
use super::update::Update;
use crate::backbone::block::find;
use crate::backbone::names::Module;
use crate::backbone::{Backbone, normal};
use crate::error::Result;
use crate::seed::Seed;

/// Name of the shared `A` `[rank, widest input]`.
pub(crate) const A: &str = "vera_A";
/// Name of the shared `B` `[widest output, rank]`.
pub(crate) const B: &str = "vera_B";

/// How a VeRA adapter is shaped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VeraSpec {
    /// Rank of the projections.
    pub rank: usize,
    /// Which maps are adapted.
    pub targets: Vec<String>,
    /// Where the inner vector starts.
    #[serde(default = "tenth")]
    pub d_initial: f64,
    /// Share of inputs dropped in training.
    #[serde(default)]
    pub dropout: f64,
}

fn tenth() -> f64 {
    0.1
}

/// The tensors a new adapter starts from.
pub(crate) fn initial(
    spec: &VeraSpec,
    backbone: &Backbone,
    seed: Seed,
) -> Result<BTreeMap<String, Tensor>> {
    let device = backbone.network.device();
    let mut tensors = BTreeMap::new();
    let [widest_out, widest_in] = widest(spec, backbone)?;
    for (layer, module, path) in sites(&spec.targets, backbone)? {
        let &[out, _] = map(backbone, layer, module)?.weight.dims() else { continue };
        let inner = (Tensor::ones(spec.rank, DType::F32, device)? * spec.d_initial)?;
        tensors.insert(format!("{path}.vera_lambda_d"), inner);
        let outer = Tensor::zeros(out, DType::F32, device)?;
        tensors.insert(format!("{path}.vera_lambda_b"), outer);
    }
    // Kaiming, as the paper: deviation sqrt(2 / inputs).
    let spread = |inputs: usize| (2.0 / inputs as f32).sqrt();
    let shape = [spec.rank, widest_in];
    tensors.insert(A.to_owned(), normal(&shape, spread(widest_in), seed.child(A), device)?);
    let shape = [widest_out, spec.rank];
    tensors.insert(B.to_owned(), normal(&shape, spread(spec.rank), seed.child(B), device)?);
    Ok(tensors)
}

/// The most outputs and the most inputs of an adapted map: what the shared matrices are cut from.
pub(crate) fn widest(spec: &VeraSpec, backbone: &Backbone) -> Result<[usize; 2]> {
    let mut most = [0, 0];
    for (layer, module, _) in sites(&spec.targets, backbone)? {
        let &[out, width] = map(backbone, layer, module)?.weight.dims() else { continue };
        most = [most[0].max(out), most[1].max(width)];
    }
    Ok(most)
}

/// The updates of every site.
pub(crate) fn assemble(
    spec: &VeraSpec,
    tensors: &BTreeMap<String, Tensor>,
    backbone: &Backbone,
) -> Result<BTreeMap<(usize, Module), Update>> {
    let (a, b) = (find(tensors, A)?, find(tensors, B)?);
    let mut updates = BTreeMap::new();
    for (layer, module, path) in sites(&spec.targets, backbone)? {
        let &[out, width] = map(backbone, layer, module)?.weight.dims() else { continue };
        let get = |name: &str| find(tensors, &format!("{path}.{name}"));
        let update = Update::Vera {
            a: a.narrow(1, 0, width)?.contiguous()?,
            b: b.narrow(0, 0, out)?.contiguous()?,
            inner: get("vera_lambda_d")?,
            outer: get("vera_lambda_b")?,
            dropout: spec.dropout,
        };
        updates.insert((layer, module), update);
    }
    Ok(updates)
}
