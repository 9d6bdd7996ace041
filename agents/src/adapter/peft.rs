//! PEFT's `adapter_config.json` and key names, in both directions.
//!
//! What a configuration asks for and we do not have is refused by name. Files are in [`super::file`].

mod entries;

use std::collections::{BTreeMap, BTreeSet};

use candle_core::Tensor;
use serde_json::{Value, json};

use self::entries::{Entries, PREFIX_ONLY, PROMPT_ONLY, labels};
use super::head::HeadSpec;
use super::lora::{self, Init, LoraSpec};
use super::vera;
use super::{AdapterSpec, Method, virtual_tokens};
use crate::backbone::Backbone;
use crate::backbone::architecture::{Architecture, Family};
use crate::backbone::names::Module;
use crate::error::Result;

/// What PEFT puts before the name of every tensor of the model.
const PREFIX: &str = "base_model.model.";
/// What it puts there where the model stays as it is: a head under virtual tokens.
const OUTER: &str = "base_model.";

/// Why a configuration is refused.
type Refusal = String;

/// The head, where PEFT gives the same classes with it. One of our own stays in the file, but PEFT is only
/// told of what lies below.
fn shared_head(spec: &AdapterSpec, family: Family) -> Option<&HeadSpec> {
    // Under a prompt, PEFT's head of an encoder reads a virtual token.
    let moved = matches!(spec.method, Method::Prompt { .. }) && !family.is_decoder();
    spec.head.as_ref().filter(|head| !moved && head.is_of(family))
}

/// Targets as PEFT reads them in a list. There `all-linear` would be the name of a module, and alone it would take
/// in more than the maps of the blocks, such as BERT's pooler.
fn modules(targets: &[String], architecture: &Architecture) -> Vec<String> {
    let named = |target: &String| match target.as_str() {
        "all-linear" => {
            let paths = architecture.targets(target).into_iter();
            paths.filter_map(|module| Some(module.path(architecture.family)?.to_owned())).collect()
        }
        _ => vec![target.clone()],
    };
    let mut modules: Vec<String> = targets.iter().flat_map(named).collect();
    modules.sort_unstable();
    modules.dedup();
    modules
}

/// PEFT's configuration of an adapter; `peft_type` is null for kinds that PEFT does not know.
pub(crate) fn config(spec: &AdapterSpec, architecture: &Architecture) -> Value {
    let head = shared_head(spec, architecture.family);
    let task = match (head, architecture.family.is_decoder()) {
        (Some(head), _) if head.per_token => "TOKEN_CLS",
        (Some(_), _) => "SEQ_CLS",
        (None, true) => "CAUSAL_LM",
        (None, false) => "FEATURE_EXTRACTION",
    };
    let mut config = match &spec.method {
        Method::Lora(lora) => {
            let (rank, alpha) = exported(lora);
            json!({
                "peft_type": "LORA",
                "r": rank,
                "lora_alpha": alpha,
                "lora_dropout": lora.dropout,
                "target_modules": modules(&lora.targets, architecture),
                "use_rslora": lora.rank_stabilized,
                "use_dora": lora.dora,
                "bias": "none",
                "fan_in_fan_out": false,
                "init_lora_weights": true,
            })
        }
        Method::Ia3(ia3) => json!({
            "peft_type": "IA3",
            "target_modules": modules(&ia3.targets, architecture),
            "feedforward_modules": modules(&ia3.feedforward, architecture),
            "fan_in_fan_out": false,
            "init_ia3_weights": true,
        }),
        Method::Vera(vera) => json!({
            "peft_type": "VERA",
            "r": vera.rank,
            "target_modules": modules(&vera.targets, architecture),
            "vera_dropout": vera.dropout,
            "d_initial": vera.d_initial,
            "save_projection": true,
            "projection_prng_key": 0,
            "bias": "none",
            "fan_in_fan_out": false,
        }),
        Method::Prompt { tokens } => json!({
            "peft_type": "PROMPT_TUNING",
            "num_virtual_tokens": tokens,
            "token_dim": architecture.hidden,
            "num_transformer_submodules": 1,
            "num_attention_heads": architecture.heads,
            "num_layers": architecture.depth(),
            "prompt_tuning_init": "RANDOM",
        }),
        Method::Prefix { tokens } => json!({
            "peft_type": "PREFIX_TUNING",
            "num_virtual_tokens": tokens,
            "token_dim": architecture.key_width(),
            "num_transformer_submodules": 1,
            "num_attention_heads": architecture.key_heads,
            "num_layers": architecture.depth(),
            "prefix_projection": false,
        }),
        Method::Frozen | Method::Layers { .. } | Method::Full => json!({"peft_type": null}),
    };
    config["task_type"] = task.into();
    config["inference_mode"] = true.into();
    if let Some(head) = head {
        let (out, dense) = head.paths(architecture.family);
        // PEFT names a module by its first part: `classifier` covers both layers of RoBERTa's.
        let first = |path: &str| path.split('.').next().unwrap_or(path).to_owned();
        let mut saved: Vec<String> = [Some(out), dense].into_iter().flatten().map(first).collect();
        saved.dedup();
        config["modules_to_save"] = saved.into();
    }
    config
}

