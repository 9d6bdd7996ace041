//! Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685): `y = Wx + (alpha/rank)·B(Ax)`.
//!
//! `A` `[rank, in]` starts uniform (Kaiming, as PEFT does), `B` `[out, rank]` at zero, so a new adapter
//! changes nothing. Names on disk follow PEFT.

use candle_core::{Device, Tensor};
use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::backbone::DecoderConfig;
use crate::error::Result;
use crate::seed::Seed;

/// A linear map inside a layer that LoRA can adapt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Module {
    /// Queries.
    #[serde(rename = "q_proj")]
    Query,
    /// Keys.
    #[serde(rename = "k_proj")]
    Key,
    /// Values.
    #[serde(rename = "v_proj")]
    Value,
    /// Attention output.
    #[serde(rename = "o_proj")]
    Output,
    /// Gate of the feed-forward block.
    #[serde(rename = "gate_proj")]
    Gate,
    /// Input of the feed-forward block.
    #[serde(rename = "up_proj")]
    Up,
    /// Output of the feed-forward block.
    #[serde(rename = "down_proj")]
    Down,
}

impl Module {
    /// Every module, in the order of a forward pass.
    pub const ALL: [Self; 7] =
        [Self::Query, Self::Key, Self::Value, Self::Output, Self::Gate, Self::Up, Self::Down];

    /// The module's path inside a layer, as in a checkpoint.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Query => "self_attn.q_proj",
            Self::Key => "self_attn.k_proj",
            Self::Value => "self_attn.v_proj",
            Self::Output => "self_attn.o_proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
        }
    }

    /// The module's name as scenarios and PEFT configurations write it, such as `q_proj`.
    #[must_use]
    pub fn short(self) -> &'static str {
        let path = self.path();
        path.rsplit('.').next().unwrap_or(path)
    }
}

/// How a LoRA adapter is shaped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoraSpec {
    /// Rank of the update.
    pub rank: usize,
    /// Numerator of the scale `alpha / rank`.
    pub alpha: f64,
    /// Which modules are adapted, in every layer.
    pub targets: Vec<Module>,
}

/// The update of one module of one layer.
#[derive(Clone, Debug)]
pub struct Lora {
    /// `[rank, in]`.
    pub a: Tensor,
    /// `[out, rank]`.
    pub b: Tensor,
    /// `alpha / rank`.
    pub scale: f64,
}

/// The names of `A` and `B` of one module.
#[must_use]
pub fn names(layer: usize, module: Module) -> (String, String) {
    let path = format!("model.layers.{layer}.{}", module.path());
    (format!("{path}.lora_A.weight"), format!("{path}.lora_B.weight"))
}

/// The tensors a new adapter starts from.
///
/// # Errors
/// On a tensor failure only.
pub fn initial(
    spec: &LoraSpec,
    config: &DecoderConfig,
    seed: Seed,
    device: &Device,
) -> Result<Vec<(String, Tensor)>> {
    let mut tensors = Vec::new();
    for layer in 0..config.num_hidden_layers {
        let shapes = config.layer_weights(layer);
        for &module in &spec.targets {
            let name = format!("model.layers.{layer}.{}.weight", module.path());
            let Some((_, shape)) = shapes.iter().find(|(found, _)| *found == name) else {
                continue;
            };
            let (out, width) = (shape[0], shape[1]);
            let (a, b) = names(layer, module);
            // Kaiming uniform with a = sqrt(5): the bound is 1/sqrt(in).
            let bound = 1.0 / (width as f32).sqrt();
            let mut stream = seed.child(&a).stream();
            let values: Vec<f32> =
                (0..spec.rank * width).map(|_| stream.random_range(-bound..bound)).collect();
            tensors.push((a, Tensor::from_vec(values, (spec.rank, width), device)?));
            tensors.push((b, Tensor::zeros((out, spec.rank), candle_core::DType::F32, device)?));
        }
    }
    Ok(tensors)
}
