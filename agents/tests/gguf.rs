//! GGUF files that llama.cpp's `gguf` package wrote, against what transformers and SentencePiece gave.
//!
//! The fixtures in `tests/golden/gguf` were made by `tests/peers/run gguf_fixture`; PROVENANCE.md says with
//! what. Each file goes through networks twice: with its matrices expanded, which must give the logits of
//! transformers on the same numbers, and as it is, where products round what they read to 8 bits.

#![expect(clippy::unwrap_used, reason = "a test stops where an assumption breaks")]

use std::path::{Path, PathBuf};

use agents::backbone::gguf::Gguf;
use agents::backbone::{Architecture, Backbone, Pass, Rows, Tokens, Weight};
use agents::tokenizer::Tokenizer;
use candle_core::quantized::gguf_file::{Content, Value, write};
use candle_core::{DType, Device, Tensor};

/// Largest difference that is let pass where nothing is rounded, relative to the largest logit.
const EXACT: f64 = 1e-4;
/// The same where products round: activations are within 0.4 % of the largest of their block of 32, 0.6 %
/// of a typical one, and some ten products on the way add up like random numbers; the largest of
/// thousands of logits is off by three or four times as much as a typical one.
const ROUNDED: f64 = 0.06;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/gguf")
}

/// Every file with its name, sorted.
fn files() -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(folder()).expect("the fixtures are part of the repository");
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| Gguf::is(path))
        .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), path))
        .collect();
    files.sort();
    files
}

fn load(path: &Path) -> Backbone {
    match Gguf::open(path).unwrap().tokenizer() {
        Ok(_) => Backbone::load(path, &Device::Cpu).unwrap(),
        Err(_) => {
            let empty = Tokenizer::empty().unwrap();
            Backbone::load_with(path, empty, DType::F32, &Device::Cpu).unwrap()
        }
    }
}

fn expanded(backbone: &Backbone) -> Backbone {
    let weights = backbone.weights().iter();
    let weights = weights
        .map(|(name, weight)| (name.clone(), Weight::Dense(weight.dequantize().unwrap())))
        .collect();
    let architecture = Architecture::clone(backbone.network.architecture());
    Backbone::assemble(architecture, weights, backbone.tokenizer.clone()).unwrap()
}

/// Largest difference of all rows, relative to the largest logit.
fn difference(backbone: &Backbone, expected: &Path) -> f64 {
    let expected = candle_core::safetensors::load(expected, &Device::Cpu).unwrap();
    let largest =
        |t: &Tensor| f64::from(t.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap());
    let row = |row: usize| {
        let ids = expected[&format!("tokens.{row}")].to_dtype(DType::U32).unwrap();
        let owners = [Rows { adapter: None, count: 1 }];
        let tokens = Tokens::pack(&[ids.to_vec1().unwrap()], &owners, &Device::Cpu).unwrap();
        let network = &backbone.network;
        let hidden = network.hidden(&tokens, Pass::of(&owners)).unwrap();
        let found = network.logits(&hidden, &owners).unwrap().squeeze(0).unwrap();
        let expected = &expected[&format!("logits.{row}")];
        assert_eq!(found.dims(), expected.dims());
        largest(&(&found - expected).unwrap()) / largest(expected)
    };
    row(0).max(row(1))
}

#[test]
fn files_of_others_give_the_logits_of_others() {
    let mut complaints = Vec::new();
    for (name, path) in files() {
        let backbone = load(&path);
        let expected = path.with_extension("safetensors");
        let exact = difference(&expanded(&backbone), &expected);
        let rounded = difference(&backbone, &expected);
        let quantized = backbone.weights().values().any(|w| matches!(w, Weight::Quantized(_)));
        println!("{name}: {exact:.1e} expanded, {rounded:.1e} as it is");
        if exact.is_nan() || exact > EXACT {
            complaints.push(format!("{name}: differs by {exact:.2e} where nothing is rounded"));
        }
        let bounds = if quantized { 1e-6..ROUNDED } else { 0.0..EXACT };
        if !bounds.contains(&rounded) {
            complaints.push(format!("{name}: differs by {rounded:.2e}, not within {bounds:?}"));
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
    assert_eq!(files().len(), 9);
}

/// The texts of a vocabulary with the tokens that its maker gives them.
fn expected_tokens(splits: &str) -> Vec<(String, Vec<u32>)> {
    let text = std::fs::read_to_string(folder().join("tokens.json")).unwrap();
    let mut all: serde_json::Value = serde_json::from_str(&text).unwrap();
    serde_json::from_value(all[splits].take()).unwrap()
}

fn compare(tokenizer: &Tokenizer, splits: &str) {
    let expected = expected_tokens(splits);
    assert!(expected.len() > 8);
    for (text, ids) in expected {
        assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{splits}: {text:?}");
    }
}

#[test]
fn pieces_are_those_of_sentence_piece() {
    let tokenizer = load(&folder().join("llama-q8_0.gguf")).tokenizer;
    compare(&tokenizer, "llama");
    // The file says that texts begin with its token.
    let ids = tokenizer.encode_with_specials("the", 9).unwrap();
    assert_eq!(ids[0], 1);
    assert_eq!(ids[1..], tokenizer.encode("the").unwrap());
    assert_eq!(tokenizer.decode(&ids).unwrap(), "the");
    assert_eq!(tokenizer.encode("</s>").unwrap().last(), Some(&2));
    // Some converters write the number with a sign.
    let signed =
        with_entry(&folder().join("llama-q8_0.gguf"), "tokenizer.ggml.bos_token_id", Value::I32(1));
    assert_eq!(signed.tokenizer().unwrap().encode_with_specials("the", 9).unwrap(), ids);
}

/// The header of a file with an entry set.
fn with_entry(path: &Path, key: &str, value: Value) -> Gguf {
    let content = Content::read(&mut std::io::Cursor::new(std::fs::read(path).unwrap())).unwrap();
    let mut entries = content.metadata;
    entries.insert(key.to_owned(), value);
    let entries: Vec<_> = entries.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let mut file = std::io::Cursor::new(Vec::new());
    write(&mut file, &entries, &[]).unwrap();
    Gguf::from_bytes(file.into_inner(), path).unwrap()
}

#[test]
fn byte_level_tokens_are_those_of_transformers() {
    let path = folder().join("qwen2-q8_0.gguf");
    compare(&load(&path).tokenizer, "qwen2");
    // The same vocabulary under the splits of others.
    for splits in ["gpt-2", "llama-bpe", "smollm"] {
        let named = Value::String(splits.to_owned());
        let file = with_entry(&path, "tokenizer.ggml.pre", named);
        compare(&file.tokenizer().unwrap(), splits);
    }
}
