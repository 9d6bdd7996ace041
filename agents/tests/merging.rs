//! Adapters folded into weights, and PiSSA: outputs stay what they are, on the fixtures of PEFT.
//!
//! That the adapters themselves are right is shown in `golden.rs`.

#![expect(clippy::unwrap_used, reason = "a test stops where an assumption breaks")]

use std::path::{Path, PathBuf};

use agents::adapter::combine::{Combination, combine};
use agents::adapter::lora::{Init, LoraSpec};
use agents::adapter::merge::{merge, unmerge};
use agents::adapter::{Adapter, AdapterSpec, Generation, Method};
use agents::backbone::{Backbone, Pass, Rows, Tokens};
use agents::probe;
use agents::seed::Seed;
use candle_core::{Device, Tensor};

const KINDS: [&str; 5] = ["lora", "rslora", "dora", "ia3", "vera"];

fn golden(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(family)
}

fn backbone(family: &str) -> Backbone {
    probe::load(&golden(family), &Device::Cpu).unwrap()
}

fn outputs(backbone: &Backbone, adapter: Option<&Adapter>) -> Tensor {
    let rows = vec![vec![3, 17, 5, 9, 22, 8], vec![11, 4, 30, 2, 7, 19]];
    let owners = [Rows { adapter, count: rows.len() }];
    let tokens = Tokens::pack(&rows, &owners, &Device::Cpu).unwrap();
    let network = &backbone.network;
    let states = network.states(&tokens, Pass::of(&owners), network.depth()).unwrap();
    network.finish(states.last().unwrap(), &owners).unwrap()
}

