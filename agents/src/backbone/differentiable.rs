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
mod graft;
mod linear;
mod loss;
mod low_rank;
mod norm;
mod rotary;
pub(crate) mod scalar;

pub(crate) use self::activation::{activate, gated};
pub(crate) use self::attention::attention;
pub(crate) use self::linear::{linear, matmul};
pub(crate) use self::loss::negative_log_likelihood;
pub(crate) use self::low_rank::{LowRank, Run, low_rank, low_rank_runs};
pub(crate) use self::norm::{layer_norm, rms_norm};
pub(crate) use self::rotary::rotary;

#[cfg(test)]
mod tests;
