//! Sequences against the network run on each of them alone and as a whole.

use std::path::Path;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};

use super::*;
use crate::adapter::ia3::Ia3Spec;
use crate::adapter::lora::LoraSpec;
use crate::adapter::vera::VeraSpec;
use crate::adapter::{AdapterSpec, Generation, Method};
use crate::backbone::{Architecture, Pass, Rows, Tokens, Weight, normal};
use crate::probe;
use crate::seed::Seed;

mod blocks;
mod company;
mod drawn;
mod features;
#[cfg(feature = "cuda")]
mod gpu;

const DECODERS: [&str; 11] = [
    "llama",
    "llama3",
    "llama_linear",
    "llama_tied",
    "llama_yarn",
    "smollm3",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma3_text",
    "phi3",
];

fn backbone(name: &str) -> Arc<Backbone> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name);
    Arc::new(probe::load(&folder, &Device::Cpu).unwrap())
}

/// The logits after the last token, by the network in one pass.
fn whole(backbone: &Backbone, adapter: Option<&Adapter>, tokens: &[u32]) -> Vec<f32> {
    let rows = [Rows { adapter, count: 1 }];
    let packed = Tokens::pack(&[tokens.to_vec()], &rows, &Device::Cpu).unwrap();
    let hidden = backbone.network.hidden(&packed, Pass::of(&rows)).unwrap();
    let last = hidden.narrow(1, packed.width() - 1, 1).unwrap().squeeze(1).unwrap();
    let logits = backbone.network.logits(&last, &rows).unwrap();
    logits.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// A session of each way to read: where weights lie, through the network one sequence at a time, and through
/// it in passes of so many rows, as on a GPU.
fn sessions(backbone: &Arc<Backbone>) -> [Session; 3] {
    let new = || Session::new(Arc::clone(backbone)).unwrap();
    let (direct, mut alone, mut together) = (new(), new(), new());
    assert!(direct.direct);
    alone.direct = false;
    together.direct = false;
    together.tile = Some(8);
    [direct, alone, together]
}

/// The largest difference relative to the largest value.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let largest = b.iter().fold(0f32, |most, x| most.max(x.abs()));
    a.iter().zip(b).fold(0f32, |most, (a, b)| most.max((a - b).abs())) / largest
}

/// An adapter of this method whose tensors are all random: one that changes something.
fn adapter(backbone: &Backbone, method: Method, seed: u64) -> Arc<Adapter> {
    let spec = AdapterSpec { method, head: None };
    let initial = Adapter::initial(spec.clone(), backbone, Seed::new(seed)).unwrap();
    let shift = |(name, tensor): (&String, &Tensor)| {
        let noise = normal(tensor.dims(), 0.05, Seed::new(seed).child(name), &Device::Cpu);
        (name.clone(), (tensor + noise.unwrap()).unwrap())
    };
    let tensors = initial.tensors().iter().map(shift).collect();
    Arc::new(Adapter::assemble(spec, Generation(1), tensors, backbone).unwrap())
}

fn methods() -> Vec<Method> {
    let strings = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
    let lora = LoraSpec::new(2, 4.0, &["q_proj", "v_proj"]);
    let targets = strings(&["q_proj"]);
    vec![
        Method::Lora(lora.clone()),
        Method::Lora(LoraSpec { dora: true, ..lora.clone() }),
        Method::Lora(LoraSpec::new(4, 4.0, &["all-linear"])),
        Method::Ia3(Ia3Spec {
            targets: strings(&["v_proj", "down_proj", "gate_proj"]),
            feedforward: strings(&["down_proj", "gate_proj"]),
        }),
        Method::Vera(VeraSpec { rank: 4, targets, d_initial: 0.1, dropout: 0.0 }),
        Method::Prompt { tokens: 3 },
        Method::Prefix { tokens: 3 },
        Method::Layers { freeze_layers: 1 },
        Method::Full,
    ]
}

/// Largest difference where activations are rounded to 8 bits, relative to the largest logit: that of
/// `tests/gguf.rs`.
const ROUNDED: f32 = 0.06;

