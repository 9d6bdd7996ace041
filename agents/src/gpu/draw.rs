//! Drawing tokens where the logits are, by the kernel of `draw.cu`: what comes back to main memory is a token
//! for each row, not its logits, and nobody waits for it here.

#![expect(unsafe_code, reason = "a kernel is given addresses; the launch says why it may")]

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::PushKernelArg;
use candle_core::{DType, Device, Result, Tensor, builder_arg};

use super::compile::{self, Source, grid};
use super::memory::with;
use super::{Arrival, Ask, Shore};

pub(super) const SOURCE: Source = Source { name: "draw", text: include_str!("draw.cu") };
/// Threads of a block: one block has one row.
const THREADS: usize = 512;

/// What the kernel is compiled for.
pub(super) fn shape() -> compile::Shape {
    compile::Shape { number: DType::F32, sizes: vec![("THREADS", THREADS)] }
}

/// A token for each row of logits `[rows, vocabulary]`.
///
/// # Errors
/// When the logits are not on a GPU, or there is not one ask for each row.
pub(crate) fn draw(logits: &Tensor, asks: &[Ask], shore: &Shore) -> Result<Arrival> {
    let Device::Cuda(device) = logits.device() else { candle_core::bail!("there is no GPU") };
    let (rows, vocabulary) = logits.dims2()?;
    if rows != asks.len() {
        candle_core::bail!("{} asks for {rows} rows", asks.len());
    }
    let kernel = compile::kernel(device, SOURCE, &shape(), "draw")?;
    let asks = device.clone_htod(&asks.concat())?;
    let logits = logits.to_dtype(DType::F32)?.contiguous()?;
    shore.send(rows, device, |tokens| {
        with::<f32, _>(&logits, |logits| {
            let mut launch = kernel.builder();
            launch.arg(&logits);
            builder_arg!(launch, vocabulary as i32);
            launch.arg(&asks).arg(tokens);
            // SAFETY: there are as many asks as rows and at least as many tokens, and a row has `vocabulary`
            // logits.
            unsafe { launch.launch(grid([rows, 1, 1], THREADS)) }.w().map(drop)
        })
    })
}
