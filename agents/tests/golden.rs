//! Every family and every kind of adapter against what transformers and PEFT gave for tiny random models:
//! hidden states, logits, classes, losses and gradients.
//!
//! The fixtures in `tests/golden` were made by `tests/peers/run golden`; PROVENANCE.md there says with what.
//! Rows of different length run together here and ran alone there, so padding is tested as well.

#![expect(clippy::unwrap_used, reason = "a test stops where an assumption breaks")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use agents::adapter::head::{HeadSpec, Pooling, features};
use agents::adapter::lora::LoraSpec;
use agents::adapter::{Adapter, AdapterSpec, Generation, Method};
use agents::backbone::architecture::Family;
use agents::backbone::{Backbone, Pass, Rows, Tokens};
use agents::probe::{self, Loss};
use agents::seed::Seed;
use candle_core::{DType, Device, Tensor};

/// Largest difference that is let pass, relative to the largest value of the tensor.
const TOLERANCE: f64 = 1e-4;

type Named = BTreeMap<String, Tensor>;

fn folders(within: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(within).expect("the fixtures are part of the repository");
    let mut folders: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.join("config.json").exists() || path.join("adapter_config.json").exists()
        })
        .collect();
    folders.sort();
    folders
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden")
}

fn expected(folder: &Path) -> Named {
    let path = folder.join("expected.safetensors");
    candle_core::safetensors::load(path, &Device::Cpu).unwrap().into_iter().collect()
}

fn rows(expected: &Named) -> Vec<Vec<u32>> {
    (0..)
        .map_while(|row| expected.get(&format!("tokens.{row}")))
        .map(|ids| ids.to_dtype(DType::U32).unwrap().to_vec1().unwrap())
        .collect()
}

fn difference(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.dims(), expected.dims());
    let largest = |t: &Tensor| {
        let t = t.to_dtype(DType::F64).unwrap().abs().unwrap();
        t.flatten_all().unwrap().max(0).unwrap().to_scalar::<f64>().unwrap()
    };
    let both = |t: &Tensor| t.to_dtype(DType::F64).unwrap();
    largest(&(both(found) - both(expected)).unwrap()) / largest(expected).max(1e-12)
}

/// What does not agree, one line each.
#[derive(Default)]
struct Complaints(Vec<String>);

impl Complaints {
    fn compare(&mut self, what: &str, found: Option<&Tensor>, expected: &Tensor) {
        match found {
            None => self.0.push(format!("{what} is missing")),
            Some(found) if found.dims() != expected.dims() => {
                self.0.push(format!("{what}: {:?} is not {:?}", found.dims(), expected.dims()));
            }
            Some(found) => {
                let difference = difference(found, expected);
                if difference.is_nan() || difference > TOLERANCE {
                    self.0.push(format!("{what}: differs by {difference:.2e}"));
                }
            }
        }
    }
}

fn forward(
    complaints: &mut Complaints,
    what: &str,
    backbone: &Backbone,
    adapter: Option<&Adapter>,
    expected: &Named,
) {
    let network = &backbone.network;
    let rows = rows(expected);
    let owners = [Rows { adapter, count: rows.len() }];
    let tokens = Tokens::pack(&rows, &owners, &Device::Cpu).unwrap();
    let states = network.states(&tokens, Pass::of(&owners), network.depth()).unwrap();
    let hidden = network.finish(states.last().unwrap(), &owners).unwrap();
    for (row, ids) in rows.iter().enumerate() {
        let own = hidden.get(row).unwrap().narrow(0, tokens.text(row).start, ids.len()).unwrap();
        if let Some(expected) = expected.get(&format!("hidden.{row}")) {
            complaints.compare(&format!("{what} hidden.{row}"), Some(&own), expected);
        }
        if let Some(expected) = expected.get(&format!("logits.{row}")) {
            let owners = [Rows { adapter, count: ids.len() }];
            let logits = network.logits(&own, &owners).unwrap();
            complaints.compare(&format!("{what} logits.{row}"), Some(&logits), expected);
        }
    }
    if let Some(head) = adapter.and_then(Adapter::head) {
        let features = features(network, &states, &owners, &tokens, head.pooling).unwrap();
        let classes = head.logits(&features).unwrap();
        for row in 0..rows.len() {
            let expected = &expected[&format!("classes.{row}")];
            let found = classes.get(row).unwrap();
            complaints.compare(&format!("{what} classes.{row}"), Some(&found), expected);
        }
    }
}

fn gradients(
    complaints: &mut Complaints,
    what: &str,
    backbone: &Backbone,
    adapter: &Adapter,
    expected: &Named,
) {
    let labels: Vec<u32> = match expected.get("labels") {
        Some(labels) => labels.to_dtype(DType::U32).unwrap().to_vec1().unwrap(),
        None => Vec::new(),
    };
    let loss = match expected.get("weights") {
        Some(weights) => Loss::Weighted(weights),
        None if labels.is_empty() => Loss::NextTokens,
        None => Loss::Classes(&labels),
    };
    for recompute in [false, true] {
        let found = probe::gradients(backbone, adapter, &rows(expected), loss, recompute).unwrap();
        let value = Tensor::new(&[found.loss as f32], &Device::Cpu).unwrap();
        complaints.compare(&format!("{what} loss"), Some(&value), &expected["loss"]);
        let of = adapter.under_disk_names(found.tensors).unwrap();
        for (name, expected) in expected {
            if let Some(name) = name.strip_prefix("grad/") {
                let what = format!("{what} gradient of {name} (recomputed: {recompute})");
                complaints.compare(&what, of.get(name), expected);
            }
        }
    }
}

