//! Products of a few rows with a matrix that is read once: `y = x · wᵀ`, in f32 where the matrix is kept in
//! 32 or 16 bits, in integers where it is kept in blocks of 8 bits or fewer.

#![expect(
    unsafe_code,
    reason = "inner loops load through pointers within slices that are checked before"
)]

use std::marker::PhantomData;
use std::ops::Range;

use half::{bf16, f16};

use super::beside::Beside;
use super::eight;
use super::kept::{Brain, Half, Plain};
use super::rounded::{Rounded, Rows};
use super::tile::{LINE, Product};
use super::{Blocks, Board, dispatch, dispatch_integers, prefetch, prefetch_near, tile};

/// Numbers as they are kept in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Numbers<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
    F16(&'a [f16]),
    Blocks(Blocks, &'a [u8]),
}

/// A matrix `[rows, width]` in row-major order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix<'a> {
    pub(super) numbers: Numbers<'a>,
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
            Numbers::Blocks(blocks, all) => {
                blocks.row(width).is_some_and(|bytes| all.len() == rows * bytes)
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
            Numbers::Blocks(blocks, all) => {
                let bytes = blocks.row(width).unwrap_or(0);
                Numbers::Blocks(blocks, &all[rows.start * bytes..rows.end * bytes])
            }
        };
        Self { numbers, rows: count, width, after: self.after + self.rows - rows.end }
    }

    /// Where it begins and ends.
    pub(super) fn span(&self) -> [*const u8; 2] {
        let range = match self.numbers {
            Numbers::F32(all) => bytes(all),
            Numbers::Bf16(all) => bytes(all),
            Numbers::F16(all) => bytes(all),
            Numbers::Blocks(_, all) => bytes(all),
        };
        [range.start, range.end]
    }

    /// Asks for its beginning, which will be multiplied soon.
    pub(crate) fn ask(&self, bytes: usize) {
        let [start, end] = self.span();
        for at in (0..bytes.min(end.addr() - start.addr())).step_by(LINE) {
            prefetch(start.wrapping_add(at));
        }
    }

    /// Asks for all of it, which is small and read next.
    pub(crate) fn ask_near(&self) {
        let [start, end] = self.span();
        for at in (0..end.addr() - start.addr()).step_by(LINE) {
            prefetch_near(start.wrapping_add(at));
        }
    }

    /// Writes one row as f32.
    pub(crate) fn row(&self, row: usize, out: &mut [f32]) {
        let part = self.part(row..row + 1);
        match part.numbers {
            Numbers::F32(all) => out.copy_from_slice(all),
            Numbers::Bf16(all) => out.iter_mut().zip(all).for_each(|(o, x)| *o = x.to_f32()),
            Numbers::F16(all) => out.iter_mut().zip(all).for_each(|(o, x)| *o = x.to_f32()),
            Numbers::Blocks(blocks, all) => blocks.expand(all, out),
        }
    }

    /// Whether products with it take rounded rows.
    pub(crate) fn rounds(&self) -> bool {
        matches!(self.numbers, Numbers::Blocks(..))
    }

    /// Writes the products of every row of the input with every row of the matrix to `target`.
    pub(crate) fn product(&self, input: Input<'_>, scratch: &mut Scratch, target: Target<'_>) {
        let Input { x, stride, count, rounded } = input;
        if count == 0 || self.rows == 0 {
            scratch.beside.end();
            return;
        }
        assert!(stride >= self.width && x.len() >= (count - 1) * stride + self.width);
        assert!(target.count >= (count - 1) * target.stride + self.rows);
        let input = tile::Input { x, stride, count };
        let (rows, width, after) = (self.rows, self.width, self.after);
        let Scratch { expanded: scratch, eight, beside, .. } = scratch;
        match self.numbers {
            Numbers::F32(all) => {
                let kept = Plain(all);
                dispatch(Product { rows, width, after, kept, input, scratch, beside, target });
            }
            Numbers::Bf16(all) => {
                let kept = Brain(all);
                dispatch(Product { rows, width, after, kept, input, scratch, beside, target });
            }
            Numbers::F16(all) => {
                let kept = Half(all);
                dispatch(Product { rows, width, after, kept, input, scratch, beside, target });
            }
            Numbers::Blocks(kept, all) => {
                let own;
                let input = if let Some(rounded) = rounded {
                    rounded
                } else {
                    own = Rounded::of(x, stride, count, width);
                    // SAFETY: nobody else knows these rows.
                    unsafe { own.rows(0, count) }
                };
                assert!(input.count() == count && input.width() == width);
                let scratch = eight;
                let product =
                    eight::Product { rows, after, all, kept, input, scratch, beside, target };
                dispatch_integers(product);
            }
        }
        beside.end();
    }
}

fn bytes<T>(all: &[T]) -> Range<*const u8> {
    let all = all.as_ptr_range();
    all.start.cast()..all.end.cast()
}

/// Rows to multiply with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input<'a> {
    /// Numbers, each row `stride` after the one before.
    pub(crate) x: &'a [f32],
    pub(crate) stride: usize,
    pub(crate) count: usize,
    /// The same rows rounded, where that was done before; a product that takes rounded rows does it itself
    /// otherwise.
    pub(crate) rounded: Option<Rows<'a>>,
}

/// Memory of one thread, which products use as they like.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Rows of the matrix in f32.
    expanded: Vec<f32>,
    eight: eight::Scratch,
    /// What the next product asks for while it goes on.
    pub(crate) beside: Beside,
    /// Products that are added to others.
    pub(super) wide: Vec<f32>,
}

/// Where products go: one row of numbers for each row that was multiplied, `stride` apart.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(super) at: *mut f32,
    pub(super) count: usize,
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
