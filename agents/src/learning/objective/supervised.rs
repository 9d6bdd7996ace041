//! Supervised learning: cross-entropy on labels, on the tags of tokens, or on the tokens of good replies.
//!
//! What lies below the first trained layer runs outside the tape; for a frozen backbone it runs once per
//! job, because it cannot change. A batch may be computed in parts: a loss here is a sum, to be divided by
//! the [`Supervised::weight`] of the whole batch.

use candle_core::{D, Device, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Aim, Portion, TextExample, Way, gradients};
use crate::adapter::head::{Head, Pooling, features, pooled};
use crate::adapter::{Adapter, Method};
use crate::backbone::{Backbone, Pass, Rows, Tokens, negative_log_likelihood};
use crate::error::{ModelError, Result};
use crate::learning::accumulation::Gradients;
use crate::learning::dropout::Dropout;

/// Rows whose features are computed in one pass.
const FEATURE_BATCH: usize = 64;

/// A text and its class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassExample {
    /// The prompt.
    pub tokens: Vec<u32>,
    /// Index of the class.
    pub label: usize,
}

/// A text and the class of each of its tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagExample {
    /// The text.
    pub tokens: Vec<u32>,
    /// Index of each token's class; none for a token that does not count.
    pub tags: Vec<Option<usize>>,
}

/// Features of texts under a frozen backbone, computed once for many trainings.
#[derive(Clone, Debug)]
pub struct Features(Tensor);

impl Features {
    /// Features of texts under an adapter with a head; how the head weighs them plays no part.
    ///
    /// # Errors
    /// As [`text_features`].
    pub fn of(backbone: &Backbone, adapter: &Adapter, texts: &[&[u32]]) -> Result<Self> {
        Ok(Self(text_features(backbone, adapter, texts)?))
    }

    /// The features of some of the texts.
    ///
    /// # Errors
    /// When there is no such text.
    pub fn pick(&self, texts: &[u32]) -> Result<Self> {
        Ok(Self(self.0.index_select(&Tensor::new(texts, self.0.device())?, 0)?))
    }

    /// The probabilities of the classes of each text: texts, classes.
    ///
    /// # Errors
    /// When the adapter has no head.
    pub fn probabilities(&self, adapter: &Adapter) -> Result<Vec<Vec<f32>>> {
        let logits = head_of(adapter)?.logits(&self.0)?;
        Ok(candle_nn::ops::softmax(&logits, D::Minus1)?.to_vec2()?)
    }

    /// The likeliest class of each text.
    ///
    /// # Errors
    /// When the adapter has no head.
    pub fn classes(&self, adapter: &Adapter) -> Result<Vec<usize>> {
        let likeliest = head_of(adapter)?.logits(&self.0)?.argmax(D::Minus1)?.to_vec1::<u32>()?;
        Ok(likeliest.into_iter().map(|class| class as usize).collect())
    }
}

/// The same tensor, not merely equal numbers.
impl PartialEq for Features {
    fn eq(&self, other: &Self) -> bool {
        self.0.id() == other.0.id()
    }
}

impl Eq for Features {}

