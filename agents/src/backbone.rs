//! A pretrained network that agents share: configuration, weights and tokenizer, read once.
//!
//! Immutable. What an agent adds to it is an [`crate::adapter::Adapter`].

pub mod builtin;
pub mod checkpoint;
pub mod config;
pub mod decoder;
mod differentiable;
pub mod kv_cache;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use rand::distr::Distribution;

pub use self::config::DecoderConfig;
pub use self::decoder::{Decoder, Rows, Tokens};
pub(crate) use self::differentiable::{linear, negative_log_likelihood};
pub use self::kv_cache::KvCache;
use crate::error::{ModelError, Result};
use crate::seed::Seed;
use crate::tokenizer::Tokenizer;

/// The largest model file that is read into memory.
const LARGEST_FILE: u64 = 8 << 30;

/// A pretrained decoder with its tokenizer.
#[derive(Debug)]
pub struct Backbone {
    /// The network.
    pub decoder: Decoder,
    /// The vocabulary it was trained with.
    pub tokenizer: Tokenizer,
    weights: BTreeMap<String, Tensor>,
}

impl Backbone {
    /// Loads a Hugging Face directory: `config.json`, `model.safetensors`, `tokenizer.json`.
    ///
    /// # Errors
    /// When a file is missing or malformed, the architecture is not ours, or the parts do not fit.
    pub fn load(directory: &Path, device: &Device) -> Result<Self> {
        let config_path = directory.join("config.json");
        let json = String::from_utf8_lossy(&read_file(&config_path)?).into_owned();
        let config = DecoderConfig::from_json(&json, &config_path)?;
        let tokenizer = Tokenizer::from_file(&directory.join("tokenizer.json"))?;
        let path = directory.join("model.safetensors");
        let weights = checkpoint::read(&read_file(&path)?, &path, &config, device)?;
        Self::assemble(config, weights, tokenizer, device)
    }

    /// Puts the parts together.
    ///
    /// # Errors
    /// When the tokenizer has more tokens than the embedding has rows, or a weight is missing.
    pub fn assemble(
        config: DecoderConfig,
        weights: BTreeMap<String, Tensor>,
        tokenizer: Tokenizer,
        device: &Device,
    ) -> Result<Self> {
        if tokenizer.vocabulary() > config.vocab_size {
            return Err(ModelError::Tokenizer(format!(
                "the tokenizer has {} tokens, the model only {}",
                tokenizer.vocabulary(),
                config.vocab_size
            )));
        }
        let decoder = Decoder::assemble(config, &weights, device)?;
        Ok(Self { decoder, tokenizer, weights })
    }

    /// A backbone of the same architecture and vocabulary with random weights: the control without
    /// transfer.
    ///
    /// # Errors
    /// On a tensor failure only.
    pub fn from_scratch(&self, seed: Seed) -> Result<Self> {
        let config = self.decoder.config().clone();
        let device = self.decoder.device().clone();
        let weights = random_weights(&config, seed, &device)?;
        Self::assemble(config, weights, self.tokenizer.clone(), &device)
    }

    /// A weight by its checkpoint name.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn weight(&self, name: &str) -> Result<Tensor> {
        decoder::find(&self.weights, name)
    }
}

/// Reads a file that is not absurdly large.
fn read_file(path: &Path) -> Result<Vec<u8>> {
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
/// (Radford et al. 2019), norms at one.
///
/// # Errors
/// On a tensor failure only.
pub fn random_weights(
    config: &DecoderConfig,
    seed: Seed,
    device: &Device,
) -> Result<BTreeMap<String, Tensor>> {
    let depth = 1.0 / (2.0 * config.num_hidden_layers as f32).sqrt();
    config
        .weights()
        .into_iter()
        .map(|(name, shape)| {
            let tensor = if shape.len() == 1 {
                Tensor::ones(shape, candle_core::DType::F32, device)?
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
