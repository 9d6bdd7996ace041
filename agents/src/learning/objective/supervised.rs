//! Supervised learning: cross-entropy on labels or on the tokens of good replies.
//!
//! What lies below the first trained layer runs outside the tape; for a frozen backbone it runs once per
//! job, because it cannot change.

use candle_core::{DType, Tensor};

use super::{TextExample, reply_loss};
use crate::adapter::head::features;
use crate::adapter::{Adapter, AdapterSpec};
use crate::backbone::{Backbone, Rows, Tokens, negative_log_likelihood};
use crate::error::{ModelError, Result};

/// Rows whose features are computed in one pass.
const FEATURE_BATCH: usize = 64;

/// A text and its class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassExample {
    /// The prompt.
    pub tokens: Vec<u32>,
    /// Index of the class.
    pub label: usize,
}

/// Examples of either kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Examples {
    /// For an agent that classifies.
    Classes(Vec<ClassExample>),
    /// For an agent that writes.
    Texts(Vec<TextExample>),
}

impl Examples {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Classes(examples) => examples.len(),
            Self::Texts(examples) => examples.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Examples made ready for many steps.
#[derive(Debug)]
pub struct Supervised {
    examples: Examples,
    /// Features of every example, where nothing below the head is trained.
    features: Option<Tensor>,
}

impl Supervised {
    /// Checks that the examples suit the adapter and computes what stays fixed.
    pub(crate) fn new(backbone: &Backbone, adapter: &Adapter, examples: Examples) -> Result<Self> {
        if examples.is_empty() {
            return Err(ModelError::Examples("there are no examples".to_owned()));
        }
        let classes = matches!(examples, Examples::Classes(_));
        if classes == adapter.head().is_none() {
            let reason = "labels need an agent that classifies, replies one that writes";
            return Err(ModelError::Examples(reason.to_owned()));
        }
        let features = match (&examples, adapter.spec()) {
            (Examples::Classes(examples), AdapterSpec::Feature { .. }) => {
                Some(frozen_features(backbone, adapter, examples)?)
            }
            _ => None,
        };
        Ok(Self { examples, features })
    }

    /// Number of examples.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.examples.len()
    }

    /// Features of every example where they are fixed: the head takes its statistics from them.
    pub(crate) fn fixed_features(&self) -> Option<&Tensor> {
        self.features.as_ref()
    }

    /// Mean loss over the examples at `batch`.
    pub(crate) fn loss(
        &self,
        backbone: &Backbone,
        adapter: &Adapter,
        batch: &[usize],
    ) -> Result<Tensor> {
        match &self.examples {
            Examples::Texts(examples) => {
                let chosen: Vec<_> = batch.iter().map(|&i| (&examples[i], 1.0)).collect();
                let (loss, tokens) = reply_loss(backbone, adapter, &chosen)?;
                Ok((loss / tokens as f64)?)
            }
            Examples::Classes(examples) => {
                let device = backbone.decoder.device();
                let features = match &self.features {
                    Some(all) => {
                        let at: Vec<u32> = batch.iter().map(|&i| i as u32).collect();
                        all.index_select(&Tensor::new(at, device)?, 0)?
                    }
                    None => {
                        let rows: Vec<_> = batch.iter().map(|&i| &examples[i]).collect();
                        batch_features(backbone, adapter, &rows)?
                    }
                };
                let labels: Vec<u32> = batch.iter().map(|&i| examples[i].label as u32).collect();
                let head = adapter.head().ok_or_else(|| {
                    ModelError::Examples("the agent has no classifier".to_owned())
                })?;
                let logits = head.logits(&features)?.to_dtype(DType::F32)?;
                let losses = negative_log_likelihood(&logits, &Tensor::new(labels, device)?)?;
                Ok(losses.mean_all()?)
            }
        }
    }
}

fn frozen_features(
    backbone: &Backbone,
    adapter: &Adapter,
    examples: &[ClassExample],
) -> Result<Tensor> {
    // Rows of similar length share a batch, so little is padding.
    let mut order: Vec<usize> = (0..examples.len()).collect();
    order.sort_by_key(|&i| examples[i].tokens.len());
    let mut parts = Vec::new();
    for chunk in order.chunks(FEATURE_BATCH) {
        let rows: Vec<&ClassExample> = chunk.iter().map(|&i| &examples[i]).collect();
        parts.push(batch_features(backbone, adapter, &rows)?);
    }
    let sorted = Tensor::cat(&parts, 0)?.detach();
    let mut place = vec![0_u32; order.len()];
    for (position, &example) in order.iter().enumerate() {
        place[example] = position as u32;
    }
    Ok(sorted.index_select(&Tensor::new(place, sorted.device())?, 0)?)
}

fn batch_features(
    backbone: &Backbone,
    adapter: &Adapter,
    examples: &[&ClassExample],
) -> Result<Tensor> {
    let decoder = &backbone.decoder;
    let rows: Vec<Vec<u32>> = examples.iter().map(|e| e.tokens.clone()).collect();
    let tokens = Tokens::pack(&rows, decoder.device())?;
    let groups = [Rows { adapter: Some(adapter), count: rows.len() }];
    let frozen = adapter.frozen_layers(decoder.config().num_hidden_layers);
    let states = decoder.states(&tokens, &groups, None, frozen)?;
    features(decoder, &states, &groups, tokens.padding())
}
