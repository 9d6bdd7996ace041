//! Features of whole texts beside the network's own, alone and in company.

use super::*;
use crate::adapter::head::{self, Pooling};
use crate::backbone::random_weights;

const POOLINGS: [Pooling; 4] = [Pooling::Layers, Pooling::Mean, Pooling::First, Pooling::Last];

/// The features of one text, by the network in one pass.
fn of_network(backbone: &Backbone, adapter: &Adapter, text: &[u32], pooling: Pooling) -> Vec<f32> {
    let rows = [Rows { adapter: Some(adapter), count: 1 }];
    let tokens = Tokens::pack(&[text.to_vec()], &rows, &Device::Cpu).unwrap();
    let network = &backbone.network;
    let states = network.states(&tokens, Pass::of(&rows), network.depth()).unwrap();
    let features = head::features(network, &states, &rows, &tokens, pooling).unwrap();
    features.flatten_all().unwrap().to_vec1().unwrap()
}

fn session(backbone: &Arc<Backbone>) -> Session {
    Session::new(Arc::clone(backbone)).unwrap()
}

fn bits(features: &[f32]) -> Vec<u32> {
    features.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn every_family_has_the_features_of_its_network() {
    for name in DECODERS {
        let backbone = backbone(name);
        let frozen = adapter(&backbone, Method::Frozen, 1);
        let (long, short) = (text(40, 1), text(5, 2));
        for pooling in POOLINGS {
            let whole = |tokens| Whole { adapter: &frozen, tokens, pooling };
            let found = session(&backbone).features(&[whole(&long), whole(&short)]);
            for (found, text) in found.into_iter().zip([&long, &short]) {
                let expected = of_network(&backbone, &frozen, text, pooling);
                let worst = difference(&found.unwrap().unwrap(), &expected);
                assert!(worst < 1e-5, "{name}, {pooling:?}: {worst}");
            }
        }
    }
}

#[test]
fn every_adapter_has_its_features_beside_all_others_and_alone() {
    let backbone = backbone("llama");
    let adapters: Vec<Arc<Adapter>> = (methods().into_iter().enumerate())
        .map(|(i, method)| adapter(&backbone, method, i as u64))
        .collect();
    // More rows than a pass has, of which many have more than one state.
    let texts: Vec<Vec<u32>> = (0..60).map(|i| text(3 + i % 29, i)).collect();
    let all: Vec<Whole<'_>> = (texts.iter().enumerate())
        .map(|(i, tokens)| Whole {
            adapter: &adapters[i % adapters.len()],
            tokens,
            pooling: POOLINGS[i % 7 % POOLINGS.len()],
        })
        .collect();
    assert!(texts.iter().map(Vec::len).sum::<usize>() > step::MOST_ROWS);
    let alone: Vec<Vec<u32>> = (all.iter())
        .map(|whole| {
            let mut session = session(&backbone).with_threads(1);
            let found = session.features(std::slice::from_ref(whole)).remove(0).unwrap().unwrap();
            let expected = of_network(&backbone, whole.adapter, whole.tokens, whole.pooling);
            let worst = difference(&found, &expected);
            assert!(worst < 1e-5, "{:?}: {worst}", whole.adapter);
            bits(&found)
        })
        .collect();
    // One thread has so many adapters that they are read one after the other, three have few.
    for threads in [1, 3] {
        let mut busy = session(&backbone).with_threads(threads);
        busy.parameters = usize::MAX / 1024;
        let together = busy.features(&all);
        assert_eq!(busy.held(), 0, "nothing is kept");
        for ((whole, found), alone) in all.iter().zip(together).zip(&alone) {
            assert_eq!(
                &bits(&found.unwrap().unwrap()),
                alone,
                "{threads} threads, {:?}",
                whole.adapter
            );
        }
    }
}

#[test]
fn a_text_of_several_passes_has_the_features_of_its_network() {
    let config = serde_json::json!({"model_type": "llama", "hidden_size": 32,
        "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 48, "max_position_embeddings": 1300,
        "rms_norm_eps": 1e-5, "rope_theta": 500.0, "tie_word_embeddings": false});
    let architecture = Architecture::from_json(&config.to_string(), Path::new("test")).unwrap();
    let weights = random_weights(&architecture, Seed::new(3), &Device::Cpu).unwrap();
    let weights = weights.into_iter().map(|(name, tensor)| (name, Weight::Dense(tensor)));
    let tokenizer = crate::tokenizer::Tokenizer::empty().unwrap();
    let backbone = Backbone::assemble(architecture, weights.collect(), tokenizer).unwrap();
    let backbone = Arc::new(backbone);
    for method in [Method::Prompt { tokens: 3 }, Method::Prefix { tokens: 3 }] {
        let adapter = adapter(&backbone, method, 4);
        let (long, short) = (text(1200, 1), text(9, 4));
        for pooling in POOLINGS {
            let whole = |tokens| Whole { adapter: &adapter, tokens, pooling };
            let found = session(&backbone).features(&[whole(&short), whole(&long), whole(&short)]);
            for (found, text) in found.into_iter().zip([&short, &long, &short]) {
                let expected = of_network(&backbone, &adapter, text, pooling);
                let worst = difference(&found.unwrap().unwrap(), &expected);
                assert!(worst < 2e-5, "{pooling:?}: {worst}");
            }
        }
    }
}

#[test]
fn a_text_that_cannot_be_read_is_told_so_and_no_other() {
    let backbone = backbone("llama");
    let adapter = adapter(&backbone, Method::Prompt { tokens: 3 }, 1);
    let texts = [text(4, 1), Vec::new(), text(62, 1), vec![5, 1_000_000], text(61, 1)];
    let whole = |tokens| Whole { adapter: &adapter, tokens, pooling: Pooling::Layers };
    let all: Vec<Whole<'_>> = texts.iter().map(|text| whole(text.as_slice())).collect();
    let mut session = session(&backbone);
    let found: Vec<_> = session.features(&all).into_iter().map(Option::unwrap).collect();
    assert!(found[0].is_ok() && found[4].is_ok());
    assert!(matches!(found[1], Err(ModelError::Incompatible { .. })));
    assert!(matches!(found[2], Err(ModelError::TooLong { limit: 64, .. })));
    assert!(matches!(found[3], Err(ModelError::Incompatible { .. })));
    assert_eq!(session.held(), 0);
}
