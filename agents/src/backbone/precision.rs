//! The type of numbers that a network computes in. Adapters, their optimisers and losses are in f32 whatever it is.

use std::str::FromStr;

use candle_core::DType;
use serde::{Deserialize, Serialize};

use crate::error::ModelError;

/// How the weights of a backbone are kept and what its activations are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits with the range of 32: half of the memory, two to three decimal places.
    Bf16,
    /// 16 bits with three to four decimal places and a small range, in which a training may overflow.
    F16,
}

impl Precision {
    /// All, each with its name in files and on command lines.
    pub const NAMES: [(&str, Self); 3] =
        [("f32", Self::F32), ("bf16", Self::Bf16), ("f16", Self::F16)];

    /// candle's name.
    #[must_use]
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }

    /// Bytes of a number.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.dtype().size_in_bytes() as u64
    }
}

impl FromStr for Precision {
    type Err = ModelError;

    /// Reads `f32`, `bf16` or `f16`.
    fn from_str(text: &str) -> Result<Self, ModelError> {
        let found = Self::NAMES.into_iter().find(|(name, _)| *name == text);
        found.map(|(_, precision)| precision).ok_or_else(|| ModelError::Setting {
            what: "the dtype",
            found: text.to_owned(),
            expected: "f32, bf16 or f16",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_names_everywhere() {
        for (precision, bytes) in [(Precision::F32, 4), (Precision::Bf16, 2), (Precision::F16, 2)] {
            let name = precision.dtype().as_str();
            assert_eq!(serde_json::to_value(precision).unwrap(), name);
            assert_eq!((name.parse::<Precision>().unwrap(), precision.bytes()), (precision, bytes));
        }
        assert!("float".parse::<Precision>().unwrap_err().to_string().contains("bf16"));
    }
}
