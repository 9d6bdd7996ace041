//! `polylogue adapter` as a user meets it: adapters are shown, combined, merged and taken out again; bad input
//! ends with exit code 2, a place that cannot be written with 1.

use std::path::{Path, PathBuf};
use std::process::Output;

use agents::adapter::lora::LoraSpec;
use agents::adapter::{Adapter, AdapterSpec, Generation, Method, head};
use agents::backbone::{Backbone, Pass, Rows, Tokens, builtin};
use agents::device::DeviceKind;
use agents::seed::Seed;
use polylogue_tests::{polylogue, polylogue_with, root};

const MODEL: &str = "polylogue-tiny";

fn tiny() -> Backbone {
    builtin::polylogue_tiny(&DeviceKind::Cpu.open().unwrap()).unwrap()
}

/// The words of an answer, wrapped and framed or not.
fn words(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).replace(['\n', '│'], " ");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn ends(output: &Output, code: i32, parts: &[&str]) {
    let text = words(&[output.stdout.as_slice(), b"\n", &output.stderr].concat());
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

/// An adapter of `polylogue-tiny` that was moved away from its start, on disk.
struct Made {
    adapter: Adapter,
    folder: PathBuf,
}

impl Made {
    fn new(backbone: &Backbone, spec: AdapterSpec, step: f64, folder: PathBuf) -> Self {
        let start = Adapter::initial(spec, backbone, Seed::new(4)).unwrap();
        let mut tensors = start.tensors().clone();
        for (name, tensor) in start.trained() {
            let moved = (tensor + (tensor.ones_like().unwrap() * step).unwrap()).unwrap();
            tensors.insert(name.clone(), moved);
        }
        let spec = start.spec().clone();
        let adapter = Adapter::assemble(spec, Generation(3), tensors, backbone).unwrap();
        adapter.save(&folder).unwrap();
        Self { adapter, folder }
    }

    fn lora(backbone: &Backbone, step: f64, folder: PathBuf) -> Self {
        let lora = LoraSpec::new(2, 4.0, &["q_proj", "v_proj"]);
        let spec = AdapterSpec { method: Method::Lora(lora), head: None };
        Self::new(backbone, spec, step, folder)
    }

    fn path(&self) -> String {
        self.folder.to_string_lossy().into_owned()
    }
}

/// Logits of a sentence.
fn logits(backbone: &Backbone, adapter: Option<&Adapter>) -> Vec<f32> {
    let row = backbone.tokenizer.encode("where is my parcel").unwrap();
    let owners = [Rows { adapter, count: 1 }];
    let network = &backbone.network;
    let tokens = Tokens::pack(std::slice::from_ref(&row), &owners, network.device()).unwrap();
    let states = network.states(&tokens, Pass::of(&owners), network.depth()).unwrap();
    let hidden = network.finish(states.last().unwrap(), &owners).unwrap().get(0).unwrap();
    let owners = [Rows { adapter, count: row.len() }];
    network.logits(&hidden, &owners).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference, relative to the largest logit.
fn distance(one: &[f32], other: &[f32]) -> f32 {
    assert_eq!(one.len(), other.len());
    let difference = one.iter().zip(other).map(|(one, other)| (one - other).abs());
    difference.fold(0.0, f32::max) / other.iter().fold(0.0, |most, logit| logit.abs().max(most))
}

fn loaded(folder: &Path) -> Backbone {
    Backbone::load(folder, &DeviceKind::Cpu.open().unwrap()).unwrap()
}

#[test]
fn an_adapter_is_shown_with_and_without_its_model() {
    let (backbone, folder) = (tiny(), tempfile::tempdir().unwrap());
    let made = Made::lora(&backbone, 0.01, folder.path().join("a"));
    // 4 layers; A is 2 x 128; B is 128 x 2 for queries and 64 x 2 for values.
    let trained = format!("trained {} numbers", 4 * (2 * 128 + 128 * 2 + 2 * 128 + 64 * 2));
    let known =
        ["method LoRA", "rank 2", "targets q_proj, v_proj", trained.as_str(), "generation 3"];
    let output = polylogue(&["adapter", "show", &made.path()]);
    ends(&output, 0, &[known.as_slice(), &["--model"]].concat());
    let digest = format!("digest {}", made.adapter.digest().unwrap());
    let output = polylogue(&["adapter", "show", &made.path(), "--model", MODEL]);
    ends(&output, 0, &[known.as_slice(), &[&digest]].concat());
    let shown = |kind: &str, parts: &[&str]| {
        let path = root().join("tests/golden").join(kind);
        ends(&polylogue(&["adapter", "show", &path.to_string_lossy()]), 0, parts);
    };
    // PEFT's own files: the classes are numbers, fixed projections are not trained.
    shown("bert/seq_cls", &["method LoRA", "labels 3: 0, 1, 2", "generation 0"]);
    shown("llama/vera", &["method VeRA", "rank 6"]);
    shown("llama/prefix", &["prefix of"]);
    shown("llama/dora", &["method DoRA"]);
}

/// A cache of the hub's tools with the builtin model in it.
fn cache(folder: &Path) {
    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    let place = folder.join("hub/models--owner--tiny");
    let snapshot = place.join("snapshots").join(COMMIT);
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir_all(place.join("refs")).unwrap();
    std::fs::write(place.join("refs/main"), COMMIT).unwrap();
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::copy(root().join("agents").join(MODEL).join(name), snapshot.join(name)).unwrap();
    }
}

#[test]
fn a_model_of_the_hub_is_used_like_a_folder() {
    let (backbone, folder) = (tiny(), tempfile::tempdir().unwrap());
    let made = Made::lora(&backbone, 0.01, folder.path().join("a"));
    cache(folder.path());
    let home = folder.path().to_string_lossy().into_owned();
    let run = |code: i32, offline: &str, arguments: &[&str], parts: &[&str]| {
        let variables = [
            ("HF_HOME", home.as_str()),
            ("HF_ENDPOINT", "http://127.0.0.1:1"),
            ("HF_HUB_OFFLINE", offline),
        ];
        let arguments = [&["adapter"], arguments, &["--model", "hub:owner/tiny"]].concat();
        ends(&polylogue_with(&arguments, &variables), code, parts);
    };
    let (path, merged) = (made.path(), format!("{home}/merged"));
    let digest = format!("digest {}", made.adapter.digest().unwrap());
    run(0, "1", &["show", &path], &[&digest, "tokenizer_config.json is not in the cache"]);
    run(0, "1", &["merge", "--adapter", &path, "--out", &merged], &[&merged]);
    let adapted = logits(&backbone, Some(&made.adapter));
    assert!(distance(&logits(&loaded(Path::new(&merged)), None), &adapted) < 1e-5);
    run(1, "0", &["show", &path], &["could not reach"]);
}

#[test]
fn adapters_side_by_side_answer_as_the_sum_of_their_updates() {
    let (backbone, folder) = (tiny(), tempfile::tempdir().unwrap());
    let one = Made::lora(&backbone, 0.02, folder.path().join("a=b"));
    let other = Made::lora(&backbone, -0.03, folder.path().join("c"));
    let parts = [format!("{}=0.5", one.path()), format!("{}=-2", other.path())];
    let combined = |method: &str, more: &[&str]| {
        let out = folder.path().join(method);
        let path = out.to_string_lossy().into_owned();
        let mut arguments = vec!["adapter", "combine", "--model", MODEL, "--method", method];
        arguments.extend(more);
        arguments.extend([parts[0].as_str(), &parts[1], "--out", &path]);
        ends(&polylogue(&arguments), 0, &["LoRA", &path]);
        Adapter::load(&out, &backbone).unwrap()
    };
    let cat = combined("cat", &[]);
    assert!(matches!(&cat.spec().method, Method::Lora(lora) if lora.rank == 4));
    // By hand: the same sum in the weights, one update after the other.
    let scaled = |made: &Made, weight: f64| {
        let mut tensors = made.adapter.tensors().clone();
        for (name, tensor) in &mut tensors {
            if name.ends_with("lora_B.weight") {
                *tensor = (&*tensor * weight).unwrap();
            }
        }
        let spec = made.adapter.spec().clone();
        Adapter::assemble(spec, Generation(0), tensors, &backbone).unwrap()
    };
    let merge = agents::adapter::merge::merge;
    let first = merge(&scaled(&one, 0.5), &backbone).unwrap();
    let both = merge(&scaled(&other, -2.0), &first).unwrap();
    let (found, base) = (logits(&backbone, Some(&cat)), logits(&backbone, None));
    assert!(distance(&found, &base) > 1e-2, "the adapters change something");
    let apart = distance(&found, &logits(&both, None));
    assert!(apart < 1e-5, "{apart}");
    combined("linear", &[]);
    combined("ties", &["--density", "0.4", "--sign", "frequency"]);
    combined("magnitude_prune", &["--density", "0.4"]);
    let draw = |name: &str, seed: &str| {
        let drawn = combined(name, &["--density", "0.5", "--seed", seed]);
        std::fs::remove_dir_all(folder.path().join(name)).unwrap();
        drawn.digest().unwrap()
    };
    for name in ["dare_linear", "dare_ties"] {
        assert_eq!(draw(name, "1"), draw(name, "1"), "{name}");
        assert_ne!(draw(name, "1"), draw(name, "2"), "{name}");
    }
}

#[test]
fn a_merged_model_answers_as_the_adapted_one_and_gives_its_base_back() {
    let (backbone, folder) = (tiny(), tempfile::tempdir().unwrap());
    let made = Made::lora(&backbone, 0.02, folder.path().join("a"));
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (merged, base) = (path("merged"), path("base"));
    let arguments = ["adapter", "merge", "--model", MODEL, "--adapter", &made.path(), "--out"];
    ends(&polylogue(&[arguments.as_slice(), &[&merged]].concat()), 0, &["merged model", &merged]);
    let adapted = logits(&backbone, Some(&made.adapter));
    assert!(distance(&adapted, &logits(&backbone, None)) > 1e-2);
    let apart = distance(&logits(&loaded(Path::new(&merged)), None), &adapted);
    assert!(apart < 1e-5, "{apart}");
    let arguments = ["adapter", "unmerge", "--model", &merged, "--adapter", &made.path(), "--out"];
    ends(&polylogue(&[arguments.as_slice(), &[&base]].concat()), 0, &[&base]);
    let apart = distance(&logits(&loaded(Path::new(&base)), None), &logits(&backbone, None));
    assert!(apart < 1e-5, "{apart}");
}

#[test]
fn bad_input_ends_with_2_and_a_failed_write_with_1() {
    let (backbone, folder) = (tiny(), tempfile::tempdir().unwrap());
    let lora = Made::lora(&backbone, 0.01, folder.path().join("lora"));
    let spec = |method, labels: &[&str]| {
        let labels: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
        let head = (!labels.is_empty()).then(|| head::HeadSpec::new(labels));
        AdapterSpec { method, head }
    };
    let method = lora.adapter.spec().method.clone();
    let place = |name: &str| folder.path().join(name);
    let made = |name: &str, spec| Made::new(&backbone, spec, 0.01, place(name)).path();
    let classifier = made("classifier", spec(method, &["good", "bad"]));
    let frozen = made("frozen", spec(Method::Frozen, &["good", "bad"]));
    let prompt = made("prompt", spec(Method::Prompt { tokens: 2 }, &[]));
    let dora = LoraSpec { dora: true, ..LoraSpec::new(2, 4.0, &["q_proj"]) };
    let dora = made("dora", spec(Method::Lora(dora), &[]));
    let text = |name: &str| place(name).to_string_lossy().into_owned();
    let (lora, out) = (lora.path(), text("out"));
    let run = |code: i32, arguments: &[&str], parts: &[&str]| {
        ends(&polylogue(&[&["adapter"], arguments].concat()), code, parts);
    };
    run(2, &["show", "no/such"], &["no/such", "adapter_config.json"]);
    run(2, &["show", &lora, "--model", "no/such"], &["no/such", MODEL, ".gguf", "hub:"]);
    run(2, &["show", &lora, "--model", "hub:../x"], &["no model of the hub"]);
    // A name out of a file cannot move the cursor.
    let hostile = place("hostile");
    std::fs::create_dir(&hostile).unwrap();
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::copy(root().join("agents").join(MODEL).join(name), hostile.join(name)).unwrap();
    }
    std::fs::write(hostile.join("config.json"), r#"{"model_type": "a\u001b[2Jb"}"#).unwrap();
    run(2, &["show", &lora, "--model", &hostile.to_string_lossy()], &["model_type a?[2Jb"]);
    let merge = |code, adapter: &str, out: &str, more: &[&str], parts: &[&str]| {
        let arguments = ["merge", "--model", MODEL, "--adapter", adapter, "--out", out];
        run(code, &[arguments.as_slice(), more].concat(), parts);
    };
    merge(2, &classifier, &out, &[], &["has a head", "--without-head"]);
    merge(2, &frozen, &out, &["--without-head"], &["changes no weight"]);
    merge(2, &prompt, &out, &[], &["virtual tokens"]);
    merge(2, &lora, &lora, &[], &["in use", "--out"]);
    std::fs::write(place("file"), "").unwrap();
    merge(2, &lora, &text("file"), &[], &["in use"]);
    merge(1, &lora, &text("file/below"), &[], &["could not write"]);
    assert!(!place("out").exists(), "nothing was written");
    merge(0, &classifier, &out, &["--without-head"], &[&out]);
    let unmerge = ["unmerge", "--model", &out, "--adapter"];
    let elsewhere = text("elsewhere");
    run(2, &[unmerge.as_slice(), &[&dora, "--out", &elsewhere]].concat(), &["DoRA", "magnitudes"]);
    let combine = |parts: &[&str], more: &[&str], expected: &[&str]| {
        let arguments = ["combine", "--model", MODEL, "--out", &elsewhere];
        run(2, &[&arguments, parts, more].concat(), expected);
    };
    let whole = format!("{lora}=1");
    combine(&[], &["--method", "linear"], &["DIR=WEIGHT"]);
    combine(&[&lora], &["--method", "linear"], &["DIR=WEIGHT", "no adapter with a weight"]);
    combine(&[&format!("{lora}=nan")], &["--method", "linear"], &["DIR=WEIGHT"]);
    combine(&[&whole], &["--method", "sum"], &["sum", "dare_ties"]);
    combine(&[&whole], &["--method", "ties"], &["needs a density", "--density"]);
    combine(&[&whole], &["--method", "ties", "--density", "1.5"], &["density is 1.5"]);
    combine(&[&whole], &["--method", "linear", "--density", "0.5"], &["does not belong"]);
    combine(&[&whole], &["--method", "cat", "--sign", "total"], &["does not belong"]);
    combine(&[&whole], &["--method", "ties", "--density", "1", "--seed", "1"], &["--seed"]);
    combine(&[&whole, &format!("{dora}=1")], &["--method", "cat"], &["DoRA"]);
    combine(&[&format!("{classifier}=1")], &["--method", "cat"], &["head", "adapter show"]);
    assert!(!place("elsewhere").exists(), "nothing was written");
}
