//! The inner loops of a product: a few rows of the matrix at a time with all rows of `x`.
//!
//! The matrix comes from memory, once. What is wanted next is asked for while the present rows are
//! multiplied, evenly, so that memory and arithmetic are both busy.

#![expect(
    unsafe_code,
    reason = "inner loops load through pointers within slices that are checked before"
)]

use super::beside::Beside;
use super::kept::{Kept, Plain};
use super::lanes::Lanes;
use super::matrix::Target;
use super::{Task, prefetch};

/// Rows of a matrix that are computed together; work is best cut at multiples of it.
const TILE: usize = 4;

/// Rows of `x` that are computed together.
const QUAD: usize = 4;

/// Bytes of a cache line.
pub(super) const LINE: usize = 64;

/// Tiles between what is multiplied and what is asked for.
const AHEAD: usize = 2;

/// Rows to multiply with.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    pub(super) x: &'a [f32],
    pub(super) stride: usize,
    pub(super) count: usize,
}

/// A product whose lengths were compared.
pub(super) struct Product<'a, K> {
    pub(super) rows: usize,
    pub(super) width: usize,
    /// Rows of the same matrix that follow in memory, and may be wanted next.
    pub(super) after: usize,
    pub(super) kept: K,
    pub(super) input: Input<'a>,
    pub(super) scratch: &'a mut Vec<f32>,
    pub(super) beside: &'a mut Beside,
    pub(super) target: Target<'a>,
}

impl<K: Kept> Task for Product<'_, K> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self { rows, width, after, kept, input, scratch, beside, target } = self;
        let expand = K::EXPAND && input.count > 2;
        let padded = width.next_multiple_of(16);
        if expand && scratch.len() < TILE * padded {
            scratch.resize(TILE * padded, 0.0);
        }
        let tiles = rows / TILE + rows % TILE;
        beside.begin(tiles * input.count.div_ceil(QUAD));
        let mut first = 0;
        while first < rows {
            let tile = if rows - first >= TILE { TILE } else { 1 };
            let (start, bytes) = kept.row(first, width);
            let mut ahead = Ahead::of(start, bytes, width, input.count, beside);
            // One row of f32 numbers keeps memory busy by itself, in an order that processors foresee.
            let foreseen = !K::EXPAND && input.count < QUAD;
            if foreseen || first + AHEAD * TILE >= rows + after {
                ahead.left = 0;
            }
            // SAFETY: processor and input are those of `product`, and the rows of the tile are in the matrix.
            unsafe {
                if expand {
                    for row in 0..tile {
                        let out = scratch.as_mut_ptr().add(row * padded);
                        expand_row::<L, K>(start.add(row * bytes), width, out);
                    }
                    let tile =
                        Tile { start: scratch.as_ptr().cast(), bytes: 4 * padded, rows: tile };
                    tile.rows::<L, Plain<'_>>(width, input, &mut ahead, first, target);
                } else {
                    let tile = Tile { start, bytes, rows: tile };
                    tile.rows::<L, K>(width, input, &mut ahead, first, target);
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
unsafe fn expand_row<L: Lanes, K: Kept>(row: *const u8, width: usize, out: *mut f32) {
    let whole = width / 16 * 16;
    for at in (0..whole).step_by(16) {
        // SAFETY: as the caller says.
        unsafe { K::load::<L>(row, at).store(out.add(at)) };
    }
    for at in whole..width {
        // SAFETY: as the caller says.
        unsafe { out.add(at).write(K::one(row, at)) };
    }
}

/// Memory that is asked for while a tile is multiplied.
pub(super) struct Ahead<'a> {
    next: *const u8,
    /// Lines that are still to be asked for, for each sixteen numbers (or block) of a row.
    left: usize,
    /// How many of them in one pass over the tile.
    each: usize,
    beside: &'a mut Beside,
}

/// How many lines of both to ask for with each piece of a row.
#[derive(Clone, Copy)]
pub(super) struct Lines([usize; 2]);

impl<'a> Ahead<'a> {
    /// As much as a tile has, after this one.
    #[inline(always)]
    fn of(
        start: *const u8,
        bytes: usize,
        width: usize,
        count: usize,
        beside: &'a mut Beside,
    ) -> Self {
        let lines = (TILE * bytes * 16).div_ceil(LINE * width);
        let next = start.wrapping_add(AHEAD * TILE * bytes);
        Self::new(next, lines, count.div_ceil(QUAD), beside)
    }

    /// `lines` lines from `next` on for each piece of a row, evenly in so many passes.
    #[inline(always)]
    pub(super) fn new(
        next: *const u8,
        lines: usize,
        passes: usize,
        beside: &'a mut Beside,
    ) -> Self {
        Self { next, left: lines, each: lines.div_ceil(passes), beside }
    }

    /// How many for each piece in the next pass over so many.
    #[inline(always)]
    pub(super) fn take(&mut self, pieces: usize) -> Lines {
        let taken = self.each.min(self.left);
        self.left -= taken;
        Lines([taken, self.beside.pass(pieces)])
    }

    /// Asks for the lines of so many pieces.
    #[inline(always)]
    pub(super) fn ask(&mut self, Lines([lines, beside]): Lines, pieces: usize) {
        for _ in 0..pieces * lines {
            prefetch(self.next);
            self.next = self.next.wrapping_add(LINE);
        }
        self.beside.ask(pieces * beside);
    }
}

/// Some rows of a matrix.
#[derive(Clone, Copy)]
struct Tile {
    start: *const u8,
    /// From one row to the next.
    bytes: usize,
    rows: usize,
}

impl Tile {
    /// All rows of the input with those of the tile.
    ///
    /// # Safety
    /// As [`Kept::load`] for each of the rows; the input must hold what it says.
    #[inline(always)]
    unsafe fn rows<L: Lanes, K: Kept>(
        self,
        width: usize,
        input: Input<'_>,
        ahead: &mut Ahead<'_>,
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
                let lines = ahead.take((width / 16).max(1));
                let place = Place { tile: self, x, stride: input.stride, width, lines };
                let taken = match (self.rows, left) {
                    (TILE, QUAD..) => four::<L, K>(place, ahead, done, first, target),
                    (TILE, 3) => some::<L, K, 3, TILE>(place, ahead, done, first, target),
                    (TILE, 2) => some::<L, K, 2, TILE>(place, ahead, done, first, target),
                    (TILE, _) => some::<L, K, 1, TILE>(place, ahead, done, first, target),
                    (_, QUAD..) => some::<L, K, QUAD, 1>(place, ahead, done, first, target),
                    (_, _) => some::<L, K, 1, 1>(place, ahead, done, first, target),
                };
                done += taken;
            }
        }
    }
}