/// Rank and alpha of the plain LoRA adapter that a PiSSA adapter is on disk: twice the rank, same scale.
fn exported(lora: &LoraSpec) -> (usize, f64) {
    match lora.init {
        Init::Pissa if lora.rank_stabilized => (2 * lora.rank, lora.alpha * 2_f64.sqrt()),
        Init::Pissa => (2 * lora.rank, lora.alpha * 2.0),
        Init::Kaiming | Init::Gaussian => (lora.rank, lora.alpha),
    }
}

/// Reads PEFT's configuration; `stored` tells the number of labels and whether projections are there.
pub(crate) fn spec(
    config: &Value,
    stored: &BTreeMap<String, Tensor>,
    backbone: &Backbone,
) -> Result<AdapterSpec, Refusal> {
    let mut method = method(config, stored)?;
    let architecture = backbone.network.architecture();
    match &mut method {
        Method::Lora(lora) => in_every_layer(&mut lora.targets, architecture)?,
        Method::Ia3(ia3) => {
            in_every_layer(&mut ia3.targets, architecture)?;
            in_every_layer(&mut ia3.feedforward, architecture)?;
        }
        Method::Vera(vera) => in_every_layer(&mut vera.targets, architecture)?,
        _ => {}
    }
    let entries = Entries::of(config)?;
    let task = entries.text("task_type")?.unwrap_or_default();
    let family = architecture.family;
    let prompt = matches!(method, Method::Prompt { .. });
    if prompt && matches!(task, "SEQ_CLS" | "TOKEN_CLS") && !family.is_decoder() {
        let reason = "PEFT's head reads a virtual token, ours the first of the text; use LoRA";
        return Err(format!("task_type `{task}` with PROMPT_TUNING of an encoder: {reason}"));
    }
    let head = match task {
        "SEQ_CLS" => Some(entries.head(stored, family)?),
        "TOKEN_CLS" => Some(entries.token_head(stored, family)?),
        "" | "CAUSAL_LM" | "FEATURE_EXTRACTION" | "SEQ_2_SEQ_LM" => {
            entries.neutral(&["modules_to_save"])?;
            None
        }
        other => return Err(format!("task_type `{other}` is not supported")),
    };
    Ok(AdapterSpec { method, head })
}

/// PEFT names a module of each layer where it found them itself (`all-linear`): one name stands for all of them.
fn in_every_layer(targets: &mut Vec<String>, architecture: &Architecture) -> Result<(), Refusal> {
    let mut layers: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    let mut others = Vec::new();
    let paths = Module::ALL.into_iter().filter_map(|module| module.path(architecture.family));
    let paths: Vec<&str> = paths.collect();
    for target in targets.iter() {
        let place = paths.iter().find_map(|path| Some((*path, layer_of(target, path)?)));
        match place {
            Some((path, layer)) => {
                layers.entry(path).or_default().insert(layer);
            }
            None => others.push(target.clone()),
        }
    }
    for (path, found) in layers {
        if !found.into_iter().eq(0..architecture.depth()) {
            return Err(format!("`target_modules` names `{path}` of some layers only"));
        }
        others.push(path.to_owned());
    }
    others.sort_unstable();
    *targets = others;
    Ok(())
}

/// The layer in `…layers.3.self_attn.q_proj`, given the path within it.
fn layer_of(target: &str, path: &str) -> Option<usize> {
    let block = target.strip_suffix(path)?.strip_suffix('.')?;
    let (above, layer) = block.rsplit_once('.')?;
    let is_list = above.rsplit('.').next().is_some_and(|last| last == "layers" || last == "layer");
    is_list.then(|| layer.parse().ok()).flatten()
}

/// The method of PEFT's configuration, which needs no backbone.
pub(crate) fn method(config: &Value, stored: &BTreeMap<String, Tensor>) -> Result<Method, Refusal> {
    let entries = Entries::of(config)?;
    Ok(match entries.text("peft_type")?.unwrap_or_default() {
        "LORA" => Method::Lora(entries.lora()?),
        "IA3" => Method::Ia3(entries.ia3()?),
        "VERA" => Method::Vera(entries.vera(stored)?),
        "PROMPT_TUNING" => Method::Prompt { tokens: entries.virtual_tokens(PROMPT_ONLY)? },
        "PREFIX_TUNING" => Method::Prefix { tokens: entries.virtual_tokens(PREFIX_ONLY)? },
        other => {
            let known = "LORA, IA3, VERA, PROMPT_TUNING, PREFIX_TUNING";
            return Err(format!("peft_type `{other}` is not supported; supported: {known}"));
        }
    })
}

