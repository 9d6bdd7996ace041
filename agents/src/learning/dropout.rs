//! Inverted dropout (Srivastava et al. 2014) with a mask from our own stream, so a step can be repeated.
//!
//! Differentiable: the mask is a constant factor. It belongs to training; nothing here knows the mode.

use candle_core::Tensor;
use rand::Rng;

use crate::error::{ModelError, Result};
use crate::seed::Seed;

/// What is dropped in a pass of training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Where masks come from.
    pub seed: Seed,
    /// Share of the numbers that embeddings and each sub-layer add to the residual stream; what adapters drop of
    /// their own inputs is theirs to say.
    pub hidden: f64,
}

impl Dropout {
    /// Drops from what joins the residual stream: `part` is 0 for embeddings, then each sub-layer in turn.
    pub(crate) fn hidden(dropout: Option<Self>, part: usize, x: Tensor) -> Result<Tensor> {
        match dropout {
            Some(Self { seed, hidden }) if hidden > 0.0 => {
                self::dropout(&x, hidden, seed.child("hidden").index(part as u64))
            }
            _ => Ok(x),
        }
    }
}

/// Sets each number to zero with probability `rate` and divides the others by `1 - rate`, so that the
/// mean stays. A rate of 0 returns the tensor itself.
///
/// # Errors
/// When the rate is not in `[0, 1)`.
pub fn dropout(x: &Tensor, rate: f64, seed: Seed) -> Result<Tensor> {
    if rate == 0.0 {
        return Ok(x.clone());
    }
    Ok((x * mask(x, rate, seed)?)?)
}

/// The factors of [`dropout`], for numbers like those of `x`.
pub(crate) fn mask(x: &Tensor, rate: f64, seed: Seed) -> Result<Tensor> {
    if !(0.0..1.0).contains(&rate) {
        let (what, found) = ("dropout rate", rate.to_string());
        return Err(ModelError::Setting { what, found, expected: "0 <= rate < 1" });
    }
    let mut stream = seed.stream();
    let kept = (1.0 / (1.0 - rate)) as f32;
    let mask: Vec<f32> =
        (0..x.elem_count()).map(|_| if stream.random_bool(rate) { 0.0 } else { kept }).collect();
    Ok(Tensor::from_vec(mask, x.shape(), x.device())?.to_dtype(x.dtype())?)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn the_mean_stays_the_mask_repeats_and_the_gradient_is_the_mask() {
        let x = Var::ones((100, 400), candle_core::DType::F32, &Device::Cpu).unwrap();
        let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let dropped = dropout(&x, 0.25, Seed::new(1)).unwrap();
        let mean = dropped.mean_all().unwrap().to_scalar::<f32>().unwrap();
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
        assert_eq!(values(&dropped), values(&dropout(&x, 0.25, Seed::new(1)).unwrap()));
        assert_ne!(values(&dropped), values(&dropout(&x, 0.25, Seed::new(2)).unwrap()));
        let store = dropped.sum_all().unwrap().backward().unwrap();
        assert_eq!(values(store.get(&x).unwrap()), values(&dropped));
    }

    #[test]
    fn rate_zero_is_the_tensor_itself_and_one_is_refused() {
        let x = Tensor::new(&[1f32], &Device::Cpu).unwrap();
        assert_eq!(dropout(&x, 0.0, Seed::new(1)).unwrap().id(), x.id());
        assert!(dropout(&x, 1.0, Seed::new(1)).unwrap_err().to_string().contains("dropout rate"));
    }
}
