//! `polylogue tune` as a user meets it: the shipped recipe learns offline, what it saves answers the same when
//! loaded again, and bad input ends with exit code 2. A real encoder is used where there is one.

use std::path::{Path, PathBuf};
use std::process::Output;

use agents::adapter::Adapter;
use agents::backbone::{Backbone, builtin};
use agents::device::DeviceKind;
use agents::learning::objective::supervised::{Features, classes};
use polylogue_tests::{polylogue, root, shared_data, shared_model};

const RECIPE: &str = "scenarios/customer_service";

fn figure(output: &Output, name: &str) -> f64 {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not in {text}"))
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

/// What the saved adapter says of texts, by the names of the classes.
fn said(folder: &Path, backbone: &Backbone, texts: &[String]) -> Vec<String> {
    let adapter = Adapter::load(folder, backbone).unwrap();
    let encode = |text: &String| backbone.tokenizer.encode_with_specials(text, 256).unwrap();
    let tokens: Vec<Vec<u32>> = texts.iter().map(encode).collect();
    let rows: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
    let said = classes(backbone, &adapter, &rows).unwrap();
    said.into_iter().map(|class| adapter.labels()[class].clone()).collect()
}

fn predictions(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("predictions.csv")).unwrap();
    text.lines().skip(1).map(|line| line.split(',').nth(1).unwrap().to_owned()).collect()
}

fn holdout() -> Vec<String> {
    let text = std::fs::read_to_string(root().join(RECIPE).join("travel-holdout.jsonl")).unwrap();
    let field =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["text"].clone();
    text.lines().map(|line| field(line).as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_shipped_recipe_learns_and_its_adapter_answers_the_same_when_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_string_lossy();
    let output = polylogue(&["tune", RECIPE, "--out", &out, "--figures"]);
    let (accuracy, majority) = (figure(&output, "accuracy"), figure(&output, "majority"));
    assert!(accuracy > majority + 0.25, "{accuracy} against {majority}");
    assert!(output.stderr.is_empty(), "no progress line where nobody watches");
    let backbone = builtin::polylogue_tiny(&DeviceKind::Cpu.open().unwrap()).unwrap();
    assert_eq!(said(folder.path(), &backbone, &holdout()), predictions(folder.path()));
    let report = std::fs::read_to_string(folder.path().join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["parts"][0]["classes"].as_array().unwrap().len(), 24);
    let curve = report["parts"][0]["stages"][0]["curve"].as_array().unwrap();
    let loss = |point: &serde_json::Value| point[1].as_f64().unwrap();
    assert!(loss(curve.last().unwrap()) < loss(&curve[0]));
}

#[test]
fn every_method_trains_and_loads() {
    let backbone = builtin::polylogue_tiny(&DeviceKind::Cpu.open().unwrap()).unwrap();
    let texts = holdout();
    for more in [
        &["--method", "lora", "--probe-first", "--rank", "4", "--targets", "q_proj,v_proj"][..],
        &["--method", "ia3"],
        &["--method", "layers", "--freeze-layers", "3"],
        &["--method", "full", "--pooling", "last", "--raw-features"],
    ] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().to_string_lossy();
        let mut arguments = vec!["tune", RECIPE, "--out", &out, "--figures", "--shots", "4"];
        arguments.extend(["--epochs", "2"]);
        arguments.extend(more);
        let output = polylogue(&arguments);
        assert!(figure(&output, "accuracy") > 0.0, "{more:?}");
        let again = said(folder.path(), &backbone, &texts);
        assert_eq!(again, predictions(folder.path()), "{more:?}");
        let report = std::fs::read_to_string(folder.path().join("report.json")).unwrap();
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        let scaled = report["settings"]["standardized"].as_bool().unwrap();
        let adapter = Adapter::load(folder.path(), &backbone).unwrap();
        let mean = adapter.tensors().get("feature.mean");
        let found = mean.map(|mean| mean.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        let shifted = found.is_some_and(|mean| mean.iter().any(|&number| number != 0.0));
        assert_eq!(scaled, shifted, "{more:?}");
        assert_eq!(scaled, more.contains(&"--probe-first"));
        let refused = polylogue(&["tune", RECIPE, "--out", &out]);
        assert_eq!(refused.status.code(), Some(2), "what is there is not written over");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("is in use"));
    }
}

