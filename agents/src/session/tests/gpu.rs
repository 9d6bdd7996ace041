//! The same on a GPU, beside the network on the CPU. Needs a card: `cargo test --features cuda -- gpu`.

use super::drawn::drawn_texts;
use super::*;
use crate::device::DeviceKind;
use crate::sampler::{Filter, likeliest, softmax};

/// Rounding that products in another order may cost.
const CLOSE: f32 = 1e-4;

fn card() -> Device {
    DeviceKind::Cuda(0).open().unwrap()
}

/// The same backbone on the CPU and on the card.
fn both(name: &str, card: &Device) -> [Arc<Backbone>; 2] {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name);
    [backbone(name), Arc::new(probe::load(&folder, card).unwrap())]
}

/// An adapter with the same numbers on the card.
fn moved(adapter: &Adapter, backbone: &Backbone) -> Arc<Adapter> {
    let card = backbone.network.device();
    let tensors =
        adapter.tensors().iter().map(|(name, t)| (name.clone(), t.to_device(card).unwrap()));
    let (spec, tensors) = (adapter.spec().clone(), tensors.collect());
    Arc::new(Adapter::assemble(spec, Generation(1), tensors, backbone).unwrap())
}

#[test]
fn gpu_reads_every_family_as_the_cpu_does() {
    let card = card();
    for name in DECODERS {
        let [here, there] = both(name, &card);
        let mut session = Session::new(there).unwrap();
        assert!(!session.direct && session.tile.is_some());
        let texts = [text(40, 1), text(5, 2)];
        let slots = texts.each_ref().map(|_| session.open(None));
        let cut = |from: usize, to: usize| -> Vec<&[u32]> {
            texts.iter().map(|text| &text[from.min(text.len() - 1)..to.min(text.len())]).collect()
        };
        for (from, to) in [(0, 4), (4, usize::MAX)] {
            let parts: Vec<Part<'_>> = slots
                .iter()
                .zip(cut(from, to))
                .map(|(&slot, tokens)| Part::new(slot, tokens, from > 0))
                .collect();
            let logits = session.step(&parts).unwrap();
            for (part, text) in texts.iter().enumerate().filter(|_| from > 0) {
                let worst = difference(&logits.of(part).unwrap(), &whole(&here, None, text));
                assert!(worst < CLOSE, "{name}, part {part}: {worst}");
            }
        }
    }
}

#[test]
fn gpu_reads_under_every_adapter_as_the_cpu_does() {
    let card = card();
    let [here, there] = both("llama", &card);
    let mut session = Session::new(Arc::clone(&there)).unwrap().with_width(16);
    let methods = methods().into_iter().enumerate();
    let mut own: Vec<Option<Arc<Adapter>>> =
        methods.map(|(i, method)| Some(adapter(&here, method, i as u64))).collect();
    own.extend([None, own[0].clone(), None]);
    let slots: Vec<Slot> = own
        .iter()
        .map(|adapter| session.open(adapter.as_deref().map(|adapter| moved(adapter, &there))))
        .collect();
    let texts: Vec<Vec<u32>> = (0..slots.len()).map(|i| text(9, i)).collect();
    for (from, to) in [(0, 5), (5, 6), (6, 9)] {
        let parts: Vec<Part<'_>> = slots
            .iter()
            .zip(&texts)
            .map(|(&slot, text)| Part::new(slot, &text[from..to], to == 9))
            .collect();
        let logits = session.step(&parts).unwrap();
        for (i, (adapter, text)) in own.iter().zip(&texts).enumerate().filter(|_| to == 9) {
            let expected = whole(&here, adapter.as_deref(), text);
            let worst = difference(&logits.of(i).unwrap(), &expected);
            assert!(worst < CLOSE, "{i} {adapter:?}: {worst}");
        }
    }
}