fn distance(one: &Tensor, other: &Tensor) -> f32 {
    let difference = (one - other).unwrap().abs().unwrap();
    difference.flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

fn lora(spec: LoraSpec) -> AdapterSpec {
    AdapterSpec { method: Method::Lora(spec), head: None }
}

fn pissa(backbone: &Backbone, rank_stabilized: bool) -> Adapter {
    let plain = LoraSpec::new(3, 6.0, &["all-linear"]);
    let spec = LoraSpec { init: Init::Pissa, rank_stabilized, ..plain };
    Adapter::initial(lora(spec), backbone, Seed::new(5)).unwrap()
}

/// The adapter with its trained tensors moved, as training would.
fn moved(adapter: &Adapter, backbone: &Backbone) -> Adapter {
    let mut tensors = adapter.tensors().clone();
    for (name, tensor) in adapter.trained() {
        let count = tensor.elem_count();
        let step: Vec<f32> = (0..count).map(|k| (k as f32 * 0.7).sin() * 0.05).collect();
        let step = Tensor::from_vec(step, tensor.shape(), &Device::Cpu).unwrap();
        tensors.insert(name.clone(), (tensor + step).unwrap());
    }
    Adapter::assemble(adapter.spec().clone(), Generation(1), tensors, backbone).unwrap()
}

fn check_merge(what: &str, adapter: &Adapter, backbone: &Backbone) {
    let adapted = outputs(backbone, Some(adapter));
    assert!(distance(&outputs(backbone, None), &adapted) > 1e-3, "{what} changes something");
    let merged = merge(adapter, backbone).unwrap();
    let found = distance(&outputs(&merged, None), &adapted);
    assert!(found < 1e-5, "{what}: merged differs by {found}");
    let again = unmerge(adapter, &merged).unwrap();
    for name in backbone.weights().keys() {
        let weight = |backbone: &Backbone| backbone.weight(name).unwrap().dequantize().unwrap();
        let found = distance(&weight(&again), &weight(backbone));
        assert!(found < 1e-5, "{what}: {name} comes back as something else, by {found}");
    }
}

#[test]
fn a_merged_adapter_answers_as_before() {
    for family in ["llama", "bert"] {
        let backbone = backbone(family);
        for kind in KINDS {
            let adapter = Adapter::load(&golden(family).join(kind), &backbone).unwrap();
            check_merge(&format!("{family}/{kind}"), &adapter, &backbone);
        }
        check_merge(
            &format!("{family}/pissa"),
            &moved(&pissa(&backbone, false), &backbone),
            &backbone,
        );
    }
}

#[test]
fn own_layers_of_an_adapter_merge_and_virtual_tokens_do_not() {
    let backbone = backbone("llama");
    let initial = |method| {
        let spec = AdapterSpec { method, head: None };
        Adapter::initial(spec, &backbone, Seed::new(3)).unwrap()
    };
    for method in [Method::Layers { freeze_layers: 1 }, Method::Full] {
        let adapter = moved(&initial(method), &backbone);
        let merged = merge(&adapter, &backbone).unwrap();
        let adapted = outputs(&backbone, Some(&adapter));
        assert!(distance(&adapted, &outputs(&backbone, None)) > 1e-3);
        assert!(distance(&outputs(&merged, None), &adapted) < 1e-5);
        assert!(unmerge(&adapter, &merged).is_err());
    }
    for method in [Method::Prompt { tokens: 2 }, Method::Prefix { tokens: 2 }] {
        let refused = merge(&initial(method), &backbone).unwrap_err();
        assert!(refused.to_string().contains("virtual tokens"), "{refused}");
    }
}

#[test]
fn a_pissa_adapter_starts_at_nothing_and_moves_as_its_formula_says() {
    for (family, stabilized) in [("llama", false), ("llama", true), ("bert", false)] {
        let backbone = backbone(family);
        let start = pissa(&backbone, stabilized);
        let base = outputs(&backbone, None);
        assert!(distance(&outputs(&backbone, Some(&start)), &base) < 1e-5);
        // W - s B0 A0 + s B A, by hand.
        let moved = moved(&start, &backbone);
        let Method::Lora(spec) = &start.spec().method else { panic!("LoRA") };
        let mut weights = backbone.weights().clone();
        for name in start.tensors().keys() {
            let Some(path) = name.strip_suffix(".lora_A.weight") else { continue };
            let product = |adapter: &Adapter| {
                let get = |end: &str| &adapter.tensors()[&format!("{path}.{end}.weight")];
                (get("lora_B").matmul(get("lora_A")).unwrap() * spec.scale()).unwrap()
            };
            let weight = format!("{path}.weight");
            let base = backbone.weight(&weight).unwrap().dequantize().unwrap();
            let by_hand = ((base - product(&start)).unwrap() + product(&moved)).unwrap();
            weights.insert(weight, by_hand.into());
        }
        let architecture = backbone.network.architecture().as_ref().clone();
        let by_hand =
            Backbone::assemble(architecture, weights, backbone.tokenizer.clone()).unwrap();
        let found = outputs(&backbone, Some(&moved));
        assert!(distance(&found, &base) > 1e-3);
        assert!(distance(&found, &outputs(&by_hand, None)) < 1e-5);
    }
}

#[test]
fn a_pissa_adapter_is_plain_lora_of_twice_the_rank_on_disk() {
    for stabilized in [false, true] {
        let backbone = backbone("llama");
        let adapter = moved(&pissa(&backbone, stabilized), &backbone);
        let folder = tempfile::tempdir().unwrap();
        adapter.save(folder.path()).unwrap();
        let again = Adapter::load(folder.path(), &backbone).unwrap();
        assert_eq!(again.digest().unwrap(), adapter.digest().unwrap());
        let expected = outputs(&backbone, Some(&adapter));
        assert!(distance(&outputs(&backbone, Some(&again)), &expected) < 1e-7);
        // PEFT does not know our entry and reads the rest.
        let path = folder.path().join("adapter_config.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
        config.as_object_mut().unwrap().remove("polylogue");
        std::fs::write(&path, config.to_string()).unwrap();
        let plain = Adapter::load(folder.path(), &backbone).unwrap();
        let Method::Lora(spec) = &plain.spec().method else { panic!("LoRA") };
        assert_eq!((spec.rank, spec.init), (6, Init::Kaiming));
        assert!(distance(&outputs(&backbone, Some(&plain)), &expected) < 1e-5);
    }
}

#[test]
fn adapters_side_by_side_are_the_weighted_sum_of_their_changes() {
    let backbone = backbone("bert");
    let load = |kind: &str| Adapter::load(&golden("bert").join(kind), &backbone).unwrap();
    let (one, other, dora) = (load("lora"), load("rslora"), load("dora"));
    let seed = Seed::new(1);
    let both = combine(&[(&one, 0.7), (&other, -0.4)], &Combination::Cat, &backbone, seed).unwrap();
    let (together, first, second) = (
        merge(&both, &backbone).unwrap(),
        merge(&one, &backbone).unwrap(),
        merge(&other, &backbone).unwrap(),
    );
    for (name, base) in backbone.weights() {
        let base = base.dequantize().unwrap();
        let change = |merged: &Backbone| {
            (merged.weight(name).unwrap().dequantize().unwrap() - &base).unwrap()
        };
        let sum = ((change(&first) * 0.7).unwrap() - (change(&second) * 0.4).unwrap()).unwrap();
        assert!(distance(&change(&together), &sum) < 1e-5, "{name}");
    }
    let refused = combine(&[(&one, 1.0), (&dora, 1.0)], &Combination::Linear, &backbone, seed);
    assert!(refused.unwrap_err().to_string().contains("DoRA"));
    let folder = tempfile::tempdir().unwrap();
    both.save(folder.path()).unwrap();
    let again = Adapter::load(folder.path(), &backbone).unwrap();
    assert_eq!(again.digest().unwrap(), both.digest().unwrap());
}