#[test]
fn a_probe_answers_together_with_the_tuned_model() {
    let backbone = builtin::polylogue_tiny(&DeviceKind::Cpu.open().unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_string_lossy();
    let output = polylogue(&[
        "tune",
        RECIPE,
        "--out",
        &out,
        "--figures",
        "--shots",
        "4",
        "--epochs",
        "2",
        "--method",
        "ia3",
        "--ensemble",
        "0.4",
    ]);
    assert!(figure(&output, "accuracy") > 0.0);
    let texts = holdout();
    let probabilities = |folder: &Path| {
        let adapter = Adapter::load(folder, &backbone).unwrap();
        let encode = |text: &String| backbone.tokenizer.encode_with_specials(text, 256).unwrap();
        let tokens: Vec<Vec<u32>> = texts.iter().map(encode).collect();
        let texts: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
        let features = Features::of(&backbone, &adapter, &texts).unwrap();
        (features.probabilities(&adapter).unwrap(), adapter.labels().to_vec())
    };
    let (own, labels) = probabilities(folder.path());
    let (probe, _) = probabilities(&folder.path().join("probe"));
    let likeliest = |(own, probe): (&Vec<f32>, &Vec<f32>)| {
        let mean: Vec<f32> = own.iter().zip(probe).map(|(a, b)| 0.6 * a + 0.4 * b).collect();
        let best = (0..mean.len()).max_by(|&a, &b| mean[a].total_cmp(&mean[b])).unwrap();
        labels[best].clone()
    };
    let meant: Vec<String> = own.iter().zip(&probe).map(likeliest).collect();
    assert_eq!(meant, predictions(folder.path()));
    assert_ne!(meant, said(folder.path(), &backbone, &texts), "the probe has a say");
    let refused = polylogue(&["tune", RECIPE, "--method", "frozen", "--ensemble", "0.5"]);
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn folds_and_repeats_are_told_with_an_interval() {
    let folder = tempfile::tempdir().unwrap();
    let (out, data) = (folder.path().join("out"), folder.path().join("a.txt"));
    std::fs::write(&data, "the soup was cold\nthe waiter was rude\nbad\nawful food\n").unwrap();
    let (out, train) = (out.to_string_lossy(), format!("bad={}", data.display()));
    let good = folder.path().join("b.txt");
    std::fs::write(&good, "lovely soup\nthe waiter smiled\ngood\nfine food\n").unwrap();
    let good = format!("good={}", good.display());
    let output = polylogue(&[
        "tune",
        "--model",
        "polylogue-tiny",
        "--method",
        "frozen",
        "--epochs",
        "5",
        "--train",
        &train,
        "--train",
        &good,
        "--folds",
        "2",
        "--repeats",
        "2",
        "--out",
        &out,
        "--figures",
    ]);
    assert!(figure(&output, "accuracy_half_interval") >= 0.0);
    assert!(figure(&output, "seed_8_fold_2_accuracy") >= 0.0);
    assert!(Path::new(&*out).join("seed-8-fold-2/adapter_config.json").exists());
}

#[test]
fn a_gguf_file_is_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let (out, data) = (folder.path().join("out"), folder.path().join("data.csv"));
    let rows =
        ["the soup was cold,bad", "the waiter was rude,bad", "lovely soup,good", "fine food,good"];
    std::fs::write(&data, format!("text,label\n{}\n", rows.join("\n"))).unwrap();
    let model = root().join("tests/golden/gguf/qwen2-q8_0.gguf");
    let (model, data) = (model.to_string_lossy(), data.to_string_lossy());
    let (out, steps) = (out.to_string_lossy(), "20");
    let output = polylogue(&[
        "tune",
        "--model",
        &model,
        "--method",
        "lora",
        "--targets",
        "q_proj",
        "--epochs",
        steps,
        "--train",
        &data,
        "--test",
        &data,
        "--out",
        &out,
        "--figures",
    ]);
    assert!(figure(&output, "accuracy") >= 0.5);
    let backbone = Backbone::load(Path::new(&*model), &DeviceKind::Cpu.open().unwrap()).unwrap();
    let texts: Vec<String> =
        rows.iter().map(|row| row.split(',').next().unwrap().to_owned()).collect();
    assert_eq!(said(Path::new(&*out), &backbone, &texts), predictions(Path::new(&*out)));
    // A file that is not what its name says is the user's to mend.
    let broken = folder.path().join("broken.gguf");
    std::fs::write(&broken, "GGUF").unwrap();
    let output = polylogue(&["tune", RECIPE, "--model", &broken.to_string_lossy()]);
    let text = complaint(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("not a valid GGUF file"), "{text}");
}

/// What was complained about, on one line however wide the terminal is.
fn complaint(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr).replace(['\n', '│'], " ");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn bad_arguments_end_with_exit_code_2() {
    let refused = |arguments: &[&str], parts: &[&str]| {
        let output = polylogue(&[&["tune"], arguments].concat());
        let text = complaint(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        for part in parts {
            assert!(text.contains(part), "{arguments:?}: `{part}` is not in: {text}");
        }
    };
    refused(&[], &["no method", "--method"]);
    refused(&["--method", "qlora"], &["qlora", "lora"]);
    refused(&["--method", "frozen"], &["no model", "--model"]);
    refused(&["no/such"], &["no/such"]);
    refused(&[RECIPE, "--model", "no/such"], &["no/such", "polylogue-tiny"]);
    refused(&[RECIPE, "--train", "no/such.csv"], &["no/such.csv"]);
    refused(&[RECIPE, "--label", "intend"], &["intend", "did you mean `intent`"]);
    refused(&[RECIPE, "--rank", "4"], &["--method"]);
    refused(&[RECIPE, "--method", "lora", "--rank", "0"], &["rank is 0"]);
    refused(&[RECIPE, "--method", "lora", "--rank", "1000"], &["rank 1000"]);
    refused(&[RECIPE, "--method", "lora", "--targets", "query"], &["query", "q_proj"]);
    refused(&[RECIPE, "--method", "layers", "--freeze-layers", "99"], &["99"]);
    refused(&[RECIPE, "--shots", "5000"], &["--shots"]);
    refused(&[RECIPE, "--folds", "1"], &["folds is 1"]);
    refused(&[RECIPE, "--test", "a.csv", "--folds", "5"], &["more than one"]);
    refused(&[RECIPE, "--pooling", "pooler"], &["pooler"]);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tune.toml"), "[method.lora]\nrnak = 4\n").unwrap();
    refused(&[&folder.path().to_string_lossy()], &["rnak", "rank", "here"]);
}

#[test]
fn a_bert_learns_from_ten_examples_a_class() {
    let (Some(model), Some(data)) =
        (shared_model("all-MiniLM-L6-v2"), shared_data("intent-banking77"))
    else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = |path: PathBuf| path.to_string_lossy().into_owned();
    let (train, test) = (path(data.join("train.csv")), path(data.join("test.csv")));
    let (model, out) = (path(model), path(folder.path().to_owned()));
    let output = polylogue(&[
        "tune",
        "scenarios/bert_banking77",
        "--model",
        &model,
        "--train",
        &train,
        "--test",
        &test,
        "--method",
        "frozen",
        "--shots",
        "10",
        "--out",
        &out,
        "--figures",
    ]);
    let accuracy = figure(&output, "accuracy");
    assert!(accuracy > 0.78, "{accuracy}");
    let first = "How do I locate my card?".to_owned();
    let backbone = Backbone::load(Path::new(&model), &DeviceKind::Cpu.open().unwrap()).unwrap();
    assert_eq!(said(folder.path(), &backbone, &[first]), predictions(folder.path())[..1]);
}
