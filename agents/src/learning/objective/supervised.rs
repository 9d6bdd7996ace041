//! Supervised learning: cross-entropy on labels, on the tags of tokens, or on the tokens of good replies.
//!
//! What lies below the first trained layer runs outside the tape; for a frozen backbone it runs once per
//! job, because it cannot change. A batch may be computed in parts: a loss here is a sum, to be divided by
//! the [`Supervised::weight`] of the whole batch.

use candle_core::Tensor;
use rayon::prelude::*;

use super::{Batch, TextExample, Way, replies};
use crate::adapter::head::{Head, Pooling, features, pooled};
use crate::adapter::{Adapter, Method};
use crate::backbone::{Backbone, Pass, Rows, Tokens, negative_log_likelihood};
use crate::error::{ModelError, Result};
use crate::learning::accumulation::Gradients;
use crate::seed::Seed;

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

/// A text and the class of each of its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagExample {
    /// The text.
    pub tokens: Vec<u32>,
    /// Index of each token's class; none for a token that does not count.
    pub tags: Vec<Option<usize>>,
}

/// Examples of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Examples {
    /// For an agent that classifies texts.
    Classes(Vec<ClassExample>),
    /// For an agent that classifies tokens.
    Tags(Vec<TagExample>),
    /// For an agent that writes.
    Texts(Vec<TextExample>),
}

impl Examples {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Classes(examples) => examples.len(),
            Self::Tags(examples) => examples.len(),
            Self::Texts(examples) => examples.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens of one example.
    #[must_use]
    pub fn tokens(&self, index: usize) -> usize {
        match self {
            Self::Classes(examples) => examples[index].tokens.len(),
            Self::Tags(examples) => examples[index].tokens.len(),
            Self::Texts(examples) => examples[index].prompt.len() + examples[index].reply.len(),
        }
    }

