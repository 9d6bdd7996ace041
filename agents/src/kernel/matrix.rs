//! Products of a few rows with a matrix that is read once: `y = x · wᵀ` in f32, whatever the matrix is kept in.

#![expect(
    unsafe_code,
    reason = "inner loops load through pointers within slices that are checked before"
)]

use std::marker::PhantomData;
use std::ops::Range;

use half::{bf16, f16};

use super::kept::{BLOCK, BLOCK_BYTES, Brain, Eight, Half, Kept, Plain};
use super::lanes::{Lanes, from_f16};
use super::{Board, Task, dispatch, prefetch};

/// Rows of a matrix that are computed together; work is best cut at multiples of it.
const TILE: usize = 4;

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
        fits.then_some(Self { numbers, rows, width })
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
        Self { numbers, rows: count, width }
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
        let (input, matrix) = (Input { x, stride, count }, *self);
        match self.numbers {
            Numbers::F32(all) => {
                dispatch(Product { matrix, kept: Plain(all), input, scratch, target });
            }
            Numbers::Bf16(all) => {
                dispatch(Product { matrix, kept: Brain(all), input, scratch, target });
            }
            Numbers::F16(all) => {
                dispatch(Product { matrix, kept: Half(all), input, scratch, target });
            }
            Numbers::Q8(all) => {
                dispatch(Product { matrix, kept: Eight(all), input, scratch, target });
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
    at: *mut f32,
    count: usize,
    stride: usize,
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

/// Rows to multiply with.
#[derive(Clone, Copy)]
struct Input<'a> {
    x: &'a [f32],
    stride: usize,
    count: usize,
}

struct Product<'a, K> {
    matrix: Matrix<'a>,
    kept: K,
    input: Input<'a>,
    scratch: &'a mut Vec<f32>,
    target: Target<'a>,
}

impl<K: Kept> Task for Product<'_, K> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self { matrix, kept, input, scratch, target } = self;
        let (rows, width) = (matrix.rows, matrix.width);
        let expand = K::EXPAND && input.count > 2;
        let padded = width.next_multiple_of(16);
        if expand && scratch.len() < TILE * padded {
            scratch.resize(TILE * padded, 0.0);
        }
        let mut first = 0;
        while first < rows {
            let tile = if rows - first >= TILE { TILE } else { 1 };
            let (start, bytes) = kept.row(first, width);
            // SAFETY: processor and input are those of `product`, and the rows of the tile are in the matrix.
            unsafe {
                if expand {
                    for row in 0..tile {
                        let out = scratch.as_mut_ptr().add(row * padded);
                        let ahead = start.wrapping_add((tile + row) * bytes);
                        expand_row::<L, K>(start.add(row * bytes), width, ahead, out);
                    }
                    let at = scratch.as_ptr().cast();
                    tile_rows::<L, Plain<'_>>(at, 4 * padded, tile, width, input, first, target);
                } else {
                    tile_rows::<L, K>(start, bytes, tile, width, input, first, target);
                }
            }
            first += tile;
        }
    }
}

/// Writes a row out as f32.
///
/// # Safety
/// As [`Kept::load`]; `out` must be good for `width` numbers rounded up to sixteen.
#[inline(always)]
unsafe fn expand_row<L: Lanes, K: Kept>(
    row: *const u8,
    width: usize,
    ahead: *const u8,
    out: *mut f32,
) {
    let whole = width / 16 * 16;
    for at in (0..whole).step_by(16) {
        // The next tile lies behind this one, and is wanted soon.
        prefetch(ahead.wrapping_add(2 * at));
        // SAFETY: as the caller says.
        unsafe { K::load::<L>(row, at).store(out.add(at)) };
    }
    for at in whole..width {
        // SAFETY: as the caller says.
        unsafe { out.add(at).write(K::one(row, at)) };
    }
}

