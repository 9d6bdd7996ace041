//! Pages on a GPU, by the kernels of `paged.cu`.

#![expect(unsafe_code, reason = "kernels are given addresses; each launch says why it may")]

use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DeviceRepr, PushKernelArg};
use candle_core::cuda_backend::{CudaDType, WrapErr};
use candle_core::{CudaDevice, DType, Result, Tensor, builder_arg};

use super::{PAGE, Page, Place, Shape};
use crate::gpu::compile::{self, Source, grid};
use crate::gpu::memory::{address, by_dtype, with, wrap};

pub(in crate::gpu) const SOURCE: Source =
    Source { name: "paged", text: include_str!("../paged.cu") };
/// Positions that one block of threads looks at: texts longer than that are looked at by several at once.
const SPAN: usize = 256;
/// Queries of one key head that one block has.
const QUERIES: usize = 4;
/// Threads of a block; as `paged.cu` has it.
const THREADS: usize = 128;

fn compiled_for(shape: Shape, number: DType) -> compile::Shape {
    let queries = (shape.heads / shape.key_heads).min(QUERIES);
    let sizes = vec![
        ("WIDTH", shape.width),
        ("HEADS", shape.heads),
        ("KEY_HEADS", shape.key_heads),
        ("PAGE", PAGE),
        ("SPAN", SPAN),
        ("QUERIES", queries),
    ];
    compile::Shape { number, sizes }
}

/// Some that networks have, the odd ones too.
#[cfg(test)]
pub(in crate::gpu) fn shapes_of_tests() -> Vec<compile::Shape> {
    let shape = |width, heads, key_heads| Shape { layers: 2, heads, key_heads, width };
    let shapes =
        [shape(64, 9, 3), shape(16, 4, 4), shape(80, 8, 1), shape(128, 32, 8), shape(256, 8, 4)];
    let numbers = [DType::F32, DType::BF16, DType::F16];
    numbers.into_iter().flat_map(|n| shapes.map(|shape| compiled_for(shape, n))).collect()
}

/// Where the pages of every row are, on the device.
#[derive(Debug)]
pub(super) struct Table {
    device: CudaDevice,
    pages: CudaSlice<u64>,
    first: CudaSlice<u32>,
    positions: CudaSlice<i32>,
    rows: usize,
    spans: usize,
}

impl Table {
    pub(super) fn new(
        sequences: &[Vec<Page>],
        rows: &[Option<Place>],
        device: &CudaDevice,
    ) -> Result<Self> {
        let (mut pages, mut starts) = (Vec::new(), Vec::new());
        for own in sequences {
            starts.push(pages.len() as u32);
            for page in own {
                pages.push(address(page, device)?);
            }
        }
        // The device takes no empty arrays.
        pages.push(0);
        let first: Vec<u32> =
            rows.iter().map(|row| row.map_or(0, |place| starts[place.sequence])).collect();
        let positions: Vec<i32> =
            rows.iter().map(|row| row.map_or(-1, |place| place.position as i32)).collect();
        let longest = rows.iter().flatten().map(|place| place.position + 1).max().unwrap_or(1);
        Ok(Self {
            pages: device.clone_htod(&pages)?,
            first: device.clone_htod(&first)?,
            positions: device.clone_htod(&positions)?,
            rows: rows.len(),
            spans: longest.div_ceil(SPAN),
            device: device.clone(),
        })
    }

    pub(super) fn keep(
        &self,
        shape: Shape,
        layer: usize,
        keys: &Tensor,
        values: &Tensor,
    ) -> Result<()> {
        by_dtype!(keys.dtype(), T => self.keep_as::<T>(shape, layer, keys, values))
    }

    fn keep_as<T: CudaDType + DeviceRepr>(
        &self,
        shape: Shape,
        layer: usize,
        keys: &Tensor,
        values: &Tensor,
    ) -> Result<()> {
        let shapes = compiled_for(shape, keys.dtype());
        let kernel = compile::kernel(&self.device, SOURCE, &shapes, "keep")?;
        with::<T, _>(keys, |keys| {
            with::<T, _>(values, |values| {
                let mut launch = kernel.builder();
                launch.arg(&keys).arg(&values);
                launch.arg(&self.pages).arg(&self.first).arg(&self.positions);
                builder_arg!(launch, layer as i32);
                // SAFETY: keys and values have the shape that the kernel was compiled for; `Paged::new` saw
                // that every row lies within the pages of its sequence, which `Paged` keeps alive, and
                // whoever made it that no other sequence reads that place meanwhile.
                unsafe {
                    launch.launch(grid([self.rows, shape.key_heads, 1], shape.width.min(256)))
                }
                .w()
                .map(drop)
            })
        })
    }

    pub(super) fn attend(
        &self,
        shape: Shape,
        layer: usize,
        queries: &Tensor,
        window: Option<usize>,
        scale: f32,
    ) -> Result<Tensor> {
        by_dtype!(queries.dtype(), T => self.attend_as::<T>(shape, layer, queries, window, scale))
    }

    fn attend_as<T: CudaDType + DeviceRepr>(
        &self,
        shape: Shape,
        layer: usize,
        queries: &Tensor,
        window: Option<usize>,
        scale: f32,
    ) -> Result<Tensor> {
        let shapes = compiled_for(shape, queries.dtype());
        let kernel = compile::kernel(&self.device, SOURCE, &shapes, "attend")?;
        let parts = (shape.heads / shape.key_heads).div_ceil(QUERIES);
        let several = self.spans > 1;
        let numbers = self.rows * shape.heads * self.spans * (shape.width + 2);
        // SAFETY: both are written in full before anybody reads them: by `attend`, or by it and `join`.
        let (mixed, partial) = unsafe {
            let mixed = self.device.alloc::<T>(queries.elem_count())?;
            (mixed, self.device.alloc::<f32>(if several { numbers } else { 1 })?)
        };
        with::<T, _>(queries, |queries| {
            let mut launch = kernel.builder();
            launch.arg(&queries).arg(&self.pages).arg(&self.first).arg(&self.positions);
            builder_arg!(launch, layer as i32, window.unwrap_or(0) as i32, scale);
            launch.arg(&mixed).arg(&partial);
            let all = grid([self.rows, shape.key_heads * parts, self.spans], THREADS);
            // SAFETY: queries, result and spans have the shapes that the kernel was compiled for, and every
            // position up to a row's own lies in pages that `Paged` keeps alive and `keep` has written.
            unsafe { launch.launch(all) }.w().map(drop)
        })?;
        if several {
            let join = compile::kernel(&self.device, SOURCE, &shapes, "join")?;
            let mut launch = join.builder();
            launch.arg(&partial);
            builder_arg!(launch, self.spans as i32);
            launch.arg(&mixed);
            // SAFETY: `attend` has written what the spans gave, on the same stream.
            unsafe { launch.launch(grid([self.rows, shape.heads, 1], shape.width.min(256))) }
                .w()?;
        }
        Ok(wrap(mixed, queries.shape(), &self.device))
    }
}
