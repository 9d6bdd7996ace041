//! A sequence beside others of its own adapter, beside others of other adapters, and alone.

use super::*;

/// Who else is in the step: sequences of the same adapter, of others and of none, before and after it.
struct Company {
    before: Vec<Option<Arc<Adapter>>>,
    after: Vec<Option<Arc<Adapter>>>,
    threads: usize,
}

/// The bits of all logits of one sequence, whose prompt is read at once and followed by three tokens.
fn bits(backbone: &Arc<Backbone>, own: &Arc<Adapter>, company: &Company) -> Vec<u32> {
    let mut session = Session::new(Arc::clone(backbone)).unwrap().with_threads(company.threads);
    session.parameters = usize::MAX / 1024;
    let own = Some(Arc::clone(own));
    let all = company.before.iter().chain([&own]).chain(&company.after);
    let slots: Vec<Slot> = all.map(|adapter| session.open(adapter.clone())).collect();
    assert!(
        session.direct
            && session
                .places
                .iter()
                .all(|(_, s)| { s.as_ref().is_some_and(|s| matches!(s.read, Read::Kept(_))) })
    );
    let mine = company.before.len();
    let mut bits = Vec::new();
    for step in 0..4 {
        let texts: Vec<Vec<u32>> = (0..slots.len())
            .map(|i| match (step, i == mine) {
                (0, true) => text(11, 1),
                (0, false) => text(1 + i % 7, i + 2),
                (_, true) => vec![step + 4],
                (_, false) => vec![(i as u32 + step) % 30 + 3],
            })
            .collect();
        let part = |(&slot, tokens)| Part::new(slot, tokens, true);
        let parts: Vec<Part<'_>> =
            slots.iter().zip(texts.iter().map(Vec::as_slice)).map(part).collect();
        let logits = session.step(&parts).unwrap();
        bits.extend(logits.of(mine).unwrap().iter().map(|x| x.to_bits()));
    }
    bits
}

/// Low-rank updates of every kind, on every map.
fn low_rank() -> Vec<Method> {
    let lora = |rank| LoraSpec::new(rank, 4.0, &["all-linear"]);
    let vera = |rank| VeraSpec {
        rank,
        targets: vec!["q_proj".to_owned(), "o_proj".to_owned()],
        d_initial: 0.1,
        dropout: 0.0,
    };
    let mut methods: Vec<Method> = [1, 3, 4, 8, 12, 16].map(|rank| Method::Lora(lora(rank))).into();
    methods.extend([4, 8].map(|rank| Method::Lora(LoraSpec { dora: true, ..lora(rank) })));
    methods.extend([4, 8].map(|rank| Method::Vera(vera(rank))));
    methods
}

#[test]
fn an_adapter_gives_the_same_however_many_share_it() {
    let plain = backbone("llama");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/llama");
    let tokenizer = crate::tokenizer::Tokenizer::empty().unwrap();
    let half = Backbone::load_with(&folder, tokenizer, DType::BF16, &Device::Cpu).unwrap();
    let blocks = in_blocks(&plain);
    for (kept, backbone) in [("f32", plain), ("bf16", Arc::new(half)), ("q8_0", blocks)] {
        let all: Vec<Arc<Adapter>> = low_rank()
            .into_iter()
            .enumerate()
            .map(|(i, method)| adapter(&backbone, method, i as u64))
            .collect();
        for (i, own) in all.iter().enumerate() {
            let same = |count| vec![Some(Arc::clone(own)); count];
            let others: Vec<_> = all.iter().skip(i + 1).cloned().map(Some).collect();
            // Some of the same, some of others, and some of none, in turn.
            let mixed: Vec<_> = (0..12)
                .map(|place| match place % 3 {
                    0 => Some(Arc::clone(own)),
                    1 => Some(Arc::clone(&all[(i + place) % all.len()])),
                    _ => None,
                })
                .collect();
            let alone = Company { before: Vec::new(), after: Vec::new(), threads: 1 };
            let alone = bits(&backbone, own, &alone);
            for (before, after, threads) in [
                (same(1), Vec::new(), 1),
                (same(2), same(1), 2),
                (same(4), same(11), 1),
                (same(9), same(6), 2),
                (others.clone(), Vec::new(), 1),
                (Vec::new(), others, 2),
                (mixed.clone(), same(3), 1),
                (same(3), mixed, 2),
            ] {
                let company = Company { before, after, threads };
                let found = bits(&backbone, own, &company);
                let (before, after) = (company.before.len(), company.after.len());
                assert!(found == alone, "{kept}, adapter {i}, {before} before and {after} after");
            }
        }
    }
}
