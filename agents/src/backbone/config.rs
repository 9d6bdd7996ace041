//! The shape of a decoder, as `config.json` in a Hugging Face directory states it.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::{ModelError, Result};

/// Upper bounds that keep a hostile configuration from asking for absurd memory.
const LARGEST: usize = 1 << 20;

/// A Llama-architecture decoder's dimensions (Touvron et al. 2023, arXiv 2302.13971).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecoderConfig {
    /// Which family; only `llama` is accepted.
    #[serde(default = "llama")]
    pub model_type: String,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward block.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; fewer than query heads in grouped-query attention.
    #[serde(default)]
    pub num_key_value_heads: Option<usize>,
    /// Width of one head; `hidden_size / num_attention_heads` where absent.
    #[serde(default)]
    pub head_dim: Option<usize>,
    /// Number of tokens in the vocabulary.
    pub vocab_size: usize,
    /// Longest text in tokens.
    #[serde(default = "two_thousand")]
    pub max_position_embeddings: usize,
    /// Added to the mean square in RMSNorm.
    #[serde(default = "small")]
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    #[serde(default = "ten_thousand")]
    pub rope_theta: f64,
    /// Whether the output head is the embedding matrix.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Rotary scaling of long-context models; refused where present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<serde_json::Value>,
    /// Biases in attention; refused where true.
    #[serde(default)]
    pub attention_bias: bool,
    /// Biases in the feed-forward block; refused where true.
    #[serde(default)]
    pub mlp_bias: bool,
    /// The activation; only `silu` is accepted.
    #[serde(default = "silu")]
    pub hidden_act: String,
}

fn llama() -> String {
    "llama".to_owned()
}
fn silu() -> String {
    "silu".to_owned()
}
fn two_thousand() -> usize {
    2048
}
fn small() -> f64 {
    1e-6
}
fn ten_thousand() -> f64 {
    1e4
}

impl DecoderConfig {
    /// Parses and checks a `config.json`.
    ///
    /// # Errors
    /// When it is not JSON, names another architecture, or its numbers do not fit together.
    pub fn from_json(json: &str, path: &Path) -> Result<Self> {
        let config: Self = serde_json::from_str(json).map_err(|e| ModelError::Malformed {
            path: path.into(),
            what: "model configuration",
            reason: e.to_string(),
        })?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        let refuse = |found: String| {
            Err(ModelError::Architecture {
                found,
                supported: "llama (RoPE, RMSNorm, SwiGLU, no biases, no RoPE scaling)",
            })
        };
        if self.model_type != "llama" {
            return refuse(self.model_type.clone());
        }
        if self.rope_scaling.as_ref().is_some_and(|value| !value.is_null()) {
            return refuse("llama with rope_scaling".to_owned());
        }
        if self.attention_bias || self.mlp_bias || self.hidden_act != "silu" {
            return refuse("llama with biases or another activation".to_owned());
        }
        let sizes = [
            self.hidden_size,
            self.intermediate_size,
            self.num_hidden_layers,
            self.num_attention_heads,
            self.key_value_heads(),
            self.vocab_size,
            self.max_position_embeddings,
        ];
        if sizes.iter().any(|&size| size == 0 || size > LARGEST) {
            return refuse(format!("llama with a dimension outside 1..={LARGEST}"));
        }
        if !self.num_attention_heads.is_multiple_of(self.key_value_heads())
            || !self.head_width().is_multiple_of(2)
            || (self.head_dim.is_none()
                && !self.hidden_size.is_multiple_of(self.num_attention_heads))
        {
            return refuse("llama whose heads do not divide its width".to_owned());
        }
        Ok(())
    }

    /// Key and value heads.
    #[must_use]
    pub fn key_value_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    /// Width of one head.
    #[must_use]
    pub fn head_width(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    /// The name and shape of every weight, in checkpoint order.
    #[must_use]
    pub fn weights(&self) -> Vec<(String, Vec<usize>)> {
        let hidden = self.hidden_size;
        let mut all = vec![("model.embed_tokens.weight".to_owned(), vec![self.vocab_size, hidden])];
        for layer in 0..self.num_hidden_layers {
            all.extend(self.layer_weights(layer));
        }
        all.push(("model.norm.weight".to_owned(), vec![hidden]));
        if !self.tie_word_embeddings {
            all.push(("lm_head.weight".to_owned(), vec![self.vocab_size, hidden]));
        }
        all
    }

    /// The name and shape of every weight of one layer.
    #[must_use]
    pub fn layer_weights(&self, layer: usize) -> Vec<(String, Vec<usize>)> {
        let hidden = self.hidden_size;
        let inner = self.intermediate_size;
        let query = self.num_attention_heads * self.head_width();
        let key = self.key_value_heads() * self.head_width();
        [
            ("input_layernorm", vec![hidden]),
            ("self_attn.q_proj", vec![query, hidden]),
            ("self_attn.k_proj", vec![key, hidden]),
            ("self_attn.v_proj", vec![key, hidden]),
            ("self_attn.o_proj", vec![hidden, query]),
            ("post_attention_layernorm", vec![hidden]),
            ("mlp.gate_proj", vec![inner, hidden]),
            ("mlp.up_proj", vec![inner, hidden]),
            ("mlp.down_proj", vec![hidden, inner]),
        ]
        .into_iter()
        .map(|(module, shape)| (format!("model.layers.{layer}.{module}.weight"), shape))
        .collect()
    }

    /// Number of parameters.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.weights().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    /// Cosine and sine tables of the rotary embedding (Su et al. 2021), each `[positions, head/2]`.
    pub(crate) fn rotary(&self, device: &Device) -> Result<(Tensor, Tensor)> {
        let width = self.head_width();
        let positions = self.max_position_embeddings;
        let frequencies: Vec<f32> = (0..width / 2)
            .map(|i| 1.0 / self.rope_theta.powf(2.0 * i as f64 / width as f64) as f32)
            .collect();
        let angles: Vec<f32> =
            (0..positions).flat_map(|p| frequencies.iter().map(move |f| p as f32 * f)).collect();
        let angles =
            Tensor::from_vec(angles, (positions, width / 2), device)?.to_dtype(DType::F32)?;
        Ok((angles.cos()?, angles.sin()?))
    }
}
