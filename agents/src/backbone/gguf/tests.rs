//! GGUF files written with candle's writer from networks that are known, and hostile ones.
//!
//! Queries and keys are put into the file's order here with tensor operations, not with the code under
//! test. Files that others wrote are in `agents/tests/gguf.rs`.

mod hostile;
mod network;
mod quantized;

use std::collections::BTreeMap;
use std::path::PathBuf;

use candle_core::quantized::gguf_file;
use serde_json::{Value as Json, json};

use super::*;
use crate::backbone::{Architecture, Backbone, random_weights};
use crate::seed::Seed;
use crate::tokenizer::Tokenizer;

type Metadata = BTreeMap<String, Value>;
type Weights = BTreeMap<String, Tensor>;

/// The entries that llama.cpp's converter would write for a configuration.
fn metadata(config: &Json) -> Metadata {
    let name = match config["model_type"].as_str().unwrap_or("llama") {
        "gemma3_text" => "gemma3",
        "mistral" => "llama",
        other => other,
    };
    let rope = if config["rope_scaling"].is_null() { "rope_parameters" } else { "rope_scaling" };
    let (rope, theta) = (&config[rope], &config["rope_theta"]);
    let mut entries = Metadata::new();
    entries.insert("general.architecture".to_owned(), Value::String(name.to_owned()));
    for (key, value) in [
        ("embedding_length", &config["hidden_size"]),
        ("feed_forward_length", &config["intermediate_size"]),
        ("block_count", &config["num_hidden_layers"]),
        ("attention.head_count", &config["num_attention_heads"]),
        ("attention.head_count_kv", &config["num_key_value_heads"]),
        ("attention.key_length", &config["head_dim"]),
        ("attention.value_length", &config["head_dim"]),
        ("context_length", &config["max_position_embeddings"]),
        ("attention.layer_norm_rms_epsilon", &config["rms_norm_eps"]),
        ("attention.sliding_window", &config["sliding_window"]),
        ("rope.freq_base_swa", &config["rope_local_base_freq"]),
        ("rope.freq_base", if theta.is_null() { &rope["rope_theta"] } else { theta }),
        ("rope.scaling.factor", &rope["factor"]),
        ("rope.scaling.original_context_length", &rope["original_max_position_embeddings"]),
    ] {
        let entry = match (value.as_u64(), value.as_f64()) {
            (Some(whole), _) => Value::U32(whole as u32),
            (None, Some(value)) => Value::F32(value as f32),
            (None, None) => continue,
        };
        entries.insert(format!("{name}.{key}"), entry);
    }
    if let Some(kind @ ("linear" | "yarn")) = rope["rope_type"].as_str() {
        entries.insert(format!("{name}.rope.scaling.type"), Value::String(kind.to_owned()));
    }
    entries
}

/// The tensors of a file, matrices in the given type.
fn stored(config: &Json, weights: &Weights, dtype: GgmlDType) -> Vec<(String, QTensor)> {
    let kind = match &metadata(config)["general.architecture"] {
        Value::String(name) => Kind::ALL.into_iter().find(|(_, known)| known == name).unwrap().0,
        _ => unreachable!(),
    };
    let count = |key: &str| config[key].as_u64().unwrap() as usize;
    let store = |(name, tensor): (&String, &Tensor)| {
        let heads = match name {
            _ if kind != Kind::Llama => 0,
            name if name.contains("q_proj") => count("num_attention_heads"),
            name if name.contains("k_proj") => count("num_key_value_heads"),
            _ => 0,
        };
        let one = if kind == Kind::Gemma3 && name.ends_with("norm.weight") { 1.0 } else { 0.0 };
        let tensor = (tensor + one).unwrap();
        let tensor = if heads > 0 { paired(&tensor, heads) } else { tensor };
        let dtype = if tensor.rank() == 1 { GgmlDType::F32 } else { dtype };
        (kind.stored(name).unwrap(), QTensor::quantize(&tensor, dtype).unwrap())
    };
    weights.iter().map(store).collect()
}

/// The converter's order of the rows of queries and keys.
fn paired(tensor: &Tensor, heads: usize) -> Tensor {
    let shape = tensor.dims().to_vec();
    let (rows, row) = (shape[0], tensor.elem_count() / shape[0]);
    let apart = tensor.reshape((heads, 2, rows / heads / 2, row)).unwrap();
    apart.transpose(1, 2).unwrap().contiguous().unwrap().reshape(shape).unwrap()
}

fn written(entries: &Metadata, stored: &[(String, QTensor)]) -> Vec<u8> {
    let entries: Vec<_> = entries.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let stored: Vec<_> = stored.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let mut out = Cursor::new(Vec::new());
    gguf_file::write(&mut out, &entries, &stored).unwrap();
    out.into_inner()
}

fn open(bytes: Vec<u8>) -> Result<Gguf> {
    Gguf::from_bytes(bytes, Path::new("test.gguf"))
}

/// The backbone of a file in memory, without a vocabulary.
fn read(bytes: Vec<u8>, dtype: DType) -> Result<Backbone> {
    let path = Path::new("test.gguf");
    Backbone::read_gguf(&open(bytes)?, path, Tokenizer::empty()?, dtype, &Device::Cpu)
}

/// A small network whose matrices fit blocks of 32, and of 256 where `wide`.
fn small(wide: bool) -> (Json, Weights) {
    let width = if wide { 256 } else { 64 };
    let config = json!({"model_type": "llama", "hidden_size": width, "intermediate_size": width,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": width / 4, "vocab_size": 48, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
        "rope_theta": 500.0, "tie_word_embeddings": false});
    let architecture = Architecture::from_json(&config.to_string(), Path::new("test")).unwrap();
    let mut weights = random_weights(&architecture, Seed::new(3), &Device::Cpu).unwrap();
    // As large as in a trained network: products of a normed input are of size one.
    for tensor in weights.values_mut().filter(|tensor| tensor.rank() == 2) {
        *tensor = (&*tensor * (50.0 / f64::from(width).sqrt())).unwrap();
    }
    (config, weights)
}

/// The same backbone with every matrix expanded.
fn expanded(backbone: &Backbone) -> Backbone {
    let weights = backbone.weights().iter();
    let weights = weights
        .map(|(name, weight)| (name.clone(), Weight::Dense(weight.dequantize().unwrap())))
        .collect();
    let architecture = Architecture::clone(backbone.network.architecture());
    Backbone::assemble(architecture, weights, backbone.tokenizer.clone()).unwrap()
}

fn logits(backbone: &Backbone, row: &[u32]) -> Tensor {
    use crate::backbone::{Pass, Rows, Tokens};
    let groups = [Rows { adapter: None, count: 1 }];
    let tokens = Tokens::pack(&[row.to_vec()], &groups, &Device::Cpu).unwrap();
    let network = &backbone.network;
    network.logits(&network.hidden(&tokens, Pass::of(&groups)).unwrap(), &groups).unwrap()
}

/// Largest difference, relative to the largest value.
fn difference(found: &Tensor, expected: &Tensor) -> f32 {
    let largest = |t: &Tensor| t.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    largest(&(found - expected).unwrap()) / largest(expected)
}

const ROW: [u32; 11] = [5, 17, 40, 3, 3, 22, 31, 9, 47, 12, 28];
