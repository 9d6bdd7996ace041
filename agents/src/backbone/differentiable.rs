//! Operations that run as fused kernels and still carry gradients.
//!
//! candle's fused kernels (norms, rotary embedding, softmax) cut the gradient silently, and its matrix
//! product stores a gradient even for frozen weights. Each operation here computes its value with the fast
//! kernels outside the tape and is grafted onto the tape with an analytic backward. A frozen operand
//! receives no gradient and costs no memory. Every backward is checked against finite differences in the
//! tests below. Nothing here knows what a layer is.

mod activation;
mod attention;
mod fused;
mod linear;
mod loss;
mod norm;
mod rotary;
mod scalar;

use std::sync::Mutex;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, Result, Shape, Storage, Tensor};

pub(crate) use self::activation::{activate, gated};
pub(crate) use self::attention::attention;
pub(crate) use self::linear::{linear, matmul};
pub(crate) use self::loss::negative_log_likelihood;
pub(crate) use self::norm::{layer_norm, rms_norm};
pub(crate) use self::rotary::rotary;

/// A value computed outside the tape, waiting to be grafted onto it.
struct Value(Mutex<Option<Tensor>>);

impl Value {
    fn new(tensor: Tensor) -> Self {
        Self(Mutex::new(Some(tensor)))
    }

    fn take(&self) -> Result<Tensor> {
        let slot = self.0.lock().ok().and_then(|mut slot| slot.take());
        slot.ok_or_else(|| candle_core::Error::Msg("a value was grafted twice".to_owned()))
    }

    fn cpu(&self) -> Result<(CpuStorage, Shape)> {
        let value = self.take()?;
        let (storage, layout) = value.storage_and_layout();
        match &*storage {
            Storage::Cpu(storage) => Ok((storage.try_clone(layout)?, value.shape().clone())),
            _ => candle_core::bail!("expected a value on the CPU"),
        }
    }

    fn cuda(&self) -> Result<(CudaStorage, Shape)> {
        let value = self.take()?;
        let (storage, layout) = value.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => Ok((storage.try_clone(layout)?, value.shape().clone())),
            _ => candle_core::bail!("expected a value on the CUDA device"),
        }
    }
}

#[cfg(test)]
mod tests;
