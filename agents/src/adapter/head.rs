//! A classification head: a linear layer over the features of a text, or of each of its tokens, with a label
//! for each output.
//!
//! How a text becomes features is its pooling. The features that need no training of the network below are
//! means over tokens of every layer, side by side: lower layers keep the words, upper ones what they amount
//! to (Peters et al. 2019, arXiv 1903.05987). They can be brought to zero mean and unit spread by statistics
//! of the examples that the head was first trained on.

use std::collections::BTreeMap;

use candle_core::{D, DType, Tensor};
use serde::{Deserialize, Serialize};

use crate::backbone::architecture::{Activation, Family};
use crate::backbone::block::{Linear, find, named};
use crate::backbone::{Backbone, Network, Rows, Tokens, activate, normal};
use crate::error::{ModelError, Result};
use crate::seed::Seed;

/// Name of the features' means; not trained.
pub const MEAN: &str = "feature.mean";
/// Name of the features' inverse spreads; not trained.
pub const SCALE: &str = "feature.scale";

/// How the hidden states of a text become its features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// Means over tokens of the embeddings and every layer, and the last token's final state.
    #[default]
    Layers,
    /// Mean over tokens of the final states, as sentence encoders do.
    Mean,
    /// The first token's final state, BERT's `[CLS]`.
    First,
    /// The last token's final state, which in a decoder has seen the whole text.
    Last,
    /// The first token through BERT's pretrained pooler, `tanh(W x + b)`.
    Pooler,
}

/// The shape of a head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadSpec {
    /// The classes, in the order of the outputs.
    pub labels: Vec<String>,
    /// What it reads.
    #[serde(default)]
    pub pooling: Pooling,
    /// Whether every token gets a label of its own; pooling plays no part then.
    #[serde(default)]
    pub per_token: bool,
    /// Whether features are brought to zero mean and unit spread first.
    #[serde(default = "yes")]
    pub standardize: bool,
    /// Whether outputs have a bias.
    #[serde(default = "yes")]
    pub bias: bool,
    /// Whether a trained dense layer comes first, as in RoBERTa (tanh) and DistilBERT (ReLU).
    #[serde(default)]
    pub dense: bool,
}

fn yes() -> bool {
    true
}

impl HeadSpec {
    /// Labels of a whole text from the features of every layer.
    #[must_use]
    pub fn new(labels: Vec<String>) -> Self {
        let pooling = Pooling::default();
        Self { labels, pooling, per_token: false, standardize: true, bias: true, dense: false }
    }

    /// The head that the family's own class for sequence classification has in transformers, so that PEFT
    /// can exchange it. ModernBERT's has a norm inside and is not offered.
    #[must_use]
    pub fn sequence_classification(labels: Vec<String>, family: Family) -> Option<Self> {
        let (pooling, bias, dense) = match family {
            Family::Bert => (Pooling::Pooler, true, false),
            Family::Roberta | Family::XlmRoberta | Family::DistilBert => {
                (Pooling::First, true, true)
            }
            Family::ModernBert => return None,
            _ => (Pooling::Last, false, false),
        };
        Some(Self { labels, pooling, per_token: false, standardize: false, bias, dense })
    }

    /// Whether the family's own class in transformers has this head, so that PEFT can read it.
    pub(crate) fn is_of(&self, family: Family) -> bool {
        if self.per_token {
            return self.bias && !self.dense && !self.standardize && family != Family::ModernBert;
        }
        Self::sequence_classification(self.labels.clone(), family).as_ref() == Some(self)
    }

    /// Number of features it reads.
    fn width(&self, network: &Network) -> usize {
        let architecture = network.architecture();
        match self.pooling {
            Pooling::Layers if !self.per_token => (architecture.depth() + 2) * architecture.hidden,
            _ => architecture.hidden,
        }
    }

    /// Paths of the output layer and of the dense layer before it, as transformers names them.
    pub(crate) fn paths(&self, family: Family) -> (&'static str, Option<&'static str>) {
        match (family, self.dense) {
            (Family::Roberta | Family::XlmRoberta, true) => {
                ("classifier.out_proj", Some("classifier.dense"))
            }
            (Family::DistilBert, true) => ("classifier", Some("pre_classifier")),
            (family, dense) => {
                let out = if family.is_decoder() { "score" } else { "classifier" };
                (out, dense.then_some("pre_classifier"))
            }
        }
    }
}

/// A classifier over features.
#[derive(Clone, Debug)]
pub struct Head {
    out: Linear,
    dense: Option<(Linear, Activation)>,
    statistics: Option<[Tensor; 2]>,
    /// What it reads.
    pub pooling: Pooling,
    /// Whether every token gets a label of its own.
    pub per_token: bool,
}

impl Head {
    /// Picks the head out of named tensors.
    pub(crate) fn assemble(
        spec: &HeadSpec,
        tensors: &BTreeMap<String, Tensor>,
        backbone: &Backbone,
    ) -> Result<Self> {
        let family = backbone.network.architecture().family;
        let (out, dense) = spec.paths(family);
        let get = named(tensors);
        let relu = family == Family::DistilBert;
        let activation = if relu { Activation::Relu } else { Activation::Tanh };
        let statistics = if spec.standardize {
            Some([find(tensors, MEAN)?, find(tensors, SCALE)?])
        } else {
            None
        };
        Ok(Self {
            out: Linear::assemble(out, spec.bias, &get)?,
            dense: dense
                .map(|path| Ok::<_, ModelError>((Linear::assemble(path, true, &get)?, activation)))
                .transpose()?,
            statistics,
            pooling: spec.pooling,
            per_token: spec.per_token,
        })
    }

