//! Products of rounded rows with a matrix in blocks of integers: sixteen rows of the matrix at a time.
//!
//! Blocks are taken apart into integers of 8 bits where they lie, and kept so if more rows want them than are
//! multiplied together. The products of 32 integers are summed in integers, which is exact in any order; then
//! these sums one after the other in f32: `sum = sum + dots · (scale of the matrix · scale of the row)`, or
//! as `scales` says, each operation rounded by itself. So the result has the same bits on every processor
//! and in any company.

#![expect(
    unsafe_code,
    reason = "inner loops load through pointers within slices that are checked before"
)]

use std::marker::PhantomData;

use super::beside::Beside;
use super::blocks::{Blocks, Format, OnBlocks, Parts, TILE};
use super::lanes::{Lanes, Portable, from_f16};
use super::matrix::Target;
use super::rounded::{BLOCK, Block, GROUP, Rows};
use super::scales::Scales;
use super::tile::{Ahead, LINE, Lines};

/// Lanes that multiply integers.
///
/// # Safety of all functions
/// As [`Lanes`].
pub(super) trait Integers: Lanes {
    /// A block of each of sixteen rows, as [`Self::dots`] wants it.
    type Tile: Copy;

    /// 32 bits of each of sixteen rows: four bytes, the first one lowest.
    type Words: Copy;

    /// Loads the blocks at `at` and every `stride` bytes on; each pointer must be good for 32 integers.
    unsafe fn tile(at: *const i8, stride: usize) -> Self::Tile;

    /// Blocks whose integers are `less` below these bytes, which are below 64; `less` is at most that.
    unsafe fn packed(words: [Self::Words; 8], less: u8) -> Self::Tile;

    /// Loads sixteen bytes at `at` and every `stride` bytes on.
    unsafe fn words(at: *const u8, stride: usize) -> [Self::Words; 4];

    /// The bits of the mask, once those below `from` are gone.
    unsafe fn bits(words: Self::Words, from: u32, mask: u32) -> Self::Words;

    /// All bits so many places higher.
    unsafe fn raised(words: Self::Words, by: u32) -> Self::Words;

    unsafe fn or(words: Self::Words, others: Self::Words) -> Self::Words;

    /// Whole numbers with a sign, which f32 must hold.
    unsafe fn number(words: Self::Words) -> Self;

    /// Half-precision numbers in the lower 16 bits.
    unsafe fn half(words: Self::Words) -> Self;

    /// The products of the sixteen blocks with `x`; integers below 2²⁴, so f32 holds them.
    unsafe fn dots(tile: &Self::Tile, x: *const Block) -> Self;

    /// The same of the first and the second half of each.
    unsafe fn halves(tile: &Self::Tile, x: *const Block) -> [Self; 2];
}

impl Integers for Portable {
    type Tile = [[i8; BLOCK]; TILE];
    type Words = [u32; TILE];

    #[inline(always)]
    unsafe fn tile(at: *const i8, stride: usize) -> Self::Tile {
        // SAFETY: as the trait says.
        std::array::from_fn(|row| unsafe { at.add(row * stride).cast::<[i8; BLOCK]>().read() })
    }

    #[inline(always)]
    unsafe fn packed(words: [Self::Words; 8], less: u8) -> Self::Tile {
        let mut tile = [[0; BLOCK]; TILE];
        for (row, integers) in tile.iter_mut().enumerate() {
            for (four, words) in integers.chunks_exact_mut(4).zip(&words) {
                for (integer, byte) in four.iter_mut().zip(words[row].to_le_bytes()) {
                    *integer = byte.cast_signed() - less.cast_signed();
                }
            }
        }
        tile
    }

    #[inline(always)]
    unsafe fn words(at: *const u8, stride: usize) -> [Self::Words; 4] {
        let mut words = [[0; TILE]; 4];
        for (i, words) in words.iter_mut().enumerate() {
            for (row, word) in words.iter_mut().enumerate() {
                // SAFETY: as the trait says.
                *word =
                    unsafe { at.add(row * stride + 4 * i).cast::<u32>().read_unaligned() }.to_le();
            }
        }
        words
    }

    #[inline(always)]
    unsafe fn bits(words: Self::Words, from: u32, mask: u32) -> Self::Words {
        words.map(|word| word >> from & mask)
    }

    #[inline(always)]
    unsafe fn raised(words: Self::Words, by: u32) -> Self::Words {
        words.map(|word| word << by)
    }

    #[inline(always)]
    unsafe fn or(words: Self::Words, others: Self::Words) -> Self::Words {
        std::array::from_fn(|row| words[row] | others[row])
    }

    #[inline(always)]
    unsafe fn number(words: Self::Words) -> Self {
        Self::from_fn(|row| words[row].cast_signed() as f32)
    }

    #[inline(always)]
    unsafe fn half(words: Self::Words) -> Self {
        Self::from_fn(|row| from_f16(words[row] as u16))
    }

    #[inline(always)]
    unsafe fn dots(tile: &Self::Tile, x: *const Block) -> Self {
        // SAFETY: as the trait says.
        let x = unsafe { (*x).integers };
        Self::from_fn(|row| dot(&tile[row], &x) as f32)
    }

