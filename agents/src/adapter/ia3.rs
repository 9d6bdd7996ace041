//! IA3 (Liu et al. 2022, arXiv 2205.05638): activations scaled by learned vectors, which start at one.
//!
//! In attention the output of a map is scaled, in the feed-forward block its input.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::lora::{map, sites};
use super::update::Update;
use crate::backbone::Backbone;
use crate::backbone::architecture::Family;
use crate::backbone::block::find;
use crate::backbone::names::Module;
use crate::error::Result;

/// How an IA3 adapter is shaped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ia3Spec {
    /// Which maps are scaled.
    pub targets: Vec<String>,
    /// Which of them are scaled on their input.
    pub feedforward: Vec<String>,
}

impl Ia3Spec {
    /// Keys, values and what the feed-forward block has inside, as the paper has it.
    #[must_use]
    pub fn usual(family: Family) -> Self {
        let path = |module: Module| module.path(family).map(str::to_owned);
        let attention = [Module::Key, Module::Value, Module::QueryKeyValue];
        let feedforward: Vec<String> = path(Module::Down).into_iter().collect();
        let targets = attention.into_iter().filter_map(path).chain(feedforward.clone()).collect();
        Self { targets, feedforward }
    }

    /// Whether a site's input is scaled.
    pub(crate) fn scales_input(&self, path: &str) -> bool {
        self.feedforward.iter().any(|name| path == name || path.ends_with(&format!(".{name}")))
    }
}

/// The tensors a new adapter starts from.
pub(crate) fn initial(spec: &Ia3Spec, backbone: &Backbone) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors = BTreeMap::new();
    for (layer, module, path) in sites(&spec.targets, backbone)? {
        let &[out, width] = map(backbone, layer, module)?.weight.dims() else { continue };
        let shape = if spec.scales_input(&path) { (1, width) } else { (out, 1) };
        let ones = Tensor::ones(shape, DType::F32, backbone.network.device())?;
        tensors.insert(format!("{path}.ia3_l"), ones);
    }
    Ok(tensors)
}

/// The updates of every site.
pub(crate) fn assemble(
    spec: &Ia3Spec,
    tensors: &BTreeMap<String, Tensor>,
    backbone: &Backbone,
) -> Result<BTreeMap<(usize, Module), Update>> {
    let mut updates = BTreeMap::new();
    for (layer, module, path) in sites(&spec.targets, backbone)? {
        let scale = find(tensors, &format!("{path}.ia3_l"))?.flatten_all()?;
        let input = spec.scales_input(&path);
        let update = if input { Update::Input(scale) } else { Update::Output(scale) };
        updates.insert((layer, module), update);
    }
    Ok(updates)
}
