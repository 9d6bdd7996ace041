//! Dropout with masks from our own seeded stream.

use candle_core::Tensor;
use rand::Rng;

use crate::error::Result;
use crate::seed::Seed;

/// Inverted dropout.
pub(crate) fn dropout(x: &Tensor, rate: f64, seed: Seed) -> Result<Tensor> {
    let keep = 1.0 - rate;
    let mut stream = seed.stream();
    let mask: Vec<f32> = (0..x.elem_count())
        .map(|_| if stream.random_bool(keep) { (1.0 / keep) as f32 } else { 0.0 })
        .collect();
    Ok((x * Tensor::from_vec(mask, x.shape(), x.device())?.to_dtype(x.dtype())?)?)
}
