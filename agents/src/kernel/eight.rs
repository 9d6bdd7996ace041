//! Products of rounded rows with a matrix of 8-bit integers: sixteen rows of the matrix at a time.
//!
//! The products of a block of 32 are summed in integers, which is exact in any order; then the blocks of a
//! row one after the other in f32: `sum = sum + dots · (scale of the matrix · scale of the row)`, each
//! operation rounded by itself. So the result has the same bits on every processor and in any company.

#![expect(
    unsafe_code,
    reason = "inner loops load through pointers within slices that are checked before"
)]

use super::lanes::{Lanes, Portable};
use super::matrix::Target;
use super::rounded::{BLOCK, Block, GROUP, Rows};
use super::tile::{Ahead, LINE};

/// Bytes of a block of the matrix: a scale of half precision, then its integers.
pub(super) const BLOCK_BYTES: usize = BLOCK + 2;

/// Rows of the matrix that are multiplied together.
const TILE: usize = 16;

/// Lanes that multiply integers.
///
/// # Safety of all functions
/// As [`Lanes`].
pub(super) trait Integers: Lanes {
    /// A block of each of sixteen rows, as [`Self::dots`] wants it.
    type Tile: Copy;

    /// Loads the blocks at `at` and every `bytes` bytes on; each pointer must be good for 32 integers.
    unsafe fn tile(at: *const i8, bytes: usize) -> Self::Tile;

    /// The products of the sixteen blocks with `x`; integers below 2²⁴, so f32 holds them.
    unsafe fn dots(tile: &Self::Tile, x: *const Block) -> Self;
}

impl Integers for Portable {
    type Tile = [[i8; BLOCK]; TILE];

    #[inline(always)]
    unsafe fn tile(at: *const i8, bytes: usize) -> Self::Tile {
        // SAFETY: as the trait says.
        std::array::from_fn(|row| unsafe { at.add(row * bytes).cast::<[i8; BLOCK]>().read() })
    }

    #[inline(always)]
    unsafe fn dots(tile: &Self::Tile, x: *const Block) -> Self {
        // SAFETY: as the trait says.
        let x = unsafe { (*x).integers };
        let dot = |row: &[i8; BLOCK]| -> i32 {
            row.iter().zip(&x).map(|(&w, &x)| i32::from(w) * i32::from(x)).sum()
        };
        Self::from_fn(|row| dot(&tile[row]) as f32)
    }
}

/// A product whose lengths were compared.
pub(super) struct Product<'a> {
    pub(super) rows: usize,
    /// Rows of the same matrix that follow in memory, and may be wanted next.
    pub(super) after: usize,
    pub(super) all: &'a [u8],
    pub(super) input: Rows<'a>,
    pub(super) scratch: &'a mut Scratch,
    pub(super) target: Target<'a>,
}

/// Memory of one thread for such products.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Room for the blocks of a tile once they are in order.
    blocks: Vec<f32>,
    /// A last tile that lacks rows.
    last: Vec<u8>,
}

impl Product<'_> {
    /// Does it.
    ///
    /// # Safety
    /// The processor must have the instructions of `L`.
    #[inline(always)]
    pub(super) unsafe fn run<L: Integers>(self) {
        let Self { rows, after, all, input, scratch, target } = self;
        let blocks = input.width() / BLOCK;
        let bytes = blocks * BLOCK_BYTES;
        let groups = groups(input);
        let several = groups > 1;
        if several {
            let room = blocks * size_of::<Loaded<L>>() + LINE;
            scratch.blocks.resize(room.div_ceil(size_of::<f32>()), 0.0);
        }
        let kept = scratch.blocks.as_mut_ptr();
        let kept = kept.wrapping_add(kept.align_offset(LINE)).cast::<Loaded<L>>();
        for first in (0..rows).step_by(TILE) {
            let count = (rows - first).min(TILE);
            let mut start = all[first * bytes..(first + count) * bytes].as_ptr();
            let next = start.wrapping_add(TILE * bytes);
            let lines =
                if first + TILE < rows + after { (TILE * BLOCK_BYTES).div_ceil(LINE) } else { 0 };
            let mut ahead = Ahead::new(next, lines, groups);
            if count < TILE {
                scratch.last.clear();
                scratch.last.extend_from_slice(&all[first * bytes..(first + count) * bytes]);
                scratch.last.resize(TILE * bytes, 0);
                start = scratch.last.as_ptr();
            }
            // SAFETY: `TILE` rows of `bytes` bytes lie at `start`, `kept` has room for their blocks where they
            // are wanted again, and rows that are named are in the input, whose width is that of the matrix.
            unsafe {
                let mut from = Sixteen { start, bytes, blocks, kept, keep: several, again: false };
                let mut row = 0;
                while row < input.count() {
                    let x = input.start(row);
                    let to = To { target, row, first, count };
                    let taken = next_group(input, row);
                    match taken {
                        GROUP => group::<L, GROUP>(from, x, &mut ahead, to),
                        4 => group::<L, 4>(from, x, &mut ahead, to),
                        2 => group::<L, 2>(from, x, &mut ahead, to),
                        _ => group::<L, 1>(from, x, &mut ahead, to),
                    }
                    from.again = true;
                    row += taken;
                }
            }
        }
    }
}