#[test]
fn every_family_and_adapter_equals_transformers_and_peft() {
    let mut complaints = Complaints::default();
    let mut adapters = 0;
    for family in folders(&golden()) {
        let name = family.file_name().unwrap().to_string_lossy().into_owned();
        let backbone = match probe::load(&family, &Device::Cpu) {
            Ok(backbone) => backbone,
            Err(error) => {
                complaints.0.push(format!("{name}: {error}"));
                continue;
            }
        };
        forward(&mut complaints, &name, &backbone, None, &expected(&family));
        for folder in folders(&family) {
            let kind = folder.file_name().unwrap().to_string_lossy().into_owned();
            let what = format!("{name}/{kind}");
            let adapter = match Adapter::load(&folder, &backbone) {
                Ok(adapter) => adapter,
                Err(error) => {
                    complaints.0.push(format!("{what}: {error}"));
                    continue;
                }
            };
            let expected = expected(&folder);
            forward(&mut complaints, &what, &backbone, Some(&adapter), &expected);
            gradients(&mut complaints, &what, &backbone, &adapter, &expected);
            adapters += 1;
        }
    }
    assert!(complaints.0.is_empty(), "\n{}", complaints.0.join("\n"));
    assert!(adapters >= 12, "only {adapters} adapters: fixtures are missing");
}

#[test]
fn adapters_survive_the_disk() {
    for name in ["llama", "bert"] {
        let family = golden().join(name);
        let backbone = probe::load(&family, &Device::Cpu).unwrap();
        for folder in folders(&family) {
            let adapter = Adapter::load(&folder, &backbone).unwrap();
            let copy = tempfile::tempdir().unwrap();
            adapter.save(copy.path()).unwrap();
            let again = Adapter::load(copy.path(), &backbone).unwrap();
            assert_eq!(again.digest().unwrap(), adapter.digest().unwrap(), "{}", folder.display());
            assert_eq!(again.generation(), Generation(0));
            // What we write holds the same tensors under the same names as what PEFT wrote.
            let names = |folder: &Path| -> Vec<String> {
                let path = folder.join("adapter_model.safetensors");
                let tensors = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
                tensors.into_keys().collect::<std::collections::BTreeSet<_>>().into_iter().collect()
            };
            assert_eq!(names(copy.path()), names(&folder), "{}", folder.display());
        }
    }
}

#[test]
fn a_prompt_under_an_encoders_head_is_refused() {
    let family = golden().join("bert");
    let backbone = probe::load(&family, &Device::Cpu).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let given = family.join("prompt");
    let copy = |name: &str| std::fs::copy(given.join(name), folder.path().join(name)).unwrap();
    copy("adapter_model.safetensors");
    let config = std::fs::read_to_string(given.join("adapter_config.json")).unwrap();
    assert!(config.contains("FEATURE_EXTRACTION"));
    let config = config.replace("FEATURE_EXTRACTION", "SEQ_CLS");
    std::fs::write(folder.path().join("adapter_config.json"), config).unwrap();
    let refusal = Adapter::load(folder.path(), &backbone).unwrap_err().to_string();
    assert!(refusal.contains("virtual token") && refusal.contains("use LoRA"), "{refusal}");
}

#[test]
fn a_head_that_transformers_lacks_is_not_offered_to_peft() {
    let backbone = probe::load(&golden().join("bert"), &Device::Cpu).unwrap();
    let labels = || vec!["yes".to_owned(), "no".to_owned()];
    let shared = HeadSpec::sequence_classification(labels(), Family::Bert).unwrap();
    let own = HeadSpec { pooling: Pooling::Mean, ..HeadSpec::new(labels()) };
    let lora = || Method::Lora(LoraSpec::new(2, 4.0, &["query"]));
    let cases = [
        (lora(), &shared, "SEQ_CLS", "base_model.model.bert.encoder."),
        (lora(), &own, "FEATURE_EXTRACTION", "base_model.model.encoder."),
        (Method::Prompt { tokens: 2 }, &shared, "FEATURE_EXTRACTION", "prompt_embeddings"),
    ];
    for (method, head, task, start) in cases {
        let spec = AdapterSpec { method, head: Some(head.clone()) };
        let adapter = Adapter::initial(spec, &backbone, Seed::new(3)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        adapter.save(folder.path()).unwrap();
        let config = std::fs::read(folder.path().join("adapter_config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["task_type"], task);
        assert_eq!(config["modules_to_save"].is_array(), task == "SEQ_CLS");
        let path = folder.path().join("adapter_model.safetensors");
        let stored = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
        assert!(stored.keys().any(|name| name.starts_with(start)), "{:?}", stored.keys());
        let again = Adapter::load(folder.path(), &backbone).unwrap();
        assert_eq!(again.digest().unwrap(), adapter.digest().unwrap());
    }
}
