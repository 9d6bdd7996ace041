//! Virtual tokens before every text: prompt tuning (Lester et al. 2021, arXiv 2104.08691), which learns
//! their embeddings, and prefix tuning (Li and Liang 2021, arXiv 2101.00190), which learns their keys and
//! values in every layer.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use rand::Rng;

use crate::backbone::block::find;
use crate::backbone::{Architecture, Backbone, normal};
use crate::error::{ModelError, Result};
use crate::seed::Seed;

/// Name of the learned tensor, as PEFT writes it.
pub(crate) const NAME: &str = "prompt_embeddings";

/// A new prompt: embeddings of tokens drawn from the vocabulary, which trains far better than random
/// vectors.
pub(crate) fn prompt(
    tokens: usize,
    backbone: &Backbone,
    seed: Seed,
) -> Result<BTreeMap<String, Tensor>> {
    let vocabulary = backbone.tokenizer.vocabulary().max(1) as u32;
    let mut stream = seed.child(NAME).stream();
    let drawn: Vec<u32> = (0..tokens).map(|_| stream.random_range(0..vocabulary)).collect();
    let drawn = Tensor::new(drawn, backbone.network.device())?;
    let embeddings = backbone.network.embeddings_of(&drawn)?.to_dtype(DType::F32)?;
    Ok(BTreeMap::from([(NAME.to_owned(), embeddings)]))
}

/// A new prefix: small random keys and values.
pub(crate) fn prefix(
    tokens: usize,
    backbone: &Backbone,
    seed: Seed,
) -> Result<BTreeMap<String, Tensor>> {
    let architecture = backbone.network.architecture();
    if !architecture.family.is_decoder() {
        let reason = "prefix tuning needs a decoder; use a prompt or LoRA with an encoder";
        return Err(ModelError::Examples(reason.to_owned()));
    }
    let shape = [tokens, prefix_width(architecture)];
    let start = normal(&shape, 0.02, seed.child(NAME), backbone.network.device())?;
    Ok(BTreeMap::from([(NAME.to_owned(), start)]))
}

/// Numbers of a virtual token of a prefix: its keys and values in every layer.
pub(crate) fn prefix_width(architecture: &Architecture) -> usize {
    2 * architecture.depth() * architecture.key_width()
}

/// The prompt `[tokens, hidden]`.
pub(crate) fn find_prompt(tensors: &BTreeMap<String, Tensor>) -> Result<Tensor> {
    find(tensors, NAME)
}

/// Keys and values of each layer, `[key heads, tokens, width]`, out of `[tokens, layers · 2 · key width]`.
pub(crate) fn split_prefix(
    tensors: &BTreeMap<String, Tensor>,
    backbone: &Backbone,
) -> Result<Vec<[Tensor; 2]>> {
    let architecture = backbone.network.architecture();
    let all = find(tensors, NAME)?;
    let tokens = all.dim(0)?;
    let (depth, heads) = (architecture.depth(), architecture.key_heads);
    let all = all.reshape((tokens, 2 * depth, heads, architecture.head_width))?;
    let all = all.permute((1, 2, 0, 3))?.contiguous()?;
    (0..depth).map(|layer| Ok([all.get(2 * layer)?, all.get(2 * layer + 1)?])).collect()
}
