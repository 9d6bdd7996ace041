//! The loss of language models and classifiers with its backward.

use candle_core::{D, Result, Tensor};

use super::graft;

/// Negative log-likelihood in nats of `targets` `[n]` (u32) under `logits` `[n, classes]`; one value
/// a row, so that callers can weight or mask rows.
pub(crate) fn negative_log_likelihood(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let values = logits.detach();
    let chosen = values.gather(&targets.unsqueeze(1)?, 1)?.squeeze(1)?;
    let value = (values.log_sum_exp(D::Minus1)? - chosen)?;
    let targets = targets.clone();
    // d/dlogits = (softmax - one-hot) · g
    graft::one("negative-log-likelihood", value, logits, move |[logits], gradient| {
        let column = gradient.unsqueeze(1)?.contiguous()?;
        let spread = candle_nn::ops::softmax_last_dim(&logits.detach())?.broadcast_mul(&column)?;
        Ok([Some(spread.scatter_add(&targets.unsqueeze(1)?, &column.neg()?, 1)?)])
    })
}
