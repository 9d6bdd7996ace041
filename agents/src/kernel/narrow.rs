//! What low-rank updates add to outputs: products with rows of few numbers, one adapter for several rows.
//!
//! Rows of eight numbers are common and have a loop of their own. For a row or two it adds across lanes; for
//! more it turns sixteen rows of the matrix once, so that lanes are outputs. Both take the same steps for each
//! output, so a row has the same bits in any company.

#![expect(
    unsafe_code,
    reason = "inner loops load through pointers within slices that are checked before"
)]

use super::lanes::Lanes;
use super::matrix::{Input, Matrix, Numbers, Scratch, Target};
use super::tile::LINE;
use super::{Task, dispatch, prefetch};

/// Numbers of a row that has the loop.
const SHORT: usize = 8;

/// Outputs that are computed together.
const TILE: usize = 16;

/// Bytes between what is multiplied and what is asked for.
const AHEAD: usize = 2048;

/// Rows that are worth turning sixteen rows of the matrix.
const WORTH_TURNING: usize = 3;

impl Matrix<'_> {
    /// Adds the products of every row of the input with every row of the matrix, times `outer` where it is
    /// given, to `target`.
    pub(crate) fn add_product(
        &self,
        input: Input<'_>,
        outer: Option<&[f32]>,
        scratch: &mut Scratch,
        target: Target<'_>,
    ) {
        let (rows, width) = (self.rows(), self.width());
        let Input { x, stride, count, .. } = input;
        if count == 0 || rows == 0 {
            return;
        }
        assert!(stride >= width && x.len() >= (count - 1) * stride + width);
        assert!(target.count >= (count - 1) * target.stride + rows);
        if let (Numbers::F32(all), SHORT, None) = (self.numbers, width, outer) {
            dispatch(Short { all, input, target });
            return;
        }
        let mut wide = std::mem::take(&mut scratch.wide);
        wide.clear();
        wide.resize(count * rows, 0.0);
        self.product(input, scratch, Target::new(&mut wide, rows));
        for (row, products) in wide.chunks_exact_mut(rows).enumerate() {
            if let Some(outer) = outer {
                products.iter_mut().zip(outer).for_each(|(x, outer)| *x *= outer);
            }
            for (at, product) in products.iter().enumerate() {
                // SAFETY: `target` has `rows` numbers for each of `count` rows, as was compared.
                unsafe { *target.at.add(row * target.stride + at) += product };
            }
        }
        scratch.wide = wide;
    }
}

/// A product with rows of eight numbers, whose lengths were compared.
struct Short<'a> {
    all: &'a [f32],
    input: Input<'a>,
    target: Target<'a>,
}

impl Task for Short<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self { all, input, target } = self;
        for (tile, rows) in all.chunks(TILE * SHORT).enumerate() {
            let (first, outputs) = (tile * TILE, rows.len() / SHORT);
            let mut last = [0.0; TILE * SHORT];
            let rows = if outputs < TILE {
                last[..rows.len()].copy_from_slice(rows);
                last.as_ptr()
            } else {
                rows.as_ptr()
            };
            for at in (0..TILE * SHORT * size_of::<f32>()).step_by(LINE) {
                prefetch(rows.cast::<u8>().wrapping_add(AHEAD + at));
            }
            // SAFETY: sixteen rows of eight numbers lie at `rows`, every row of the input has eight, and
            // `target` has its outputs; the caller vouches for the processor.
            unsafe {
                let (x, stride) = (input.x.as_ptr(), input.stride);
                if input.count < WORTH_TURNING {
                    for row in 0..input.count {
                        let twice = [x.add(row * stride).cast::<[f32; SHORT]>().read(); 2];
                        let products = L::eights(rows, L::load(twice.as_ptr().cast()));
                        let at = target.at.add(row * target.stride + first);
                        add(L::load(products.as_ptr()), at, outputs);
                    }
                } else {
                    let columns = L::columns(rows);
                    for row in 0..input.count {
                        let u = x.add(row * stride);
                        let mut p = columns;
                        for (at, p) in p.iter_mut().enumerate() {
                            *p = p.times(L::splat(u.add(at).read()));
                        }
                        let even = p[0].add(p[4]).add(p[2].add(p[6]));
                        let sums = even.add(p[1].add(p[5]).add(p[3].add(p[7])));
                        add(sums, target.at.add(row * target.stride + first), outputs);
                    }
                }
            }
        }
    }
}

/// Adds the first `count` of sixteen numbers to those at `at`.
///
/// # Safety
/// `at` must be good for `count` numbers, and the processor must have the instructions of `L`.
#[inline(always)]
unsafe fn add<L: Lanes>(numbers: L, at: *mut f32, count: usize) {
    // SAFETY: as the caller says.
    unsafe {
        if count == TILE {
            L::load(at).add(numbers).store(at);
        } else {
            let mut all = [0.0; TILE];
            numbers.store(all.as_mut_ptr());
            for (place, number) in all.iter().enumerate().take(count) {
                *at.add(place) += number;
            }
        }
    }
}
