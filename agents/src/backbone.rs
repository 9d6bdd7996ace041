//! A pretrained network that agents share: configuration, weights and tokenizer, read once.
//!
//! Immutable. What an agent adds to it is an [`crate::adapter::Adapter`].

pub mod architecture;
pub(crate) mod block;
pub mod builtin;
pub mod checkpoint;
pub mod config;
mod differentiable;
pub mod digest;
pub mod export;
pub mod gguf;
pub mod hooks;
pub mod kv_cache;
pub mod names;
pub mod network;
pub mod precision;
pub mod rope;
pub mod rows;
pub mod weight;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use rand::distr::Distribution;

pub use self::architecture::Architecture;
use self::block::find;
use self::checkpoint::Checkpoint;
pub use self::config::DecoderConfig;
pub(crate) use self::differentiable::{
    LowRank, Run, activate, low_rank, low_rank_runs, matmul, negative_log_likelihood, scalar,
};
use self::gguf::Gguf;
pub use self::kv_cache::KvCache;
pub use self::network::{Apart, Network, Pass};
pub use self::precision::Precision;
pub use self::rows::{Rows, Tokens};
pub use self::weight::Weight;
use crate::error::{ModelError, Result};
use crate::seed::Seed;
use crate::tokenizer::Tokenizer;

/// The largest configuration or tokenizer that is read into memory.
const LARGEST_FILE: u64 = 256 << 20;

/// Where weights come from by name and expected shape; none where there is no such weight.
type Reader<'a> = dyn Fn(&str, &[usize]) -> Result<Option<Weight>> + 'a;

/// A pretrained network with its tokenizer.
#[derive(Debug)]
pub struct Backbone {
    /// The network.
    pub network: Network,
    /// The vocabulary it was trained with.
    pub tokenizer: Tokenizer,
    weights: BTreeMap<String, Weight>,
}

impl Backbone {
    /// Loads a Hugging Face directory (`config.json`, safetensors, `tokenizer.json`, and a chat template
    /// where there is one) or a `.gguf` file, computing in f32.
    ///
    /// # Errors
    /// When a file is missing or malformed, the architecture is not ours, or the parts do not fit.
    pub fn load(path: &Path, device: &Device) -> Result<Self> {
        Self::load_as(path, DType::F32, device)
    }

    /// Loads a Hugging Face directory or a `.gguf` file, computing in `dtype`. Matrices of a file that are
    /// quantised stay so in f32 and are expanded in any other type.
    ///
    /// # Errors
    /// As [`Backbone::load`].
    pub fn load_as(path: &Path, dtype: DType, device: &Device) -> Result<Self> {
        if Gguf::is(path) {
            let file = Gguf::open(path)?;
            return Self::read_gguf(&file, path, file.chat_tokenizer(path)?, dtype, device);
        }
        let tokenizer = Tokenizer::from_directory(path)?;
        Self::load_with(path, tokenizer, dtype, device)
    }

    /// Loads a Hugging Face directory or a `.gguf` file with a tokenizer from elsewhere.
    ///
    /// # Errors
    /// As [`Backbone::load`].
    pub fn load_with(
        directory: &Path,
        tokenizer: Tokenizer,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        if Gguf::is(directory) {
            return Self::read_gguf(&Gguf::open(directory)?, directory, tokenizer, dtype, device);
        }
        let config_path = directory.join("config.json");
        let json = String::from_utf8_lossy(&read_file(&config_path)?).into_owned();
        let architecture = Architecture::from_json(&json, &config_path)?;
        let checkpoint = Checkpoint::open(directory)?;
        Self::read(architecture, &checkpoint, tokenizer, dtype, device)
    }

    /// Reads the weights that `architecture` asks for.
    ///
    /// # Errors
    /// When one is missing, misshapen or not finite.
    pub(crate) fn read(
        architecture: Architecture,
        checkpoint: &Checkpoint,
        tokenizer: Tokenizer,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let family = architecture.family;
        let read = |name: &str, shape: &[usize]| {
            let Some(stored) = stored_name(checkpoint, family, name) else { return Ok(None) };
            checkpoint.read(&stored, shape, dtype, device).map(|tensor| Some(Weight::Dense(tensor)))
        };
        Self::gather(architecture, &read, tokenizer)
    }

    fn read_gguf(
        file: &Gguf,
        path: &Path,
        tokenizer: Tokenizer,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let architecture = Architecture::from_json(&file.config()?.to_string(), path)?;
        let read = |name: &str, shape: &[usize]| {
            file.has(name).then(|| file.read(name, shape, dtype, device)).transpose()
        };
        Self::gather(architecture, &read, tokenizer)
    }

    /// Reads every weight of an architecture from wherever they are; `read` gives none for one that is
    /// not there.
    fn gather(architecture: Architecture, read: &Reader<'_>, tokenizer: Tokenizer) -> Result<Self> {
        let mut weights = BTreeMap::new();
        for (name, shape) in architecture.weights() {
            let missing = || ModelError::MissingWeight { name: name.clone() };
            let weight = read(&name, &shape)?.ok_or_else(missing)?;
            weights.insert(name, weight);
        }
        for (name, shape) in architecture.optional_weights() {
            if let Some(weight) = read(&name, &shape)? {
                weights.insert(name, weight);
            }
        }
        Self::assemble(architecture, weights, tokenizer)
    }

