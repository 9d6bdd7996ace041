//! Unquantised files of the golden models give the networks that their safetensors give.

use super::*;

fn golden(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(family)
}

/// The configuration and weights of a golden model, without what a GGUF file cannot say.
fn model(family: &str) -> (Json, Weights) {
    let text = std::fs::read_to_string(golden(family).join("config.json")).unwrap();
    let mut config: Json = serde_json::from_str(&text).unwrap();
    if family == "gemma3_text" {
        // Which layers are local is a matter of the depth there.
        for (key, value) in [
            ("layer_types", Json::Null),
            ("query_pre_attn_scalar", config["head_dim"].clone()),
            ("rope_parameters", Json::Null),
            ("rope_scaling", json!({"rope_type": "linear", "factor": 2.0})),
            ("rope_theta", json!(1000.0)),
            ("rope_local_base_freq", json!(100.0)),
        ] {
            config[key] = value;
        }
    }
    let path = golden(family).join("model.safetensors");
    (config, crate::backbone::checkpoint::read_all(&path, &Device::Cpu).unwrap())
}

#[test]
fn unquantised_files_give_the_same_logits() {
    for family in [
        "llama",
        "llama_tied",
        "llama_linear",
        "llama_yarn",
        "mistral",
        "qwen2",
        "qwen3",
        "qwen3_tied",
        "gemma3_text",
        "phi3",
    ] {
        let (config, weights) = model(family);
        let architecture = Architecture::from_json(&config.to_string(), Path::new("test")).unwrap();
        let dense = weights.iter().map(|(name, t)| (name.clone(), t.clone().into())).collect();
        let expected =
            Backbone::assemble(architecture, dense, Tokenizer::empty().unwrap()).unwrap();
        let tensors = stored(&config, &weights, GgmlDType::F32);
        let found = read(written(&metadata(&config), &tensors), DType::F32).unwrap();
        assert_eq!(found.network.architecture(), expected.network.architecture(), "{family}");
        let apart = difference(&logits(&found, &ROW), &logits(&expected, &ROW));
        // Gemma's norms were moved by one and back.
        let bound = if family == "gemma3_text" { 1e-5 } else { 0.0 };
        assert!(apart <= bound, "{family}: {apart}");
    }
}

#[test]
fn a_gemma_file_says_how_often_a_layer_is_global() {
    let (config, weights) = model("gemma3_text");
    let mut entries = metadata(&config);
    let pattern = "gemma3.attention.sliding_window_pattern".to_owned();
    entries.insert(pattern, Value::U32(2));
    let found =
        read(written(&entries, &stored(&config, &weights, GgmlDType::F32)), DType::F32).unwrap();
    let windows: Vec<_> =
        found.network.architecture().layers.iter().map(|layer| layer.window).collect();
    assert_eq!(windows, [Some(4), None, Some(4)]);
}

#[test]
fn what_a_network_here_lacks_is_refused() {
    let (config, weights) = small(false);
    let tensors = stored(&config, &weights, GgmlDType::F32);
    let refusal = |key: &str, value: Value| {
        let mut entries = metadata(&config);
        entries.insert(key.to_owned(), value);
        read(written(&entries, &tensors), DType::F32).unwrap_err().to_string()
    };
    let text = |text: &str| Value::String(text.to_owned());
    for (key, value, expected) in [
        ("general.architecture", text("mamba"), "mamba in a GGUF file"),
        ("llama.expert_count", Value::U32(8), "llama with expert_count 8"),
        ("llama.final_logit_softcapping", Value::F32(30.0), "final_logit_softcapping 30"),
        ("llama.attention.scale", Value::F32(0.5), "attention.scale 0.5"),
        ("llama.rope.scaling.type", text("longrope"), "rotary scaling longrope"),
        ("llama.rope.scaling.type", text("yarn"), "rotary scaling yarn"),
        ("llama.rope.dimension_count", Value::U32(8), "partial_rotary_factor"),
        ("llama.attention.value_length", Value::U32(8), "values unlike keys"),
        (
            "llama.attention.head_count_kv",
            Value::Array(vec![Value::U32(2)]),
            "not one finite number",
        ),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(f32::NAN), "not one finite number"),
        ("llama.block_count", Value::F32(1.5), "llama.block_count is 1.5"),
        ("split.count", Value::U16(3), "one of several parts"),
    ] {
        let found = refusal(key, value);
        assert!(found.contains(expected), "{key}: {found}");
    }
    let mut entries = metadata(&config);
    entries.remove("llama.block_count");
    let found = read(written(&entries, &tensors), DType::F32).unwrap_err().to_string();
    assert!(found.contains("it has no number llama.block_count"), "{found}");
    let mut tensors = tensors;
    let factors = Tensor::new(&[1_f32, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0], &Device::Cpu).unwrap();
    tensors.push((
        "rope_freqs.weight".to_owned(),
        QTensor::quantize(&factors, GgmlDType::F32).unwrap(),
    ));
    let found = read(written(&metadata(&config), &tensors), DType::F32).unwrap_err().to_string();
    assert!(found.contains("rotary factors of its own"), "{found}");
}
