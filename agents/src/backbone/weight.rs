//! A matrix of a backbone: dense, or quantised in blocks and never expanded as a whole.

use std::sync::Arc;

use candle_core::Tensor;
use candle_core::quantized::QTensor;

use crate::error::{ModelError, Result};

/// A weight as it is kept in memory.
#[derive(Clone, Debug)]
pub enum Weight {
    /// Plain numbers.
    Dense(Tensor),
    /// Blocks of small integers with their scales, as GGUF files hold them.
    Quantized(Arc<QTensor>),
}

impl Weight {
    /// Its shape.
    #[must_use]
    pub fn dims(&self) -> &[usize] {
        match self {
            Self::Dense(tensor) => tensor.dims(),
            Self::Quantized(tensor) => tensor.shape().dims(),
        }
    }

    /// As plain numbers: itself where dense, an f32 copy where quantised.
    ///
    /// # Errors
    /// On a tensor failure only.
    pub fn dequantize(&self) -> Result<Tensor> {
        match self {
            Self::Dense(tensor) => Ok(tensor.clone()),
            Self::Quantized(tensor) => Ok(tensor.dequantize(&tensor.device())?),
        }
    }

    /// The same numbers, apart from any gradient.
    pub(crate) fn detach(&self) -> Self {
        match self {
            Self::Dense(tensor) => Self::Dense(tensor.detach()),
            Self::Quantized(tensor) => Self::Quantized(Arc::clone(tensor)),
        }
    }

    /// `g · w` for a matrix `g` `[rows, out]`: what a linear map passes back. A quantised matrix is expanded
    /// for it and dropped again.
    pub(crate) fn transposed_product(&self, g: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Dense(w) => g.matmul(w),
            Self::Quantized(w) => g.matmul(&w.dequantize(g.device())?),
        }
    }

    /// The plain numbers of a weight that is never quantised, such as a norm.
    ///
    /// # Errors
    /// When it is quantised all the same.
    pub fn dense(self, name: &str) -> Result<Tensor> {
        match self {
            Self::Dense(tensor) => Ok(tensor),
            Self::Quantized(_) => Err(ModelError::Quantized { name: name.to_owned() }),
        }
    }
}

impl From<Tensor> for Weight {
    fn from(tensor: Tensor) -> Self {
        Self::Dense(tensor)
    }
}
