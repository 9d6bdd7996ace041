//! What makes a shared backbone an agent's own model, as immutable numbered generations.
//!
//! An adapter is named tensors plus a description of its kind: a method that changes the network, and
//! perhaps a head that classifies. A generation is never changed after it was published: training builds
//! the next one. Names and files follow PEFT where PEFT has a name.

pub mod combine;
pub mod file;
pub mod head;
pub mod ia3;
pub mod lora;
pub mod merge;
pub mod own;
pub mod peft;
pub mod pissa;
pub mod update;
pub mod vera;
pub mod virtual_tokens;

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use self::head::{Head, HeadSpec};
use self::ia3::Ia3Spec;
use self::lora::LoraSpec;
use self::update::Update;
use self::vera::VeraSpec;
use crate::backbone::block::{Block, Outer, find};
use crate::backbone::digest::hexadecimal;
use crate::backbone::names::Module;
use crate::backbone::{Architecture, Backbone};
use crate::error::{ModelError, Result};
use crate::seed::Seed;

/// How an adapter changes the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Not at all: feature-based transfer, where only a head is trained.
    Frozen,
    /// Low-rank updates of frozen weights.
    Lora(LoraSpec),
    /// Learned scales of activations.
    Ia3(Ia3Spec),
    /// Shared random projections with learned scales.
    Vera(VeraSpec),
    /// Learned embeddings before every text.
    Prompt {
        /// How many.
        tokens: usize,
    },
    /// Learned keys and values before every text, in every layer of a decoder.
    Prefix {
        /// How many.
        tokens: usize,
    },
    /// Own copies of the upper layers.
    Layers {
        /// How many layers, counted from the input, stay as they were pretrained.
        freeze_layers: usize,
    },
    /// An own copy of everything.
    Full,
}

impl Method {
    /// How many tokens it puts before every text.
    #[must_use]
    pub fn virtual_tokens(&self) -> usize {
        match self {
            Self::Prompt { tokens } | Self::Prefix { tokens } => *tokens,
            _ => 0,
        }
    }
}

/// The kind and shape of an adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdapterSpec {
    /// How it changes the network.
    pub method: Method,
    /// The classifier on top; none for an agent that writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<HeadSpec>,
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
    parts: Parts,
    head: Option<Head>,
    architecture: Arc<Architecture>,
}

/// The tensors where the forward pass wants them, in the type it computes in.
#[derive(Clone, Debug, Default)]
struct Parts {
    updates: BTreeMap<(usize, Module), Update>,
    blocks: BTreeMap<usize, Block>,
    outer: Option<Outer>,
    prompt: Option<Tensor>,
    prefix: Vec<[Tensor; 2]>,
}

impl Adapter {
    /// Generation 0: it changes nothing yet (prompts and prefixes excepted), and its head knows nothing.
    ///
    /// # Errors
    /// When the method does not suit the backbone, for example by a target it does not have.
    pub fn initial(spec: AdapterSpec, backbone: &Backbone, seed: Seed) -> Result<Self> {
        let mut tensors = match &spec.method {
            Method::Frozen => BTreeMap::new(),
            Method::Lora(lora) => lora::initial(lora, backbone, seed)?,
            Method::Ia3(ia3) => ia3::initial(ia3, backbone)?,
            Method::Vera(vera) => vera::initial(vera, backbone, seed)?,
            Method::Prompt { tokens } => virtual_tokens::prompt(*tokens, backbone, seed)?,
            Method::Prefix { tokens } => virtual_tokens::prefix(*tokens, backbone, seed)?,
            Method::Layers { freeze_layers } => own::upper(*freeze_layers, backbone)?,
            Method::Full => own::everything(backbone)?,
        };
        if let Some(head) = &spec.head {
            tensors.extend(head::initial(head, backbone, seed)?);
        }
        Self::assemble(spec, Generation(0), tensors, backbone)
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
        // Adapters are kept in f32 and computed in the backbone's type.
        let dtype = backbone.network.dtype();
        let cast: BTreeMap<String, Tensor>;
        let used = if dtype == DType::F32 {
            &tensors
        } else {
            let convert = |(name, t): (&String, &Tensor)| Ok((name.clone(), t.to_dtype(dtype)?));
            cast = tensors.iter().map(convert).collect::<Result<_>>()?;
            &cast
        };
        let mut parts = Parts::default();
        match &spec.method {
            Method::Frozen => {}
            Method::Lora(lora) => parts.updates = lora::assemble(lora, used, backbone)?,
            Method::Ia3(ia3) => parts.updates = ia3::assemble(ia3, used, backbone)?,
            Method::Vera(vera) => parts.updates = vera::assemble(vera, used, backbone)?,
            Method::Prompt { .. } => parts.prompt = Some(virtual_tokens::find_prompt(used)?),
            Method::Prefix { .. } => parts.prefix = virtual_tokens::split_prefix(used, backbone)?,
            Method::Layers { freeze_layers } => {
                parts.blocks = own::blocks(*freeze_layers, used, backbone)?;
                parts.outer = own::outer_with_norm(used, backbone)?;
            }
            Method::Full => {
                parts.blocks = own::blocks(0, used, backbone)?;
                parts.outer = Some(own::outer(used, backbone)?);
            }
        }
        // A head reads a few features of each text; it computes in f32 whatever the network does.
        let head = spec.head.as_ref().map(|head| Head::assemble(head, &tensors, backbone));
        let head = head.transpose()?;
        let architecture = Arc::clone(backbone.network.architecture());
        Ok(Self { spec, generation, tensors, parts, head, architecture })
    }

