//! Texts are those of the network, whoever is written beside them and however they end.

use std::path::Path;

use candle_core::{Device, Tensor};

use super::*;
use crate::adapter::ia3::Ia3Spec;
use crate::adapter::lora::LoraSpec;
use crate::adapter::{AdapterSpec, Generation, Method};
use crate::backbone::{Pass, Rows, Tokens, builtin, normal};
use crate::error::ModelError;
use crate::probe;
use crate::sampler::likeliest;

fn golden(name: &str) -> Arc<Backbone> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name);
    Arc::new(probe::load(&folder, &Device::Cpu).unwrap())
}

/// An adapter of this method whose tensors are all random: one that changes something.
fn adapter(backbone: &Backbone, method: Method, seed: u64) -> Arc<Adapter> {
    let spec = AdapterSpec { method, head: None };
    let initial = Adapter::initial(spec.clone(), backbone, Seed::new(seed)).unwrap();
    let moved = |(name, tensor): (&String, &Tensor)| {
        let noise = normal(tensor.dims(), 0.1, Seed::new(seed).child(name), &Device::Cpu);
        (name.clone(), (tensor + noise.unwrap()).unwrap())
    };
    let tensors = initial.tensors().iter().map(moved).collect();
    Arc::new(Adapter::assemble(spec, Generation(1), tensors, backbone).unwrap())
}

fn adapters(backbone: &Backbone) -> Vec<Option<Arc<Adapter>>> {
    let family = backbone.network.architecture().family;
    let methods = [
        Method::Lora(LoraSpec::new(4, 8.0, &["q_proj", "v_proj"])),
        Method::Lora(LoraSpec { dora: true, ..LoraSpec::new(2, 4.0, &["all-linear"]) }),
        Method::Ia3(Ia3Spec::usual(family)),
        Method::Prompt { tokens: 2 },
        Method::Prefix { tokens: 3 },
        Method::Layers { freeze_layers: 1 },
    ];
    let own = methods.into_iter().zip(0..).map(|(method, seed)| adapter(backbone, method, seed));
    std::iter::once(None).chain(own.map(Some)).collect()
}

/// What the network finds likeliest after the tokens, again and again, the whole text read anew each time.
fn by_the_network(backbone: &Backbone, adapter: Option<&Adapter>, prompt: &[u32]) -> Vec<u32> {
    let mut all = prompt.to_vec();
    for _ in 0..LENGTH {
        let rows = [Rows { adapter, count: 1 }];
        let tokens = Tokens::pack(std::slice::from_ref(&all), &rows, &Device::Cpu).unwrap();
        let hidden = backbone.network.hidden(&tokens, Pass::of(&rows)).unwrap();
        let last = hidden.narrow(1, tokens.width() - 1, 1).unwrap().squeeze(1).unwrap();
        let logits = backbone.network.logits(&last, &rows).unwrap().flatten_all().unwrap();
        all.push(likeliest(&logits.to_vec1::<f32>().unwrap()) as u32);
    }
    all.split_off(prompt.len())
}

const LENGTH: usize = 12;

fn prompt(length: u32) -> Vec<u32> {
    (0..length).map(|place| (7 * place + 3 * length) % 40 + 3).collect()
}

#[test]
fn the_greedy_text_is_that_of_the_network() {
    for name in ["llama", "qwen3", "gemma3_text", "phi3"] {
        let backbone = golden(name);
        let some = if name == "llama" { adapters(&backbone) } else { vec![None] };
        let rows: Vec<(Option<Arc<Adapter>>, Vec<u32>)> = some
            .iter()
            .flat_map(|adapter| [2, 9].map(|length| (adapter.clone(), prompt(length))))
            .collect();
        let row = |(adapter, prompt): &(Option<Arc<Adapter>>, Vec<u32>)| Row {
            adapter: adapter.clone(),
            prompt: prompt.clone(),
            draw: Draw::likeliest(LENGTH, Vec::new()),
        };
        let texts = write(&backbone, rows.iter().map(row).collect()).unwrap();
        let mut kinds = std::collections::BTreeSet::new();
        for ((adapter, prompt), text) in rows.iter().zip(texts) {
            let expected = by_the_network(&backbone, adapter.as_deref(), prompt);
            assert_eq!(text.tokens, expected, "{name}, {adapter:?}");
            kinds.insert(text.tokens);
        }
        assert!(kinds.len() > some.len(), "adapters and prompts matter: {kinds:?}");
    }
}

/// Three texts of each adapter, two of them after the same prompt.
fn rows(adapters: &[Option<Arc<Adapter>>]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (adapter, owner) in adapters.iter().zip(0..) {
        for (member, length) in [5, 5, 1 + owner % 3].into_iter().enumerate() {
            let top_p = (member == 1).then_some(0.9);
            let draw = Draw {
                max_tokens: [9, 30, 4][member],
                temperature: 1.5,
                filter: Filter { top_p, ..Filter::default() },
                stop: vec![7, 8, 9],
                stream: Box::new(Seed::new(3).index(owner.into()).index(member as u64).stream()),
            };
            rows.push(Row { adapter: adapter.clone(), prompt: prompt(length), draw });
        }
    }
    rows
}

