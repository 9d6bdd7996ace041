//! The entries of PEFT's `adapter_config.json` while they are being understood.
//!
//! Every entry that PEFT writes is either understood or must hold a value that changes nothing.

use std::collections::BTreeMap;

use candle_core::Tensor;
use serde_json::{Map, Value};

use super::{OUTER, PREFIX, Refusal};
use crate::adapter::head::{HeadSpec, Pooling};
use crate::adapter::ia3::Ia3Spec;
use crate::adapter::lora::{Init, LoraSpec};
use crate::adapter::vera::VeraSpec;
use crate::backbone::architecture::Family;

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
pub(super) const PROMPT_ONLY: &[&str] = &[
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
pub(super) const PREFIX_ONLY: &[&str] = &[
    "num_virtual_tokens",
    "token_dim",
    "num_transformer_submodules",
    "num_attention_heads",
    "num_layers",
    "encoder_hidden_size",
];

/// A configuration while it is being understood.
pub(super) struct Entries<'a>(&'a Map<String, Value>);

impl<'a> Entries<'a> {
    pub(super) fn of(config: &'a Value) -> Result<Self, Refusal> {
        config.as_object().map(Self).ok_or_else(|| "it is not an object".to_owned())
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, Refusal> {
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

    pub(super) fn neutral(&self, names: &[&str]) -> Result<(), Refusal> {
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

    pub(super) fn lora(&self) -> Result<LoraSpec, Refusal> {
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

    pub(super) fn ia3(&self) -> Result<Ia3Spec, Refusal> {
        self.only(&IA3_ONLY)?;
        let feedforward = match self.0.get("feedforward_modules") {
            None | Some(Value::Null) => Vec::new(),
            Some(_) => self.names("feedforward_modules")?,
        };
        Ok(Ia3Spec { targets: self.names("target_modules")?, feedforward })
    }

    pub(super) fn vera(&self, stored: &BTreeMap<String, Tensor>) -> Result<VeraSpec, Refusal> {
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

    pub(super) fn virtual_tokens(&self, understood: &[&str]) -> Result<usize, Refusal> {
        self.only(understood)?;
        if self.count("num_transformer_submodules", 1)? != 1 {
            return Err("`num_transformer_submodules` other than 1 is not supported".to_owned());
        }
        self.count("num_virtual_tokens", 1)
    }

    pub(super) fn head(
        &self,
        stored: &BTreeMap<String, Tensor>,
        family: Family,
    ) -> Result<HeadSpec, Refusal> {
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

    pub(super) fn token_head(
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
pub(super) fn labels(stored: &BTreeMap<String, Tensor>, out: &str) -> Result<Vec<String>, Refusal> {
    let missing = || format!("`{PREFIX}{out}.weight` is not in the file");
    let weight = head_weight(stored, out).ok_or_else(missing)?;
    let count = weight.dims().first().copied().unwrap_or(0);
    Ok((0..count).map(|label| label.to_string()).collect())
}

/// The weight of a head's layer, whatever PEFT put before its name.
fn head_weight<'a>(stored: &'a BTreeMap<String, Tensor>, path: &str) -> Option<&'a Tensor> {
    [PREFIX, OUTER].iter().find_map(|prefix| stored.get(&format!("{prefix}{path}.weight")))
}
