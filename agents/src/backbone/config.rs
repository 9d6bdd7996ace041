//! Reads `config.json` of a Hugging Face directory into an [`Architecture`].
//!
//! Understands both spellings of rotary settings (`rope_theta` with `rope_scaling`, and the newer
//! `rope_parameters`). What a configuration asks for and we do not have is refused, never ignored.

mod decoder;
mod encoder;
mod rotary;

use std::path::Path;

use serde_json::Value;

pub use self::decoder::DecoderConfig;
use super::architecture::{Activation, Architecture, Family};
use crate::error::{ModelError, Result};

/// Upper bounds that keep a hostile configuration from asking for absurd memory.
const LARGEST: usize = 1 << 24;
const DEEPEST: usize = 1024;

impl Architecture {
    /// Parses and checks a `config.json`.
    ///
    /// # Errors
    /// When it is not JSON, names a family that is not ours, asks for something we do not have, or its
    /// numbers do not fit together.
    pub fn from_json(json: &str, path: &Path) -> Result<Self> {
        let malformed = |reason: String| ModelError::Malformed {
            path: path.into(),
            what: "model configuration",
            reason,
        };
        let value: Value = serde_json::from_str(json).map_err(|e| malformed(e.to_string()))?;
        let named = value.get("model_type").and_then(Value::as_str).unwrap_or("llama");
        let Some((family, _)) = Family::ALL.into_iter().find(|(_, name)| *name == named) else {
            return Err(refuse(format!("model_type {named}")));
        };
        for unknown in ["quantization_config", "encoder_layers", "final_logit_softcapping"] {
            if value.get(unknown).is_some_and(|v| !v.is_null()) {
                return Err(refuse(format!("{named} with {unknown}")));
            }
        }
        let architecture = if family.is_decoder() {
            let file: DecoderConfig =
                serde_json::from_value(value).map_err(|e| malformed(e.to_string()))?;
            file.architecture()?
        } else {
            encoder::parse(family, value, malformed)?
        };
        architecture.check()?;
        Ok(architecture)
    }

    fn check(&self) -> Result<()> {
        let name = self.family.name();
        let sizes = [
            self.hidden,
            self.inner,
            self.heads,
            self.key_heads,
            self.head_width,
            self.vocabulary,
            self.positions,
        ];
        if sizes.iter().any(|&size| size == 0 || size > LARGEST) {
            return Err(refuse(format!("{name} with a dimension outside 1..={LARGEST}")));
        }
        let rows = [self.token_types, self.first_position.unwrap_or(0)];
        if rows.iter().any(|&rows| rows > LARGEST) {
            return Err(refuse(format!("{name} with a table of more than {LARGEST} rows")));
        }
        // A token that sees not even itself has no state.
        if self.family.is_decoder() && self.layers.iter().any(|layer| layer.window == Some(0)) {
            return Err(refuse(format!("{name} with a sliding window of 0")));
        }
        if self.depth() == 0 || self.depth() > DEEPEST {
            return Err(refuse(format!("{name} with a depth outside 1..={DEEPEST}")));
        }
        let rotary = self.layers.iter().any(|layer| layer.rope.is_some());
        if !self.heads.is_multiple_of(self.key_heads)
            || (rotary && !self.head_width.is_multiple_of(2))
            || self.heads.saturating_mul(self.head_width) > LARGEST
        {
            return Err(refuse(format!("{name} whose heads do not divide its width")));
        }
        Ok(())
    }
}

/// The refusal that lists what there is.
fn refuse(found: String) -> ModelError {
    let names: Vec<&str> = Family::ALL.iter().map(|(_, name)| *name).collect();
    ModelError::Architecture { found, supported: names.join(", ") }
}

/// An activation by the name configurations give it.
fn activation(name: &str) -> Result<Activation> {
    match name {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluTanh),
        "relu" => Ok(Activation::Relu),
        other => Err(refuse(format!("activation {other}"))),
    }
}
