//! What is done to one row of activations: norms, rotary positions, gates, attention over what was read.

#![expect(
    unsafe_code,
    reason = "inner loops load through pointers within slices that are checked before"
)]

use std::ops::Range;

use super::lanes::Lanes;
use super::{Input, Matrix, Numbers, Scratch, Target, Task, dispatch};
use crate::backbone::architecture::Activation;
use crate::backbone::scalar;

/// RMSNorm: `out = x / sqrt(mean(x²) + epsilon) ∘ weight`.
pub(crate) fn normalize(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let squares = dispatch(Dot { x, y: x });
    let factor = (squares / x.len() as f32 + epsilon).sqrt().recip();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * factor * weight;
    }
}

struct Dot<'a> {
    x: &'a [f32],
    y: &'a [f32],
}

impl Task for Dot<'_> {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> f32 {
        let (xs, ys) = (self.x.chunks_exact(16), self.y.chunks_exact(16));
        let (mut x_rest, mut y_rest) = ([0.0; 16], [0.0; 16]);
        x_rest[..xs.remainder().len()].copy_from_slice(xs.remainder());
        y_rest[..ys.remainder().len()].copy_from_slice(ys.remainder());
        // SAFETY: every chunk holds sixteen numbers; the caller vouches for the processor.
        unsafe {
            let mut sum = L::splat(0.0);
            for (x, y) in xs.zip(ys) {
                sum = sum.plus(L::load(x.as_ptr()), L::load(y.as_ptr()));
            }
            sum.plus(L::load(x_rest.as_ptr()), L::load(y_rest.as_ptr())).sum()
        }
    }
}

/// Rotates one head to its position; `cos` and `sin` are half as wide.
pub(crate) fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (first, second) = head.split_at_mut(cos.len());
    for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(cos.iter().zip(sin)) {
        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
    }
}

/// `out = activation(gate) ∘ up`.
pub(crate) fn gate(activation: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    dispatch(Gate { activation, gate, up, out });
}

struct Gate<'a> {
    activation: Activation,
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
}

impl Task for Gate<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        match self.activation {
            Activation::Silu => self.each(|x| scalar::value(Activation::Silu, x)),
            Activation::Gelu => self.each(|x| scalar::value(Activation::Gelu, x)),
            Activation::GeluTanh => self.each(|x| scalar::value(Activation::GeluTanh, x)),
            Activation::Relu => self.each(|x| scalar::value(Activation::Relu, x)),
            Activation::Tanh => self.each(|x| scalar::value(Activation::Tanh, x)),
        }
    }
}

impl Gate<'_> {
    #[inline(always)]
    fn each(self, f: impl Fn(f32) -> f32) {
        for ((out, &gate), &up) in self.out.iter_mut().zip(self.gate).zip(self.up) {
            *out = f(gate) * up;
        }
    }
}

/// What a row looks at.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Positions.
    pub(crate) positions: Range<usize>,
    /// Positions of a block.
    pub(crate) block: usize,
    /// Factor on scores.
    pub(crate) scale: f32,
}

