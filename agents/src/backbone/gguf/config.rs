//! The `config.json` that a network in a GGUF file would have had at Hugging Face.
//!
//! What the file leaves to its reader's knowledge of a model is filled in as llama.cpp fills it in; what
//! cannot be said in a `config.json` of ours is refused.

use candle_core::quantized::gguf_file;
use candle_core::{DType, Device};
use serde_json::{Value, json};

use super::layout::Kind;
use super::{Gguf, refuse};
use crate::error::Result;

/// Llama 3's settings that every release shares; the file only has their outcome.
const LOW: f64 = 1.0;
const HIGH: f64 = 4.0;
const ORIGINAL: f64 = 8192.0;

/// Entries that change a network in ways that we do not have, unless they are nought or this.
const REFUSED: [(&str, f64); 11] = [
    ("expert_count", 0.0),
    ("attn_logit_softcapping", 0.0),
    ("final_logit_softcapping", 0.0),
    ("attention.scale", 0.0),
    ("attention.clamp_kqv", 0.0),
    ("logit_scale", 0.0),
    ("residual_scale", 0.0),
    ("embedding_scale", 0.0),
    ("rope.scaling.attn_factor", 1.0),
    // Checkpoints mean the whole factor by it, llama.cpp a further one.
    ("rope.scaling.yarn_attn_factor", 0.0),
    ("rope.scaling.yarn_log_multiplier", 0.0),
];

impl Gguf {
    /// The configuration in Hugging Face's terms.
    ///
    /// # Errors
    /// When an entry is missing, or asks for something that we do not have.
    pub fn config(&self) -> Result<Value> {
        for (key, neutral) in REFUSED {
            match self.number(key)? {
                Some(value) if value != 0.0 && value != neutral => {
                    return Err(refuse(&format!("{} with {key} {value}", self.name)));
                }
                _ => {}
            }
        }
        let (hidden, heads) = (self.count("embedding_length")?, self.heads()?);
        let head = match self.number("attention.key_length")? {
            Some(_) => self.count("attention.key_length")?,
            None => hidden / heads.max(1),
        };
        if self.number("attention.value_length")?.is_some_and(|value| value != head as f64) {
            return Err(refuse(&format!("{} with values unlike keys", self.name)));
        }
        let window = self.number("attention.sliding_window")?.filter(|window| *window > 0.0);
        let has = |name: &str| self.content.tensor_infos.contains_key(name);
        let table = self.content.tensor_infos.get("token_embd.weight");
        let mut config = json!({
            "model_type": match self.kind {
                Kind::Gemma3 => "gemma3_text",
                Kind::Llama if window.is_some() => "mistral",
                _ => self.name,
            },
            "hidden_size": hidden,
            "intermediate_size": self.count("feed_forward_length")?,
            "num_hidden_layers": self.count("block_count")?,
            "num_attention_heads": heads,
            "num_key_value_heads": self.key_heads()?,
            "head_dim": head,
            "vocab_size": table.and_then(|info| info.shape.dims().first()).copied().unwrap_or(0),
            "max_position_embeddings": self.count("context_length")?,
            "rms_norm_eps": self.need("attention.layer_norm_rms_epsilon")?,
            "rope_theta": self.theta()?,
            "rope_local_base_freq": self.number("rope.freq_base_swa")?,
            "rope_scaling": self.scaling(head)?,
            "sliding_window": window.map(|window| window as u64),
            "tie_word_embeddings": !has("output.weight"),
        });
        match self.number("rope.dimension_count")? {
            Some(turned) if turned != head as f64 => {
                config["partial_rotary_factor"] = json!(turned / head as f64);
            }
            _ => {}
        }
        match self.kind {
            Kind::Llama => {
                config["attention_bias"] = json!(has("blk.0.attn_q.bias"));
                config["mlp_bias"] = json!(has("blk.0.ffn_gate.bias"));
            }
            Kind::Gemma3 => {
                let period = self.number("attention.sliding_window_pattern")?;
                config["sliding_window_pattern"] = json!(period.map(|period| period as u64));
                // Only the model of 62 layers divides scores by another number, and no entry says so.
                if self.count("block_count")? == 62 {
                    config["query_pre_attn_scalar"] = json!(hidden / heads.max(1));
                }
            }
            _ => {}
        }
        Ok(config)
    }

    /// Number of query heads.
    pub(super) fn heads(&self) -> Result<usize> {
        self.count("attention.head_count")
    }

    /// Number of key heads.
    pub(super) fn key_heads(&self) -> Result<usize> {
        match self.number("attention.head_count_kv")? {
            Some(_) => self.count("attention.head_count_kv"),
            None => self.heads(),
        }
    }

