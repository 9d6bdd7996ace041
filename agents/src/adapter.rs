//! What makes a shared backbone an agent's own model, as immutable numbered generations.
//!
//! An adapter is named tensors plus a description of its kind. A generation is never changed after it
//! was published: training builds the next one. Names and files follow PEFT where PEFT has a name.

pub mod file;
pub mod head;
pub mod lora;

use std::collections::BTreeMap;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use self::head::Head;
use self::lora::{Lora, LoraSpec, Module};
use crate::backbone::Backbone;
use crate::backbone::decoder::{Layer, find};
use crate::error::Result;
use crate::seed::Seed;

/// The kind and shape of an adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdapterSpec {
    /// Frozen backbone, linear classifier on its features.
    Feature {
        /// The classes, in the order of the outputs.
        labels: Vec<String>,
    },
    /// Low-rank updates of frozen weights.
    Lora(LoraSpec),
    /// The first layers frozen, the others and a new head trained.
    Head {
        /// How many layers, counted from the input, stay as they were pretrained.
        freeze_layers: usize,
        /// The classes, in the order of the outputs.
        labels: Vec<String>,
    },
}

/// The number of a version of an adapter, from 0.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Generation(pub u32);

impl Generation {
    /// The version after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl std::fmt::Display for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "g{}", self.0)
    }
}

/// One version of an agent's own weights.
#[derive(Clone, Debug)]
pub struct Adapter {
    spec: AdapterSpec,
    generation: Generation,
    tensors: BTreeMap<String, Tensor>,
    lora: BTreeMap<(usize, Module), Lora>,
    layers: BTreeMap<usize, Layer>,
    norm: Option<Tensor>,
    head: Option<Head>,
}

impl Adapter {
    /// Generation 0: for LoRA it changes nothing yet, for heads it knows nothing yet.
    ///
    /// # Errors
    /// On a tensor failure only.
    pub fn initial(spec: AdapterSpec, backbone: &Backbone, seed: Seed) -> Result<Self> {
        let config = backbone.decoder.config();
        let device = backbone.decoder.device();
        let tensors = match &spec {
            AdapterSpec::Feature { labels } => head::initial(labels.len(), config, seed, device)?,
            AdapterSpec::Lora(lora) => lora::initial(lora, config, seed, device)?,
            AdapterSpec::Head { freeze_layers, labels } => {
                let mut tensors = head::initial(labels.len(), config, seed, device)?;
                for layer in *freeze_layers..config.num_hidden_layers {
                    for (name, _) in config.layer_weights(layer) {
                        let copy = backbone.weight(&name)?.copy()?;
                        tensors.push((name, copy));
                    }
                }
                let norm = "model.norm.weight".to_owned();
                let copy = backbone.weight(&norm)?.copy()?;
                tensors.push((norm, copy));
                tensors
            }
        };
        Self::assemble(spec, Generation(0), tensors.into_iter().collect(), backbone)
    }

    /// Builds an adapter from named tensors: detached ones to run it, tracked ones to train it.
    ///
    /// # Errors
    /// When a tensor of this kind is missing.
    pub fn assemble(
        spec: AdapterSpec,
        generation: Generation,
        tensors: BTreeMap<String, Tensor>,
        backbone: &Backbone,
    ) -> Result<Self> {
        let depth = backbone.decoder.config().num_hidden_layers;
        let mut adapter = Self {
            generation,
            lora: BTreeMap::new(),
            layers: BTreeMap::new(),
            norm: None,
            head: None,
            tensors,
            spec,
        };
        match &adapter.spec {
            AdapterSpec::Feature { .. } => adapter.head = Some(Head::assemble(&adapter.tensors)?),
            AdapterSpec::Lora(lora) => {
                let scale = lora.alpha / lora.rank as f64;
                for layer in 0..depth {
                    for &module in &lora.targets {
                        let (a, b) = lora::names(layer, module);
                        let (a, b) = (find(&adapter.tensors, &a)?, find(&adapter.tensors, &b)?);
                        adapter.lora.insert((layer, module), Lora { a, b, scale });
                    }
                }
            }
            AdapterSpec::Head { freeze_layers, .. } => {
                adapter.head = Some(Head::assemble(&adapter.tensors)?);
                adapter.norm = Some(find(&adapter.tensors, "model.norm.weight")?);
                for layer in *freeze_layers..depth {
                    adapter.layers.insert(layer, Layer::assemble(layer, &adapter.tensors)?);
                }
            }
        }
        Ok(adapter)
    }

    /// The kind and shape.
    #[must_use]
    pub fn spec(&self) -> &AdapterSpec {
        &self.spec
    }

    /// Which version this is.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The weights by name.
    #[must_use]
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// How many numbers training changes.
    #[must_use]
    pub fn trainable(&self) -> usize {
        self.trained().map(|(_, tensor)| tensor.elem_count()).sum()
    }

    /// The tensors that training changes: all but the statistics of features.
    pub(crate) fn trained(&self) -> impl Iterator<Item = (&String, &Tensor)> {
        self.tensors.iter().filter(|(name, _)| *name != head::MEAN && *name != head::SCALE)
    }

    /// The classes of a classifier; empty for a text model.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        match &self.spec {
            AdapterSpec::Feature { labels } | AdapterSpec::Head { labels, .. } => labels,
            AdapterSpec::Lora(_) => &[],
        }
    }

    /// The first layer that is not the backbone's own; the depth where all of them are.
    #[must_use]
    pub fn frozen_layers(&self, depth: usize) -> usize {
        match &self.spec {
            AdapterSpec::Feature { .. } => depth,
            AdapterSpec::Lora(_) => 0,
            AdapterSpec::Head { freeze_layers, .. } => *freeze_layers,
        }
    }

    /// The classifier, where there is one.
    #[must_use]
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// A digest of kind and weights: two adapters with the same digest answer the same.
    ///
    /// # Errors
    /// On a tensor failure only.
    pub fn digest(&self) -> Result<String> {
        let mut hash = Sha256::new();
        hash.update(format!("{:?}", self.spec));
        for (name, tensor) in &self.tensors {
            hash.update(name);
            for value in tensor.flatten_all()?.to_vec1::<f32>()? {
                hash.update(value.to_le_bytes());
            }
        }
        Ok(hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
    }

    pub(crate) fn lora(&self, layer: usize, module: Module) -> Option<&Lora> {
        self.lora.get(&(layer, module))
    }

    pub(crate) fn layer(&self, layer: usize) -> Option<&Layer> {
        self.layers.get(&layer)
    }

    pub(crate) fn norm(&self) -> Option<&Tensor> {
        self.norm.as_ref()
    }
}
