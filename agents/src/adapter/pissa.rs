//! interim
use crate::{error::Result, seed::Seed};
use candle_core::Tensor;
pub(crate) struct Pissa {
    pub(crate) a: Tensor,
    pub(crate) b: Tensor,
}
pub(crate) fn pissa(_w: &Tensor, _rank: usize, _scale: f64, _seed: Seed) -> Result<Pissa> {
    Err(crate::error::ModelError::Examples("interim".into()))
}