fn text(length: usize, first: usize) -> Vec<u32> {
    (0..length).map(|i| ((first + i * 7) % 40 + 3) as u32).collect()
}

#[test]
fn every_family_reads_as_its_network_does() {
    for name in DECODERS {
        let backbone = backbone(name);
        for mut session in sessions(&backbone) {
            let (long, short) = (text(40, 1), text(5, 2));
            let (a, b) = (session.open(None), session.open(None));
            let read = |session: &mut Session, slot, tokens: &[u32]| {
                let logits = session.step(&[Part::new(slot, tokens, true)]).unwrap();
                logits.of(0).unwrap().to_vec()
            };
            read(&mut session, a, &long[..30]);
            read(&mut session, b, &short[..4]);
            let parts = [Part::new(a, &long[30..], true), Part::new(b, &short[4..], true)];
            let logits = session.step(&parts).unwrap();
            for (part, tokens) in [&long, &short].into_iter().enumerate() {
                let worst = difference(&logits.of(part).unwrap(), &whole(&backbone, None, tokens));
                assert!(worst < 1e-5, "{name}, part {part}: {worst}");
            }
        }
    }
}

#[test]
fn every_adapter_reads_as_its_network_does_beside_all_others() {
    let backbone = backbone("llama");
    let mut adapters: Vec<Option<Arc<Adapter>>> = methods()
        .into_iter()
        .enumerate()
        .map(|(i, method)| Some(adapter(&backbone, method, i as u64)))
        .collect();
    adapters.extend([None, adapters[0].clone(), None]);
    for mut session in sessions(&backbone) {
        assert!(adapters.iter().all(|a| session.is_direct(a.as_deref()) == session.direct));
        let slots: Vec<Slot> = adapters.iter().map(|a| session.open(a.clone())).collect();
        let texts: Vec<Vec<u32>> = (0..slots.len()).map(|i| text(9 + i, i)).collect();
        for from in [0..5, 5..6, 6..8] {
            let part = |(&slot, text): (&Slot, &Vec<u32>)| (slot, text[from.clone()].to_vec());
            let cut: Vec<_> = slots.iter().zip(&texts).map(part).collect();
            let parts: Vec<_> =
                cut.iter().map(|(slot, tokens)| Part::new(*slot, tokens, from.end == 8)).collect();
            let logits = session.step(&parts).unwrap();
            if from.end < 8 {
                assert!(logits.of(0).unwrap().is_empty());
                continue;
            }
            for (i, (adapter, text)) in adapters.iter().zip(&texts).enumerate() {
                let expected = whole(&backbone, adapter.as_deref(), &text[..8]);
                let worst = difference(&logits.of(i).unwrap(), &expected);
                assert!(worst < 1e-5, "{i} {adapter:?}: {worst}");
            }
        }
    }
}

#[test]
fn sequences_come_and_go_without_touching_others() {
    let backbone = backbone("qwen2");
    for mut session in sessions(&backbone) {
        let (a, b) = (session.open(None), session.open(None));
        let (one, two) = (text(6, 1), text(8, 5));
        let parts = [Part::new(a, &one, false), Part::new(b, &two, false)];
        session.step(&parts).unwrap();
        let fork = session.fork(b).unwrap();
        session.close(a);
        assert!(session.length(a).is_err());
        let c = session.open(None);
        assert_ne!(a, c, "the place is taken again, the slot is not");
        let mut expected = two.clone();
        expected.extend([9, 4]);
        let parts =
            [Part::new(c, &one, true), Part::new(b, &[9], false), Part::new(fork, &[9, 4], true)];
        let logits = session.step(&parts).unwrap();
        assert!(difference(&logits.of(0).unwrap(), &whole(&backbone, None, &one)) < 1e-5);
        assert!(difference(&logits.of(2).unwrap(), &whole(&backbone, None, &expected)) < 1e-5);
        assert_eq!((session.length(b).unwrap(), session.length(fork).unwrap()), (9, 10));
    }
}

