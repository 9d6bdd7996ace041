//! Checkpoints whole, in shards and hostile: each kind of broken file is an error that says why.

use serde_json::json;

use super::*;

fn tensors() -> BTreeMap<String, Tensor> {
    let tensor = |from: f32, shape: &[usize]| {
        let count = shape.iter().product::<usize>() as f32;
        Tensor::arange(from, from + count, &Device::Cpu).unwrap().reshape(shape).unwrap()
    };
    let named = |name: &str, tensor| (name.to_owned(), tensor);
    [named("a", tensor(0.0, &[2, 3])), named("b", tensor(9.0, &[4])), named("c", tensor(5.0, &[1]))]
        .into()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn read(checkpoint: &Checkpoint) -> Vec<Vec<f32>> {
    checkpoint
        .names()
        .map(|name| {
            let shape = checkpoint.shape(name).unwrap();
            let tensor = checkpoint.read(name, shape, DType::F32, &Device::Cpu).unwrap();
            tensor.flatten_all().unwrap().to_vec1().unwrap()
        })
        .collect()
}

/// A file with this header and so many zero bytes after it.
fn file(header: &serde_json::Value, data: usize) -> Vec<u8> {
    let header = header.to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn refusal(bytes: Vec<u8>) -> String {
    Checkpoint::from_bytes(bytes, Path::new("test")).unwrap_err().to_string()
}

#[test]
fn every_type_is_read_from_disk_and_from_memory() {
    let folder = folder();
    let path = folder.path().join(SINGLE);
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        write(&tensors(), dtype, &path).unwrap();
        let disk = Checkpoint::open(folder.path()).unwrap();
        let memory = Checkpoint::from_bytes(std::fs::read(&path).unwrap(), &path).unwrap();
        let expected = vec![vec![0., 1., 2., 3., 4., 5.], vec![9., 10., 11., 12.], vec![5.]];
        assert_eq!(read(&disk), expected);
        assert_eq!(read(&memory), expected);
        assert_eq!(read_all(&path, &Device::Cpu).unwrap().len(), 3);
        let half = disk.read("b", &[4], DType::BF16, &Device::Cpu).unwrap();
        assert_eq!(half.dtype(), DType::BF16);
    }
}

#[test]
fn shards_give_what_one_file_gives() {
    let (one, many) = (folder(), folder());
    write(&tensors(), DType::F32, &one.path().join(SINGLE)).unwrap();
    let mut first = tensors();
    let second = first.split_off("b");
    write(&first, DType::F32, &many.path().join("x-1.safetensors")).unwrap();
    write(&second, DType::F32, &many.path().join("x-2.safetensors")).unwrap();
    let index =
        |map| std::fs::write(many.path().join(INDEX), json!({"weight_map": map}).to_string());
    index(json!({"a": "x-1.safetensors", "b": "x-2.safetensors", "c": "x-2.safetensors"})).unwrap();
    let sharded = Checkpoint::open(many.path()).unwrap();
    assert_eq!(read(&sharded), read(&Checkpoint::open(one.path()).unwrap()));

    let refusal = |map: serde_json::Value| {
        index(map).unwrap();
        Checkpoint::open(many.path()).unwrap_err().to_string()
    };
    assert!(refusal(json!({"a": "x-2.safetensors"})).contains("not in x-2.safetensors"));
    assert!(refusal(json!({"a": "x-3.safetensors"})).contains("could not open"));
    for name in ["../x-1.safetensors", "/etc/x.safetensors", "a/x.safetensors", "a\\x.safetensors"]
    {
        assert!(refusal(json!({"a": name})).contains("plain name"), "{name}");
    }
    for name in ["", ".", "..", "x-1.safetensors/", "./x-1.safetensors", "x.bin"] {
        assert!(refusal(json!({"a": name})).contains("plain name"), "{name}");
    }
    assert!(refusal(json!([])).contains("index of shards"));
}

#[test]
fn a_wrong_shape_or_name_is_refused_before_anything_is_read() {
    let folder = folder();
    write(&tensors(), DType::F32, &folder.path().join(SINGLE)).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let refusal = |name: &str, shape: &[usize]| {
        checkpoint.read(name, shape, DType::F32, &Device::Cpu).unwrap_err()
    };
    assert!(matches!(refusal("a", &[3, 2]), ModelError::WeightShape { .. }));
    assert!(matches!(refusal("z", &[3, 2]), ModelError::MissingWeight { .. }));
}

#[test]
fn values_that_are_not_finite_are_refused() {
    let folder = folder();
    let path = folder.path().join(SINGLE);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let tensor = Tensor::new(&[1.0, bad, 2.0], &Device::Cpu).unwrap();
            write(&[("a".to_owned(), tensor)].into(), dtype, &path).unwrap();
            let checkpoint = Checkpoint::open(folder.path()).unwrap();
            let error = checkpoint.read("a", &[3], DType::F32, &Device::Cpu).unwrap_err();
            assert!(matches!(error, ModelError::WeightNotFinite { .. }), "{error}");
        }
    }
    let large = Tensor::new(&[f32::MAX, f32::MAX, 1e30], &Device::Cpu).unwrap();
    write(&[("a".to_owned(), large)].into(), DType::F32, &path).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    checkpoint.read("a", &[3], DType::F32, &Device::Cpu).unwrap();
    let error = checkpoint.read("a", &[3], DType::F16, &Device::Cpu).unwrap_err();
    assert!(matches!(error, ModelError::WeightNotFinite { .. }), "too large for f16: {error}");
}

