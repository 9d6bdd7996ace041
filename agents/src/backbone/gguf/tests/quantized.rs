//! Quantised files: close to the network they stand for, and trained upon without being touched.

use super::*;
use crate::adapter::lora::LoraSpec;
use crate::adapter::{Adapter, AdapterSpec, Generation, Method};
use crate::learning::job::{Job, JobSpec, Lesson, Settings};
use crate::learning::objective::TextExample;
use crate::learning::objective::supervised::Examples;
use crate::probe::{self, Loss};

/// Products round what they read to 8 bits in blocks of 32 (256 for k-quants): steps of the largest value
/// over 127, so errors of 0.29 steps, 0.6 % of a normal block's size. Seven products on each of two layers
/// and the head add up like random numbers, to about 2 %; the largest of a thousand is some three times that.
const ROUNDING: f32 = 0.06;

const TYPES: [(GgmlDType, bool); 10] = [
    (GgmlDType::Q4_0, false),
    (GgmlDType::Q4_1, false),
    (GgmlDType::Q5_0, false),
    (GgmlDType::Q5_1, false),
    (GgmlDType::Q8_0, false),
    (GgmlDType::Q2K, true),
    (GgmlDType::Q3K, true),
    (GgmlDType::Q4K, true),
    (GgmlDType::Q5K, true),
    (GgmlDType::Q6K, true),
];

fn backbone(dtype: GgmlDType, wide: bool) -> Backbone {
    let (config, weights) = small(wide);
    read(written(&metadata(&config), &stored(&config, &weights, dtype)), DType::F32).unwrap()
}

#[test]
fn every_type_computes_as_its_expansion_does() {
    for (dtype, wide) in TYPES {
        let backbone = backbone(dtype, wide);
        let query = backbone.weight("model.layers.1.self_attn.q_proj.weight").unwrap();
        assert!(matches!(query, Weight::Quantized(_)), "{dtype:?}");
        // Rows go back in place: quantising and permuting rows commute.
        let (_, weights) = small(wide);
        let original = &weights["model.layers.1.self_attn.q_proj.weight"];
        let meant = QTensor::quantize(original, dtype).unwrap().dequantize(&Device::Cpu).unwrap();
        assert_eq!(difference(&query.dequantize().unwrap(), &meant), 0.0, "{dtype:?}");
        let apart = difference(&logits(&backbone, &ROW), &logits(&expanded(&backbone), &ROW));
        assert!(apart > 1e-6, "{dtype:?} is computed with as plain numbers");
        assert!(apart < ROUNDING, "{dtype:?}: {apart}");
        // In another type of activations, matrices are expanded.
        let (config, weights) = small(wide);
        let file = written(&metadata(&config), &stored(&config, &weights, dtype));
        let half = read(file, DType::BF16).unwrap();
        assert!(half.weights().values().all(|weight| matches!(weight, Weight::Dense(_))));
    }
}

#[test]
fn fewer_bits_are_further_from_the_original() {
    let (config, weights) = small(false);
    let plain =
        read(written(&metadata(&config), &stored(&config, &weights, GgmlDType::F32)), DType::F32)
            .unwrap();
    let exact = logits(&plain, &ROW);
    let of = |dtype| difference(&logits(&backbone(dtype, false), &ROW), &exact);
    let (eight, four) = (of(GgmlDType::Q8_0), of(GgmlDType::Q4_0));
    // Q8_0 rounds weights as activations are rounded, so errors grow by the root of two. A step of Q4_0 is
    // 16 times as long.
    assert!(eight < 1.5 * ROUNDING, "{eight}");
    assert!(four < 16.0 * ROUNDING && four > eight, "{four}");
}

fn adapter(backbone: &Backbone) -> Adapter {
    let spec = LoraSpec::new(4, 8.0, &["q_proj", "v_proj", "down_proj"]);
    let spec = AdapterSpec { method: Method::Lora(spec), head: None };
    let fresh = Adapter::initial(spec.clone(), backbone, Seed::new(2)).unwrap();
    let moved = fresh.tensors().iter().map(|(name, t)| (name.clone(), (t + 0.05).unwrap()));
    Adapter::assemble(spec, Generation(1), moved.collect(), backbone).unwrap()
}

