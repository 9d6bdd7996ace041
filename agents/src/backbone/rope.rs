//! Rotary positions (Su et al. 2021, arXiv 2104.09864) and the ways long-context models stretch them.
//!
//! Gives tables of cosines and sines; the rotation itself is a differentiable operation.

use candle_core::{Device, Tensor};

use crate::error::Result;

/// One rotary embedding of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// How positions beyond the trained ones are reached.
    pub scaling: Scaling,
}

/// How frequencies differ from the plain ones.
#[derive(Clone, Debug, PartialEq)]
pub enum Scaling {
    /// Not at all.
    None,
    /// Every position divided by a factor (Chen et al. 2023, arXiv 2306.15595).
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Long waves divided by a factor, short ones kept, a ramp between (Llama 3.1).
    Llama3 {
        /// The factor of long waves.
        factor: f64,
        /// Waves longer than `original / low` are divided.
        low: f64,
        /// Waves shorter than `original / high` are kept.
        high: f64,
        /// Context the model was first trained on.
        original: f64,
    },
    /// Interpolation by parts with a correction of the attention's temperature (Peng et al. 2023,
    /// arXiv 2309.00071).
    Yarn {
        /// The factor of long waves.
        factor: f64,
        /// Rotations within the original context above which a wave is kept.
        fast: f64,
        /// Rotations below which a wave is divided.
        slow: f64,
        /// Context the model was first trained on.
        original: f64,
        /// Factor on cosines and sines.
        attention: f64,
        /// Whether the ramp begins and ends at whole dimensions.
        truncate: bool,
    },
}

impl Rope {
    /// Inverse frequencies of heads of `width`, `width / 2` of them.
    #[must_use]
    pub fn frequencies(&self, width: usize) -> Vec<f64> {
        let half = width / 2;
        let plain = (0..half).map(|i| self.theta.powf(-2.0 * i as f64 / width as f64));
        match &self.scaling {
            Scaling::None => plain.collect(),
            Scaling::Linear { factor } => plain.map(|f| f / factor).collect(),
            Scaling::Llama3 { factor, low, high, original } => plain
                .map(|f| {
                    let wave = std::f64::consts::TAU / f;
                    if wave > original / low {
                        f / factor
                    } else if wave < original / high {
                        f
                    } else {
                        let smooth = (original / wave - low) / (high - low);
                        (1.0 - smooth) * f / factor + smooth * f
                    }
                })
                .collect(),
            Scaling::Yarn { factor, fast, slow, original, truncate, .. } => {
                let dimension = |rotations: f64| {
                    width as f64 * (original / (rotations * std::f64::consts::TAU)).ln()
                        / (2.0 * self.theta.ln())
                };
                let (mut low, mut high) = (dimension(*fast), dimension(*slow));
                if *truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                let (low, mut high) = (low.max(0.0), high.min(width as f64 - 1.0));
                if (high - low).abs() < f64::EPSILON {
                    high += 0.001;
                }
                plain
                    .enumerate()
                    .map(|(i, f)| {
                        let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                        f / factor * ramp + f * (1.0 - ramp)
                    })
                    .collect()
            }
        }
    }

    /// Cosines and sines at `positions`, each `[positions, width / 2]`.
    ///
    /// # Errors
    /// On a tensor failure only.
    pub fn tables(&self, width: usize, positions: &[u32], device: &Device) -> Result<[Tensor; 2]> {
        let attention = match self.scaling {
            Scaling::Yarn { attention, .. } => attention as f32,
            _ => 1.0,
        };
        let frequencies: Vec<f32> = self.frequencies(width).into_iter().map(|f| f as f32).collect();
        let angles =
            || positions.iter().flat_map(|&p| frequencies.iter().map(move |f| p as f32 * f));
        let table = |of: fn(f32) -> f32| {
            let values: Vec<f32> = angles().map(|angle| of(angle) * attention).collect();
            Tensor::from_vec(values, (positions.len(), width / 2), device)
        };
        Ok([table(f32::cos)?, table(f32::sin)?])
    }
}