    /// Logits `[n, labels]` of features `[n, width]`, in f32.
    ///
    /// # Errors
    /// On a tensor failure only.
    pub fn logits(&self, features: &Tensor) -> Result<Tensor> {
        let features = features.to_dtype(DType::F32)?;
        let mut x = match &self.statistics {
            Some([mean, scale]) => features.broadcast_sub(mean)?.broadcast_mul(scale)?,
            None => features,
        };
        if let Some((dense, activation)) = &self.dense {
            x = activate(&dense.forward(&x)?, *activation)?;
        }
        self.out.forward(&x)
    }
}

/// The tensors a new head starts from: small random weights, no bias, features as they are.
pub(crate) fn initial(
    spec: &HeadSpec,
    backbone: &Backbone,
    seed: Seed,
) -> Result<BTreeMap<String, Tensor>> {
    let device = backbone.network.device();
    let width = spec.width(&backbone.network);
    let labels = spec.labels.len();
    let (out, dense) = spec.paths(backbone.network.architecture().family);
    let mut tensors = BTreeMap::new();
    let mut linear = |path: &str, shape: [usize; 2], bias: bool, spread: f32| -> Result<()> {
        let name = format!("{path}.weight");
        let weight = normal(&shape, spread, seed.child(&name), device)?;
        tensors.insert(name, weight);
        if bias {
            let zeros = Tensor::zeros(shape[0], DType::F32, device)?;
            tensors.insert(format!("{path}.bias"), zeros);
        }
        Ok(())
    };
    linear(out, [labels, width], spec.bias, 0.01)?;
    if let Some(dense) = dense {
        linear(dense, [width, width], true, 0.02)?;
    }
    if spec.standardize {
        tensors.insert(MEAN.to_owned(), Tensor::zeros(width, DType::F32, device)?);
        tensors.insert(SCALE.to_owned(), Tensor::ones(width, DType::F32, device)?);
    }
    Ok(tensors)
}

/// Mean and inverse spread of features `[rows, width]`.
///
/// # Errors
/// On a tensor failure only.
pub fn statistics(features: &Tensor) -> Result<(Tensor, Tensor)> {
    let mean = features.mean(0)?;
    let centred = features.broadcast_sub(&mean)?;
    let spread = (centred.sqr()?.mean(0)? + 1e-4)?.sqrt()?;
    Ok((mean, spread.recip()?))
}

/// Features `[rows, width]` of a batch whose residual stream is `states`, as [`Network::states`] gives it.
///
/// # Errors
/// When the backbone has no pooler and one is asked for.
pub fn features(
    network: &Network,
    states: &[Tensor],
    rows: &[Rows<'_>],
    tokens: &Tokens,
    pooling: Pooling,
) -> Result<Tensor> {
    let Some(top) = states.last() else {
        return Err(ModelError::Examples("there are no hidden states".to_owned()));
    };
    if pooling != Pooling::Layers {
        return pooled(network, &network.finish(top, rows)?, tokens, pooling);
    }
    let mut parts = Vec::with_capacity(states.len() + 1);
    for state in states {
        parts.push(mean(&network.finish(state, rows)?, tokens)?);
    }
    parts.push(pooled(network, &network.finish(top, rows)?, tokens, Pooling::Last)?);
    Ok(Tensor::cat(&parts, D::Minus1)?)
}

/// Features `[rows, hidden]` out of the final hidden states alone.
///
/// # Errors
/// When the features are those of all layers, or the backbone has no pooler and one is asked for.
pub fn pooled(
    network: &Network,
    hidden: &Tensor,
    tokens: &Tokens,
    pooling: Pooling,
) -> Result<Tensor> {
    let features = match pooling {
        Pooling::Layers => {
            let reason = "features of all layers need the states of all layers";
            return Err(ModelError::Examples(reason.to_owned()));
        }
        Pooling::Mean => mean(hidden, tokens)?,
        Pooling::Last => hidden.narrow(1, tokens.width() - 1, 1)?.contiguous()?.squeeze(1)?,
        Pooling::First => first(hidden, tokens)?,
        Pooling::Pooler => {
            let Some(pooler) = network.pooler() else {
                return Err(ModelError::MissingWeight { name: "pooler.dense.weight".to_owned() });
            };
            activate(&pooler.forward(&first(hidden, tokens)?)?, Activation::Tanh)?
        }
    };
    Ok(features.to_dtype(DType::F32)?)
}

/// The state of each row's first token, `[rows, hidden]`.
fn first(state: &Tensor, tokens: &Tokens) -> Result<Tensor> {
    let rows: Vec<Tensor> = (0..tokens.spans().len())
        .map(|row| state.get(row)?.get(tokens.text(row).start))
        .collect::<candle_core::Result<_>>()?;
    Ok(Tensor::stack(&rows, 0)?)
}

/// Mean over each row's tokens, `[rows, hidden]`; padding and virtual tokens do not count.
fn mean(state: &Tensor, tokens: &Tokens) -> Result<Tensor> {
    let (count, columns, _) = state.dims3()?;
    let mut weights = Vec::with_capacity(count * columns);
    for row in 0..count {
        let text = tokens.text(row);
        let share = 1.0 / text.len().max(1) as f32;
        weights.extend((0..columns).map(|column| if text.contains(&column) { share } else { 0.0 }));
    }
    let weights = Tensor::from_vec(weights, (count, 1, columns), state.device())?;
    // In f32 whatever the network computes in: a head is in f32 as well, and sums of many tokens need it.
    Ok(weights.matmul(&state.to_dtype(DType::F32)?.contiguous()?)?.squeeze(1)?)
}
