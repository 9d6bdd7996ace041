//! The same in main memory, plainly: what the kernel must give, and what serves tensors on a CPU that the
//! fast kernels cannot read.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Result, Tensor};
use half::{bf16, f16};

use super::{PAGE, Paged};
use crate::kernel::{Seen, attend};

/// Writes numbers into a page.
struct Write {
    parts: Vec<(usize, Vec<f32>)>,
}

impl InplaceOp1 for Write {
    fn name(&self) -> &'static str {
        "keep"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let start = layout.start_offset();
        for (at, numbers) in &self.parts {
            let span = start + at..start + at + numbers.len();
            let pairs = numbers.iter();
            match storage {
                CpuStorage::F32(all) => all[span].copy_from_slice(numbers),
                CpuStorage::BF16(all) => {
                    all[span].iter_mut().zip(pairs).for_each(|(to, &x)| *to = bf16::from_f32(x));
                }
                CpuStorage::F16(all) => {
                    all[span].iter_mut().zip(pairs).for_each(|(to, &x)| *to = f16::from_f32(x));
                }
                other => candle_core::bail!("no pages are kept in {:?}", other.dtype()),
            }
        }
        Ok(())
    }
}

fn numbers(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

impl Paged {
    pub(super) fn keep_plainly(&self, layer: usize, keys: &Tensor, values: &Tensor) -> Result<()> {
        let shape = self.shape;
        let all = [numbers(keys)?, numbers(values)?];
        for (row, place) in self.rows.iter().enumerate() {
            let Some(place) = place else { continue };
            let mut parts = Vec::with_capacity(2 * shape.key_heads);
            for (which, all) in all.iter().enumerate() {
                for head in 0..shape.key_heads {
                    let from = (row * shape.key_heads + head) * shape.width;
                    let to = shape.at(layer, which, head) + place.position % PAGE * shape.width;
                    parts.push((to, all[from..from + shape.width].to_vec()));
                }
            }
            let page = &self.sequences[place.sequence][place.position / PAGE];
            page.inplace_op1(&Write { parts })?;
        }
        Ok(())
    }

    pub(super) fn attend_plainly(
        &self,
        layer: usize,
        queries: &Tensor,
        window: Option<usize>,
        scale: f64,
    ) -> Result<Tensor> {
        let shape = self.shape;
        let (start, half) = (shape.at(layer, 0, 0), shape.key_heads * PAGE * shape.width);
        let read = |pages: &Vec<super::Page>| -> Result<Vec<Vec<f32>>> {
            pages.iter().map(|page| numbers(&page.narrow(0, start, 2 * half)?)).collect()
        };
        let sequences: Vec<_> = self.sequences.iter().map(read).collect::<Result<_>>()?;
        let group = shape.heads / shape.key_heads * shape.width;
        let read = numbers(queries)?;
        let mut mixed = vec![0.0; read.len()];
        let mut scratch = Vec::new();
        for (row, place) in self.rows.iter().enumerate() {
            let Some(place) = place else { continue };
            let end = place.position + 1;
            let from = window.map_or(0, |window| end.saturating_sub(window));
            let pages = &sequences[place.sequence];
            for head in 0..shape.key_heads {
                let at = (row * shape.key_heads + head) * group;
                let block = |index: usize| {
                    let own = head * PAGE * shape.width..(head + 1) * PAGE * shape.width;
                    let (keys, values) = pages[index].split_at(half);
                    (&keys[own.clone()], &values[own])
                };
                let seen = Seen { positions: from..end, block: PAGE, scale: scale as f32 };
                let (queries, out) = (&read[at..at + group], &mut mixed[at..at + group]);
                attend(queries, shape.width, seen, block, &mut scratch, out);
            }
        }
        Tensor::from_vec(mixed, queries.shape(), queries.device())?.to_dtype(queries.dtype())
    }
}
