//! The loss of language models and classifiers with its backward.

use candle_core::{CpuStorage, CudaStorage, CustomOp1, D, Layout, Result, Shape, Tensor};

use super::Value;

/// Negative log-likelihood in nats of `targets` `[n]` (u32) under `logits` `[n, classes]`; one value
/// a row, so that callers can weight or mask rows.
pub(crate) fn negative_log_likelihood(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let values = logits.detach();
    let chosen = values.gather(&targets.unsqueeze(1)?, 1)?.squeeze(1)?;
    let value = (values.log_sum_exp(D::Minus1)? - chosen)?;
    if !logits.track_op() {
        return Ok(value);
    }
    logits.apply_op1(NegativeLogLikelihood { value: Value::new(value), targets: targets.clone() })
}

struct NegativeLogLikelihood {
    value: Value,
    targets: Tensor,
}

impl CustomOp1 for NegativeLogLikelihood {
    fn name(&self) -> &'static str {
        "negative-log-likelihood"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.value.cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.value.cuda()
    }

    // d/dlogits = (softmax - one-hot) · g
    fn bwd(&self, logits: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let column = gradient.unsqueeze(1)?.contiguous()?;
        let spread = candle_nn::ops::softmax_last_dim(&logits.detach())?.broadcast_mul(&column)?;
        spread.scatter_add(&self.targets.unsqueeze(1)?, &column.neg()?, 1).map(Some)
    }
}
