//! What sixteen blocks of integers mean as numbers: scales, of all or of either half, and least values.
//!
//! Each adds the product of the blocks with a rounded block to a sum, every operation rounded by itself.

#![expect(unsafe_code, reason = "vector instructions exist on some processors only")]

use super::eight::Integers;
use super::rounded::Block;

/// Scales and least values of sixteen blocks.
///
/// # Safety of all functions
/// As [`Integers`].
pub(super) trait Scales<L: Integers>: Copy {
    /// `sum` and the product of the blocks with `x`.
    unsafe fn add(self, sum: L, tile: &L::Tile, x: *const Block) -> L;
}

/// A scale for each block.
#[derive(Clone, Copy)]
pub(super) struct Whole<L>(pub(super) L);

/// A scale and a least value for each block.
#[derive(Clone, Copy)]
pub(super) struct WholeFrom<L>(pub(super) L, pub(super) L);

/// A scale for each half.
#[derive(Clone, Copy)]
pub(super) struct Halves<L>(pub(super) [L; 2]);

/// A scale and a least value for each half.
#[derive(Clone, Copy)]
pub(super) struct HalvesFrom<L>(pub(super) [L; 2], pub(super) [L; 2]);

// SAFETY of every block below: the caller vouches for processor and pointers.
impl<L: Integers> Scales<L> for Whole<L> {
    #[inline(always)]
    unsafe fn add(self, sum: L, tile: &L::Tile, x: *const Block) -> L {
        // SAFETY: see above.
        unsafe {
            let scale = self.0.times(L::splat((*x).scale));
            sum.add(L::dots(tile, x).times(scale))
        }
    }
}

impl<L: Integers> Scales<L> for WholeFrom<L> {
    #[inline(always)]
    unsafe fn add(self, sum: L, tile: &L::Tile, x: *const Block) -> L {
        // SAFETY: see above.
        unsafe {
            let sum = Whole(self.0).add(sum, tile, x);
            sum.add(self.1.times(L::splat((*x).sum)))
        }
    }
}

impl<L: Integers> Scales<L> for Halves<L> {
    #[inline(always)]
    unsafe fn add(self, sum: L, tile: &L::Tile, x: *const Block) -> L {
        // SAFETY: see above.
        unsafe {
            let [first, second] = L::halves(tile, x);
            let both = first.times(self.0[0]).add(second.times(self.0[1]));
            sum.add(both.times(L::splat((*x).scale)))
        }
    }
}

impl<L: Integers> Scales<L> for HalvesFrom<L> {
    #[inline(always)]
    unsafe fn add(self, sum: L, tile: &L::Tile, x: *const Block) -> L {
        // SAFETY: see above.
        unsafe {
            let sum = Halves(self.0).add(sum, tile, x);
            // Sums of integers below 2²⁴ times -128.
            let sums = [(*x).half, (*x).offset - (*x).half].map(|of| of as f32 * (*x).scale);
            let first = self.1[0].times(L::splat(sums[0] * (-1.0 / 128.0)));
            let second = self.1[1].times(L::splat(sums[1] * (-1.0 / 128.0)));
            sum.add(first.add(second))
        }
    }
}
