//! Every method of adapting, on a decoder and on an encoder: the gradient audit passes, the loss falls,
//! recomputing changes nothing, and what was learnt survives the disk.

#![expect(clippy::unwrap_used, reason = "a test stops where an assumption breaks")]

use std::path::Path;
use std::sync::Arc;

use agents::adapter::head::{HeadSpec, Pooling};
use agents::adapter::ia3::Ia3Spec;
use agents::adapter::lora::{Init, LoraSpec};
use agents::adapter::vera::VeraSpec;
use agents::adapter::{Adapter, AdapterSpec, Method};
use agents::backbone::hooks::{Hooks, Reader, Writer};
use agents::backbone::{Backbone, KvCache, Pass, Rows, Tokens};
use agents::learning::job::{Job, JobSpec, Lesson, Settings};
use agents::learning::objective::TextExample;
use agents::learning::objective::supervised::{ClassExample, Examples, TagExample};
use agents::probe;
use agents::seed::Seed;
use candle_core::{DType, Device, Tensor};

fn backbone(name: &str) -> Arc<Backbone> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name);
    Arc::new(probe::load(&folder, &Device::Cpu).unwrap())
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// Every method that suits a backbone whose maps have these names.
fn methods(query: &str, value: &str, down: &str, decoder: bool) -> Vec<Method> {
    let plain = LoraSpec::new(2, 4.0, &[query, value]);
    let mut methods = vec![
        Method::Lora(plain.clone()),
        Method::Lora(LoraSpec { rank_stabilized: true, dropout: 0.1, ..plain.clone() }),
        Method::Lora(LoraSpec { dora: true, init: Init::Gaussian, ..plain.clone() }),
        Method::Lora(LoraSpec { targets: strings(&["all-linear"]), ..plain }),
        Method::Ia3(Ia3Spec { targets: strings(&[value, down]), feedforward: strings(&[down]) }),
        Method::Vera(VeraSpec {
            rank: 4,
            targets: strings(&[query]),
            d_initial: 0.1,
            dropout: 0.0,
        }),
        Method::Prompt { tokens: 3 },
        Method::Layers { freeze_layers: 1 },
        Method::Full,
    ];
    if decoder {
        methods.push(Method::Prefix { tokens: 3 });
    }
    methods
}

fn classes() -> Examples {
    let example = |(label, first): (usize, u32)| ClassExample {
        tokens: vec![first, first + 1, 7, first + 2],
        label,
    };
    Examples::Classes([(0, 3), (1, 20), (0, 4), (1, 22)].into_iter().map(example).collect())
}

fn texts() -> Examples {
    let example = |first: u32| TextExample { prompt: vec![first, 5], reply: vec![9, 8, first] };
    Examples::Texts([3, 20, 4, 22].into_iter().map(example).collect())
}

fn train(
    backbone: &Arc<Backbone>,
    spec: &AdapterSpec,
    examples: Examples,
    settings: Settings,
) -> (Adapter, Vec<f64>) {
    let from = Arc::new(Adapter::initial(spec.clone(), backbone, Seed::new(4)).unwrap());
    let job = JobSpec {
        lesson: Lesson::Supervised(examples),
        steps: 25,
        batch: 4,
        learning_rate: 1e-2,
        settings,
        seed: Seed::new(1),
    };
    let mut job = Job::new(Arc::clone(backbone), from, job).unwrap();
    let mut losses = Vec::new();
    while !job.is_done() {
        losses.push(job.step().unwrap_or_else(|e| panic!("{spec:?}: {e}")).loss);
    }
    (job.finish().unwrap(), losses)
}

fn learns_and_lasts(backbone: &Arc<Backbone>, spec: &AdapterSpec, examples: &Examples) {
    let (adapter, losses) = train(backbone, spec, examples.clone(), Settings::default());
    assert!(losses[24] < 0.99 * losses[0], "{spec:?}: {} to {}", losses[0], losses[24]);
    let recompute = Settings { recompute: true, ..Settings::default() };
    let (_, again) = train(backbone, spec, examples.clone(), recompute);
    for (kept, again) in losses.iter().zip(&again) {
        assert!((kept - again).abs() < 1e-3 * (1.0 + kept.abs()), "{spec:?}: {kept} {again}");
    }
    let folder = tempfile::tempdir().unwrap();
    adapter.save(folder.path()).unwrap();
    let loaded = Adapter::load(folder.path(), backbone).unwrap();
    assert_eq!(loaded.digest().unwrap(), adapter.digest().unwrap(), "{spec:?}");
    assert_eq!(loaded.generation(), adapter.generation());
}