#[test]
fn truncated_files_and_headers_are_refused() {
    let folder = folder();
    let path = folder.path().join(SINGLE);
    write(&tensors(), DType::F32, &path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for length in 0..whole.len() {
        refusal(whole[..length].to_vec());
    }
    for length in [u64::MAX, u64::MAX / 2, LARGEST_HEADER + 1, whole.len() as u64 - 7] {
        let mut bytes = whole.clone();
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        assert!(refusal(bytes).contains("a header of"), "{length}");
    }
    // A file that shrinks after it was opened.
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 40]).unwrap();
    let error = checkpoint.read("b", &[4], DType::F32, &Device::Cpu).unwrap_err();
    assert!(matches!(error, ModelError::File { .. }), "{error}");
    std::fs::write(&path, []).unwrap();
    assert!(Checkpoint::open(folder.path()).unwrap_err().to_string().contains("shorter"));
    assert!(read_all(&path, &Device::Cpu).is_err());
}

#[test]
fn headers_that_lie_are_refused() {
    let one = |shape: serde_json::Value, from: u64, to: u64| json!({"dtype": "F32", "shape": shape, "data_offsets": [from, to]});
    let huge = 1_u64 << 60;
    for header in [
        json!({"a": one(json!([huge]), 0, 16)}),
        json!({"a": one(json!([huge, huge]), 0, 16)}),
        json!({"a": one(json!([huge]), 0, huge * 4)}),
        json!({"a": one(json!([4]), 0, 16), "b": one(json!([4]), 8, 24)}),
        json!({"a": one(json!([4]), 0, 16), "b": one(json!([4]), 0, 16)}),
        json!({"a": one(json!([4]), 16, 0)}),
        json!({"a": one(json!([4]), 16, 32)}),
        json!({"a": one(json!([4]), 0, 32)}),
        json!({"a": one(json!([-4]), 0, 16)}),
        json!({"a": 3}),
        json!([]),
    ] {
        assert!(refusal(file(&header, 16)).contains("not a valid safetensors file"), "{header}");
    }
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let mut bytes = (nested.len() as u64).to_le_bytes().to_vec();
    bytes.extend(nested.as_bytes());
    assert!(refusal(bytes).contains("not a valid"));
    // Integers beside weights are no error until somebody asks for them.
    let header = json!({"ids": {"dtype": "I64", "shape": [2], "data_offsets": [0, 16]}});
    let checkpoint = Checkpoint::from_bytes(file(&header, 16), Path::new("test")).unwrap();
    let error = checkpoint.read("ids", &[2], DType::F32, &Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("stored as I64"), "{error}");
}

#[test]
fn pickles_are_refused_with_a_way_out() {
    for name in ["pytorch_model.bin", "model.pt", "model.pth", "epoch.ckpt"] {
        let folder = folder();
        std::fs::write(folder.path().join(name), b"\x80\x02}q\x00.").unwrap();
        let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("safe_serialization"), "{error}");
    }
    let error = Checkpoint::open(folder().path()).unwrap_err().to_string();
    assert!(error.contains("model.safetensors"), "{error}");
}