/// What is multiplied.
#[derive(Clone, Copy)]
struct Place {
    tile: Tile,
    x: *const f32,
    stride: usize,
    width: usize,
    /// Lines to ask for with each sixteen numbers of a row.
    lines: Lines,
}

/// `M` rows of the input with `N` rows of the matrix: sixteen running sums for each pair.
///
/// # Safety
/// As [`Tile::rows`].
#[inline(always)]
unsafe fn running<L: Lanes, K: Kept, const M: usize, const N: usize>(
    p: Place,
    ahead: &mut Ahead<'_>,
) -> [[L; M]; N] {
    // SAFETY: as the caller says; the last, partial sixteen are copied number by number.
    unsafe {
        let Tile { start, bytes, .. } = p.tile;
        let mut sums = [[L::splat(0.0); M]; N];
        let whole = p.width / 16 * 16;
        let paired = p.width / 32 * 32;
        for at in (0..paired).step_by(32) {
            ahead.ask(p.lines, 2);
            let mut xs = [[L::splat(0.0); 2]; M];
            for (m, x) in xs.iter_mut().enumerate() {
                let from = p.x.add(m * p.stride + at);
                *x = [L::load(from), L::load(from.add(16))];
            }
            for (n, sums) in sums.iter_mut().enumerate() {
                let row = start.add(n * bytes);
                let (first, second) = (K::load::<L>(row, at), K::load::<L>(row, at + 16));
                for (sum, x) in sums.iter_mut().zip(xs) {
                    *sum = sum.plus(first, x[0]).plus(second, x[1]);
                }
            }
        }
        if paired < whole {
            for (n, sums) in sums.iter_mut().enumerate() {
                let w = K::load::<L>(start.add(n * bytes), paired);
                for (m, sum) in sums.iter_mut().enumerate() {
                    *sum = sum.plus(w, L::load(p.x.add(m * p.stride + paired)));
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
                let row = start.add(n * bytes);
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
/// As [`Tile::rows`].
#[inline(always)]
unsafe fn four<L: Lanes, K: Kept>(
    place: Place,
    ahead: &mut Ahead<'_>,
    row: usize,
    first: usize,
    target: Target<'_>,
) -> usize {
    // SAFETY: as the caller says.
    unsafe {
        let s = running::<L, K, QUAD, TILE>(place, ahead);
        let mut all = [s[0][0]; 16];
        for (n, of_row) in s.iter().enumerate() {
            for (m, sum) in of_row.iter().enumerate() {
                all[m * TILE + n] = *sum;
            }
        }
        let sums = L::sums(all);
        for m in 0..QUAD {
            let from = sums.as_ptr().add(m * TILE).cast::<[f32; TILE]>();
            let to = target.at.add((row + m) * target.stride + first);
            to.cast::<[f32; TILE]>().write_unaligned(from.read());
        }
    }
    QUAD
}

/// # Safety
/// As [`Tile::rows`].
#[inline(always)]
unsafe fn some<L: Lanes, K: Kept, const M: usize, const N: usize>(
    place: Place,
    ahead: &mut Ahead<'_>,
    row: usize,
    first: usize,
    target: Target<'_>,
) -> usize {
    // SAFETY: as the caller says.
    unsafe {
        let running = running::<L, K, M, N>(place, ahead);
        for m in 0..M {
            for (n, sums) in running.iter().enumerate() {
                target.at.add((row + m) * target.stride + first + n).write(sums[m].sum());
            }
        }
    }
    M
}
