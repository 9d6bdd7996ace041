//! Numbers in blocks, as GGUF files have them: two to eight bits each, under scales that they share.
//!
//! A block is taken apart into parts of 32 integers of 8 bits, scales and least values, sixteen rows at a
//! time; that is all that products need of it. Nothing is rounded but what the format itself says:
//! `number = integer · scale + least` is what candle expands a block to, to the last bit.

#![expect(unsafe_code, reason = "blocks are read through pointers within slices that are checked")]

mod nested;
mod simple;

use super::eight::Integers;
use super::lanes::{Lanes, Portable};
use super::rounded::{BLOCK, Block};
use super::scales::Scales;

/// Rows that are taken apart together.
pub(super) const TILE: usize = 16;

/// A way to keep numbers in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blocks {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

/// What is known of such a way when the program is compiled.
pub(super) trait Format {
    /// Parts of 32 numbers that a block has.
    const PARTS: usize;

    /// Bytes of a block.
    const BYTES: usize;

    /// What integers of a part are multiplied with.
    type Scales<L: Integers>: Scales<L>;

    /// Takes the blocks at `at` and every `stride` bytes on apart: gives `to` their parts in order.
    ///
    /// # Safety
    /// As [`Integers`]; sixteen blocks must lie there.
    unsafe fn open<L: Integers>(
        at: *const u8,
        stride: usize,
        to: &mut impl Parts<L, Self::Scales<L>>,
    );
}

/// Half-precision numbers in the upper 16 bits.
///
/// # Safety
/// The processor must have the instructions of `L`.
#[inline(always)]
unsafe fn upper<L: Integers>(words: L::Words) -> L {
    // SAFETY: as the caller says.
    unsafe { L::half(L::bits(words, 16, 0xFFFF)) }
}

/// Takes parts of sixteen blocks.
pub(super) trait Parts<L: Integers, S> {
    /// Takes the next one.
    ///
    /// # Safety
    /// As [`Integers`].
    unsafe fn take(&mut self, tile: L::Tile, scales: S);
}

/// Something to do with blocks of some format.
pub(super) trait OnBlocks {
    /// What it gives.
    type Output;

    /// Does it; must be inlined into its caller.
    fn run<F: Format>(self) -> Self::Output;
}

impl Blocks {
    /// Does `task` with blocks of this kind.
    #[inline(always)]
    pub(super) fn with<T: OnBlocks>(self, task: T) -> T::Output {
        match self {
            Self::Q4_0 => task.run::<simple::Q4_0>(),
            Self::Q4_1 => task.run::<simple::Q4_1>(),
            Self::Q5_0 => task.run::<simple::Q5_0>(),
            Self::Q5_1 => task.run::<simple::Q5_1>(),
            Self::Q8_0 => task.run::<simple::Q8_0>(),
            Self::Q2K => task.run::<nested::Q2K>(),
            Self::Q3K => task.run::<nested::Q3K>(),
            Self::Q4K => task.run::<nested::Q4K>(),
            Self::Q5K => task.run::<nested::Q5K>(),
            Self::Q6K => task.run::<nested::Q6K>(),
        }
    }

    /// Bytes of a row of so many numbers; none where they do not fill blocks.
    pub(super) fn row(self, width: usize) -> Option<usize> {
        let (numbers, bytes) = self.with(Size);
        width.is_multiple_of(numbers).then(|| width / numbers * bytes)
    }

    /// Writes out a row of numbers.
    pub(super) fn expand(self, row: &[u8], out: &mut [f32]) {
        assert_eq!(self.row(out.len()), Some(row.len()));
        self.with(Expand { row, out });
    }
}

/// Numbers and bytes of a block.
struct Size;

impl OnBlocks for Size {
    type Output = (usize, usize);

    fn run<F: Format>(self) -> (usize, usize) {
        (F::PARTS * BLOCK, F::BYTES)
    }
}

struct Expand<'a> {
    row: &'a [u8],
    out: &'a mut [f32],
}

impl OnBlocks for Expand<'_> {
    type Output = ();

    fn run<F: Format>(self) {
        let Self { row, out } = self;
        for (block, out) in row.chunks_exact(F::BYTES).zip(out.chunks_mut(F::PARTS * BLOCK)) {
            // SAFETY: plain arithmetic asks nothing of the processor, and the block is there; it stands for
            // sixteen rows.
            unsafe { F::open::<Portable>(block.as_ptr(), 0, &mut Written(out.chunks_mut(BLOCK))) };
        }
    }
}

/// Writes the numbers of the first of sixteen rows: products with a one among zeros.
struct Written<'a>(std::slice::ChunksMut<'a, f32>);

impl<S: Scales<Portable>> Parts<Portable, S> for Written<'_> {
    unsafe fn take(&mut self, tile: <Portable as Integers>::Tile, scales: S) {
        for (at, out) in self.0.next().into_iter().flatten().enumerate() {
            let mut one = [0; BLOCK];
            one[at] = 1;
            let (one, mut all) = (Block::of(1.0, one), [0.0; TILE]);
            // SAFETY: plain arithmetic asks nothing of the processor, and `all` holds sixteen numbers.
            unsafe {
                scales.add(Portable::splat(0.0), &tile, &raw const one).store(all.as_mut_ptr());
            }
            *out = all[0];
        }
    }
}
