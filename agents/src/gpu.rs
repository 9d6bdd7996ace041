//! What a GPU does in kernels of our own: attention over pages of keys and values, adapters of many agents in
//! one step, and drawing tokens.
//!
//! The kernels are CUDA C in the files beside this one. NVRTC compiles them when they are first needed, for
//! the shapes at hand, so that a program built on one machine runs on any card. Nothing a row gets depends on
//! the rows beside it: each is summed in an order of its own. Everything else that happens on a GPU
//! (products, norms, rotations) is candle's.
//!
//! Without the feature `cuda` nothing here is compiled but [`paged`], whose plain version serves tensors in
//! main memory and shows what the kernel must give, and [`Arrival`], where nothing is on its way.

#[cfg(not(feature = "cuda"))]
mod absent;
mod arrival;
#[cfg(feature = "cuda")]
mod compile;
#[cfg(feature = "cuda")]
mod draw;
#[cfg(feature = "cuda")]
mod low_rank;
#[cfg(feature = "cuda")]
mod memory;
pub(crate) mod paged;

#[cfg(not(feature = "cuda"))]
pub(crate) use self::absent::{Changes, draw};
pub(crate) use self::arrival::{Arrival, Shore};
#[cfg(feature = "cuda")]
pub(crate) use self::draw::draw;
#[cfg(feature = "cuda")]
pub(crate) use self::low_rank::Changes;

/// How a token is drawn: temperature, `top_k` (0 for all), `top_p` (1 for all), `min_p` (0 for all), and a
/// random number from 0 to 1.
pub(crate) type Ask = [f64; 5];

#[cfg(all(test, feature = "cuda"))]
mod tests;