    /// The same adapter with the head of another one, for example of one that was trained on frozen
    /// features first (Kumar et al. 2022, arXiv 2202.10054).
    ///
    /// # Errors
    /// When the heads have different shapes.
    pub fn with_head_of(&self, other: &Self, backbone: &Backbone) -> Result<Self> {
        let (Some(spec), true) = (&self.spec.head, self.spec.head == other.spec.head) else {
            let reason = "a head can only be taken over by an adapter with a head of that shape";
            return Err(ModelError::Examples(reason.to_owned()));
        };
        let mut tensors = self.tensors.clone();
        for name in head::initial(spec, backbone, Seed::new(0))?.into_keys() {
            let tensor = find(&other.tensors, &name)?;
            tensors.insert(name, tensor);
        }
        Self::assemble(self.spec.clone(), self.generation, tensors, backbone)
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

    /// The weights by name, in f32.
    #[must_use]
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// How many numbers training changes.
    #[must_use]
    pub fn trainable(&self) -> usize {
        self.trained().map(|(_, tensor)| tensor.elem_count()).sum()
    }

    /// The tensors that training changes.
    pub fn trained(&self) -> impl Iterator<Item = (&String, &Tensor)> {
        self.tensors.iter().filter(|(name, _)| !is_fixed(name))
    }

    /// The tensors that belong to the adapter and stay as they are.
    pub fn fixed(&self) -> impl Iterator<Item = (&String, &Tensor)> {
        self.tensors.iter().filter(|(name, _)| is_fixed(name))
    }

    /// The classes of a classifier; empty for a text model.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        self.spec.head.as_ref().map_or(&[], |head| &head.labels)
    }

    /// The same adapter with other names for its classes: PEFT's files have numbers only.
    ///
    /// # Errors
    /// When there is no head, or it has another number of classes.
    pub fn with_labels(&self, labels: Vec<String>) -> Result<Self> {
        let mut named = self.clone();
        match &mut named.spec.head {
            Some(head) if head.labels.len() == labels.len() => head.labels = labels,
            head => {
                let found = head.as_ref().map_or(0, |head| head.labels.len());
                let reason = format!("its head has {found} classes, wanted are {}", labels.len());
                return Err(ModelError::Incompatible { doing: "name the classes", reason });
            }
        }
        Ok(named)
    }

    /// The first layer that is not the backbone's own; the depth where all of them are.
    #[must_use]
    pub fn frozen_layers(&self, depth: usize) -> usize {
        match &self.spec.method {
            Method::Frozen => depth,
            Method::Layers { freeze_layers } => *freeze_layers,
            _ => 0,
        }
    }

    /// Whether training drops some of its inputs.
    #[must_use]
    pub fn drops_inputs(&self) -> bool {
        match &self.spec.method {
            Method::Lora(lora) => lora.dropout > 0.0,
            Method::Vera(vera) => vera.dropout > 0.0,
            _ => false,
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
        Ok(hexadecimal(&hash.finalize()[..8]))
    }

    /// How many columns its virtual tokens take.
    #[must_use]
    pub fn virtual_tokens(&self) -> usize {
        self.spec.method.virtual_tokens()
    }

    pub(crate) fn update(&self, layer: usize, module: Module) -> Option<&Update> {
        self.parts.updates.get(&(layer, module))
    }

    /// All changes of linear maps, in order.
    pub(crate) fn updates(&self) -> impl Iterator<Item = (&(usize, Module), &Update)> {
        self.parts.updates.iter()
    }

    /// Whether any weight of the backbone is replaced by an own one.
    pub(crate) fn owns_weights(&self) -> bool {
        !self.parts.blocks.is_empty() || self.parts.outer.is_some()
    }

    pub(crate) fn block(&self, layer: usize) -> Option<&Block> {
        self.parts.blocks.get(&layer)
    }

    pub(crate) fn outer(&self) -> Option<&Outer> {
        self.parts.outer.as_ref()
    }

    pub(crate) fn prompt(&self) -> Option<&Tensor> {
        self.parts.prompt.as_ref()
    }

    /// Keys and values of virtual tokens in a layer, each `[key heads, tokens, width]`.
    pub(crate) fn prefix(&self, layer: usize) -> Option<&[Tensor; 2]> {
        self.parts.prefix.get(layer)
    }
}

/// Whether a tensor of this name is never trained.
fn is_fixed(name: &str) -> bool {
    matches!(name, head::MEAN | head::SCALE | vera::A | vera::B)
        || name.ends_with(lora::FIXED_A)
        || name.ends_with(lora::FIXED_B)
}
