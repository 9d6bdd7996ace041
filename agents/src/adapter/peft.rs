//! PEFT's `adapter_config.json` and key names, in both directions.
//!
//! What a configuration asks for and we do not have is refused by name; every entry that PEFT writes is
//! either understood or must hold its neutral value. Files are in [`super::file`].

use std::collections::BTreeMap;

use candle_core::Tensor;
use serde_json::{Map, Value, json};

use super::head::{HeadSpec, Pooling};
use super::ia3::Ia3Spec;
use super::lora::{self, Init, LoraSpec};
use super::vera::{self, VeraSpec};
use super::{AdapterSpec, Method, virtual_tokens};
use crate::backbone::Backbone;
use crate::backbone::architecture::{Architecture, Family};
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
                "target_modules": lora.targets,
                "use_rslora": lora.rank_stabilized,
                "use_dora": lora.dora,
                "bias": "none",
                "fan_in_fan_out": false,
                "init_lora_weights": true,
            })
        }
        Method::Ia3(ia3) => json!({
            "peft_type": "IA3",
            "target_modules": ia3.targets,
            "feedforward_modules": ia3.feedforward,
            "fan_in_fan_out": false,
            "init_ia3_weights": true,
        }),
        Method::Vera(vera) => json!({
            "peft_type": "VERA",
            "r": vera.rank,
            "target_modules": vera.targets,
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
    let method = method(config, stored)?;
    let entries = Entries::of(config)?;
    let task = entries.text("task_type")?.unwrap_or_default();
    let family = backbone.network.architecture().family;
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

/// Entries that say nothing about the numbers.
const SILENT: [&str; 12] = [
    "peft_type",
    "task_type",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "auto_mapping",
    "peft_version",
    "modules_to_save",
    "fan_in_fan_out",
    "megatron_core",
    "runtime_config",
    "ensure_weight_tying",
];
const LORA_ONLY: [&str; 9] = [
    "r",
    "lora_alpha",
    "lora_dropout",
    "target_modules",
    "use_rslora",
    "use_dora",
    "init_lora_weights",
    "loftq_config",
    "qalora_group_size",
];
const IA3_ONLY: [&str; 3] = ["target_modules", "feedforward_modules", "init_ia3_weights"];
const VERA_ONLY: [&str; 7] = [
    "r",
    "target_modules",
    "vera_dropout",
    "d_initial",
    "save_projection",
    "projection_prng_key",
    "init_weights",
];
const PROMPT_ONLY: &[&str] = &[
    "num_virtual_tokens",
    "token_dim",
    "num_transformer_submodules",
    "num_attention_heads",
    "num_layers",
    "prompt_tuning_init",
    "prompt_tuning_init_text",
    "tokenizer_name_or_path",
    "tokenizer_kwargs",
];
const PREFIX_ONLY: &[&str] = &[
    "num_virtual_tokens",
    "token_dim",
    "num_transformer_submodules",
    "num_attention_heads",
    "num_layers",
    "encoder_hidden_size",
];

/// A configuration while it is being understood.
struct Entries<'a>(&'a Map<String, Value>);

impl<'a> Entries<'a> {
    fn of(config: &'a Value) -> Result<Self, Refusal> {
        config.as_object().map(Self).ok_or_else(|| "it is not an object".to_owned())
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>, Refusal> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(format!("`{name}` is {other}, not a text")),
        }
    }

    fn number(&self, name: &str, absent: f64) -> Result<f64, Refusal> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(absent),
            Some(value) => value
                .as_f64()
                .filter(|number| number.is_finite() && *number >= 0.0)
                .ok_or_else(|| format!("`{name}` is {value}, not a number from 0")),
        }
    }

    fn count(&self, name: &str, absent: usize) -> Result<usize, Refusal> {
        let number = self.number(name, absent as f64)?;
        let whole = number.fract() == 0.0 && (1.0..=65_536.0).contains(&number);
        whole.then_some(number as usize).ok_or_else(|| format!("`{name}` is {number}, not a count"))
    }

    fn flag(&self, name: &str) -> bool {
        self.0.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    /// Every entry outside `understood` must hold a value that changes nothing.
    fn only(&self, understood: &[&str]) -> Result<(), Refusal> {
        let others: Vec<&str> = self
            .0
            .keys()
            .map(String::as_str)
            .filter(|name| !SILENT.contains(name) && !understood.contains(name))
            .collect();
        self.neutral(&others)?;
        if self.flag("fan_in_fan_out") {
            return Err("`fan_in_fan_out` is for models with transposed weights".to_owned());
        }
        Ok(())
    }

    fn neutral(&self, names: &[&str]) -> Result<(), Refusal> {
        for &name in names {
            let Some(value) = self.0.get(name) else { continue };
            let nothing = match value {
                Value::Null | Value::Bool(false) => true,
                Value::Array(items) => items.is_empty(),
                Value::Object(items) => items.is_empty(),
                Value::Number(number) => number.as_f64() == Some(0.0),
                Value::String(text) => text == "none" || text.is_empty(),
                Value::Bool(true) => false,
            };
            // The exact length of what replaces a tokenizer's text, a layout hint and the like have
            // neutral defaults of their own.
            let default = matches!(
                (name, value.as_str(), value.as_f64()),
                ("megatron_core", Some("megatron.core"), _)
                    | ("monteclora_config" | "arrow_config", None, None)
            );
            if !nothing && !default {
                return Err(format!("`{name}` = {value} is not supported"));
            }
        }
        Ok(())
    }

    fn names(&self, name: &str) -> Result<Vec<String>, Refusal> {
        match self.0.get(name) {
            Some(Value::String(all)) if all == "all-linear" => Ok(vec![all.clone()]),
            Some(Value::String(pattern)) => {
                Err(format!("`{name}` is the pattern `{pattern}`; list the modules instead"))
            }
            Some(Value::Array(items)) => items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect::<Option<Vec<_>>>()
                .map(|mut names| {
                    names.sort_unstable();
                    names
                })
                .ok_or_else(|| format!("`{name}` holds something that is not a text")),
            _ => Err(format!("`{name}` is missing")),
        }
    }

    fn lora(&self) -> Result<LoraSpec, Refusal> {
        self.only(&LORA_ONLY)?;
        self.neutral(&["loftq_config"])?;
        // Initialisations that leave the base weights as they are.
        match self.0.get("init_lora_weights") {
            None | Some(Value::Null | Value::Bool(_)) => {}
            Some(Value::String(name)) if name == "gaussian" => {}
            Some(other) => {
                let advice = "it changes the base weights; convert it to plain LoRA first";
                return Err(format!("`init_lora_weights` = {other} is not supported: {advice}"));
            }
        }
        Ok(LoraSpec {
            rank: self.count("r", 8)?,
            alpha: self.number("lora_alpha", 8.0)?,
            targets: self.names("target_modules")?,
            rank_stabilized: self.flag("use_rslora"),
            dora: self.flag("use_dora"),
            dropout: self.number("lora_dropout", 0.0)?.min(0.99),
            init: Init::Kaiming,
        })
    }

    fn ia3(&self) -> Result<Ia3Spec, Refusal> {
        self.only(&IA3_ONLY)?;
        let feedforward = match self.0.get("feedforward_modules") {
            None | Some(Value::Null) => Vec::new(),
            Some(_) => self.names("feedforward_modules")?,
        };
        Ok(Ia3Spec { targets: self.names("target_modules")?, feedforward })
    }

    fn vera(&self, stored: &BTreeMap<String, Tensor>) -> Result<VeraSpec, Refusal> {
        self.only(&VERA_ONLY)?;
        if !stored.contains_key("base_model.vera_A") {
            let advice = "save it with `save_projection=True`";
            return Err(format!("the shared projections are not in the file; {advice}"));
        }
        Ok(VeraSpec {
            rank: self.count("r", 256)?,
            targets: self.names("target_modules")?,
            d_initial: self.number("d_initial", 0.1)?,
            dropout: self.number("vera_dropout", 0.0)?.min(0.99),
        })
    }

    fn virtual_tokens(&self, understood: &[&str]) -> Result<usize, Refusal> {
        self.only(understood)?;
        if self.count("num_transformer_submodules", 1)? != 1 {
            return Err("`num_transformer_submodules` other than 1 is not supported".to_owned());
        }
        self.count("num_virtual_tokens", 1)
    }

    fn head(&self, stored: &BTreeMap<String, Tensor>, family: Family) -> Result<HeadSpec, Refusal> {
        let Some(mut head) = HeadSpec::sequence_classification(Vec::new(), family) else {
            return Err(format!("SEQ_CLS of {} is not supported", family.name()));
        };
        let (out, dense) = head.paths(family);
        head.labels = labels(stored, out)?;
        if let Some(dense) = dense
            && head_weight(stored, dense).is_none()
        {
            let advice = "add it to `modules_to_save`";
            return Err(format!("`{dense}` is not in the file, and was random; {advice}"));
        }
        Ok(head)
    }

    fn token_head(
        &self,
        stored: &BTreeMap<String, Tensor>,
        family: Family,
    ) -> Result<HeadSpec, Refusal> {
        if family == Family::ModernBert {
            return Err("TOKEN_CLS of modernbert is not supported".to_owned());
        }
        let mut head = HeadSpec {
            labels: Vec::new(),
            pooling: Pooling::Last,
            per_token: true,
            standardize: false,
            bias: true,
            dense: false,
        };
        let (out, _) = head.paths(family);
        head.labels = labels(stored, out)?;
        Ok(head)
    }
}

/// Numbers as labels, as many as the head in the file has outputs.
fn labels(stored: &BTreeMap<String, Tensor>, out: &str) -> Result<Vec<String>, Refusal> {
    let missing = || format!("`{PREFIX}{out}.weight` is not in the file");
    let weight = head_weight(stored, out).ok_or_else(missing)?;
    let count = weight.dims().first().copied().unwrap_or(0);
    Ok((0..count).map(|label| label.to_string()).collect())
}

/// The weight of a head's layer, whatever PEFT put before its name.
fn head_weight<'a>(stored: &'a BTreeMap<String, Tensor>, path: &str) -> Option<&'a Tensor> {
    [PREFIX, OUTER].iter().find_map(|prefix| stored.get(&format!("{prefix}{path}.weight")))
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
