//! Classes of texts: one pass through the network and an adapter's head. Nothing here writes or queues.

use candle_core::{Device, Tensor};

use crate::adapter::Adapter;
use crate::adapter::head::{Head, features};
use crate::backbone::{Backbone, Pass, Rows, Tokens};
use crate::error::{ModelError, Result};
use crate::sampler::softmax;

/// Probabilities of an adapter's labels for each text, in the labels' order. All texts go through the network
/// side by side, padded to the longest: the last bits depend on the company.
///
/// # Errors
/// When a text is empty or too long, or the adapter has no head.
pub fn classify(
    backbone: &Backbone,
    adapter: &Adapter,
    texts: &[Vec<u32>],
) -> Result<Vec<Vec<f64>>> {
    let head = head(adapter)?;
    let network = &backbone.network;
    let rows = [Rows { adapter: Some(adapter), count: texts.len() }];
    let tokens = Tokens::pack(texts, &rows, network.device())?;
    let states = network.states(&tokens, Pass::of(&rows), network.depth())?;
    let features = features(network, &states, &rows, &tokens, head.pooling)?;
    let logits = head.logits(&features)?.to_vec2::<f32>()?;
    Ok(logits.iter().map(|logits| softmax(logits)).collect())
}

/// The head that an adapter tells classes with.
///
/// # Errors
/// When it has none.
pub(crate) fn head(adapter: &Adapter) -> Result<&Head> {
    adapter.head().ok_or_else(|| {
        ModelError::Examples("a class was asked of an agent without a classifier".to_owned())
    })
}

/// Probabilities of an adapter's labels for one text of these features, in main memory, in the labels' order.
///
/// # Errors
/// When the adapter has no head, or one for other features.
pub(crate) fn classify_features(adapter: &Adapter, features: &[f32]) -> Result<Vec<f64>> {
    let features = Tensor::from_slice(features, (1, features.len()), &Device::Cpu)?;
    Ok(softmax(&head(adapter)?.logits(&features)?.flatten_all()?.to_vec1::<f32>()?))
}