#[test]
fn gpu_reads_nothing_differently_in_company_or_in_parts() {
    let card = card();
    for name in ["llama", "gemma3_text", "mistral"] {
        let [here, there] = both(name, &card);
        // Who has weights of its own has products of its own shapes.
        let own = |method: &Method| matches!(method, Method::Layers { .. } | Method::Full);
        let mut adapters: Vec<Option<Arc<Adapter>>> = methods()
            .into_iter()
            .filter(|method| !own(method))
            .enumerate()
            .map(|(i, method)| Some(moved(&adapter(&here, method, i as u64), &there)))
            .collect();
        adapters.resize(16, None);
        let alone = written(&there, &adapters, false, 1);
        assert!(alone == written(&there, &adapters, true, 1), "{name}");
    }
}

#[test]
fn gpu_draws_what_the_sampler_allows() {
    let card = card();
    let [_, there] = both("llama", &card);
    let mut session = Session::new(there).unwrap();
    let tokens = text(9, 1);
    let slots: Vec<Slot> = (0..40).map(|_| session.open(None)).collect();
    let parts: Vec<Part<'_>> = slots.iter().map(|&slot| Part::new(slot, &tokens, true)).collect();
    let logits = session.step(&parts).unwrap();
    let here = logits.of(0).unwrap().into_owned();
    let draw = |temperature: f64, filter: Filter| {
        let mut streams: Vec<_> = (0..40).map(|i| Seed::new(i).stream()).collect();
        let picks = streams.iter_mut().enumerate();
        let picks = picks.map(|(part, stream)| Pick { part, temperature, filter: &filter, stream });
        logits.draw(picks.collect()).unwrap().wait().unwrap()
    };
    assert!(draw(0.0, Filter::default()).iter().all(|&t| t as usize == likeliest(&here)));
    let mut order: Vec<usize> = (0..here.len()).collect();
    order.sort_by(|&a, &b| here[b].total_cmp(&here[a]));
    let three = draw(2.0, Filter { top_k: Some(3), ..Filter::default() });
    assert!(three.iter().all(|&t| order[..3].contains(&(t as usize))), "{three:?}");
    let share = softmax(&here);
    let half = draw(1.0, Filter { top_p: Some(0.5), ..Filter::default() });
    let mut sum = 0.0;
    let kept = order.iter().take_while(|&&at| {
        let below = sum < 0.5;
        sum += share[at];
        below
    });
    let kept: Vec<usize> = kept.copied().collect();
    assert!(half.iter().all(|&t| kept.contains(&(t as usize))), "{half:?} of {kept:?}");
    let open = draw(1.0, Filter::default());
    assert!(open.iter().collect::<std::collections::BTreeSet<_>>().len() > 3, "{open:?}");
}

#[test]
fn gpu_computes_in_sixteen_bits() {
    let card = card();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/llama");
    let here = backbone("llama");
    for (dtype, bound) in [(DType::BF16, 0.05), (DType::F16, 0.01)] {
        let tokenizer = crate::tokenizer::Tokenizer::empty().unwrap();
        let there = Arc::new(Backbone::load_with(&folder, tokenizer, dtype, &card).unwrap());
        let lora = Method::Lora(LoraSpec::new(8, 4.0, &["q_proj", "v_proj", "down_proj"]));
        let own = adapter(&here, lora, 3);
        let mut session = Session::new(Arc::clone(&there)).unwrap();
        let slot = session.open(Some(moved(&own, &there)));
        let tokens = text(20, 3);
        let logits = session.step(&[Part::new(slot, &tokens, true)]).unwrap();
        let worst = difference(&logits.of(0).unwrap(), &whole(&here, Some(&own), &tokens));
        assert!((1e-6..bound).contains(&worst), "{dtype:?}: {worst}");
    }
}

/// Tokens are read by the next step before anybody here has seen them.
#[test]
fn gpu_reads_what_it_drew_without_being_told() {
    let card = card();
    let [_, there] = both("llama", &card);
    for sampled in [false, true] {
        let waited = drawn_texts(Session::new(Arc::clone(&there)).unwrap(), sampled, true);
        let late = drawn_texts(Session::new(Arc::clone(&there)).unwrap(), sampled, false);
        assert_eq!(waited, late);
    }
}
