//! One pass over a tensor that rewrites each number from itself and its partners in other tensors.
//!
//! For contiguous f32 on the CPU only; every number is computed by itself, so the result does not depend
//! on how many threads share the pass.

use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Result, bail};
use rayon::prelude::*;

/// Numbers that one thread rewrites at a time.
const CHUNK: usize = 1 << 14;

/// Sets each number `x` of the first tensor to `f(x, partners)`.
pub(super) struct Elementwise<F>(pub(super) F);

impl<F: Fn(f32, [f32; 1]) -> f32 + Sync> InplaceOp2 for Elementwise<F> {
    fn name(&self) -> &'static str {
        "elementwise"
    }

    fn cpu_fwd(
        &self,
        target: &mut CpuStorage,
        layout: &Layout,
        first: &CpuStorage,
        first_layout: &Layout,
    ) -> Result<()> {
        rewrite(&self.0, target, layout, [(first, first_layout)])
    }
}

impl<F: Fn(f32, [f32; 2]) -> f32 + Sync> InplaceOp3 for Elementwise<F> {
    fn name(&self) -> &'static str {
        "elementwise"
    }

    fn cpu_fwd(
        &self,
        target: &mut CpuStorage,
        layout: &Layout,
        first: &CpuStorage,
        first_layout: &Layout,
        second: &CpuStorage,
        second_layout: &Layout,
    ) -> Result<()> {
        rewrite(&self.0, target, layout, [(first, first_layout), (second, second_layout)])
    }
}

fn rewrite<const N: usize>(
    f: impl Fn(f32, [f32; N]) -> f32 + Sync,
    target: &mut CpuStorage,
    layout: &Layout,
    sources: [(&CpuStorage, &Layout); N],
) -> Result<()> {
    let CpuStorage::F32(target) = target else { bail!("elementwise: the target is not f32") };
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("elementwise: the target is not contiguous")
    };
    let mut partners = [&[] as &[f32]; N];
    for (partner, (storage, layout)) in partners.iter_mut().zip(sources) {
        let Some((from, to)) = layout.contiguous_offsets() else {
            bail!("elementwise: a source is not contiguous")
        };
        if to - from != end - start {
            bail!("elementwise: {} numbers against {}", to - from, end - start);
        }
        *partner = &storage.as_slice::<f32>()?[from..to];
    }
    target[start..end].par_chunks_mut(CHUNK).enumerate().for_each(|(index, part)| {
        let from = index * CHUNK;
        let partners = partners.map(|partner| &partner[from..from + part.len()]);
        for (at, x) in part.iter_mut().enumerate() {
            *x = f(*x, partners.map(|partner| partner[at]));
        }
    });
    Ok(())
}