/// Attention of the queries `[heads, width]` that share one key head.
///
/// `block(i)` gives keys and values `[positions of a block, width]` of one block. Sums run over positions in
/// order. `scratch` is used as it likes.
pub(crate) fn attend<'b>(
    queries: &[f32],
    width: usize,
    seen: Seen,
    block: impl Fn(usize) -> (&'b [f32], &'b [f32]),
    scratch: &mut Vec<f32>,
    out: &mut [f32],
) {
    let Seen { positions: seen, block: size, scale } = seen;
    let (heads, count) = (queries.len() / width, seen.len());
    let mut scores = std::mem::take(scratch);
    scores.clear();
    scores.resize(heads * count, 0.0);
    let parts = || {
        (seen.start / size..seen.end.div_ceil(size)).map(|index| {
            let start = index * size;
            (index, seen.start.max(start) - start..seen.end.min(start + size) - start)
        })
    };
    let input = Input { x: queries, stride: width, count: heads, rounded: None };
    let mut unused = Scratch::default();
    for (index, part) in parts() {
        let (keys, _) = block(index);
        let first = index * size + part.start - seen.start;
        let keys = Numbers::F32(&keys[part.start * width..part.end * width]);
        let Some(keys) = Matrix::new(keys, part.len(), width) else { continue };
        let target = Target::new(&mut scores[first..], count);
        keys.product(input, &mut unused, target);
    }
    scores.iter_mut().for_each(|score| *score *= scale);
    out.fill(0.0);
    for (head, out) in out.chunks_exact_mut(width).enumerate() {
        let scores = &mut scores[head * count..(head + 1) * count];
        let total = dispatch(Exponents(scores));
        for (index, part) in parts() {
            let (_, values) = block(index);
            let first = index * size + part.start - seen.start;
            let weights = &scores[first..first + part.len()];
            let values = &values[part.start * width..part.end * width];
            dispatch(Weighted { weights, values, out });
        }
        out.iter_mut().for_each(|x| *x /= total);
    }
    *scratch = scores;
}

/// Makes scores weights, `e` to the score less the largest one, and gives their sum.
struct Exponents<'a>(&'a mut [f32]);

impl Task for Exponents<'_> {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> f32 {
        let largest = self.0.iter().fold(f32::NEG_INFINITY, |most, &x| most.max(x));
        let mut sums = [0.0; 16];
        let mut chunks = self.0.chunks_exact_mut(16);
        for chunk in chunks.by_ref() {
            for (x, sum) in chunk.iter_mut().zip(&mut sums) {
                *x = scalar::exp(*x - largest);
                *sum += *x;
            }
        }
        for (x, sum) in chunks.into_remainder().iter_mut().zip(&mut sums) {
            *x = scalar::exp(*x - largest);
            *sum += *x;
        }
        // SAFETY: sixteen numbers; the caller vouches for the processor.
        unsafe { L::load(sums.as_ptr()).sum() }
    }
}

/// Adds rows with their weights, one after the other.
struct Weighted<'a> {
    weights: &'a [f32],
    /// `[weights, width]`.
    values: &'a [f32],
    out: &'a mut [f32],
}

impl Task for Weighted<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self { weights, values, out } = self;
        let width = out.len();
        assert!(values.len() == weights.len() * width);
        let mut at = 0;
        // SAFETY: every load and store lies within `out` or within a row of `values`, whose lengths were
        // compared; the caller vouches for the processor.
        unsafe {
            while at + 64 <= width {
                weigh::<L, 4>(weights, values.as_ptr().add(at), width, out.as_mut_ptr().add(at));
                at += 64;
            }
            while at + 16 <= width {
                weigh::<L, 1>(weights, values.as_ptr().add(at), width, out.as_mut_ptr().add(at));
                at += 16;
            }
        }
        for (at, out) in out.iter_mut().enumerate().skip(at) {
            for (row, weight) in weights.iter().enumerate() {
                *out += weight * values[row * width + at];
            }
        }
    }
}

/// `N` times sixteen columns.
///
/// # Safety
/// `out` must be good for these columns, and `values` for them in every row.
#[inline(always)]
unsafe fn weigh<L: Lanes, const N: usize>(
    weights: &[f32],
    values: *const f32,
    width: usize,
    out: *mut f32,
) {
    // SAFETY: as the caller says.
    unsafe {
        let mut sums = [L::splat(0.0); N];
        for (n, sum) in sums.iter_mut().enumerate() {
            *sum = L::load(out.add(16 * n));
        }
        for (row, &weight) in weights.iter().enumerate() {
            let weight = L::splat(weight);
            for (n, sum) in sums.iter_mut().enumerate() {
                *sum = sum.plus(weight, L::load(values.add(row * width + 16 * n)));
            }
        }
        for (n, sum) in sums.into_iter().enumerate() {
            sum.store(out.add(16 * n));
        }
    }
}