    #[inline(always)]
    unsafe fn halves(tile: &Self::Tile, x: *const Block) -> [Self; 2] {
        // SAFETY: as the trait says.
        let x = unsafe { (*x).integers };
        let (first, second) = x.split_at(BLOCK / 2);
        [
            Self::from_fn(|row| dot(&tile[row][..BLOCK / 2], first) as f32),
            Self::from_fn(|row| dot(&tile[row][BLOCK / 2..], second) as f32),
        ]
    }
}

fn dot(w: &[i8], x: &[i8]) -> i32 {
    w.iter().zip(x).map(|(&w, &x)| i32::from(w) * i32::from(x)).sum()
}

/// A product whose lengths were compared.
pub(super) struct Product<'a> {
    pub(super) rows: usize,
    /// Rows of the same matrix that follow in memory, and may be wanted next.
    pub(super) after: usize,
    pub(super) all: &'a [u8],
    pub(super) kept: Blocks,
    pub(super) input: Rows<'a>,
    pub(super) scratch: &'a mut Scratch,
    pub(super) beside: &'a mut Beside,
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
        self.kept.with(Tiles::<L>(self, PhantomData));
    }

    /// # Safety
    /// As [`Self::run`].
    #[inline(always)]
    unsafe fn tiles<L: Integers, F: Format>(self) {
        let Self { rows, after, all, input, scratch, beside, target, .. } = self;
        let blocks = input.width() / BLOCK;
        let bytes = blocks / F::PARTS * F::BYTES;
        let groups = groups(input);
        let several = groups > 1;
        if several {
            let room = blocks * size_of::<Loaded<L, F::Scales<L>>>() + LINE;
            scratch.blocks.resize(room.div_ceil(size_of::<f32>()), 0.0);
        }
        let kept = scratch.blocks.as_mut_ptr();
        let kept = kept.wrapping_add(kept.align_offset(LINE)).cast();
        beside.begin(rows.div_ceil(TILE) * groups);
        for first in (0..rows).step_by(TILE) {
            let count = (rows - first).min(TILE);
            let mut start = all[first * bytes..(first + count) * bytes].as_ptr();
            let next = start.wrapping_add(TILE * bytes);
            let lines = (TILE * bytes).div_ceil(LINE * blocks);
            let lines = if first + TILE < rows + after { lines } else { 0 };
            let mut ahead = Ahead::new(next, lines, groups, beside);
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
                        GROUP => group::<L, F, GROUP>(from, x, &mut ahead, to),
                        4 => group::<L, F, 4>(from, x, &mut ahead, to),
                        2 => group::<L, F, 2>(from, x, &mut ahead, to),
                        _ => group::<L, F, 1>(from, x, &mut ahead, to),
                    }
                    from.again = true;
                    row += taken;
                }
            }
        }
    }
}

/// A product on a processor that has the instructions of `L`, as whoever makes one vouches.
struct Tiles<'a, L>(Product<'a>, PhantomData<L>);

impl<L: Integers> OnBlocks for Tiles<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run<F: Format>(self) {
        // SAFETY: the processor has these instructions.
        unsafe { self.0.tiles::<L, F>() }
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
struct Loaded<L: Integers, S> {
    tile: L::Tile,
    scales: S,
}

/// Sixteen rows of the matrix.
#[derive(Clone, Copy)]
struct Sixteen<L: Integers, S> {
    start: *const u8,
    bytes: usize,
    blocks: usize,
    /// Where their blocks are kept in order, whether another group will want them, and whether one has
    /// kept them.
    kept: *mut Loaded<L, S>,
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
unsafe fn group<L: Integers, F: Format, const M: usize>(
    from: Sixteen<L, F::Scales<L>>,
    x: *const Block,
    ahead: &mut Ahead<'_>,
    to: To<'_>,
) {
    let lines = ahead.take(from.blocks);
    // SAFETY: as the caller says.
    unsafe {
        let keep = (from.keep && !from.again).then_some(from.kept);
        let mut sums = Sums { x, sums: [L::splat(0.0); M], ahead, lines, keep };
        if from.again {
            for block in 0..from.blocks {
                let Loaded { tile, scales } = from.kept.add(block).read();
                sums.take(tile, scales);
            }
        } else {
            for block in 0..from.blocks / F::PARTS {
                F::open(from.start.add(block * F::BYTES), from.bytes, &mut sums);
            }
        }
        for (m, sum) in sums.sums.into_iter().enumerate() {
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

/// The products of `M` rows with what was taken so far.
struct Sums<'a, 'b, L: Integers, S, const M: usize> {
    /// The next block of the first row.
    x: *const Block,
    sums: [L; M],
    ahead: &'a mut Ahead<'b>,
    /// How many to ask for with each block.
    lines: Lines,
    /// Where the next block is kept.
    keep: Option<*mut Loaded<L, S>>,
}

impl<L: Integers, S: Scales<L>, const M: usize> Parts<L, S> for Sums<'_, '_, L, S, M> {
    #[inline(always)]
    unsafe fn take(&mut self, tile: L::Tile, scales: S) {
        self.ahead.ask(self.lines, 1);
        // SAFETY: the caller vouches for the processor; no more is taken than a row has blocks, and there is
        // room for as many.
        unsafe {
            if let Some(keep) = &mut self.keep {
                keep.write(Loaded { tile, scales });
                *keep = keep.add(1);
            }
            for (m, sum) in self.sums.iter_mut().enumerate() {
                *sum = scales.add(*sum, &tile, self.x.add(m));
            }
            self.x = self.x.add(GROUP);
        }
    }
}