    fn suit(&self, adapter: &Adapter) -> bool {
        match (self, adapter.head()) {
            (Self::Texts(_), None) => true,
            (Self::Classes(_), Some(head)) => !head.per_token,
            (Self::Tags(_), Some(head)) => head.per_token,
            _ => false,
        }
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
        if !examples.suit(adapter) {
            let reason = "labels need an agent that classifies, replies one that writes";
            return Err(ModelError::Examples(reason.to_owned()));
        }
        let features = match (&examples, &adapter.spec().method) {
            (Examples::Classes(examples), Method::Frozen) => {
                let rows: Vec<&[u32]> = examples.iter().map(|e| e.tokens.as_slice()).collect();
                Some(text_features(backbone, adapter, &rows)?)
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

    /// Tokens that one example sends through the network.
    pub(crate) fn cost(&self, index: usize) -> usize {
        if self.features.is_some() { 1 } else { self.examples.tokens(index) }
    }

    /// How many losses the examples at `batch` sum up: examples, tags, or reply tokens.
    pub(crate) fn weight(&self, batch: &[usize]) -> f64 {
        let count: usize = match &self.examples {
            Examples::Classes(_) => batch.len(),
            Examples::Tags(examples) => {
                batch.iter().map(|&i| examples[i].tags.iter().flatten().count()).sum()
            }
            Examples::Texts(examples) => batch.iter().map(|&i| examples[i].reply.len()).sum(),
        };
        count.max(1) as f64
    }

    /// Gradients of the loss over the examples at `batch`, divided by `weight`.
    pub(crate) fn gradients(&self, batch: &[usize], way: &Way<'_>) -> Result<Gradients> {
        let network = &way.backbone.network;
        if let (Examples::Classes(examples), Some(head)) = (&self.examples, way.adapter.head())
            && head.pooling == Pooling::Layers
        {
            let features = match &self.features {
                Some(all) => {
                    let at: Vec<u32> = batch.iter().map(|&i| i as u32).collect();
                    all.index_select(&Tensor::new(at, network.device())?, 0)?
                }
                None => {
                    let rows: Vec<_> = batch.iter().map(|&i| &examples[i].tokens[..]).collect();
                    batch_features(way.backbone, way.adapter, &rows, way.dropout)?
                }
            };
            return Gradients::of(
                &(class_loss(head, &features, examples, batch)? / way.weight)?,
                way.tracked,
            );
        }
        let ready = match &self.examples {
            Examples::Texts(examples) => {
                let chosen: Vec<_> = batch.iter().map(|&i| (&examples[i], 1.0)).collect();
                replies(way.backbone, way.adapter, &chosen)?
            }
            Examples::Classes(examples) => {
                if let (Some(all), Some(head)) = (&self.features, way.adapter.head()) {
                    let at: Vec<u32> = batch.iter().map(|&i| i as u32).collect();
                    let features = all.index_select(&Tensor::new(at, network.device())?, 0)?;
                    let loss = class_loss(head, &features, examples, batch)?;
                    return Gradients::of(&(loss / way.weight)?, way.tracked);
                }
                classes(way, examples, batch)?
            }
            Examples::Tags(examples) => {
                let chosen: Vec<_> = batch.iter().map(|&i| &examples[i]).collect();
                tags(way, &chosen)?
            }
        };
        way.gradients(ready)
    }
}

/// Features `[rows, width]` of texts under an adapter with a head, outside the tape.
///
/// Batches run side by side; the result does not depend on how many threads there are.
///
/// # Errors
/// When a text is empty or too long, or the adapter has no head.
pub fn text_features(backbone: &Backbone, adapter: &Adapter, texts: &[&[u32]]) -> Result<Tensor> {
    // Rows of similar length share a batch, so little is padding.
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|&i| texts[i].len());
    let parts: Vec<Tensor> = order
        .par_chunks(FEATURE_BATCH)
        .map(|chunk| {
            let rows: Vec<&[u32]> = chunk.iter().map(|&i| texts[i]).collect();
            Ok(batch_features(backbone, adapter, &rows, None)?.detach())
        })
        .collect::<Result<_>>()?;
    let sorted = Tensor::cat(&parts, 0)?;
    let mut place = vec![0_u32; order.len()];
    for (position, &example) in order.iter().enumerate() {
        place[example] = position as u32;
    }
    Ok(sorted.index_select(&Tensor::new(place, sorted.device())?, 0)?)
}

fn batch_features(
    backbone: &Backbone,
    adapter: &Adapter,
    texts: &[&[u32]],
    dropout: Option<Seed>,
) -> Result<Tensor> {
    let network = &backbone.network;
    let Some(head) = adapter.head() else {
        return Err(ModelError::Examples("the agent has no classifier".to_owned()));
    };
    let rows: Vec<Vec<u32>> = texts.iter().map(|text| text.to_vec()).collect();
    let groups = [Rows { adapter: Some(adapter), count: rows.len() }];
    let tokens = Tokens::pack(&rows, &groups, network.device())?;
    let frozen = adapter.frozen_layers(network.depth());
    let states = network.states(&tokens, Pass { dropout, ..Pass::of(&groups) }, frozen)?;
    features(network, &states, &groups, &tokens, head.pooling)
}

/// Summed loss of classes under a head.
fn class_loss(
    head: &Head,
    features: &Tensor,
    examples: &[ClassExample],
    batch: &[usize],
) -> Result<Tensor> {
    let labels: Vec<u32> = batch.iter().map(|&i| examples[i].label as u32).collect();
    let labels = Tensor::new(labels, features.device())?;
    Ok(negative_log_likelihood(&head.logits(features)?, &labels)?.sum_all()?)
}

fn head_of(adapter: &Adapter) -> Result<&Head> {
    let reason = || ModelError::Examples("the agent has no classifier".to_owned());
    adapter.head().ok_or_else(reason)
}

/// Texts with a class each, pooled from the final hidden states.
fn classes<'a>(
    way: &Way<'a>,
    examples: &'a [ClassExample],
    batch: &'a [usize],
) -> Result<Batch<'a>> {
    let network = &way.backbone.network;
    let head = head_of(way.adapter)?;
    let rows: Vec<Vec<u32>> = batch.iter().map(|&i| examples[i].tokens.clone()).collect();
    let owners = [Rows { adapter: Some(way.adapter), count: rows.len() }];
    let tokens = Tokens::pack(&rows, &owners, network.device())?;
    let places = tokens.clone();
    let loss = move |hidden: &Tensor| {
        class_loss(head, &pooled(network, hidden, &places, head.pooling)?, examples, batch)
    };
    Ok(Batch { tokens, loss: Box::new(loss) })
}

/// Texts with a class for each token.
fn tags<'a>(way: &Way<'a>, examples: &[&TagExample]) -> Result<Batch<'a>> {
    let device = way.backbone.network.device();
    let head = head_of(way.adapter)?;
    let rows: Vec<Vec<u32>> = examples.iter().map(|example| example.tokens.clone()).collect();
    let owners = [Rows { adapter: Some(way.adapter), count: rows.len() }];
    let tokens = Tokens::pack(&rows, &owners, device)?;
    let width = tokens.width();
    let (mut places, mut targets) = (Vec::new(), Vec::new());
    for (row, example) in examples.iter().enumerate() {
        for (column, tag) in tokens.text(row).zip(&example.tags) {
            if let Some(tag) = tag {
                places.push((row * width + column) as u32);
                targets.push(*tag as u32);
            }
        }
    }
    if targets.is_empty() {
        return Err(ModelError::Examples("no token of these texts has a tag".to_owned()));
    }
    let (places, targets) = (Tensor::new(places, device)?, Tensor::new(targets, device)?);
    let loss = move |hidden: &Tensor| {
        let at = hidden.flatten(0, 1)?.index_select(&places, 0)?;
        Ok(negative_log_likelihood(&head.logits(&at)?, &targets)?.sum_all()?)
    };
    Ok(Batch { tokens, loss: Box::new(loss) })
}