/// Examples of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Examples {
    /// For an agent that classifies texts.
    Classes(Vec<ClassExample>),
    /// For an agent that classifies texts by frozen features, which are known already: only in this process.
    #[serde(skip)]
    Features {
        /// Of each text.
        features: Features,
        /// Index of each text's class.
        labels: Vec<usize>,
    },
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
            Self::Features { labels, .. } => labels.len(),
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
            Self::Features { .. } => 1,
            Self::Tags(examples) => examples[index].tokens.len(),
            Self::Texts(examples) => examples[index].prompt.len() + examples[index].reply.len(),
        }
    }

    /// How many examples, or tags, each class has.
    fn counts(&self, classes: usize) -> Vec<usize> {
        let mut counts = vec![0; classes];
        let mut add = |class: usize| counts.get_mut(class).map(|count| *count += 1);
        match self {
            Self::Classes(examples) => examples.iter().for_each(|e| _ = add(e.label)),
            Self::Features { labels, .. } => labels.iter().for_each(|&label| _ = add(label)),
            Self::Tags(examples) => {
                examples.iter().flat_map(|e| e.tags.iter().flatten()).for_each(|&tag| _ = add(tag));
            }
            Self::Texts(_) => {}
        }
        counts
    }

    fn suit(&self, adapter: &Adapter) -> bool {
        match (self, adapter.head()) {
            (Self::Texts(_), None) => true,
            (Self::Classes(_), Some(head)) => !head.per_token,
            (Self::Features { features, labels }, Some(head)) => {
                let frozen = adapter.spec().method == Method::Frozen;
                frozen && !head.per_token && features.0.dims().first() == Some(&labels.len())
            }
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
    /// What is added to the logits of the classes `[classes]` while they are learned.
    adjustment: Option<Tensor>,
}

impl Supervised {
    /// Checks that the examples suit the adapter and computes what stays fixed.
    pub(crate) fn new(
        backbone: &Backbone,
        adapter: &Adapter,
        examples: Examples,
        logit_adjustment: f64,
    ) -> Result<Self> {
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
            (Examples::Features { features, .. }, _) => Some(features.0.clone()),
            _ => None,
        };
        let adjustment = match adapter.head() {
            Some(_) if logit_adjustment > 0.0 => {
                let counts = examples.counts(adapter.labels().len());
                Some(adjustment(&counts, logit_adjustment, backbone.network.device())?)
            }
            _ => None,
        };
        Ok(Self { examples, features, adjustment })
    }

    /// What it learns from.
    pub(crate) fn examples(&self) -> &Examples {
        &self.examples
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
            Examples::Classes(_) | Examples::Features { .. } => batch.len(),
            Examples::Tags(examples) => {
                batch.iter().map(|&i| examples[i].tags.iter().flatten().count()).sum()
            }
            Examples::Texts(examples) => batch.iter().map(|&i| examples[i].reply.len()).sum(),
        };
        count.max(1) as f64
    }

    /// The features of the examples at `batch`, where they are fixed.
    fn fixed(&self, batch: &[usize]) -> Result<Option<Tensor>> {
        let Some(all) = &self.features else { return Ok(None) };
        let at: Vec<u32> = batch.iter().map(|&i| i as u32).collect();
        Ok(Some(all.index_select(&Tensor::new(at, all.device())?, 0)?))
    }

    /// The classes of the examples at `batch`; empty where they are not classes of texts.
    fn labels(&self, batch: &[usize]) -> Vec<u32> {
        let label = |&i: &usize| match &self.examples {
            Examples::Classes(examples) => Some(examples[i].label as u32),
            Examples::Features { labels, .. } => Some(labels[i] as u32),
            Examples::Tags(_) | Examples::Texts(_) => None,
        };
        batch.iter().filter_map(label).collect()
    }

    /// Gradients of the loss over the examples at `batch`, divided by `weight`.
    pub(crate) fn gradients(&self, batch: &[usize], way: &Way<'_>) -> Result<Gradients> {
        if let Some(features) = self.fixed(batch)? {
            let loss = self.class_loss(way, &features, &self.labels(batch))?;
            return Gradients::of(&(loss / way.weight)?, way.tracked);
        }
        if let Examples::Classes(examples) = &self.examples
            && head_of(way.adapter)?.pooling == Pooling::Layers
        {
            let texts: Vec<&[u32]> = batch.iter().map(|&i| &examples[i].tokens[..]).collect();
            let features = batch_features(way.backbone, way.adapter, &texts, way.dropout)?;
            let loss = self.class_loss(way, &features, &self.labels(batch))?;
            return Gradients::of(&(loss / way.weight)?, way.tracked);
        }
        let mut all = gradients(&[Portion { way: *way, aim: self.aim(batch)? }])?;
        Ok(all.pop().unwrap_or_default())
    }

    /// Whether its loss needs nothing but the final hidden states of its rows.
    pub(crate) fn shares_a_pass(&self, adapter: &Adapter) -> bool {
        let layers = adapter.head().is_some_and(|head| head.pooling == Pooling::Layers);
        self.features.is_none() && !layers
    }

    /// What the examples at `batch` shall become.
    pub(crate) fn aim(&self, batch: &[usize]) -> Result<Aim<'_>> {
        Ok(match &self.examples {
            Examples::Texts(examples) => {
                Aim::Replies(batch.iter().map(|&i| (&examples[i], 1.0)).collect())
            }
            Examples::Classes(examples) => {
                let texts = batch.iter().map(|&i| &examples[i].tokens[..]).collect();
                Aim::Classes { lesson: self, texts, labels: self.labels(batch) }
            }
            Examples::Tags(examples) => {
                Aim::Tags { lesson: self, examples: batch.iter().map(|&i| &examples[i]).collect() }
            }
            Examples::Features { .. } => {
                return Err(ModelError::Examples("features belong to a frozen model".to_owned()));
            }
        })
    }

    /// Summed cross-entropy of features on their classes.
    fn class_loss(&self, way: &Way<'_>, features: &Tensor, labels: &[u32]) -> Result<Tensor> {
        let labels = Tensor::new(labels, features.device())?;
        let logits = self.adjusted(head_of(way.adapter)?.logits(features)?)?;
        Ok(smoothed(&logits, &labels, way.label_smoothing)?.sum_all()?)
    }

    /// Summed loss of texts with a class each, pooled from the final hidden states.
    pub(super) fn pooled_loss(
        &self,
        way: &Way<'_>,
        hidden: &Tensor,
        tokens: &Tokens,
        labels: &[u32],
    ) -> Result<Tensor> {
        let pooling = head_of(way.adapter)?.pooling;
        self.class_loss(way, &pooled(&way.backbone.network, hidden, tokens, pooling)?, labels)
    }

    /// Summed loss of texts with a class for each token.
    pub(super) fn tag_loss(
        &self,
        way: &Way<'_>,
        hidden: &Tensor,
        tokens: &Tokens,
        examples: &[&TagExample],
    ) -> Result<Tensor> {
        let device = hidden.device();
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
        let at = hidden.flatten(0, 1)?.index_select(&places, 0)?;
        let logits = self.adjusted(head_of(way.adapter)?.logits(&at)?)?;
        Ok(smoothed(&logits, &targets, way.label_smoothing)?.sum_all()?)
    }

    /// The logits as they are learned.
    fn adjusted(&self, logits: Tensor) -> Result<Tensor> {
        match &self.adjustment {
            Some(adjustment) => Ok(logits.broadcast_add(adjustment)?),
            None => Ok(logits),
        }
    }
}