/// The labels of a head of any family; none without one.
pub(crate) fn any_labels(
    config: &Value,
    stored: &BTreeMap<String, Tensor>,
) -> Result<Option<Vec<String>>, Refusal> {
    let task = Entries::of(config)?.text("task_type")?;
    if !matches!(task, Some("SEQ_CLS" | "TOKEN_CLS")) {
        return Ok(None);
    }
    let outs = ["score", "classifier", "classifier.out_proj"];
    let out = outs.iter().find(|out| stored.contains_key(&format!("{PREFIX}{out}.weight")));
    labels(stored, out.unwrap_or(&outs[0])).map(Some)
}

/// Our name of a tensor as PEFT writes it on disk.
fn disk_name(name: &str, wrapped: &str) -> String {
    match name {
        virtual_tokens::NAME => name.to_owned(),
        vera::A | vera::B => format!("{OUTER}{name}"),
        _ => format!("{PREFIX}{wrapped}{name}"),
    }
}

/// Whether a name belongs to a head rather than to the model below.
fn is_head(name: &str) -> bool {
    ["score.", "classifier.", "pre_classifier.", "feature."]
        .iter()
        .any(|head| name.starts_with(head))
}

/// Tensors under PEFT's names.
pub(crate) fn to_disk(
    spec: &AdapterSpec,
    tensors: &BTreeMap<String, Tensor>,
    family: Family,
) -> Result<BTreeMap<String, Tensor>> {
    let wrapped = if shared_head(spec, family).is_some() { family.wrapped() } else { "" };
    let mut stored = BTreeMap::new();
    for (name, tensor) in tensors {
        if name.ends_with(lora::FIXED_A) || name.ends_with(lora::FIXED_B) {
            continue;
        }
        // PiSSA's untrained pair becomes the second half of a plain pair of twice the rank.
        let pair = |end: &str, fixed: &str| {
            let path = name.strip_suffix(end)?;
            tensors.get(&format!("{path}{fixed}"))
        };
        let tensor = if let Some(fixed) = pair("lora_A.weight", lora::FIXED_A) {
            Tensor::cat(&[tensor, fixed], 0)?
        } else if let Some(fixed) = pair("lora_B.weight", lora::FIXED_B) {
            Tensor::cat(&[tensor, &fixed.neg()?], 1)?
        } else {
            tensor.clone()
        };
        let disk = match (is_head(name), &spec.method) {
            (true, Method::Prompt { .. } | Method::Prefix { .. }) => format!("{OUTER}{name}"),
            (true, _) => disk_name(name, ""),
            (false, _) => disk_name(name, wrapped),
        };
        stored.insert(disk, tensor);
    }
    Ok(stored)
}

/// Tensors under our names.
pub(crate) fn from_disk(
    spec: &AdapterSpec,
    stored: BTreeMap<String, Tensor>,
    family: Family,
) -> Result<BTreeMap<String, Tensor>> {
    let pissa = match &spec.method {
        Method::Lora(lora) if lora.init == Init::Pissa => Some(lora.rank),
        _ => None,
    };
    let mut tensors = BTreeMap::new();
    for (disk, tensor) in stored {
        let name = disk.strip_prefix(PREFIX).or(disk.strip_prefix(OUTER)).unwrap_or(&disk);
        let name = name
            .strip_prefix(family.wrapped())
            .filter(|_| !family.wrapped().is_empty())
            .unwrap_or(name);
        // A decoder trained as a bare model lacks the first part of its names.
        let name = if family.is_decoder() && name.starts_with("layers.") {
            format!("model.{name}")
        } else {
            name.to_owned()
        };
        match pissa {
            Some(rank) if name.ends_with("lora_A.weight") => {
                let fixed = tensor.narrow(0, rank, tensor.dim(0)?.saturating_sub(rank))?;
                tensors.insert(name.replace("lora_A.weight", lora::FIXED_A), fixed.contiguous()?);
                tensors.insert(name, tensor.narrow(0, 0, rank)?.contiguous()?);
            }
            Some(rank) if name.ends_with("lora_B.weight") => {
                let fixed = tensor.narrow(1, rank, tensor.dim(1)?.saturating_sub(rank))?.neg()?;
                tensors.insert(name.replace("lora_B.weight", lora::FIXED_B), fixed.contiguous()?);
                tensors.insert(name, tensor.narrow(1, 0, rank)?.contiguous()?);
            }
            _ => {
                tensors.insert(name, tensor);
            }
        }
    }
    Ok(tensors)
}
