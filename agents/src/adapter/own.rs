//! Own copies of the backbone's weights: the upper layers (freeze the lower ones, add a head, fine-tune),
//! or all of them.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};

use crate::backbone::Backbone;
use crate::backbone::block::{Block, Norm, Outer, named};
use crate::error::Result;

/// Copies of the layers from `first` on, and of the final norm.
pub(crate) fn upper(first: usize, backbone: &Backbone) -> Result<BTreeMap<String, Tensor>> {
    let architecture = backbone.network.architecture();
    let blocks = (first..architecture.depth()).flat_map(|layer| architecture.block_weights(layer));
    let norm = architecture.outer_weights().into_iter().filter(|(name, _)| {
        architecture.family.final_norm().is_some_and(|norm| name.starts_with(norm))
    });
    blocks.chain(norm).map(|(name, _)| copy(name, backbone)).collect()
}

/// Copies of all weights.
pub(crate) fn everything(backbone: &Backbone) -> Result<BTreeMap<String, Tensor>> {
    let weights = backbone.network.architecture().weights();
    weights.into_iter().map(|(name, _)| copy(name, backbone)).collect()
}

fn copy(name: String, backbone: &Backbone) -> Result<(String, Tensor)> {
    let own = backbone.weight(&name)?.dequantize()?.to_dtype(DType::F32)?.copy()?;
    Ok((name, own))
}

/// The own layers from `first` on.
pub(crate) fn blocks(
    first: usize,
    tensors: &BTreeMap<String, Tensor>,
    backbone: &Backbone,
) -> Result<BTreeMap<usize, Block>> {
    let architecture = backbone.network.architecture();
    let get = named(tensors);
    (first..architecture.depth())
        .map(|layer| Ok((layer, Block::assemble(architecture, layer, &get)?)))
        .collect()
}

/// The backbone's embeddings with an own final norm; none for a family without one.
pub(crate) fn outer_with_norm(
    tensors: &BTreeMap<String, Tensor>,
    backbone: &Backbone,
) -> Result<Option<Outer>> {
    let architecture = backbone.network.architecture();
    let Some(norm) = architecture.family.final_norm() else { return Ok(None) };
    let final_norm = Some(Norm::assemble(norm, architecture, &named(tensors))?);
    Ok(Some(Outer { final_norm, ..backbone.network.outer().clone() }))
}

/// Everything outside blocks, all of it own but the pooler.
pub(crate) fn outer(tensors: &BTreeMap<String, Tensor>, backbone: &Backbone) -> Result<Outer> {
    Outer::assemble(backbone.network.architecture(), &named(tensors))
}
