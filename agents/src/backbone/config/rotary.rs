//! Rotary settings of a `config.json`, in the older and the newer spelling.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::refuse;
use crate::backbone::rope::{Rope, Scaling};
use crate::error::Result;

/// `rope_scaling`, or one entry of `rope_parameters`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct RopeFile {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
    beta_fast: Option<f64>,
    beta_slow: Option<f64>,
    attention_factor: Option<f64>,
    mscale: Option<f64>,
    mscale_all_dim: Option<f64>,
    truncate: Option<bool>,
    partial_rotary_factor: Option<f64>,
}

/// The rotary embedding that `value` describes, for a context of `positions`.
pub(super) fn parse(value: Option<&Value>, theta: f64, positions: usize) -> Result<Rope> {
    let file: RopeFile = match value {
        None | Some(Value::Null) => RopeFile::default(),
        Some(value) => serde_json::from_value(value.clone())
            .map_err(|error| refuse(format!("rotary settings {value}: {error}")))?,
    };
    if file.partial_rotary_factor.is_some_and(|share| (share - 1.0).abs() > 1e-9) {
        return Err(refuse("partial_rotary_factor other than 1".to_owned()));
    }
    let theta = file.rope_theta.unwrap_or(theta);
    let number = |value: Option<f64>, name: &str| {
        let value = value.ok_or_else(|| refuse(format!("rotary settings without {name}")))?;
        let good = value.is_finite() && value > 0.0;
        good.then_some(value).ok_or_else(|| refuse(format!("rotary settings with {name} {value}")))
    };
    number(Some(theta), "rope_theta")?;
    let original = file.original_max_position_embeddings;
    let scaling = match file.rope_type.as_deref().unwrap_or("default") {
        "default" => Scaling::None,
        "linear" => Scaling::Linear { factor: number(file.factor, "factor")? },
        "llama3" => Scaling::Llama3 {
            factor: number(file.factor, "factor")?,
            low: number(file.low_freq_factor, "low_freq_factor")?,
            high: number(file.high_freq_factor, "high_freq_factor")?,
            original: number(original, "original_max_position_embeddings")?,
        },
        "yarn" => {
            let original = original.unwrap_or(positions as f64);
            let factor = number(file.factor, "factor")?;
            Scaling::Yarn {
                factor,
                fast: number(file.beta_fast.or(Some(32.0)), "beta_fast")?,
                slow: number(file.beta_slow.or(Some(1.0)), "beta_slow")?,
                original: number(Some(original), "original_max_position_embeddings")?,
                attention: file.attention_factor.unwrap_or_else(|| temperature(&file, factor)),
                truncate: file.truncate.unwrap_or(true),
            }
        }
        other => return Err(refuse(format!("rope_type {other}"))),
    };
    Ok(Rope { theta, scaling })
}

/// YaRN's factor on attention, `0.1 · m · ln(factor) + 1`.
fn temperature(file: &RopeFile, factor: f64) -> f64 {
    let scale = |m: f64| if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
    match (file.mscale, file.mscale_all_dim) {
        (Some(one), Some(all)) => scale(one) / scale(all),
        _ => scale(1.0),
    }
}
