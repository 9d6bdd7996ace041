//! Merged models on disk: what is written is read again and gives what PEFT gave for the adapter; names and
//! weights of the source that are none of ours stay.
//!
//! The fixtures in `tests/golden` were made by transformers and PEFT; PROVENANCE.md there says how.

#![expect(clippy::unwrap_used, reason = "a test stops where an assumption breaks")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use agents::adapter::merge::{merge, unmerge};
use agents::adapter::{Adapter, AdapterSpec, Method};
use agents::backbone::export::ModelFiles;
use agents::backbone::{Backbone, Pass, Rows, Tokens, builtin};
use agents::probe;
use agents::seed::Seed;
use candle_core::{DType, Device, Tensor};

type Named = HashMap<String, Tensor>;

fn golden(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(family)
}

fn read(path: &Path) -> Named {
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

/// Final hidden states of one row, and logits where there are any.
fn outputs(backbone: &Backbone, adapter: Option<&Adapter>, row: &[u32]) -> (Tensor, Tensor) {
    let owners = [Rows { adapter, count: 1 }];
    let tokens = Tokens::pack(&[row.to_vec()], &owners, &Device::Cpu).unwrap();
    let network = &backbone.network;
    let states = network.states(&tokens, Pass::of(&owners), network.depth()).unwrap();
    let hidden = network.finish(states.last().unwrap(), &owners).unwrap().get(0).unwrap();
    if !network.architecture().family.is_decoder() {
        return (hidden.clone(), hidden);
    }
    let owners = [Rows { adapter, count: row.len() }];
    let logits = network.logits(&hidden, &owners).unwrap();
    (hidden, logits)
}

fn distance(one: &Tensor, other: &Tensor) -> f32 {
    assert_eq!(one.dims(), other.dims());
    let difference = (one - other).unwrap().abs().unwrap();
    difference.flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

#[test]
fn a_merged_model_on_disk_gives_what_peft_gave() {
    let folder = tempfile::tempdir().unwrap();
    for family in ["llama", "llama_tied", "gemma3_text", "phi3", "bert", "distilbert", "modernbert"]
    {
        let backbone = probe::load(&golden(family), &Device::Cpu).unwrap();
        let adapter = Adapter::load(&golden(family).join("lora"), &backbone).unwrap();
        let merged = merge(&adapter, &backbone).unwrap();
        let out = folder.path().join(family);
        ModelFiles::open(&golden(family)).unwrap().write(&merged, &out).unwrap();
        let again = probe::load(&out, &Device::Cpu).unwrap();
        let expected = read(&golden(family).join("lora/expected.safetensors"));
        let row = expected["tokens.0"].to_dtype(DType::U32).unwrap().to_vec1::<u32>().unwrap();
        let (hidden, logits) = outputs(&again, None, &row);
        let (adapted, adapted_logits) = outputs(&backbone, Some(&adapter), &row);
        assert!(distance(&hidden, &outputs(&backbone, None, &row).0) > 1e-3, "{family}");
        for (what, found, expected) in [
            ("hidden states with the adapter", &hidden, &adapted),
            ("logits with the adapter", &logits, &adapted_logits),
            ("hidden states of PEFT", &hidden, &expected["hidden.0"]),
            ("logits of PEFT", &logits, expected.get("logits.0").unwrap_or(&hidden)),
        ] {
            let found = distance(found, expected);
            assert!(found < 1e-5, "{family}: {what} differ by {found}");
        }
        // The base comes back, by way of the disk both times.
        let adapter = Adapter::load(&golden(family).join("lora"), &again).unwrap();
        let base = unmerge(&adapter, &again).unwrap();
        let out = folder.path().join(format!("{family}-base"));
        ModelFiles::open(&folder.path().join(family)).unwrap().write(&base, &out).unwrap();
        let source = read(&golden(family).join("model.safetensors"));
        let written = read(&out.join("model.safetensors"));
        assert_eq!(written.len(), source.len(), "{family}");
        for (name, tensor) in &source {
            let found = distance(&written[name], tensor);
            assert!(found < 1e-6, "{family}: {name} differs by {found}");
        }
    }
}

#[test]
fn what_is_none_of_ours_stays_as_it_was() {
    let source = tempfile::tempdir().unwrap();
    let path = |name: &str| source.path().join(name);
    let mut tensors: Named = read(&golden("bert").join("model.safetensors"))
        .into_iter()
        .map(|(name, tensor)| (format!("bert.{name}"), tensor.to_dtype(DType::BF16).unwrap()))
        .collect();
    let bias = Tensor::new(&[0.5f32, -2.0], &Device::Cpu).unwrap();
    let half = bias.to_dtype(DType::F16).unwrap();
    tensors.insert("cls.predictions.bias".to_owned(), half);
    let ids = Tensor::arange(0i64, 8, &Device::Cpu).unwrap();
    tensors.insert("bert.embeddings.position_ids".to_owned(), ids);
    candle_core::safetensors::save(&tensors, path("model.safetensors")).unwrap();
    let config = std::fs::read_to_string(golden("bert").join("config.json")).unwrap();
    let config = config.replace("\"float32\"", "\"bfloat16\"");
    assert!(config.contains("bfloat16"), "the fixture names its type");
    std::fs::write(path("config.json"), config).unwrap();
    std::fs::write(path("vocab.txt"), "one\ntwo\n").unwrap();
    std::fs::write(path("notes.md"), "not copied\n").unwrap();

    let backbone = probe::load(source.path(), &Device::Cpu).unwrap();
    let adapter = Adapter::load(&golden("bert").join("lora"), &backbone).unwrap();
    let out = source.path().join("out");
    let files = ModelFiles::open(source.path()).unwrap();
    files.write(&merge(&adapter, &backbone).unwrap(), &out).unwrap();

    let written = read(&out.join("model.safetensors"));
    assert_eq!(written.len() + 1, tensors.len(), "only the table of integers is left out");
    for (name, tensor) in &written {
        assert_eq!(tensor.dtype(), DType::F32, "{name}");
        assert!(tensors.contains_key(name), "{name} has another name in the source");
    }
    assert_eq!(distance(&written["cls.predictions.bias"], &bias), 0.0);
    assert_eq!(std::fs::read_to_string(out.join("vocab.txt")).unwrap(), "one\ntwo\n");
    assert!(!out.join("notes.md").exists());
    let text = std::fs::read_to_string(out.join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&text).unwrap();
    let dtype = config.get("dtype").or(config.get("torch_dtype"));
    assert_eq!(dtype.and_then(serde_json::Value::as_str), Some("float32"));
    // transformers refuses a file without this mark.
    let bytes = std::fs::read(out.join("model.safetensors")).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    assert_eq!(header["__metadata__"]["format"], "pt");
}

#[test]
fn another_architecture_and_missing_files_are_refused() {
    let llama = probe::load(&golden("llama"), &Device::Cpu).unwrap();
    let out = tempfile::tempdir().unwrap();
    let files = ModelFiles::open(&golden("bert")).unwrap();
    assert!(files.write(&llama, out.path()).is_err());
    let files = ModelFiles::open(&golden("llama_tied")).unwrap();
    assert!(files.write(&llama, out.path()).is_err(), "the tied model has no output head");
    assert!(ModelFiles::open(out.path()).is_err());
    assert!(std::fs::read_dir(out.path()).unwrap().next().is_none(), "nothing was written");
    let gguf = ModelFiles::open(Path::new("model.gguf")).unwrap_err();
    assert!(gguf.to_string().contains("gguf"), "{gguf}");
}

#[test]
fn the_embedded_model_is_written_with_its_tokenizer() {
    let tiny = builtin::polylogue_tiny(&Device::Cpu).unwrap();
    let spec = AdapterSpec { method: Method::Full, head: None };
    let adapter = Adapter::initial(spec, &tiny, Seed::new(1)).unwrap();
    let out = tempfile::tempdir().unwrap();
    builtin::files().unwrap().write(&merge(&adapter, &tiny).unwrap(), out.path()).unwrap();
    let again = Backbone::load(out.path(), &Device::Cpu).unwrap();
    assert_eq!(again.tokenizer.to_json().unwrap(), tiny.tokenizer.to_json().unwrap());
    let row = tiny.tokenizer.encode("where is my parcel").unwrap();
    assert_eq!(distance(&outputs(&again, None, &row).1, &outputs(&tiny, None, &row).1), 0.0);
}
