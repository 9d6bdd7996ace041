//! Matrices in every type of blocks that GGUF files have: read where they lie, beside the network.

use super::*;
use crate::backbone::random_weights;

const TYPES: [GgmlDType; 10] = [
    GgmlDType::Q8_0,
    GgmlDType::Q4_0,
    GgmlDType::Q4_1,
    GgmlDType::Q5_0,
    GgmlDType::Q5_1,
    GgmlDType::Q2K,
    GgmlDType::Q3K,
    GgmlDType::Q4K,
    GgmlDType::Q5K,
    GgmlDType::Q6K,
];

/// A network with rows of 256 numbers whose matrices are of these types in turn.
fn in_types(types: &[GgmlDType]) -> Arc<Backbone> {
    let config = serde_json::json!({"model_type": "llama", "hidden_size": 256,
        "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 48, "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5, "rope_theta": 500.0, "tie_word_embeddings": false});
    let architecture = Architecture::from_json(&config.to_string(), Path::new("test")).unwrap();
    let weights = random_weights(&architecture, Seed::new(3), &Device::Cpu).unwrap();
    let mut types = types.iter().cycle();
    let weights = weights.into_iter().map(|(name, tensor)| {
        // As large as in a trained network: products of a normed input are of size one.
        let large = (&tensor * 3.0).unwrap();
        let weight = if tensor.rank() == 2 {
            let tensor = QTensor::quantize(&large, *types.next().unwrap()).unwrap();
            Weight::Quantized(Arc::new(tensor))
        } else {
            Weight::Dense(tensor)
        };
        (name, weight)
    });
    let tokenizer = crate::tokenizer::Tokenizer::empty().unwrap();
    Arc::new(Backbone::assemble(architecture.clone(), weights.collect(), tokenizer).unwrap())
}

/// The same with plain numbers.
fn expanded(backbone: &Backbone) -> Backbone {
    let plain = |weight: &Weight| Weight::Dense(weight.dequantize().unwrap());
    let weights = backbone.weights().iter().map(|(name, w)| (name.clone(), plain(w))).collect();
    let architecture = Architecture::clone(backbone.network.architecture());
    Backbone::assemble(architecture, weights, backbone.tokenizer.clone()).unwrap()
}

#[test]
fn every_type_of_blocks_is_read_where_it_lies() {
    let mut all: Vec<Vec<GgmlDType>> = TYPES.map(|dtype| vec![dtype]).into();
    // As files have them: several types in one.
    all.push(TYPES.into());
    for types in all {
        let backbone = in_types(&types);
        let mut session = Session::new(Arc::clone(&backbone)).unwrap();
        assert!(session.direct, "{types:?}");
        let slot = session.open(None);
        let tokens = text(20, 3);
        let logits = session.step(&[Part::new(slot, &tokens, true)]).unwrap();
        let exact = whole(&expanded(&backbone), None, &tokens);
        let worst = difference(&logits.of(0).unwrap(), &exact);
        // Activations are rounded to 8 bits, in blocks no larger than those of the network.
        assert!((1e-6..ROUNDED).contains(&worst), "{types:?}: {worst}");
        let network = difference(&whole(&backbone, None, &tokens), &exact);
        assert!(worst < 2.0 * network, "{types:?}: {worst}, and {network} of the network");
    }
}

#[test]
fn no_type_of_blocks_depends_on_company_on_cuts_or_on_threads() {
    for types in TYPES.chunks(1).chain([TYPES.as_slice()]) {
        let backbone = in_types(types);
        let lora = Method::Lora(LoraSpec::new(8, 4.0, &["q_proj", "down_proj"]));
        let mut adapters = vec![Some(adapter(&backbone, lora, 1)); 4];
        adapters.resize(11, None);
        let alone = written(&backbone, &adapters, false, 1);
        assert!(alone == written(&backbone, &adapters, true, 1), "{types:?}: company or cuts");
        assert!(alone == written(&backbone, &adapters, true, 2), "{types:?}: threads");
    }
}
