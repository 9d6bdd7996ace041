//! Files that are cut, contradict themselves or ask for too much: an error each, never a panic.

use super::*;

fn good() -> (Metadata, Vec<(String, QTensor)>) {
    let (config, weights) = small(false);
    (metadata(&config), stored(&config, &weights, GgmlDType::Q8_0))
}

fn error(bytes: Vec<u8>) -> String {
    read(bytes, DType::F32).unwrap_err().to_string()
}

/// The header of a file of version 3 with these parts.
fn header(tensors: u64, entries: u64, rest: &[&[u8]]) -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend(tensors.to_le_bytes());
    bytes.extend(entries.to_le_bytes());
    bytes.extend(rest.concat());
    bytes
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn tensor(name: &str, dims: &[u64], dtype: u32, offset: u64) -> Vec<u8> {
    let mut bytes = string(name);
    bytes.extend((dims.len() as u32).to_le_bytes());
    bytes.extend(dims.iter().flat_map(|size| size.to_le_bytes()));
    bytes.extend(dtype.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes
}

fn entry(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [string(key), kind.to_le_bytes().to_vec(), value.to_vec()].concat()
}

fn llama() -> Vec<u8> {
    entry("general.architecture", 8, &string("llama"))
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let (entries, tensors) = good();
    let whole = written(&entries, &tensors);
    let length = scan(&whole).unwrap();
    for cut in (0..length).chain((length..whole.len() - 32).step_by(997)) {
        let error = open(whole[..cut].to_vec()).unwrap_err();
        assert!(matches!(error, ModelError::Malformed { .. }), "{cut}: {error}");
    }
}

#[test]
fn a_header_with_any_byte_changed_does_no_harm() {
    let (entries, tensors) = good();
    let whole = written(&entries, &tensors);
    for at in 0..scan(&whole).unwrap() {
        for to in [0, 1, 0x7f, 0x80, 0xff] {
            let mut changed = whole.clone();
            changed[at] = to;
            // Some changes are to numbers that may have other values.
            let _ = open(changed).map(|file| file.config().and_then(|_| file.tokenizer()));
        }
    }
}

#[test]
fn counts_and_sizes_are_bounded() {
    let most = u64::MAX;
    let long = most.to_le_bytes();
    let array = |kind: u32, count: u64| [&kind.to_le_bytes()[..], &count.to_le_bytes()].concat();
    let nested = array(9, 1).repeat(64);
    let one = |tensor: Vec<u8>| header(1, 1, &[&llama(), &tensor, &[0; 64]]);
    for (what, bytes, expected) in [
        ("no file", Vec::new(), "does not end"),
        ("another file", b"GGML\x03\0\0\0".to_vec(), "does not begin with GGUF"),
        ("version 1", b"GGUF\x01\0\0\0".to_vec(), "version 1; 2 and 3 are read"),
        ("big endian", b"GGUF\0\0\0\x03".to_vec(), "version 50331648"),
        ("tensors", header(most, 0, &[]), "announces 18446744073709551615 tensors"),
        ("entries", header(0, most, &[]), "18446744073709551615 entries"),
        ("a key", header(0, 1, &[&long]), "does not end"),
        ("a text", header(0, 1, &[&entry("a", 8, &long)]), "does not end"),
        ("an array", header(0, 1, &[&entry("a", 9, &array(4, most))]), "more metadata"),
        ("texts", header(0, 1, &[&entry("a", 9, &array(8, most))]), "does not end"),
        ("arrays", header(0, 1, &[&entry("a", 9, &nested)]), "too deep"),
        ("a kind", header(0, 1, &[&entry("a", 13, &[0; 8])]), "unknown type 13"),
        ("no architecture", header(0, 0, &[&[0; 64]]), "unnamed in a GGUF file"),
        ("rank 0", one(tensor("t", &[], 0, 0)), "0 dimensions"),
        ("rank 5", one(tensor("t", &[1; 5], 0, 0)), "5 dimensions"),
        ("dims", one(tensor("t", &[most, most], 0, 0)), "does not lie within"),
        ("a product", one(tensor("t", &[1 << 33, 1 << 31], 0, 0)), "does not lie within"),
        ("no columns", one(tensor("t", &[0, 4], 0, 0)), "does not lie within"),
        ("half a block", one(tensor("t", &[16, 2], 8, 0)), "does not lie within"),
        ("an offset", one(tensor("t", &[4], 0, most)), "does not lie within"),
        ("beyond", one(tensor("t", &[4], 0, 1 << 20)), "does not lie within"),
        ("a type", one(tensor("t", &[4], 20, 0)), "20"),
    ] {
        let found = open(bytes).unwrap_err().to_string();
        assert!(found.contains(expected), "{what}: {found}");
    }
}

/// A small file cannot ask for more memory than it is long, however many tensors it has.
#[test]
fn tensors_do_not_overlap() {
    let with = |first: u64, second: u64| {
        let tensors = [tensor("b", &[8], 0, first), tensor("a", &[8], 0, second)];
        open(header(2, 1, &[&llama(), &tensors[0], &tensors[1], &[0; 128]]))
    };
    assert!(with(0, 32).is_ok() && with(32, 0).is_ok());
    for (first, second) in [(0, 0), (0, 28), (28, 0)] {
        let found = with(first, second).unwrap_err().to_string();
        assert!(found.ends_with(" overlap"), "{first} {second}: {found}");
    }
    assert!(with(0, 28).unwrap_err().to_string().contains("`b` and `a` overlap"));
}

#[test]
fn of_several_bad_tensors_the_first_by_name_is_told() {
    let tensors: Vec<u8> =
        (0..40).rev().flat_map(|t| tensor(&format!("t{t:02}"), &[4], 0, 1 << 20)).collect();
    let found = open(header(40, 1, &[&llama(), &tensors, &[0; 64]])).unwrap_err().to_string();
    assert!(found.contains("`t00` of shape"), "{found}");
}

#[test]
fn alignments_are_checked() {
    let aligned = |kind: u32, value: &[u8]| {
        let alignment = entry("general.alignment", kind, value);
        open(header(0, 2, &[&llama(), &alignment, &[0; 64]]))
    };
    assert!(aligned(4, &64_u32.to_le_bytes()).is_ok());
    for (kind, value) in [(4, 0_u64), (4, 3), (4, 1 << 20), (0, 0), (5, 0), (10, 32)] {
        let width = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8][kind as usize];
        let error = aligned(kind, &value.to_le_bytes()[..width]).unwrap_err().to_string();
        assert!(error.contains("its alignment is no power of two"), "{kind} {value}: {error}");
    }
}

