//! Pretraining: the shipped recipe runs, is reproducible, and the embedded model is what its card says.

use polylogue_tests::root;
use sim::backbone::DeviceKind;
use sim::pretraining::pretrain;

#[test]
fn a_short_pretraining_learns_and_repeats_itself() {
    let recipe = tempfile::tempdir().unwrap();
    let grammar = recipe.path().join("grammar");
    std::fs::create_dir(&grammar).unwrap();
    let source = root().join("scenarios/pretrain");
    for name in ["retail", "story", "question"] {
        let file = format!("{name}.toml");
        std::fs::copy(source.join("grammar").join(&file), grammar.join(&file)).unwrap();
    }
    let text = std::fs::read_to_string(source.join("pretrain.toml")).unwrap();
    let small = text
        .lines()
        .map(|line| match line.split(' ').next() {
            Some("tokens") => "tokens = 15_000",
            Some("vocabulary") => "vocabulary = 400",
            Some("vocabulary_documents") => "vocabulary_documents = 300",
            Some("holdout_sequences") => "holdout_sequences = 8",
            Some("hidden_size") => "hidden_size = 32",
            Some("intermediate_size") => "intermediate_size = 64",
            Some("num_hidden_layers") => "num_hidden_layers = 2",
            Some("sequences") => "sequences = 8",
            Some("length") => "length = 64",
            Some("warm_up") => "warm_up = 5",
            _ => line,
        })
        .collect::<Vec<_>>()
        .join("\n");
    std::fs::write(recipe.path().join("pretrain.toml"), small).unwrap();
    let weights = || {
        let out = tempfile::tempdir().unwrap();
        let card = pretrain(recipe.path(), out.path(), None, DeviceKind::Cpu, |_| {}).unwrap();
        // Uniform guessing over 400 tokens is 5.99 nats.
        assert!(card.holdout_loss < 5.7, "{}", card.holdout_loss);
        assert!(out.path().join("curve.csv").exists());
        std::fs::read(out.path().join("model.safetensors")).unwrap()
    };
    assert!(weights() == weights(), "the same seed, the same bytes");
}

#[test]
fn the_embedded_model_is_what_its_card_says() {
    let folder = root().join("agents/polylogue-tiny");
    let card: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("card.json")).unwrap()).unwrap();
    assert!(card["tokens"].as_u64().unwrap() >= 20_000_000);
    let size = std::fs::metadata(folder.join("model.safetensors")).unwrap().len();
    assert!(size <= 8 << 20, "{size} bytes");
    let parameters = card["parameters"].as_u64().unwrap();
    assert!(size > 2 * parameters && size < 2 * parameters + 65_536, "f16 weights");
    let curve = std::fs::read_to_string(folder.join("curve.csv")).unwrap();
    let held: Vec<f64> =
        curve.lines().skip(1).filter_map(|l| l.split(',').nth(4)?.parse().ok()).collect();
    assert!(held.len() > 5 && held.last() < held.first(), "the held-out loss falls");
}