    /// Puts the parts together.
    ///
    /// # Errors
    /// When the tokenizer has more tokens than the embedding has rows, or a weight is missing.
    pub fn assemble(
        architecture: Architecture,
        weights: BTreeMap<String, Weight>,
        tokenizer: Tokenizer,
    ) -> Result<Self> {
        if tokenizer.vocabulary() > architecture.vocabulary {
            return Err(ModelError::Tokenizer(format!(
                "the tokenizer has {} tokens, the model only {}",
                tokenizer.vocabulary(),
                architecture.vocabulary
            )));
        }
        let get = |name: &str| find(&weights, name);
        let network = Network::assemble(architecture, &get)?;
        Ok(Self { network, tokenizer, weights })
    }

    /// A backbone of the same architecture and vocabulary with random weights: the control without
    /// transfer.
    ///
    /// # Errors
    /// On a tensor failure only.
    pub fn from_scratch(&self, seed: Seed) -> Result<Self> {
        let architecture = Architecture::clone(self.network.architecture());
        let weights = random_weights(&architecture, seed, self.network.device())?;
        let dtype = self.network.dtype();
        let cast =
            |(name, weight): (String, Tensor)| Ok((name, Weight::Dense(weight.to_dtype(dtype)?)));
        let weights = weights.into_iter().map(cast).collect::<Result<_>>()?;
        Self::assemble(architecture, weights, self.tokenizer.clone())
    }

    /// A weight by its canonical name.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn weight(&self, name: &str) -> Result<Weight> {
        find(&self.weights, name)
    }

    /// All weights by their canonical names.
    #[must_use]
    pub fn weights(&self) -> &BTreeMap<String, Weight> {
        &self.weights
    }
}

/// The name under which a checkpoint holds the weight of a canonical name.
fn stored_name(
    checkpoint: &Checkpoint,
    family: architecture::Family,
    name: &str,
) -> Option<String> {
    spellings(family, name).into_iter().find(|name| checkpoint.shape(name).is_some())
}

/// How checkpoints spell a canonical name: bare, under a task head, or with TensorFlow's norms.
fn spellings(family: architecture::Family, name: &str) -> Vec<String> {
    let mut spellings = vec![name.to_owned()];
    if family.is_decoder() {
        spellings.extend(name.strip_prefix("model.").map(str::to_owned));
        spellings.push(format!("language_model.{name}"));
    } else {
        spellings.push(format!("{}{name}", family.wrapped()));
    }
    let older: Vec<String> = spellings
        .iter()
        .filter(|name| name.contains("LayerNorm"))
        .map(|name| name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"))
        .collect();
    spellings.extend(older);
    spellings
}

/// Reads a file that is not absurdly large.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    let fail = |source| ModelError::File { path: path.into(), source };
    let size = std::fs::metadata(path).map_err(fail)?.len();
    if size > LARGEST_FILE {
        return Err(ModelError::Malformed {
            path: path.into(),
            what: "model file",
            reason: format!("{size} bytes are more than the {LARGEST_FILE} that are read"),
        });
    }
    std::fs::read(path).map_err(fail)
}

/// Random weights: normal with standard deviation 0.02, output projections scaled down by depth
/// (Radford et al. 2019), norms at one (Gemma's at zero, which is the same), biases at zero.
///
/// # Errors
/// On a tensor failure only.
pub fn random_weights(
    architecture: &Architecture,
    seed: Seed,
    device: &Device,
) -> Result<BTreeMap<String, Tensor>> {
    let depth = 1.0 / (2.0 * architecture.depth() as f32).sqrt();
    let one = architecture.norm != architecture::NormKind::RmsFromOne;
    architecture
        .weights()
        .into_iter()
        .map(|(name, shape)| {
            let tensor = if shape.len() == 1 {
                let at_one = name.ends_with("weight") && one;
                if at_one {
                    Tensor::ones(shape, DType::F32, device)?
                } else {
                    Tensor::zeros(shape, DType::F32, device)?
                }
            } else {
                let out = name.contains("o_proj") || name.contains("down_proj");
                let spread = if out { 0.02 * depth } else { 0.02 };
                normal(&shape, spread, seed.child(&name), device)?
            };
            Ok((name, tensor))
        })
        .collect()
}

/// Normal values with mean zero from a stream of ours (candle's CPU generator cannot be seeded).
pub(crate) fn normal(shape: &[usize], spread: f32, seed: Seed, device: &Device) -> Result<Tensor> {
    let count = shape.iter().product();
    let values: Vec<f32> = rand_distr::StandardNormal
        .sample_iter(seed.stream())
        .take(count)
        .map(|z: f32| z * spread)
        .collect();
    Ok(Tensor::from_vec(values, shape, device)?)
}