#[test]
fn names_are_there_once() {
    let twice = header(0, 2, &[&llama(), &entry("general.architecture\0", 8, &string("qwen2"))]);
    let error = open(twice).unwrap_err().to_string();
    assert!(error.ends_with("`general.architecture` is there twice"), "{error}");
    let one = tensor("t", &[4], 0, 0);
    let error = open(header(2, 1, &[&llama(), &one, &one, &[0; 64]])).unwrap_err().to_string();
    assert!(error.ends_with("`t` is there twice"), "{error}");
}

#[test]
fn tensors_are_checked_when_they_are_read() {
    let (entries, _) = good();
    let with = |name: &str, tensor: &Tensor, dtype: GgmlDType| {
        let (_, mut tensors) = good();
        tensors.retain(|(known, _)| known != name);
        tensors.push((name.to_owned(), QTensor::quantize(tensor, dtype).unwrap()));
        error(written(&entries, &tensors))
    };
    let norm = |value: f32| Tensor::full(value, 64, &Device::Cpu).unwrap();
    let ones = Tensor::ones((64, 64), DType::F32, &Device::Cpu).unwrap();
    let wide = Tensor::ones((32, 64), DType::F32, &Device::Cpu).unwrap();
    let found = with("output_norm.weight", &norm(f32::NAN), GgmlDType::F32);
    assert_eq!(found, "weight `model.norm.weight` holds values that are not finite");
    let found = with("output_norm.weight", &norm(1e6), GgmlDType::F16);
    assert_eq!(found, "weight `model.norm.weight` holds values that are not finite");
    let found = with("blk.0.attn_q.weight", &wide, GgmlDType::F32);
    assert!(found.contains("has shape [32, 64], the configuration says [64, 64]"), "{found}");
    let found = with("blk.0.attn_q.weight", &ones, GgmlDType::Q8_1);
    assert!(found.contains("of type Q8_1, which is not read"), "{found}");
    let (_, mut fewer) = good();
    fewer.retain(|(name, _)| name != "blk.1.ffn_down.weight");
    let found = error(written(&entries, &fewer));
    assert_eq!(found, "weight `model.layers.1.mlp.down_proj.weight` is missing");
}

#[test]
fn vocabularies_are_checked() {
    let (entries, tensors) = good();
    let texts = |texts: &[&str]| {
        Value::Array(texts.iter().map(|&text| Value::String(text.to_owned())).collect())
    };
    let error = |changes: Vec<(&str, Value)>| {
        let mut entries = entries.clone();
        for (key, value) in changes {
            entries.insert(format!("tokenizer.ggml.{key}"), value);
        }
        let file = open(written(&entries, &tensors)).unwrap();
        file.tokenizer().unwrap_err().to_string()
    };
    let name = |name: &str| Value::String(name.to_owned());
    let ab = || ("tokens", texts(&["a", "b", "ab"]));
    let gpt2 = || ("model", name("gpt2"));
    let scores = |scores: &[f32]| Value::Array(scores.iter().map(|&s| Value::F32(s)).collect());
    for (what, changes, expected) in [
        ("none", vec![], "has no tokens"),
        (
            "too many",
            vec![("tokens", texts(&vec!["a"; (1 << 20) + 1]))],
            "1048577 tokens; 1048576 are read",
        ),
        ("numbers", vec![("tokens", scores(&[1.0]))], "has no tokens"),
        ("no kind", vec![ab()], "kind \"none\""),
        ("a kind", vec![ab(), ("model", name("bert"))], "kind \"bert\""),
        ("no merges", vec![ab(), gpt2()], "has no merges"),
        ("one part", vec![ab(), gpt2(), ("merges", texts(&["ab"]))], "\"ab\" is no merge"),
        ("no splits", vec![ab(), gpt2(), ("merges", texts(&["a b"]))], "splits \"none\""),
        (
            "splits",
            vec![ab(), gpt2(), ("merges", texts(&["a b"])), ("pre", name("default"))],
            "splits \"default\"",
        ),
        (
            "a merge of strangers",
            vec![ab(), gpt2(), ("merges", texts(&["a c"])), ("pre", name("gpt-2"))],
            "vocabulary",
        ),
        (
            "a token twice",
            vec![
                ("tokens", texts(&["a", "a"])),
                gpt2(),
                ("merges", texts(&[])),
                ("pre", name("gpt-2")),
            ],
            "a token twice",
        ),
        (
            "scores",
            vec![ab(), ("model", name("llama")), ("scores", scores(&[1.0]))],
            "1 scores for 3 tokens",
        ),
    ] {
        let found = error(changes);
        assert!(found.contains(expected), "{what}: {found}");
    }
}