#[test]
fn what_cannot_be_read_is_refused_as_a_whole() {
    let backbone = backbone("llama");
    let limit = backbone.network.architecture().positions;
    let vocabulary = backbone.network.architecture().vocabulary as u32;
    let mut session = Session::new(Arc::clone(&backbone)).unwrap();
    let (a, b) = (session.open(None), session.open(None));
    let long = vec![3; limit + 1];
    let good = Part::new(a, &[1, 2], true);
    for (tokens, slot, says) in [
        (long.as_slice(), b, "more than the context"),
        (&[], b, "no tokens"),
        (&[vocabulary], b, "outside"),
        (&[1], a, "twice"),
    ] {
        let error = session.step(&[good, Part::new(slot, tokens, true)]).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(session.length(a).unwrap(), 0);
    }
    let bert = self::backbone("bert");
    assert!(Session::new(bert).unwrap_err().to_string().contains("encoder"));
}

/// The same network kept in another way.
fn kept(backbone: &Backbone, convert: impl Fn(&Tensor) -> Weight) -> Arc<Backbone> {
    let weights = backbone.weights().iter().map(|(name, weight)| {
        let tensor = weight.dequantize().unwrap();
        let blocks = tensor.rank() == 2 && tensor.dim(1).unwrap().is_multiple_of(32);
        (name.clone(), if blocks { convert(&tensor) } else { weight.clone() })
    });
    let architecture = Architecture::clone(backbone.network.architecture());
    let tokenizer = backbone.tokenizer.clone();
    Arc::new(Backbone::assemble(architecture, weights.collect(), tokenizer).unwrap())
}

fn quantize(tensor: &Tensor) -> QTensor {
    QTensor::quantize(tensor, GgmlDType::Q8_0).unwrap()
}

/// The same network with its matrices in blocks of 8-bit integers.
fn in_blocks(backbone: &Backbone) -> Arc<Backbone> {
    kept(backbone, |tensor| Weight::Quantized(Arc::new(quantize(tensor))))
}

#[test]
fn weights_in_blocks_of_eight_bits_are_read_as_they_are() {
    let plain = backbone("llama");
    let blocks = in_blocks(&plain);
    let expanded =
        kept(&plain, |tensor| Weight::Dense(quantize(tensor).dequantize(&Device::Cpu).unwrap()));
    let mut session = Session::new(Arc::clone(&blocks)).unwrap();
    assert!(session.direct && blocks.weights().values().any(|w| matches!(w, Weight::Quantized(_))));
    let slot = session.open(None);
    let tokens = text(20, 3);
    let logits = session.step(&[Part::new(slot, &tokens, true)]).unwrap();
    // What maps read is rounded to 8 bits, as in the network on the same blocks, and the roundings of both
    // differ from the network that rounds nothing by as much.
    let exact = whole(&expanded, None, &tokens);
    let worst = difference(&logits.of(0).unwrap(), &exact);
    assert!((1e-6..ROUNDED).contains(&worst), "{worst}");
    let network = difference(&whole(&blocks, None, &tokens), &exact);
    assert!(worst < 2.0 * network, "{worst}, and {network} of the network");
}

#[test]
fn half_precision_is_computed_in_f32() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/llama");
    for dtype in [DType::BF16, DType::F16] {
        let tokenizer = crate::tokenizer::Tokenizer::empty().unwrap();
        let half = Backbone::load_with(&folder, tokenizer, dtype, &Device::Cpu).unwrap();
        let half = Arc::new(half);
        let widen = |weight: &Weight| match weight {
            Weight::Dense(tensor) => Weight::Dense(tensor.to_dtype(DType::F32).unwrap()),
            other => other.clone(),
        };
        let weights = half.weights().iter().map(|(name, w)| (name.clone(), widen(w))).collect();
        let architecture = Architecture::clone(half.network.architecture());
        let wide = Backbone::assemble(architecture, weights, half.tokenizer.clone()).unwrap();
        let lora = Method::Lora(LoraSpec::new(8, 4.0, &["q_proj", "v_proj", "down_proj"]));
        let adapter = adapter(&half, lora, 3);
        let tensors = adapter.tensors().iter().map(|(name, t)| {
            let rounded = t.to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap();
            (name.clone(), rounded)
        });
        let (spec, tensors) = (adapter.spec().clone(), tensors.collect());
        let rounded = Adapter::assemble(spec, Generation(1), tensors, &wide).unwrap();
        let mut session = Session::new(Arc::clone(&half)).unwrap();
        assert!(session.direct);
        let slot = session.open(Some(adapter));
        let tokens = text(20, 3);
        let logits = session.step(&[Part::new(slot, &tokens, true)]).unwrap();
        let worst = difference(&logits.of(0).unwrap(), &whole(&wide, Some(&rounded), &tokens));
        assert!(worst < 1e-5, "{dtype:?}: {worst}");
    }
}