    /// A text entry, by its whole key.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match self.content.metadata.get(key) {
            Some(gguf_file::Value::String(text)) => Some(text),
            _ => None,
        }
    }

    fn theta(&self) -> Result<f64> {
        let usual = if self.kind == Kind::Gemma3 { 1e6 } else { 1e4 };
        Ok(self.number("rope.freq_base")?.unwrap_or(usual))
    }

    /// A number of this architecture, by the rest of its key; none where there is no such entry.
    fn number(&self, key: &str) -> Result<Option<f64>> {
        use gguf_file::Value::{F32, F64, I8, I16, I32, I64, U8, U16, U32, U64};
        let key = format!("{}.{key}", self.name);
        let Some(value) = self.content.metadata.get(&key) else { return Ok(None) };
        let number = match value {
            U8(value) => f64::from(*value),
            U16(value) => f64::from(*value),
            U32(value) => f64::from(*value),
            U64(value) => *value as f64,
            I8(value) => f64::from(*value),
            I16(value) => f64::from(*value),
            I32(value) => f64::from(*value),
            I64(value) => *value as f64,
            // The decimal number that was meant: 1e-5 and not 9.99999974e-6.
            F32(value) => value.to_string().parse().unwrap_or(f64::NAN),
            F64(value) => *value,
            _ => f64::NAN,
        };
        if !number.is_finite() {
            return Err(self.malformed(&format!("{key} is not one finite number")));
        }
        Ok(Some(number))
    }

    fn need(&self, key: &str) -> Result<f64> {
        let missing = || self.malformed(&format!("it has no number {}.{key}", self.name));
        self.number(key)?.ok_or_else(missing)
    }

    /// A number of things: whole, and not absurd.
    fn count(&self, key: &str) -> Result<usize> {
        let value = self.need(key)?;
        if !(0.0..=1e9).contains(&value) || value.fract() != 0.0 {
            return Err(self.malformed(&format!("{}.{key} is {value}", self.name)));
        }
        Ok(value as usize)
    }

    /// `rope_scaling`.
    fn scaling(&self, head: usize) -> Result<Option<Value>> {
        if self.content.tensor_infos.contains_key("rope_factors_long.weight") {
            return Err(refuse(&format!("{} with long and short rotary factors", self.name)));
        }
        if self.content.tensor_infos.contains_key("rope_freqs.weight") {
            return self.llama3(head).map(Some);
        }
        let factor = match self.number("rope.scaling.factor")? {
            Some(factor) => Some(factor),
            None => self.number("rope.scale_linear")?,
        };
        // A factor without a type is linear, as llama.cpp has it.
        match (self.text(&format!("{}.rope.scaling.type", self.name)), factor) {
            (None, None) | (Some("none"), _) => Ok(None),
            (None | Some("linear"), Some(factor)) => {
                Ok(Some(json!({"rope_type": "linear", "factor": factor})))
            }
            (Some("yarn"), Some(factor)) => Ok(Some(json!({
                "rope_type": "yarn",
                "factor": factor,
                "original_max_position_embeddings":
                    self.number("rope.scaling.original_context_length")?,
                "beta_fast": self.number("rope.scaling.yarn_beta_fast")?,
                "beta_slow": self.number("rope.scaling.yarn_beta_slow")?,
            }))),
            (kind, _) => {
                let kind = kind.unwrap_or("unnamed");
                Err(refuse(&format!("{} with rotary scaling {kind}", self.name)))
            }
        }
    }

    /// Llama 3's scaling, found again from what each frequency is divided by.
    fn llama3(&self, head: usize) -> Result<Value> {
        let found: Vec<f32> = self
            .stored("rope_freqs.weight", &[head / 2], None, &Device::Cpu)?
            .dequantize()?
            .to_dtype(DType::F32)?
            .to_vec1()?;
        let (theta, factor) = (self.theta()?, f64::from(found.iter().copied().fold(1.0, f32::max)));
        for (index, &found) in found.iter().enumerate() {
            let turn = theta.powf(2.0 * index as f64 / head as f64) * std::f64::consts::TAU;
            let smooth = ((ORIGINAL / turn - LOW) / (HIGH - LOW)).clamp(0.0, 1.0);
            let expected = 1.0 / ((1.0 - smooth) / factor + smooth);
            let close = (f64::from(found) - expected).abs() < 1e-3 * expected;
            if !close {
                return Err(refuse(&format!("{} with rotary factors of its own", self.name)));
            }
        }
        Ok(json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": LOW,
            "high_freq_factor": HIGH,
            "original_max_position_embeddings": ORIGINAL,
        }))
    }
}