#[test]
fn every_method_teaches_a_decoder_to_write() {
    let backbone = backbone("llama");
    for method in methods("q_proj", "v_proj", "down_proj", true) {
        learns_and_lasts(&backbone, &AdapterSpec { method, head: None }, &texts());
    }
}

#[test]
fn every_method_teaches_an_encoder_to_classify() {
    let backbone = backbone("bert");
    let poolings = [Pooling::Mean, Pooling::First, Pooling::Pooler, Pooling::Layers];
    for (at, method) in methods("query", "value", "output.dense", false).into_iter().enumerate() {
        let labels = strings(&["a", "b"]);
        let pooling = poolings[at % poolings.len()];
        let head = Some(HeadSpec { pooling, standardize: false, ..HeadSpec::new(labels) });
        learns_and_lasts(&backbone, &AdapterSpec { method, head }, &classes());
    }
}

#[test]
fn a_token_head_learns_the_tag_of_every_token() {
    let backbone = backbone("distilbert");
    let head =
        HeadSpec { per_token: true, standardize: false, ..HeadSpec::new(strings(&["a", "b"])) };
    let method = Method::Lora(LoraSpec::new(2, 4.0, &["q_lin", "v_lin"]));
    let example = |first: u32| TagExample {
        tokens: vec![first, 5, first],
        tags: vec![Some((first % 2) as usize), None, Some(1)],
    };
    let examples = Examples::Tags((10..18).map(example).collect());
    let spec = AdapterSpec { method, head: Some(head) };
    learns_and_lasts(&backbone, &spec, &examples);
}

#[test]
fn an_adapter_kept_in_f32_trains_a_network_computed_in_bf16() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/llama");
    let tokenizer = agents::tokenizer::Tokenizer::empty().unwrap();
    let half = Backbone::load_with(&folder, tokenizer, DType::BF16, &Device::Cpu).unwrap();
    let method = Method::Lora(LoraSpec::new(2, 4.0, &["q_proj", "v_proj"]));
    let spec = AdapterSpec { method, head: None };
    let (adapter, losses) = train(&Arc::new(half), &spec, texts(), Settings::default());
    assert!(adapter.tensors().values().all(|tensor| tensor.dtype() == DType::F32));
    let (_, exact) = train(&backbone("llama"), &spec, texts(), Settings::default());
    assert!((losses[0] - exact[0]).abs() < 0.03 * exact[0], "{} {}", losses[0], exact[0]);
    assert!(losses[24] < 0.97 * losses[0], "{losses:?}");
}