#[test]
fn gradients_equal_those_through_the_expansion() {
    for (dtype, wide) in
        [(GgmlDType::Q8_0, false), (GgmlDType::Q4_0, false), (GgmlDType::Q4K, true)]
    {
        let quantized = backbone(dtype, wide);
        let dense = expanded(&quantized);
        for recompute in [false, true] {
            let of = |backbone: &Backbone| {
                let adapter = adapter(backbone);
                let rows = [ROW.to_vec()];
                let found =
                    probe::gradients(backbone, &adapter, &rows, Loss::NextTokens, recompute);
                (adapter, found.unwrap())
            };
            let (adapter, found) = of(&quantized);
            let (_, expected) = of(&dense);
            let trained: Vec<&String> = adapter.trained().map(|(name, _)| name).collect();
            let with: Vec<&String> = found.tensors.keys().collect();
            assert_eq!(with, trained, "gradients are those of the adapter and no others");
            assert!((found.loss - expected.loss).abs() < f64::from(ROUNDING) * expected.loss);
            for (name, gradient) in &found.tensors {
                // The backward is exact; it starts from activations that were rounded.
                let apart = difference(gradient, &expected.tensors[name]);
                assert!(apart < 2.0 * ROUNDING, "{dtype:?} {name}: {apart}");
            }
        }
    }
}

#[test]
fn an_adapter_learns_on_a_quantised_base() {
    let backbone = Arc::new(backbone(GgmlDType::Q4_0, false));
    let before: Vec<Vec<u8>> = raw(&backbone);
    let example = |first: u32| TextExample { prompt: vec![first, 5], reply: vec![9, 8, first] };
    let job = JobSpec {
        lesson: Lesson::Supervised(Examples::Texts([3, 20, 4, 22].map(example).into())),
        steps: 25,
        batch: 4,
        learning_rate: 1e-2,
        settings: Settings::default(),
        seed: Seed::new(1),
    };
    // The first step audits the gradients.
    let mut job = Job::new(Arc::clone(&backbone), Arc::new(adapter(&backbone)), job).unwrap();
    let mut losses = Vec::new();
    while !job.is_done() {
        losses.push(job.step().unwrap().loss);
    }
    assert!(losses[24] < 0.5 * losses[0], "{losses:?}");
    assert!(raw(&backbone) == before, "the base was changed");
}

/// The blocks of every quantised matrix.
fn raw(backbone: &Backbone) -> Vec<Vec<u8>> {
    let blocks = |weight: &Weight| match weight {
        Weight::Quantized(tensor) => Some(tensor.data().unwrap().into_owned()),
        Weight::Dense(_) => None,
    };
    let all: Vec<_> = backbone.weights().values().filter_map(blocks).collect();
    assert_eq!(all.len(), 16, "fourteen maps, the table and the head");
    all
}

#[test]
fn scales_that_are_no_numbers_are_found_in_every_type() {
    for (dtype, _) in TYPES {
        let scales = scales(dtype).unwrap();
        let ones = Tensor::ones((1, 256), DType::F32, &Device::Cpu).unwrap();
        let block = QTensor::quantize(&ones, dtype).unwrap().data().unwrap().into_owned();
        let expanded = |bytes: &[u8]| {
            let storage =
                QStorage::from_data(Cow::Owned(bytes.to_vec()), &Device::Cpu, dtype).unwrap();
            QTensor::new(storage, (1, 256)).unwrap().dequantize(&Device::Cpu).unwrap()
        };
        for at in (0..dtype.type_size()).step_by(2) {
            for no_number in [[0x00, 0x7e], [0x00, 0xfc]] {
                let mut bytes = block.clone();
                bytes[at..at + 2].copy_from_slice(&no_number);
                let bad = check_finite(&expanded(&bytes), "x").is_err();
                assert_eq!(bad, scales.contains(&at), "{dtype:?} byte {at}");
            }
        }
    }
    // And refused where a file is read.
    let (config, weights) = small(false);
    let tensors = stored(&config, &weights, GgmlDType::Q4_0);
    let bytes = written(&metadata(&config), &tensors);
    let (start, _) = open(bytes.clone()).unwrap().place("blk.0.ffn_up.weight").unwrap();
    let mut broken = bytes;
    broken[start as usize + 18 * 5..][..2].copy_from_slice(&[0xff, 0xff]);
    let error = read(broken, DType::F32).unwrap_err().to_string();
    assert_eq!(error, "weight `blk.0.ffn_up.weight` holds values that are not finite");
}
