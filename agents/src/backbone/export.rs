//! A model's folder written again with other weights, so that [`Backbone::load`] and transformers read it.
//!
//! All else stays as it was in the folder it came from: how weights are spelled, weights that are not part of
//! our network (the head an encoder was pretrained with), the configuration but for the type of its numbers,
//! the tokenizer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use serde_json::{Map, Value};

use super::checkpoint::{self, Checkpoint};
use super::gguf::Gguf;
use super::names::HEAD;
use super::{Backbone, read_file, stored_name};
use crate::error::{ModelError, Result};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
/// What a folder may hold beside configuration and weights: the tokenizer in its several forms, and how a
/// text is written.
const BESIDE: [&str; 13] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
];

/// The files of a model, but for the weights that will be others.
#[derive(Debug)]
pub struct ModelFiles {
    config: Map<String, Value>,
    beside: Vec<(&'static str, Vec<u8>)>,
    checkpoint: Checkpoint,
}

impl ModelFiles {
    /// Opens a folder in Hugging Face layout.
    ///
    /// # Errors
    /// When it has no configuration or weights, or is a `.gguf` file, which has no folder to write again.
    pub fn open(directory: &Path) -> Result<Self> {
        if Gguf::is(directory) {
            let reason = "a .gguf file has no config.json and no tokenizer files to copy; \
                          name the folder it was made from"
                .to_owned();
            return Err(ModelError::Incompatible { doing: "write the model again", reason });
        }
        let path = directory.join(CONFIG);
        let config = parse(&read_file(&path)?, &path)?;
        let checkpoint = Checkpoint::open(directory)?;
        let mut beside = Vec::new();
        for name in BESIDE {
            let path = directory.join(name);
            if path.is_file() {
                beside.push((name, read_file(&path)?));
            }
        }
        Ok(Self { config, beside, checkpoint })
    }

    /// The files of a model that is in memory.
    ///
    /// # Errors
    /// When the configuration is not one.
    pub(crate) fn of(
        config: &str,
        tokenizer: &[u8],
        checkpoint: Checkpoint,
        name: &Path,
    ) -> Result<Self> {
        let config = parse(config.as_bytes(), name)?;
        Ok(Self { config, beside: vec![("tokenizer.json", tokenizer.to_vec())], checkpoint })
    }

    /// Writes a folder with the weights of `backbone`, which must be of the same architecture, in f32.
    ///
    /// What else the checkpoint holds is kept where it is stored as f32, f16 or bf16; tables of integers,
    /// which transformers computes itself, and the second copy of a tied output head are left out.
    ///
    /// # Errors
    /// When `backbone` is of another architecture, or a file cannot be written.
    pub fn write(&self, backbone: &Backbone, out: &Path) -> Result<()> {
        let weights = self.weights(backbone)?;
        let fail = |path: PathBuf| move |source| ModelError::File { path, source };
        std::fs::create_dir_all(out).map_err(fail(out.to_owned()))?;
        for (name, bytes) in &self.beside {
            let path = out.join(name);
            std::fs::write(&path, bytes).map_err(fail(path))?;
        }
        let mut config = self.config.clone();
        for name in ["dtype", "torch_dtype"] {
            if let Some(dtype) = config.get_mut(name) {
                *dtype = "float32".into();
            }
        }
        let path = out.join(CONFIG);
        let text = format!("{:#}\n", Value::Object(config));
        std::fs::write(&path, text).map_err(fail(path))?;
        checkpoint::write_model(&weights, &out.join(WEIGHTS))
    }

    /// All weights by the names of the checkpoint.
    fn weights(&self, backbone: &Backbone) -> Result<BTreeMap<String, Tensor>> {
        let architecture = backbone.network.architecture();
        let mut weights = BTreeMap::new();
        for (name, weight) in backbone.weights() {
            let missing = || ModelError::MissingWeight { name: name.clone() };
            let stored = stored_name(&self.checkpoint, architecture.family, name);
            let stored = stored.ok_or_else(missing)?;
            let expected = self.checkpoint.shape(&stored).unwrap_or_default();
            if expected != weight.dims() {
                let (expected, found) = (expected.to_vec(), weight.dims().to_vec());
                return Err(ModelError::WeightShape { name: stored, expected, found });
            }
            weights.insert(stored, weight.dequantize()?);
        }
        let tied = architecture.family.is_decoder() && architecture.tied;
        for name in self.checkpoint.names() {
            let second = tied && name.ends_with(&format!("{HEAD}.weight"));
            if weights.contains_key(name) || second || !self.checkpoint.is_float(name) {
                continue;
            }
            let shape = self.checkpoint.shape(name).unwrap_or_default();
            let tensor = self.checkpoint.read(name, shape, DType::F32, &Device::Cpu)?;
            weights.insert(name.to_owned(), tensor);
        }
        Ok(weights)
    }
}

fn parse(bytes: &[u8], path: &Path) -> Result<Map<String, Value>> {
    serde_json::from_slice(bytes).map_err(|error| ModelError::Malformed {
        path: path.into(),
        what: "model configuration",
        reason: error.to_string(),
    })
}