#[test]
fn a_text_is_the_same_in_any_company_to_the_last_token() {
    let backbone = golden("llama");
    let adapters = adapters(&backbone);
    let alone: Vec<Text> = rows(&adapters)
        .into_iter()
        .map(|row| write(&backbone, vec![row]).unwrap().remove(0))
        .collect();
    let different: std::collections::BTreeSet<_> = alone.iter().map(|text| &text.tokens).collect();
    assert!(different.len() > alone.len() / 2, "{alone:?}");
    assert!(alone.iter().any(|text| text.stop.is_some()), "{alone:?}");
    assert_eq!(write(&backbone, rows(&adapters)).unwrap(), alone);
    let mut turned = rows(&adapters);
    turned.reverse();
    let mut found = write(&backbone, turned).unwrap();
    found.reverse();
    assert_eq!(found, alone);
}

#[test]
fn a_text_ends_at_its_length_at_a_stop_and_where_the_context_ends() {
    let backbone = Arc::new(builtin::polylogue_tiny(&Device::Cpu).unwrap());
    let positions = backbone.network.architecture().positions;
    let after = |prompt: Vec<u32>, max_tokens: usize, stop: Vec<u32>| {
        let draw = Draw::likeliest(max_tokens, stop);
        write(&backbone, vec![Row { adapter: None, prompt, draw }]).map(|mut texts| texts.remove(0))
    };
    let free = after(prompt(6), 8, Vec::new()).unwrap();
    assert_eq!((free.tokens.len(), free.stop), (8, None));
    let last = free.tokens[5];
    let first = free.tokens.iter().position(|&token| token == last).unwrap();
    let stopped = after(prompt(6), 8, vec![last]).unwrap();
    assert_eq!(stopped, Text { tokens: free.tokens[..first].to_vec(), stop: Some(last) });
    assert_eq!(after(prompt(6), 0, Vec::new()).unwrap(), Text::default());
    // The last position is read, and what comes after it is drawn.
    let long =
        |length: usize| (0..length).map(|place| (place % 50 + 20) as u32).collect::<Vec<_>>();
    assert_eq!(after(long(positions - 2), 99, Vec::new()).unwrap().tokens.len(), 3);
    assert_eq!(after(long(positions), 99, Vec::new()).unwrap().tokens.len(), 1);
    let refused = after(long(positions + 1), 1, Vec::new()).unwrap_err();
    assert!(matches!(refused, ModelError::TooLong { .. }), "{refused}");
    let refused = after(Vec::new(), 1, Vec::new()).unwrap_err();
    assert!(refused.to_string().contains("no tokens"), "{refused}");
    assert!(write(&backbone, Vec::new()).unwrap().is_empty());
}

/// A session whose steps begin before anybody has seen the tokens of the last one, as on a GPU.
fn late(backbone: &Arc<Backbone>) -> Session {
    Session::new(Arc::clone(backbone)).unwrap().late()
}

#[test]
fn texts_whose_tokens_come_late_are_the_same() {
    let backbone = golden("llama");
    let adapters = adapters(&backbone);
    let expected = write(&backbone, rows(&adapters)).unwrap();
    assert_eq!(write_in(late(&backbone), rows(&adapters)).unwrap(), expected);
    let backbone = Arc::new(builtin::polylogue_tiny(&Device::Cpu).unwrap());
    let positions = backbone.network.architecture().positions;
    let long = |length: usize| (0..length).map(|place| (place % 50 + 20) as u32).collect();
    let free = write(&backbone, vec![row_of(prompt(6), 8, Vec::new())]).unwrap();
    let all = || {
        let mut all: Vec<Row> = [positions - 2, positions - 1, positions]
            .map(|length| row_of(long(length), 99, Vec::new()))
            .into();
        all.extend((0..4).map(|most| row_of(prompt(6), most, Vec::new())));
        all.extend(free[0].tokens.iter().map(|&stop| row_of(prompt(6), 8, vec![stop])));
        all
    };
    let expected = write(&backbone, all()).unwrap();
    let lengths: Vec<usize> = expected.iter().map(|text| text.tokens.len()).collect();
    assert_eq!(lengths[..7], [3, 2, 1, 0, 1, 2, 3]);
    assert_eq!(write_in(late(&backbone), all()).unwrap(), expected);
}

fn row_of(prompt: Vec<u32>, max_tokens: usize, stop: Vec<u32>) -> Row {
    Row { adapter: None, prompt, draw: Draw::likeliest(max_tokens, stop) }
}
