//! The network against one we did not write, against a genuine model's reference, and against itself.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, IndexOp, Tensor};
use candle_transformers::models::llama;

use super::*;
use crate::adapter::head::HeadSpec;
use crate::adapter::lora::LoraSpec;
use crate::adapter::{AdapterSpec, Generation, Method};
use crate::backbone::block::named;
use crate::backbone::{Backbone, builtin, random_weights};
use crate::seed::Seed;
use crate::writing::complete;

const CONFIG: &str = r#"{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 50, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": false}"#;

fn tiny() -> (Architecture, BTreeMap<String, Tensor>, Network) {
    let config = Architecture::from_json(CONFIG, Path::new("test")).unwrap();
    let mut weights = random_weights(&config, Seed::new(1), &Device::Cpu).unwrap();
    // Larger weights than at the start of training, so that differences would show.
    for tensor in weights.values_mut() {
        if tensor.rank() == 2 {
            *tensor = (tensor.clone() * 8.0).unwrap();
        }
    }
    let network = Network::assemble(config.clone(), &named(&weights)).unwrap();
    (config, weights, network)
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

fn logits(network: &Network, rows: &[Vec<u32>]) -> Tensor {
    let groups = [Rows { adapter: None, count: rows.len() }];
    let tokens = Tokens::pack(rows, &groups, &Device::Cpu).unwrap();
    network.logits(&network.hidden(&tokens, Pass::of(&groups)).unwrap(), &groups).unwrap()
}

#[test]
fn logits_equal_candle_transformers() {
    let (config, weights, network) = tiny();
    let theirs = llama::Config {
        hidden_size: config.hidden,
        intermediate_size: config.inner,
        vocab_size: config.vocabulary,
        num_hidden_layers: config.depth(),
        num_attention_heads: config.heads,
        num_key_value_heads: config.key_heads,
        use_flash_attn: false,
        rms_norm_eps: config.epsilon,
        rope_theta: config.ropes[0].theta as f32,
        bos_token_id: None,
        eos_token_id: None,
        rope_scaling: None,
        max_position_embeddings: config.positions,
        tie_word_embeddings: false,
    };
    let map: HashMap<String, Tensor> = weights.into_iter().collect();
    let builder = candle_nn::VarBuilder::from_tensors(map, DType::F32, &Device::Cpu);
    let model = llama::Llama::load(builder, &theirs).unwrap();
    let row = vec![3_u32, 1, 4, 1, 5, 9, 2, 6];
    let mut cache = llama::Cache::new(false, DType::F32, &theirs, &Device::Cpu).unwrap();
    let input = Tensor::new(row.as_slice(), &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    let expected = model.forward(&input, 0, &mut cache).unwrap().squeeze(0).unwrap();
    let found = logits(&network, &[row]).i((0, 7)).unwrap();
    assert!(largest_difference(&found, &expected) < 1e-4);
}

#[test]
fn padding_and_neighbours_change_nothing() {
    let (_, _, network) = tiny();
    let (short, long) = (vec![7_u32, 8, 9], vec![1_u32, 2, 3, 4, 5, 6]);
    let alone = logits(&network, std::slice::from_ref(&short)).i((0, 2)).unwrap();
    let together = logits(&network, &[short, long]).i((0, 5)).unwrap();
    assert!(largest_difference(&alone, &together) < 1e-4);
}

#[test]
fn reading_in_steps_equals_reading_at_once() {
    let (_, _, network) = tiny();
    let groups = [Rows { adapter: None, count: 1 }];
    let all = [1_u32, 2, 3, 4, 12, 11, 7];
    let begun = Tokens::pack(&[all[..4].to_vec()], &groups, &Device::Cpu).unwrap();
    let mut cache = KvCache::default();
    network.states(&begun, Pass::cached(&groups, &mut cache), 2).unwrap();
    let next = Tokens::pack(&[all[4..].to_vec()], &groups, &Device::Cpu).unwrap();
    let stepped = network.hidden(&next, Pass::cached(&groups, &mut cache)).unwrap();
    let whole = Tokens::pack(&[all.to_vec()], &groups, &Device::Cpu).unwrap();
    let at_once = network.hidden(&whole, Pass::of(&groups)).unwrap().narrow(1, 4, 3).unwrap();
    assert!(largest_difference(&stepped, &at_once) < 1e-4);
}

#[test]
fn rows_of_a_mixed_batch_equal_rows_alone() {
    let backbone = builtin::polylogue_tiny(&Device::Cpu).unwrap();
    let lora = Method::Lora(LoraSpec::new(4, 8.0, &["q_proj", "down_proj"]));
    let head = Some(HeadSpec::new(vec!["a".into(), "b".into()]));
    let upper = AdapterSpec { method: Method::Layers { freeze_layers: 2 }, head };
    let adapters: Vec<Adapter> = [AdapterSpec { method: lora, head: None }, upper]
        .into_iter()
        .map(|spec| {
            // Every weight moved, so that an adapter that is ignored would show.
            let fresh = Adapter::initial(spec.clone(), &backbone, Seed::new(2)).unwrap();
            let moved = fresh
                .tensors()
                .iter()
                .map(|(name, t)| (name.clone(), (t.clone() + 0.05).unwrap()))
                .collect();
            Adapter::assemble(spec, Generation(1), moved, &backbone).unwrap()
        })
        .collect();
    let owners = [None, Some(&adapters[0]), Some(&adapters[1])];
    let row = vec![5_u32, 6, 7, 8];
    let run = |owners: &[Option<&Adapter>]| {
        let groups: Vec<Rows<'_>> =
            owners.iter().map(|&adapter| Rows { adapter, count: 1 }).collect();
        let rows = vec![row.clone(); owners.len()];
        let tokens = Tokens::pack(&rows, &groups, &Device::Cpu).unwrap();
        backbone.network.hidden(&tokens, Pass::of(&groups)).unwrap()
    };
    let mixed = run(&owners);
    let mut alone = Vec::new();
    for (index, &owner) in owners.iter().enumerate() {
        let own = run(&[owner]);
        assert!(largest_difference(&mixed.narrow(0, index, 1).unwrap(), &own) < 1e-4);
        alone.push(own);
    }
    assert!(largest_difference(&alone[0], &alone[1]) > 1e-2, "LoRA does something");
    assert!(largest_difference(&alone[0], &alone[2]) > 1e-2, "unfrozen layers do something");
}

/// Where models that nobody here wrote are kept; tests on them say so when they are absent.
fn shared_model(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("POLYLOGUE_MODELS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/models"),
        PathBuf::from,
    );
    let path = root.join(name);
    if !path.exists() {
        println!("skipped: {} is not here (set POLYLOGUE_MODELS)", path.display());
        return None;
    }
    Some(path)
}

#[test]
fn stories260k_gives_its_reference() {
    let Some(path) = shared_model("stories260k") else { return };
    let backbone = Backbone::load(&path.join("hf"), &Device::Cpu).unwrap();
    let text = std::fs::read_to_string(path.join("reference.json")).unwrap();
    let reference: serde_json::Value = serde_json::from_str(&text).unwrap();
    let ids = |key: &str| -> Vec<u32> { serde_json::from_value(reference[key].clone()).unwrap() };
    let row = ids("prompt_ids");
    let last = row.len() - 1;
    let found: Vec<f32> =
        logits(&backbone.network, &[row]).i((0, last)).unwrap().to_vec1().unwrap();
    let first: Vec<f32> =
        serde_json::from_value(reference["last_token_logits_first8"].clone()).unwrap();
    for (found, expected) in found.iter().zip(first) {
        assert!((found - expected).abs() < 1e-4 * (1.0 + expected.abs()), "{found} {expected}");
    }
    for pair in reference["last_token_top5"].as_array().unwrap() {
        let (token, expected) = (pair[0].as_u64().unwrap(), pair[1].as_f64().unwrap() as f32);
        assert!((found[token as usize] - expected).abs() < 1e-3);
    }
    let expected = reference["greedy_from_bos_text"].as_str().unwrap();
    let found = complete(&Arc::new(backbone), "", 230).unwrap();
    assert!(!found.is_empty() && expected.starts_with(found.trim_start()), "{found}");
    assert!(found.len() > 500, "{} characters", found.len());
}

#[test]
fn minilm_gives_its_reference_embeddings() {
    let Some(path) = shared_model("all-MiniLM-L6-v2") else { return };
    let backbone = Backbone::load(&path, &Device::Cpu).unwrap();
    let text = std::fs::read_to_string(path.join("reference.json")).unwrap();
    let reference: serde_json::Value = serde_json::from_str(&text).unwrap();
    let sentences = reference["sentences"].as_array().unwrap();
    let ids = |sentence: &serde_json::Value| -> Vec<u32> {
        serde_json::from_value(sentence["input_ids"].clone()).unwrap()
    };
    let rows: Vec<Vec<u32>> = sentences.iter().map(ids).collect();
    let owners = [Rows { adapter: None, count: rows.len() }];
    let tokens = Tokens::pack(&rows, &owners, &Device::Cpu).unwrap();
    let hidden = backbone.network.hidden(&tokens, Pass::of(&owners)).unwrap();
    let mean = crate::adapter::head::Pooling::Mean;
    let pooled = crate::adapter::head::pooled(&backbone.network, &hidden, &tokens, mean).unwrap();
    for (row, sentence) in sentences.iter().enumerate() {
        let embedding = pooled.get(row).unwrap().to_vec1::<f32>().unwrap();
        let length = embedding.iter().map(|x| x * x).sum::<f32>().sqrt();
        let first: Vec<f32> =
            serde_json::from_value(sentence["normalized_first8"].clone()).unwrap();
        for (found, expected) in embedding.iter().zip(first) {
            assert!(
                (found / length - expected).abs() < 1e-5,
                "{row}: {} {expected}",
                found / length
            );
        }
        let text = sentence["text"].as_str().unwrap();
        let encoded = backbone.tokenizer.encode_with_specials(text, 128).unwrap();
        assert_eq!(encoded, rows[row], "no padding, and the tokenizer's own special tokens");
    }
}
