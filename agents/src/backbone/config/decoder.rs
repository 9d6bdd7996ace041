//! Decoders: `config.json` of Llama and its relatives.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{activation, refuse, rotary};
use crate::backbone::architecture::{Architecture, Biases, Family, LayerShape, NormKind};
use crate::error::Result;

/// The entries of a decoder's `config.json` that matter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DecoderConfig {
    /// Which family.
    pub model_type: String,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward block.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_key_value_heads: Option<usize>,
    /// Width of one head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// Number of tokens in the vocabulary.
    pub vocab_size: usize,
    /// Longest text in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_position_embeddings: Option<usize>,
    /// Added to the mean square in RMSNorm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rms_norm_eps: Option<f64>,
    /// Base of the rotary frequencies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_theta: Option<f64>,
    /// Whether the output head is the embedding matrix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tie_word_embeddings: Option<bool>,
    /// The activation.
    #[serde(alias = "hidden_activation", skip_serializing_if = "Option::is_none")]
    pub hidden_act: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rope_scaling: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rope_parameters: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rope_local_base_freq: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partial_rotary_factor: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    original_max_position_embeddings: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attention_bias: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mlp_bias: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sliding_window: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    use_sliding_window: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_window_layers: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layer_types: Option<Vec<String>>,
    #[serde(alias = "_sliding_window_pattern", skip_serializing_if = "Option::is_none")]
    sliding_window_pattern: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    no_rope_layers: Option<Vec<usize>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    no_rope_layer_interval: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query_pre_attn_scalar: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attn_logit_softcapping: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    use_bidirectional_attention: Option<bool>,
}

impl DecoderConfig {
    /// The network that these entries describe.
    ///
    /// # Errors
    /// When they ask for something we do not have.
    pub fn architecture(&self) -> Result<Architecture> {
        let family = Family::ALL.into_iter().find(|(_, name)| *name == self.model_type);
        let family = family.map_or(Family::Llama, |(family, _)| family);
        let softcap = self.attn_logit_softcapping.is_some();
        if softcap || self.use_bidirectional_attention == Some(true) {
            return Err(refuse(format!(
                "{} with soft-capped or bidirectional attention",
                family.name()
            )));
        }
        if self.partial_rotary_factor.is_some_and(|share| (share - 1.0).abs() > 1e-9) {
            return Err(refuse("partial_rotary_factor other than 1".to_owned()));
        }
        let gemma = family == Family::Gemma3;
        let heads = self.num_attention_heads.max(1);
        if self.head_dim.is_none() && !self.hidden_size.is_multiple_of(heads) {
            return Err(refuse(format!("{} whose heads do not divide its width", family.name())));
        }
        let head_width = match (self.head_dim, family) {
            (Some(width), _) => width,
            (None, Family::Gemma3) => 256,
            (None, Family::Qwen3) => 128,
            (None, _) => self.hidden_size / heads,
        };
        let positions = self.max_position_embeddings.unwrap_or(2048);
        let ropes = self.ropes(family, positions)?;
        let scalar = self.query_pre_attn_scalar.unwrap_or(head_width as f64);
        let attention_bias = self.attention_bias.unwrap_or(false);
        Ok(Architecture {
            family,
            hidden: self.hidden_size,
            inner: self.intermediate_size,
            heads: self.num_attention_heads,
            key_heads: self.num_key_value_heads.unwrap_or(self.num_attention_heads).max(1),
            head_width,
            vocabulary: self.vocab_size,
            positions,
            norm: if gemma { NormKind::RmsFromOne } else { NormKind::Rms },
            epsilon: self.rms_norm_eps.unwrap_or(1e-6),
            activation: activation(self.hidden_act.as_deref().unwrap_or(if gemma {
                "gelu_pytorch_tanh"
            } else {
                "silu"
            }))?,
            attention_scale: 1.0 / scalar.max(f64::MIN_POSITIVE).sqrt(),
            embedding_scale: if gemma { f64::from((self.hidden_size as f32).sqrt()) } else { 1.0 },
            biases: Biases {
                input: attention_bias || family == Family::Qwen2,
                output: attention_bias,
                mlp: self.mlp_bias.unwrap_or(false),
                norm: false,
            },
            query_key_norm: matches!(family, Family::Qwen3 | Family::Gemma3),
            layers: self.layers(family, ropes.len()),
            ropes,
            tied: self
                .tie_word_embeddings
                .unwrap_or(matches!(family, Family::Gemma3 | Family::SmolLm3)),
            first_position: None,
            token_types: 0,
        })
    }

    /// The global rotary embedding, and for Gemma the one of local layers.
    fn ropes(&self, family: Family, positions: usize) -> Result<Vec<crate::backbone::rope::Rope>> {
        let newer = self.rope_parameters.as_ref();
        let kind = |name: &str| newer.and_then(|value| value.get(name));
        let theta = self.rope_theta.unwrap_or(match family {
            Family::Gemma3 => 1e6,
            Family::SmolLm3 => 2e6,
            _ => 1e4,
        });
        let flat = kind("full_attention").or(newer).or(self.rope_scaling.as_ref());
        let mut ropes = vec![rotary::parse(flat, theta, positions)?];
        if family == Family::Gemma3 {
            let theta = self.rope_local_base_freq.unwrap_or(1e4);
            ropes.push(rotary::parse(kind("sliding_attention"), theta, positions)?);
        }
        Ok(ropes)
    }

    fn layers(&self, family: Family, ropes: usize) -> Vec<LayerShape> {
        let all =
            !matches!(family, Family::Qwen2 | Family::Qwen3 | Family::SmolLm3 | Family::Gemma3);
        let on = self.use_sliding_window.unwrap_or(all || family == Family::Gemma3);
        let slides = |layer: usize| match (&self.layer_types, family) {
            (Some(types), _) => types.get(layer).is_some_and(|kind| kind == "sliding_attention"),
            (None, Family::Gemma3) => {
                !(layer + 1).is_multiple_of(self.sliding_window_pattern.unwrap_or(6).max(1))
            }
            (None, Family::Qwen2 | Family::Qwen3 | Family::SmolLm3) => {
                layer >= self.max_window_layers.unwrap_or(28)
            }
            (None, _) => matches!(family, Family::Mistral | Family::Phi3),
        };
        let turns = |layer: usize| match (family, &self.no_rope_layers) {
            (Family::SmolLm3, Some(list)) => list.get(layer).is_none_or(|&flag| flag != 0),
            (Family::SmolLm3, None) => {
                !(layer + 1).is_multiple_of(self.no_rope_layer_interval.unwrap_or(4).max(1))
            }
            _ => true,
        };
        // An absurd depth is refused by the check that follows; it must not be allocated before.
        (0..self.num_hidden_layers.min(super::DEEPEST + 1))
            .map(|layer| {
                let window = if on && slides(layer) { self.sliding_window } else { None };
                let local = ropes > 1 && window.is_some();
                LayerShape { window, rope: turns(layer).then_some(usize::from(local)) }
            })
            .collect()
    }
}
