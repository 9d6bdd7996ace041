//! Encoders: `config.json` of BERT, RoBERTa, DistilBERT and ModernBERT.

use serde::Deserialize;
use serde_json::Value;

use super::{activation, refuse, rotary};
use crate::backbone::architecture::{Architecture, Biases, Family, LayerShape, NormKind};
use crate::error::{ModelError, Result};

/// The entries that matter; DistilBERT has its own names for some.
#[derive(Debug, Deserialize)]
struct EncoderFile {
    #[serde(alias = "dim")]
    hidden_size: usize,
    #[serde(alias = "hidden_dim")]
    intermediate_size: usize,
    #[serde(alias = "n_layers")]
    num_hidden_layers: usize,
    #[serde(alias = "n_heads")]
    num_attention_heads: usize,
    vocab_size: usize,
    #[serde(default = "five_hundred")]
    max_position_embeddings: usize,
    #[serde(alias = "activation", alias = "hidden_activation")]
    hidden_act: Option<String>,
    #[serde(alias = "norm_eps")]
    layer_norm_eps: Option<f64>,
    type_vocab_size: Option<usize>,
    pad_token_id: Option<usize>,
    position_embedding_type: Option<String>,
    norm_bias: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    global_attn_every_n_layers: Option<usize>,
    local_attention: Option<usize>,
    global_rope_theta: Option<f64>,
    local_rope_theta: Option<f64>,
    layer_types: Option<Vec<String>>,
    rope_parameters: Option<Value>,
}

fn five_hundred() -> usize {
    512
}

/// The network that an encoder's configuration describes.
pub(super) fn parse(
    family: Family,
    value: Value,
    malformed: impl Fn(String) -> ModelError,
) -> Result<Architecture> {
    let file: EncoderFile = serde_json::from_value(value).map_err(|e| malformed(e.to_string()))?;
    if file.position_embedding_type.as_deref().is_some_and(|kind| kind != "absolute") {
        return Err(refuse(format!("{} with relative positions", family.name())));
    }
    if file.num_attention_heads == 0 || !file.hidden_size.is_multiple_of(file.num_attention_heads) {
        return Err(refuse(format!("{} whose heads do not divide its width", family.name())));
    }
    let head_width = file.hidden_size / file.num_attention_heads;
    let modern = family == Family::ModernBert;
    // RoBERTa's position table begins after the padding index, and its size counts that in.
    let first = match family {
        Family::Roberta | Family::XlmRoberta => {
            Some(file.pad_token_id.unwrap_or(1).saturating_add(1))
        }
        Family::ModernBert => None,
        _ => Some(0),
    };
    let bias = |given: Option<bool>| given.unwrap_or(!modern);
    let epsilon = match family {
        Family::ModernBert => 1e-5,
        _ => 1e-12,
    };
    let (ropes, layers) = if modern { modern_layers(&file)? } else { (Vec::new(), plain(&file)) };
    Ok(Architecture {
        family,
        hidden: file.hidden_size,
        inner: file.intermediate_size,
        heads: file.num_attention_heads,
        key_heads: file.num_attention_heads,
        head_width,
        vocabulary: file.vocab_size,
        positions: file.max_position_embeddings.saturating_sub(first.unwrap_or(0)),
        norm: NormKind::Layer,
        epsilon: file.layer_norm_eps.unwrap_or(epsilon),
        activation: activation(file.hidden_act.as_deref().unwrap_or("gelu"))?,
        attention_scale: 1.0 / (head_width as f64).sqrt(),
        embedding_scale: 1.0,
        biases: Biases {
            input: bias(file.attention_bias),
            output: bias(file.attention_bias),
            mlp: bias(file.mlp_bias),
            norm: bias(file.norm_bias),
        },
        query_key_norm: false,
        ropes,
        layers,
        tied: true,
        first_position: first,
        token_types: match family {
            Family::DistilBert | Family::ModernBert => 0,
            _ => file.type_vocab_size.unwrap_or(2),
        },
    })
}

fn plain(file: &EncoderFile) -> Vec<LayerShape> {
    vec![LayerShape::default(); file.num_hidden_layers.min(super::DEEPEST + 1)]
}

/// Global layers every so often, local ones between, each kind with its own rotary base.
fn modern_layers(
    file: &EncoderFile,
) -> Result<(Vec<crate::backbone::rope::Rope>, Vec<LayerShape>)> {
    let positions = file.max_position_embeddings;
    let kind = |name: &str| file.rope_parameters.as_ref().and_then(|value| value.get(name));
    let global = file.global_rope_theta.unwrap_or(160_000.0);
    let local = file.local_rope_theta.unwrap_or(10_000.0);
    let ropes = vec![
        rotary::parse(kind("full_attention"), global, positions)?,
        rotary::parse(kind("sliding_attention"), local, positions)?,
    ];
    let every = file.global_attn_every_n_layers.unwrap_or(3).max(1);
    let reach = file.local_attention.unwrap_or(128) / 2;
    let layers = (0..file.num_hidden_layers.min(super::DEEPEST + 1))
        .map(|layer| {
            let slides = match &file.layer_types {
                Some(types) => types.get(layer).is_some_and(|kind| kind == "sliding_attention"),
                None => !layer.is_multiple_of(every),
            };
            LayerShape { window: slides.then_some(reach), rope: Some(usize::from(slides)) }
        })
        .collect();
    Ok((ropes, layers))
}
