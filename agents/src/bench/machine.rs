//! What a device does at most: how fast its memory is, and how fast its arithmetic.
//!
//! Measured where the model is: on a card the card's memory, and products in the type that the model computes
//! in. What a model could do with that follows from its shape.

use std::hint::black_box;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use super::{EXAMPLE, Seconds, best};
use crate::backbone::{Architecture, Backbone, Weight};
use crate::error::Result;

/// Numbers of eight bytes that are streamed through: more than a cache that many cores share holds.
const STREAMED: usize = 64 << 20;
/// Numbers of four bytes that are copied on a card: more than its cache holds.
const COPIED: usize = 64 << 20;
/// Copies of one round: together long beside the time that it takes to ask for them.
const COPIES: usize = 8;
/// Side of the matrices whose product measures arithmetic, on a CPU and on a card.
const SIDES: [usize; 2] = [1024, 8192];

/// What a device can do at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// Bytes a second: of a CPU read one after the other on all threads, of a card read and written in copies.
    pub bandwidth: f64,
    /// Operations a second of a large product.
    pub arithmetic: f64,
    /// The type that the product was in.
    pub products: DType,
    /// Whether it is a card rather than the CPU.
    pub is_card: bool,
}

impl Machine {
    /// Measures the device that a model is on.
    ///
    /// # Errors
    /// When the device has no room for what is measured with, or fails.
    pub fn measure(backbone: &Backbone, now: Seconds<'_>) -> Result<Self> {
        let (device, dtype) = (backbone.network.device(), backbone.network.dtype());
        let is_card = !device.is_cpu();
        let bandwidth = if is_card { copied(device, COPIED, now)? } else { streamed(now)? };
        // A CPU's products are summed in f32 whatever the weights are kept in.
        let products = if is_card { dtype } else { DType::F32 };
        let arithmetic = multiplied(device, products, SIDES[usize::from(is_card)], now)?;
        Ok(Self { bandwidth, arithmetic, products, is_card })
    }

    /// What was measured of the memory.
    #[must_use]
    pub fn memory(&self) -> &'static str {
        if self.is_card { "copying on the card, read and written" } else { "reading memory" }
    }

    /// Tokens a second that reading all weights for every `rows` tokens, and their products, allow.
    #[must_use]
    pub fn decoding_bound(&self, backbone: &Backbone, rows: usize) -> f64 {
        let bytes: usize = backbone.weights().values().map(bytes).sum();
        let by_memory = self.bandwidth * rows as f64 / bytes as f64;
        by_memory.min(self.arithmetic / operations(backbone.network.architecture()))
    }

    /// Tokens a second of LoRA training that the products allow: forward, and back to the inputs.
    #[must_use]
    pub fn training_bound(&self, backbone: &Backbone) -> f64 {
        let architecture = backbone.network.architecture();
        let head = 2.0 * (architecture.vocabulary * architecture.hidden) as f64;
        let [prompt, reply] = EXAMPLE;
        let replied = reply as f64 / (prompt + reply - 1) as f64;
        let body = operations(architecture) - head;
        self.arithmetic / (2.0 * (body + replied * head))
    }
}

/// Bytes a second that all threads of a CPU read.
fn streamed(now: Seconds<'_>) -> Result<f64> {
    let numbers: Vec<u64> = (0..STREAMED as u64).collect();
    let chunk = numbers.len().div_ceil(rayon::current_num_threads());
    let read = || {
        let parts = numbers.par_chunks(chunk);
        black_box(parts.map(|part| part.iter().fold(0, |a: u64, b| a ^ b) >> 8).sum::<u64>());
        Ok(())
    };
    Ok((numbers.len() * 8) as f64 / best(5, now, read)?)
}

/// Bytes a second that a card reads and writes in copies of its own memory.
fn copied(device: &Device, count: usize, now: Seconds<'_>) -> Result<f64> {
    let numbers = Tensor::zeros(count, DType::F32, device)?;
    device.synchronize()?;
    let copy = || {
        for _ in 0..COPIES {
            black_box(numbers.copy()?);
        }
        Ok(device.synchronize()?)
    };
    let bytes = 2 * COPIES * count * DType::F32.size_in_bytes();
    Ok(bytes as f64 / best(8, now, copy)?)
}

/// Operations a second of a product of two square matrices.
fn multiplied(device: &Device, dtype: DType, side: usize, now: Seconds<'_>) -> Result<f64> {
    // Not all the same number: what switches less takes less power, and is faster for that.
    let numbers = Tensor::arange(0_f32, (side * side) as f32, device)?.sin()?;
    let matrix = numbers.reshape((side, side))?.to_dtype(dtype)?;
    let multiply = || {
        black_box(matrix.matmul(&matrix)?);
        Ok(device.synchronize()?)
    };
    Ok(2.0 * (side * side * side) as f64 / best(8, now, multiply)?)
}

fn bytes(weight: &Weight) -> usize {
    match weight {
        Weight::Dense(tensor) => tensor.elem_count() * tensor.dtype().size_in_bytes(),
        Weight::Quantized(tensor) => tensor.storage_size_in_bytes(),
    }
}

/// Operations of one token's products, attention left out.
fn operations(architecture: &Architecture) -> f64 {
    let table = architecture.vocabulary * architecture.hidden;
    let matrices: usize = architecture
        .weights()
        .iter()
        .filter(|(_, shape)| shape.len() == 2 && shape[0] * shape[1] != table)
        .map(|(_, shape)| shape[0] * shape[1])
        .sum();
    2.0 * (matrices + table) as f64
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::backbone::builtin;

    #[test]
    fn bounds_follow_from_bytes_and_operations() {
        let bound = |dtype| {
            let backbone = builtin::polylogue_tiny_as(dtype, &Device::Cpu).unwrap();
            let (bandwidth, arithmetic, products) = (1e9, f64::INFINITY, DType::F32);
            let machine = Machine { bandwidth, arithmetic, products, is_card: false };
            let stored: usize = backbone.weights().values().map(bytes).sum();
            let alone = machine.decoding_bound(&backbone, 1);
            assert!((alone - 1e9 / stored as f64).abs() < 1e-9);
            assert!((machine.decoding_bound(&backbone, 4) - 4.0 * alone).abs() < 1e-6);
            alone
        };
        let (whole, half) = (bound(DType::F32), bound(DType::BF16));
        assert!((half / whole - 2.0).abs() < 1e-9, "half of the bytes: {whole} {half}");
    }

    /// The measurement for cards, by a clock that ticks once a look: copies and products count what they move
    /// and multiply.
    #[test]
    fn copies_count_both_ways_and_products_in_the_type_of_the_model() {
        let clock = Cell::new(0.0);
        let now = || {
            clock.set(clock.get() + 1.0);
            clock.get()
        };
        let bytes = copied(&Device::Cpu, 1000, &now).unwrap();
        assert!((bytes - (2 * COPIES * 1000 * 4) as f64).abs() < 1.0, "{bytes}");
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let done = multiplied(&Device::Cpu, dtype, 32, &now).unwrap();
            assert!((done - 2.0 * 32.0_f64.powi(3)).abs() < 1e-6, "{dtype:?} {done}");
        }
    }
}
