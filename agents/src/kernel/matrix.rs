//! Products of a few rows with a matrix that is read once: `y = x · wᵀ` in f32, whatever the matrix is kept in.

#![expect(
    unsafe_code,
    reason = "inner loops load through pointers within slices that are checked before"
)]

use std::marker::PhantomData;
use std::ops::Range;

use half::{bf16, f16};

use super::kept::{BLOCK, BLOCK_BYTES, Brain, Eight, Half, Plain};
use super::lanes::{Lanes, from_f16};
use super::tile::{Input, LINE, Product};
use super::{Board, Task, dispatch, prefetch};

/// Numbers as they are kept in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Numbers<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
    F16(&'a [f16]),
    /// Blocks of a half-precision scale and 32 integers.
    Q8(&'a [u8]),
}

/// A matrix `[rows, width]` in row-major order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix<'a> {
    numbers: Numbers<'a>,
    rows: usize,
    width: usize,
    /// Rows of the same matrix that follow in memory.
    after: usize,
}

impl<'a> Matrix<'a> {
    /// None where the shape does not fit the numbers.
    pub(crate) fn new(numbers: Numbers<'a>, rows: usize, width: usize) -> Option<Self> {
        let fits = match numbers {
            Numbers::F32(all) => all.len() == rows * width,
            Numbers::Bf16(all) => all.len() == rows * width,
            Numbers::F16(all) => all.len() == rows * width,
            Numbers::Q8(all) => {
                width.is_multiple_of(BLOCK) && all.len() == rows * (width / BLOCK) * BLOCK_BYTES
            }
        };
        fits.then_some(Self { numbers, rows, width, after: 0 })
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// The rows of a part of it.
    pub(crate) fn part(&self, rows: Range<usize>) -> Self {
        let (width, count) = (self.width, rows.len());
        let span = rows.start * width..rows.end * width;
        let numbers = match self.numbers {
            Numbers::F32(all) => Numbers::F32(&all[span]),
            Numbers::Bf16(all) => Numbers::Bf16(&all[span]),
            Numbers::F16(all) => Numbers::F16(&all[span]),
            Numbers::Q8(all) => {
                let bytes = width / BLOCK * BLOCK_BYTES;
                Numbers::Q8(&all[rows.start * bytes..rows.end * bytes])
            }
        };
        Self { numbers, rows: count, width, after: self.after + self.rows - rows.end }
    }

    /// Asks for its beginning, which will be multiplied soon.
    pub(crate) fn ask(&self, bytes: usize) {
        let (start, all) = match self.numbers {
            Numbers::F32(all) => (all.as_ptr().cast::<u8>(), size_of_val(all)),
            Numbers::Bf16(all) => (all.as_ptr().cast(), size_of_val(all)),
            Numbers::F16(all) => (all.as_ptr().cast(), size_of_val(all)),
            Numbers::Q8(all) => (all.as_ptr(), all.len()),
        };
        for at in (0..bytes.min(all)).step_by(LINE) {
            prefetch(start.wrapping_add(at));
        }
    }

    /// Writes one row as f32.
    pub(crate) fn row(&self, row: usize, out: &mut [f32]) {
        let part = self.part(row..row + 1);
        match part.numbers {
            Numbers::F32(all) => out.copy_from_slice(all),
            Numbers::Bf16(all) => out.iter_mut().zip(all).for_each(|(o, x)| *o = x.to_f32()),
            Numbers::F16(all) => out.iter_mut().zip(all).for_each(|(o, x)| *o = x.to_f32()),
            Numbers::Q8(all) => {
                for (out, block) in out.chunks_mut(BLOCK).zip(all.chunks_exact(BLOCK_BYTES)) {
                    let scale = from_f16(u16::from_le_bytes([block[0], block[1]]));
                    for (o, &q) in out.iter_mut().zip(&block[2..]) {
                        *o = f32::from(q.cast_signed()) * scale;
                    }
                }
            }
        }
    }

    /// Writes the products of every row of `x` (`stride` numbers apart, `count` of them) with every row of
    /// the matrix to `target`. `scratch` is used as it likes.
    pub(crate) fn product(
        &self,
        x: &[f32],
        stride: usize,
        count: usize,
        scratch: &mut Vec<f32>,
        target: Target<'_>,
    ) {
        if count == 0 || self.rows == 0 {
            return;
        }
        assert!(stride >= self.width && x.len() >= (count - 1) * stride + self.width);
        assert!(target.count >= (count - 1) * target.stride + self.rows);
        let input = Input { x, stride, count };
        let (rows, width, after) = (self.rows, self.width, self.after);
        match self.numbers {
            Numbers::F32(all) => {
                dispatch(Product { rows, width, after, kept: Plain(all), input, scratch, target });
            }
            Numbers::Bf16(all) => {
                dispatch(Product { rows, width, after, kept: Brain(all), input, scratch, target });
            }
            Numbers::F16(all) => {
                dispatch(Product { rows, width, after, kept: Half(all), input, scratch, target });
            }
            Numbers::Q8(all) => {
                dispatch(Product { rows, width, after, kept: Eight(all), input, scratch, target });
            }
        }
    }

    /// The products of rows of eight f32 numbers with `u`, sixteen at a time; false, and nothing done, where
    /// this matrix is none of that kind.
    pub(crate) fn narrow_product(&self, u: &[f32], out: &mut [f32]) -> bool {
        let Numbers::F32(all) = self.numbers else { return false };
        if self.width != 8 || u.len() != 8 || out.len() != self.rows {
            return false;
        }
        dispatch(Narrow { all, u, out });
        true
    }
}

/// Where products go: one row of numbers for each row that was multiplied, `stride` apart.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(super) at: *mut f32,
    count: usize,
    pub(super) stride: usize,
    lifetime: PhantomData<&'a mut f32>,
}

impl<'a> Target<'a> {
    pub(crate) fn new(numbers: &'a mut [f32], stride: usize) -> Self {
        let (at, count) = (numbers.as_mut_ptr(), numbers.len());
        Self { at, count, stride, lifetime: PhantomData }
    }

    /// Numbers of a board from `start` on.
    ///
    /// # Safety
    /// Nobody else may use the numbers that a product with so many rows will write, while the result lives.
    pub(crate) unsafe fn on(board: &'a Board, start: usize, stride: usize) -> Self {
        let (at, count) = board.cells(start);
        Self { at, count, stride, lifetime: PhantomData }
    }
}

/// Rows of eight numbers.
struct Narrow<'a> {
    all: &'a [f32],
    u: &'a [f32],
    out: &'a mut [f32],
}

impl Task for Narrow<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let mut twice = [0.0; 16];
        twice[..8].copy_from_slice(self.u);
        twice[8..].copy_from_slice(self.u);
        let mut out = self.out.chunks_exact_mut(16);
        let mut rows = self.all.chunks_exact(128);
        for (out, rows) in out.by_ref().zip(rows.by_ref()) {
            // SAFETY: sixteen rows of eight numbers are 128, and `twice` holds sixteen.
            out.copy_from_slice(&unsafe { L::eights(rows.as_ptr(), L::load(twice.as_ptr())) });
        }
        for (out, row) in out.into_remainder().iter_mut().zip(rows.remainder().chunks_exact(8)) {
            let mut last = [0.0; 128];
            last[..8].copy_from_slice(row);
            // SAFETY: `last` holds 128 numbers, and portable lanes ask nothing of the processor.
            *out = unsafe { L::eights(last.as_ptr(), L::load(twice.as_ptr())) }[0];
        }
    }
}