/// PEFT reads `all-linear` in a list as the name of a module, so the modules are named.
#[test]
fn peft_is_told_each_module_of_all_linear() {
    for family in ["bert", "llama"] {
        let backbone = backbone(family);
        let method = Method::Lora(LoraSpec::new(2, 4.0, &["all-linear"]));
        let spec = AdapterSpec { method, head: None };
        let adapter = Adapter::initial(spec, &backbone, Seed::new(1)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        adapter.save(folder.path()).unwrap();
        let file = folder.path().join("adapter_config.json");
        let text = std::fs::read_to_string(&file).unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
        let modules: Vec<&str> = config["target_modules"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m.as_str().unwrap())
            .collect();
        for path in adapter.tensors().keys() {
            let path = path.rsplit_once(".lora_").unwrap().0;
            assert!(modules.iter().any(|name| path.ends_with(&format!(".{name}"))), "{path}");
        }
        assert!(!modules.iter().any(|name| "pooler.dense".ends_with(&format!(".{name}"))));
        // As PEFT would have written it, it is the same adapter.
        config.as_object_mut().unwrap().remove("polylogue");
        std::fs::write(&file, config.to_string()).unwrap();
        let read = Adapter::load(folder.path(), &backbone).unwrap();
        assert!(read.tensors().keys().eq(adapter.tensors().keys()), "{family}");
        // PEFT itself names the modules that it found in each layer.
        let paths = adapter.tensors().keys().filter_map(|key| Some(key.rsplit_once(".lora_")?.0));
        let mut paths: Vec<String> = paths.map(|path| format!("model.{path}")).collect();
        paths.dedup();
        config["target_modules"] = paths.clone().into();
        std::fs::write(&file, config.to_string()).unwrap();
        let read = Adapter::load(folder.path(), &backbone).unwrap();
        assert!(read.tensors().keys().eq(adapter.tensors().keys()), "{family}");
        config["target_modules"] = paths[1..].into();
        std::fs::write(&file, config.to_string()).unwrap();
        let refused = Adapter::load(folder.path(), &backbone).unwrap_err().to_string();
        assert!(refused.contains("of some layers only"), "{refused}");
    }
}

#[test]
fn a_target_that_is_not_there_is_refused_with_those_that_are() {
    let backbone = backbone("bert");
    let method = Method::Lora(LoraSpec::new(2, 4.0, &["q_proj"]));
    let spec = AdapterSpec { method, head: None };
    let error = Adapter::initial(spec, &backbone, Seed::new(1)).unwrap_err().to_string();
    assert!(error.contains("`q_proj`") && error.contains("attention.self.query"), "{error}");
}

fn hidden<H: Hooks>(backbone: &Backbone, hooks: Option<&mut H>) -> Tensor {
    let hooks = hooks.map(|hooks| hooks as &mut dyn Hooks);
    let owners = [Rows { adapter: None, count: 2 }];
    let rows = [vec![3, 4, 5], vec![6, 7, 8]];
    let tokens = Tokens::pack(&rows, &owners, &Device::Cpu).unwrap();
    backbone.network.hidden(&tokens, Pass { hooks, ..Pass::of(&owners) }).unwrap()
}

fn difference(a: &Tensor, b: &Tensor) -> f32 {
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

#[test]
fn hooks_read_and_write_the_residual_stream() {
    let backbone = backbone("llama");
    let depth = backbone.network.depth();
    let plain = hidden(&backbone, None::<&mut Reader>);
    let mut reader = Reader { layers: vec![0, depth], seen: Vec::new() };
    let read = hidden(&backbone, Some(&mut reader));
    assert!(difference(&plain, &read) == 0.0, "reading changes nothing");
    assert_eq!(reader.seen.iter().map(|(layer, _)| *layer).collect::<Vec<_>>(), [0, depth]);
    let top = &reader.seen[1].1;
    let owners = [Rows { adapter: None, count: 2 }];
    let finished = backbone.network.finish(top, &owners).unwrap();
    assert!(difference(&finished, &plain) < 1e-6);

    let width = plain.dim(2).unwrap();
    let vector = Tensor::ones(width, DType::F32, &Device::Cpu).unwrap();
    let mut writer = Writer { layer: 1, row: 1, column: 1, vector, add: true };
    let changed = hidden(&backbone, Some(&mut writer));
    let row = |t: &Tensor, row| t.get(row).unwrap();
    assert!(difference(&row(&changed, 0), &row(&plain, 0)) == 0.0, "the other row is untouched");
    let at = |t: &Tensor, column| row(t, 1).get(column).unwrap();
    assert!(difference(&at(&changed, 0), &at(&plain, 0)) == 0.0, "the past is untouched");
    assert!(difference(&at(&changed, 1), &at(&plain, 1)) > 1e-3);
    assert!(difference(&at(&changed, 2), &at(&plain, 2)) > 1e-4, "later tokens see it");
}

#[test]
fn keys_and_values_cross_from_one_cache_to_another() {
    let backbone = backbone("llama");
    let owners = [Rows { adapter: None, count: 1 }];
    let pack = |row: &[u32]| Tokens::pack(&[row.to_vec()], &owners, &Device::Cpu).unwrap();
    let whole = backbone.network.hidden(&pack(&[3, 4, 5, 6]), Pass::of(&owners)).unwrap();
    let mut sender = KvCache::default();
    backbone.network.hidden(&pack(&[3, 4]), Pass::cached(&owners, &mut sender)).unwrap();
    // The receiver never saw the first two tokens; their keys and values are handed over, layer by layer.
    let mut receiver = KvCache::default();
    for layer in 0..sender.depth() {
        let (keys, values) = sender.layer(layer).unwrap();
        receiver.append(layer, keys, values).unwrap();
    }
    let rest =
        backbone.network.hidden(&pack(&[5, 6]), Pass::cached(&owners, &mut receiver)).unwrap();
    assert!(difference(&rest, &whole.narrow(1, 2, 2).unwrap()) < 1e-5);
}

#[test]
fn embeddings_can_be_injected_in_place_of_tokens() {
    let backbone = backbone("llama");
    let owners = [Rows { adapter: None, count: 1 }];
    let tokens = Tokens::pack(&[vec![3, 4, 5]], &owners, &Device::Cpu).unwrap();
    let network = &backbone.network;
    let mut pass = Pass::of(&owners);
    let x = network.embed(&tokens, &mut pass).unwrap();
    let x = network.partial(x, &tokens, &mut pass, 0..network.depth()).unwrap();
    let injected = network.finish(&x, &owners).unwrap();
    let plain = network.hidden(&tokens, Pass::of(&owners)).unwrap();
    assert!(difference(&injected, &plain) == 0.0);
}