/// What each of these adapters writes after a text of its own: alone and whole, or all together with
/// prompts in parts, with so many threads.
fn written(
    backbone: &Arc<Backbone>,
    adapters: &[Option<Arc<Adapter>>],
    together: bool,
    threads: usize,
) -> Vec<Vec<u32>> {
    let mut session = Session::new(Arc::clone(backbone)).unwrap().with_threads(threads);
    session.parameters = usize::MAX / 1024;
    let slots: Vec<Slot> = adapters.iter().map(|a| session.open(a.clone())).collect();
    let texts: Vec<Vec<u32>> = (0..slots.len()).map(|i| text(30 + i % 7, i)).collect();
    let mut bits = vec![Vec::new(); slots.len()];
    let groups: Vec<Vec<usize>> = if together {
        vec![(0..slots.len()).collect()]
    } else {
        (0..slots.len()).map(|i| vec![i]).collect()
    };
    for group in groups {
        let cuts: &[usize] = if together { &[7, 8, 20, usize::MAX] } else { &[usize::MAX] };
        let mut from = 0;
        for &cut in cuts {
            let part = |&i: &usize| {
                let tokens = &texts[i][from..cut.min(texts[i].len())];
                Part::new(slots[i], tokens, cut == usize::MAX)
            };
            let parts: Vec<Part<'_>> = group.iter().map(part).collect();
            let logits = session.step(&parts).unwrap();
            for (place, &i) in group.iter().enumerate() {
                bits[i].extend(logits.of(place).unwrap().iter().map(|x| x.to_bits()));
            }
            from = cut;
        }
        for step in 0..4 {
            let tokens: Vec<[u32; 1]> = group.iter().map(|i| [(i + step) as u32 + 5]).collect();
            let parts: Vec<Part<'_>> = group
                .iter()
                .zip(&tokens)
                .map(|(&i, tokens)| Part::new(slots[i], tokens, true))
                .collect();
            let logits = session.step(&parts).unwrap();
            for (place, &i) in group.iter().enumerate() {
                bits[i].extend(logits.of(place).unwrap().iter().map(|x| x.to_bits()));
            }
        }
    }
    bits
}

#[test]
fn nothing_depends_on_company_on_cuts_or_on_threads() {
    let plain = ["llama", "gemma3_text", "mistral"].map(|name| (name, backbone(name)));
    // Here all maps are in blocks; there some are not, and heads are narrower than a block.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/gguf");
    let file = Backbone::load(&folder.join("llama-q8_0.gguf"), &Device::Cpu).unwrap();
    let blocks = [("file", Arc::new(file)), ("qwen3", in_blocks(&backbone("qwen3")))];
    for (name, backbone) in plain.into_iter().chain(blocks) {
        let eight = backbone.weights().values().any(|w| matches!(w, Weight::Quantized(_)));
        // Weights in blocks cannot be trained.
        let trained = |method: &Method| matches!(method, Method::Layers { .. } | Method::Full);
        let mut adapters: Vec<Option<Arc<Adapter>>> = methods()
            .into_iter()
            .filter(|method| !(eight && trained(method)))
            .enumerate()
            .map(|(i, method)| Some(adapter(&backbone, method, i as u64)))
            .collect();
        adapters.resize(16, None);
        let alone = written(&backbone, &adapters, false, 1);
        assert!(alone == written(&backbone, &adapters, true, 1), "{name}: company or cuts");
        assert!(alone == written(&backbone, &adapters, true, 2), "{name}: two threads");
        assert!(alone == written(&backbone, &adapters, false, 3), "{name}: three threads");
    }
}
