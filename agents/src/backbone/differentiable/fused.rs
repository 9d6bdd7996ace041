//! One pass over f32 numbers in memory where candle would make a new tensor for every operation.
//!
//! Each function answers `None` for tensors on another device, of another type or not contiguous; the caller
//! then composes the same result out of candle's operations.

use candle_core::{CpuStorage, D, Result, Storage, Tensor};

/// Gives `f` the numbers of contiguous f32 tensors on the CPU.
fn numbers<const N: usize, R>(
    tensors: [&Tensor; N],
    f: impl FnOnce([&[f32]; N]) -> R,
) -> Option<R> {
    let guards = tensors.map(Tensor::storage_and_layout);
    let mut slices: [&[f32]; N] = [&[]; N];
    for (slice, (storage, layout)) in slices.iter_mut().zip(&guards) {
        let Storage::Cpu(CpuStorage::F32(all)) = &**storage else { return None };
        let (start, end) = layout.contiguous_offsets()?;
        *slice = &all[start..end];
    }
    Some(f(slices))
}

fn like(values: Vec<f32>, tensor: &Tensor) -> Result<Tensor> {
    Tensor::from_vec(values, tensor.shape(), tensor.device())
}

/// `f` of every number.
pub(super) fn map(x: &Tensor, f: impl Fn(f32) -> f32) -> Option<Result<Tensor>> {
    let values = numbers([x], |[x]| x.iter().map(|&x| f(x)).collect())?;
    Some(like(values, x))
}

/// `f` of every pair of numbers.
pub(super) fn zip(x: &Tensor, y: &Tensor, f: impl Fn(f32, f32) -> f32) -> Option<Result<Tensor>> {
    let values = numbers([x, y], |[x, y]| x.iter().zip(y).map(|(&x, &y)| f(x, y)).collect())?;
    Some(like(values, x))
}

/// Both results of `f` of every triple of numbers.
pub(super) fn zip_to_two(
    x: &Tensor,
    y: &Tensor,
    z: &Tensor,
    f: impl Fn(f32, f32, f32) -> (f32, f32),
) -> Option<Result<(Tensor, Tensor)>> {
    let (a, b) = numbers([x, y, z], |[x, y, z]| {
        let (mut a, mut b) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        let out = a.iter_mut().zip(&mut b);
        for (((a, b), &x), (&y, &z)) in out.zip(x).zip(y.iter().zip(z)) {
            (*a, *b) = f(x, y, z);
        }
        (a, b)
    })?;
    Some(like(a, x).and_then(|a| Ok((a, like(b, x)?))))
}

/// `f(row of x, row of y, weights, row of the result)` for every row along the last axis.
pub(super) fn rows(
    x: &Tensor,
    y: &Tensor,
    weights: &Tensor,
    f: impl Fn(&[f32], &[f32], &[f32], &mut [f32]),
) -> Option<Result<Tensor>> {
    let width = x.dim(D::Minus1).ok()?.max(1);
    let values = numbers([x, y, weights], |[x, y, weights]| {
        let mut values = vec![0.0; x.len()];
        let out = values.chunks_exact_mut(width);
        for ((x, y), out) in x.chunks_exact(width).zip(y.chunks_exact(width)).zip(out) {
            f(x, y, weights, out);
        }
        values
    })?;
    Some(like(values, x))
}

/// The sum of `f` over pairs in eight running sums, which is fast and always adds in the same order.
pub(super) fn sum(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0.0_f32; 8];
    let (xs, ys) = (x.chunks_exact(8), y.chunks_exact(8));
    let rest: f32 = xs.remainder().iter().zip(ys.remainder()).map(|(&x, &y)| f(x, y)).sum();
    for (x, y) in xs.zip(ys) {
        for ((sum, &x), &y) in sums.iter_mut().zip(x).zip(y) {
            *sum += f(x, y);
        }
    }
    sums.iter().sum::<f32>() + rest
}