/// Rows that are multiplied together, from `row` on: 8, 4, 2 or 1.
fn next_group(input: Rows<'_>, row: usize) -> usize {
    1 << input.together(row).ilog2()
}

/// In how many groups all rows are multiplied.
fn groups(input: Rows<'_>) -> usize {
    let (mut row, mut groups) = (0, 0);
    while row < input.count() {
        row += next_group(input, row);
        groups += 1;
    }
    groups
}

/// A block of each of sixteen rows.
#[derive(Clone, Copy)]
struct Loaded<L: Integers> {
    tile: L::Tile,
    scales: L,
}

impl<L: Integers> Loaded<L> {
    /// Loads the blocks that begin at `at` and every `bytes` bytes on.
    ///
    /// # Safety
    /// As [`Integers::tile`].
    #[inline(always)]
    unsafe fn from(at: *const u8, bytes: usize) -> Self {
        // SAFETY: as the caller says.
        unsafe {
            let mut scales = [0; TILE];
            for (row, scale) in scales.iter_mut().enumerate() {
                *scale = u16::from_le(at.add(row * bytes).cast::<u16>().read_unaligned());
            }
            Self { tile: L::tile(at.add(2).cast(), bytes), scales: L::load_f16(scales.as_ptr()) }
        }
    }
}

/// Sixteen rows of the matrix.
#[derive(Clone, Copy)]
struct Sixteen<L: Integers> {
    start: *const u8,
    bytes: usize,
    blocks: usize,
    /// Where their blocks are kept in order, whether another group will want them, and whether one has
    /// kept them.
    kept: *mut Loaded<L>,
    keep: bool,
    again: bool,
}

/// Where the products of a group go.
#[derive(Clone, Copy)]
struct To<'a> {
    target: Target<'a>,
    row: usize,
    first: usize,
    count: usize,
}

/// `M` rows that lie side by side with sixteen rows of the matrix.
///
/// # Safety
/// As [`Product::run`]: all that is named must be there.
#[inline(always)]
unsafe fn group<L: Integers, const M: usize>(
    from: Sixteen<L>,
    x: *const Block,
    ahead: &mut Ahead,
    to: To<'_>,
) {
    let lines = ahead.take();
    // SAFETY: as the caller says.
    unsafe {
        let mut sums = [L::splat(0.0); M];
        for block in 0..from.blocks {
            ahead.ask(lines);
            let Loaded { tile, scales } = if from.again {
                from.kept.add(block).read()
            } else {
                let loaded = Loaded::from(from.start.add(block * BLOCK_BYTES), from.bytes);
                if from.keep {
                    from.kept.add(block).write(loaded);
                }
                loaded
            };
            for (m, sum) in sums.iter_mut().enumerate() {
                let x = x.add(block * GROUP + m);
                let scale = scales.times(L::splat((*x).scale));
                *sum = sum.add(L::dots(&tile, x).times(scale));
            }
        }
        for (m, sum) in sums.into_iter().enumerate() {
            let at = to.target.at.add((to.row + m) * to.target.stride + to.first);
            if to.count == TILE {
                sum.store(at);
            } else {
                let mut all = [0.0; TILE];
                sum.store(all.as_mut_ptr());
                std::ptr::copy_nonoverlapping(all.as_ptr(), at, to.count);
            }
        }
    }
}
