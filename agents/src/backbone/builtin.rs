//! `polylogue-tiny`: our own small pretrained decoder, embedded in the binary.
//!
//! Made by `polylogue pretrain scenarios/pretrain`; `card.json` beside the weights says from what.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device};

use super::Backbone;
use super::architecture::Architecture;
use super::checkpoint::Checkpoint;
use super::digest;
use super::export::ModelFiles;
use crate::error::Result;
use crate::tokenizer::Tokenizer;

/// Its name in scenarios.
pub const NAME: &str = "polylogue-tiny";

const CONFIG: &str = include_str!("../../polylogue-tiny/config.json");
const TOKENIZER: &[u8] = include_bytes!("../../polylogue-tiny/tokenizer.json");
const WEIGHTS: &[u8] = include_bytes!("../../polylogue-tiny/model.safetensors");

/// Loads the embedded backbone, computing in f32.
///
/// # Errors
/// On a tensor failure only: the embedded files are tested.
pub fn polylogue_tiny(device: &Device) -> Result<Backbone> {
    polylogue_tiny_as(DType::F32, device)
}

/// Loads the embedded backbone, computing in `dtype`.
///
/// # Errors
/// On a tensor failure only: the embedded files are tested.
pub fn polylogue_tiny_as(dtype: DType, device: &Device) -> Result<Backbone> {
    let path = Path::new(NAME);
    let architecture = Architecture::from_json(CONFIG, path)?;
    let checkpoint = Checkpoint::from_bytes(WEIGHTS, path)?;
    let tokenizer = Tokenizer::from_bytes(TOKENIZER)?;
    Backbone::read(architecture, &checkpoint, tokenizer, dtype, device)
}

/// The SHA-256 of each embedded file, by name.
#[must_use]
pub fn digests() -> BTreeMap<String, String> {
    [
        ("config.json", CONFIG.as_bytes()),
        ("tokenizer.json", TOKENIZER),
        ("model.safetensors", WEIGHTS),
    ]
    .into_iter()
    .map(|(name, bytes)| (name.to_owned(), digest::of_bytes(bytes)))
    .collect()
}

/// Its files, to be written with other weights.
///
/// # Errors
/// None that is known: the embedded files are tested.
pub fn files() -> Result<ModelFiles> {
    let path = Path::new(NAME);
    ModelFiles::of(CONFIG, TOKENIZER, Checkpoint::from_bytes(WEIGHTS, path)?, path)
}