/// All rows of the input with `tile` rows of the matrix, `bytes` apart.
///
/// # Safety
/// As [`Kept::load`] for each of the rows; the input must hold what it says.
#[inline(always)]
unsafe fn tile_rows<L: Lanes, K: Kept>(
    start: *const u8,
    bytes: usize,
    tile: usize,
    width: usize,
    input: Input<'_>,
    first: usize,
    target: Target<'_>,
) {
    let at = input.x.as_ptr();
    let mut done = 0;
    // SAFETY: every row that is named lies within the input or the matrix, as the caller says.
    unsafe {
        while done < input.count {
            let x = at.add(done * input.stride);
            let left = input.count - done;
            let place = Place { start, bytes, x, stride: input.stride, width, share: done / 4 };
            let taken = match (tile, left) {
                (TILE, 4..) => four::<L, K>(place, done, first, target),
                (TILE, 3) => some::<L, K, 3, TILE>(place, done, first, target),
                (TILE, 2) => some::<L, K, 2, TILE>(place, done, first, target),
                (TILE, _) => some::<L, K, 1, TILE>(place, done, first, target),
                (_, 4..) => some::<L, K, 4, 1>(place, done, first, target),
                (_, _) => some::<L, K, 1, 1>(place, done, first, target),
            };
            done += taken;
        }
    }
}

/// Where a tile lies.
#[derive(Clone, Copy)]
struct Place {
    start: *const u8,
    bytes: usize,
    x: *const f32,
    stride: usize,
    width: usize,
    /// Which share of the next tile is asked for meanwhile.
    share: usize,
}

/// `M` rows of the input with `N` rows of the matrix: sixteen running sums for each pair.
///
/// # Safety
/// As [`tile_rows`].
#[inline(always)]
unsafe fn running<L: Lanes, K: Kept, const M: usize, const N: usize>(p: Place) -> [[L; M]; N] {
    // SAFETY: as the caller says; the last, partial sixteen are copied number by number.
    unsafe {
        let mut sums = [[L::splat(0.0); M]; N];
        let whole = p.width / 16 * 16;
        let ahead = p.start.wrapping_add(N * p.bytes + p.share * p.width * 4);
        for at in (0..whole).step_by(16) {
            if M == 4 {
                prefetch(ahead.wrapping_add(4 * at));
            }
            let mut xs = [L::splat(0.0); M];
            for (m, x) in xs.iter_mut().enumerate() {
                *x = L::load(p.x.add(m * p.stride + at));
            }
            for (n, sums) in sums.iter_mut().enumerate() {
                let row = p.start.add(n * p.bytes);
                if M < 4 && n % 2 == 0 {
                    prefetch(row.wrapping_add(N * p.bytes + at * p.bytes / p.width));
                }
                let w = K::load::<L>(row, at);
                for (sum, x) in sums.iter_mut().zip(xs) {
                    *sum = sum.plus(w, x);
                }
            }
        }
        if whole < p.width {
            let mut xs = [[0f32; 16]; M];
            for (m, x) in xs.iter_mut().enumerate() {
                for at in whole..p.width {
                    x[at - whole] = p.x.add(m * p.stride + at).read();
                }
            }
            for (n, sums) in sums.iter_mut().enumerate() {
                let row = p.start.add(n * p.bytes);
                let mut w = [0f32; 16];
                for at in whole..p.width {
                    w[at - whole] = K::one(row, at);
                }
                let w = L::load(w.as_ptr());
                for (sum, x) in sums.iter_mut().zip(&xs) {
                    *sum = sum.plus(w, L::load(x.as_ptr()));
                }
            }
        }
        sums
    }
}

/// # Safety
/// As [`tile_rows`].
#[inline(always)]
unsafe fn four<L: Lanes, K: Kept>(
    place: Place,
    row: usize,
    first: usize,
    target: Target<'_>,
) -> usize {
    // SAFETY: as the caller says.
    unsafe {
        let s = running::<L, K, 4, TILE>(place);
        let mut all = [s[0][0]; 16];
        for (n, of_row) in s.iter().enumerate() {
            for (m, sum) in of_row.iter().enumerate() {
                all[m * TILE + n] = *sum;
            }
        }
        let sums = L::sums(all);
        for m in 0..4 {
            let from = sums.as_ptr().add(m * TILE).cast::<[f32; TILE]>();
            let to = target.at.add((row + m) * target.stride + first);
            to.cast::<[f32; TILE]>().write_unaligned(from.read());
        }
    }
    4
}

/// # Safety
/// As [`tile_rows`].
#[inline(always)]
unsafe fn some<L: Lanes, K: Kept, const M: usize, const N: usize>(
    place: Place,
    row: usize,
    first: usize,
    target: Target<'_>,
) -> usize {
    // SAFETY: as the caller says.
    unsafe {
        let running = running::<L, K, M, N>(place);
        for m in 0..M {
            for (n, sums) in running.iter().enumerate() {
                target.at.add((row + m) * target.stride + first + n).write(sums[m].sum());
            }
        }
    }
    M
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