/// `strength · ln p` of each class, `p` being its share of the examples (Menon et al. 2020, arXiv 2007.07314).
///
/// A classifier that learns with it and speaks without it treats all classes as equally likely. A class without
/// examples counts as half of one.
fn adjustment(counts: &[usize], strength: f64, device: &Device) -> Result<Tensor> {
    let all: usize = counts.iter().sum();
    let share = |&count: &usize| (count as f64).max(0.5) / all.max(1) as f64;
    let values: Vec<f32> =
        counts.iter().map(|count| (strength * share(count).ln()) as f32).collect();
    Ok(Tensor::new(values, device)?)
}

/// Cross-entropy in nats of each row of `logits` `[n, classes]` with a share `smoothing` of the target spread
/// over all classes (Szegedy et al. 2016, arXiv 1512.00567).
fn smoothed(logits: &Tensor, labels: &Tensor, smoothing: f64) -> Result<Tensor> {
    let sharp = negative_log_likelihood(logits, labels)?;
    if smoothing == 0.0 {
        return Ok(sharp);
    }
    // -Σ t·log p with t = (1-ε)·one-hot + ε/n is the sharp loss and ε·(logit of the class - mean logit).
    let chosen = logits.gather(&labels.unsqueeze(1)?, 1)?.squeeze(1)?;
    Ok((sharp + ((chosen - logits.mean(D::Minus1)?)? * smoothing)?)?)
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

/// The likeliest class of each text under an adapter with a head.
///
/// # Errors
/// When a text is empty or too long, or the adapter has no head.
pub fn classes(backbone: &Backbone, adapter: &Adapter, texts: &[&[u32]]) -> Result<Vec<usize>> {
    if texts.is_empty() {
        return Ok(Vec::new());
    }
    Features::of(backbone, adapter, texts)?.classes(adapter)
}

fn batch_features(
    backbone: &Backbone,
    adapter: &Adapter,
    texts: &[&[u32]],
    dropout: Option<Dropout>,
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

fn head_of(adapter: &Adapter) -> Result<&Head> {
    let reason = || ModelError::Examples("the agent has no classifier".to_owned());
    adapter.head().ok_or_else(reason)
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;

    /// Menon et al., equation 10: a class with a tenth of the examples starts `ln 9` below one with the rest.
    #[test]
    fn rare_classes_are_learned_as_if_they_were_common() {
        let add = adjustment(&[9, 1, 0], 1.0, &Device::Cpu).unwrap().to_vec1::<f32>().unwrap();
        assert!((add[0] - add[1] - 9f32.ln()).abs() < 1e-6, "{add:?}");
        assert!((add[1] - add[2] - 2f32.ln()).abs() < 1e-6, "{add:?}");
        let half = adjustment(&[9, 1, 0], 0.5, &Device::Cpu).unwrap().to_vec1::<f32>().unwrap();
        assert!((half[0] * 2.0 - add[0]).abs() < 1e-6);
    }

    /// `torch.nn.functional.cross_entropy(…, label_smoothing=0.1, reduction="none")` of torch 2.15.
    #[test]
    fn smoothing_is_that_of_torch() {
        let logits = Var::new(&[[0.3f32, -1.2, 2.0], [1.5, 0.1, -0.4]], &Device::Cpu).unwrap();
        let labels = Tensor::new(&[0u32, 2], &Device::Cpu).unwrap();
        let loss = smoothed(&logits, &labels, 0.1).unwrap();
        let near = |found: Vec<f32>, wanted: &[f32]| {
            assert!(found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?}");
        };
        near(loss.to_vec1().unwrap(), &[1.895_004_4, 2.153_729_7]);
        let store = loss.sum_all().unwrap().backward().unwrap();
        let gradient = store.get(&logits).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let wanted =
            [-0.784_014_5, -0.000_015_8, 0.784_030_3, 0.682_914_1, 0.143_291_1, -0.826_205_2];
        near(gradient, &wanted);
        let sharp = smoothed(&logits, &labels, 0.0).unwrap().to_vec1::<f32>().unwrap();
        near(sharp, &[1.901_671_2, 2.233_729_6]);
    }
}
