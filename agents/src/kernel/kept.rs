//! Ways of keeping the numbers of a matrix, each read sixteen at a time.

#![expect(
    unsafe_code,
    reason = "inner loops load through pointers within slices that are checked before"
)]

use half::{bf16, f16};

use super::lanes::{Lanes, from_f16};

/// A way of keeping numbers.
pub(super) trait Kept: Copy {
    /// Whether rows are first written out as f32 where several rows of `x` need them.
    const EXPAND: bool;

    /// Where a row begins, as bytes, and how many bytes it takes.
    fn row(&self, row: usize, width: usize) -> (*const u8, usize);

    /// Sixteen numbers from `at` on of the row that begins at `row`.
    ///
    /// # Safety
    /// As [`Lanes`], and the row must have these numbers.
    unsafe fn load<L: Lanes>(row: *const u8, at: usize) -> L;

    /// One number.
    ///
    /// # Safety
    /// The row must have it.
    unsafe fn one(row: *const u8, at: usize) -> f32;
}

#[derive(Clone, Copy)]
pub(super) struct Plain<'a>(pub(super) &'a [f32]);
#[derive(Clone, Copy)]
pub(super) struct Brain<'a>(pub(super) &'a [bf16]);
#[derive(Clone, Copy)]
pub(super) struct Half<'a>(pub(super) &'a [f16]);

// SAFETY of every block below: the caller vouches for processor and row; unaligned reads are always good.
impl Kept for Plain<'_> {
    const EXPAND: bool = false;

    #[inline(always)]
    fn row(&self, row: usize, width: usize) -> (*const u8, usize) {
        (self.0[row * width..].as_ptr().cast(), 4 * width)
    }

    #[inline(always)]
    unsafe fn load<L: Lanes>(row: *const u8, at: usize) -> L {
        // SAFETY: see above.
        unsafe { L::load(row.cast::<f32>().add(at)) }
    }

    #[inline(always)]
    unsafe fn one(row: *const u8, at: usize) -> f32 {
        // SAFETY: see above.
        unsafe { row.cast::<f32>().add(at).read_unaligned() }
    }
}

impl Kept for Brain<'_> {
    const EXPAND: bool = true;

    #[inline(always)]
    fn row(&self, row: usize, width: usize) -> (*const u8, usize) {
        (self.0[row * width..].as_ptr().cast(), 2 * width)
    }

    #[inline(always)]
    unsafe fn load<L: Lanes>(row: *const u8, at: usize) -> L {
        // SAFETY: see above.
        unsafe { L::load_bf16(row.cast::<u16>().add(at)) }
    }

    #[inline(always)]
    unsafe fn one(row: *const u8, at: usize) -> f32 {
        // SAFETY: see above.
        f32::from_bits(u32::from(unsafe { row.cast::<u16>().add(at).read_unaligned() }) << 16)
    }
}

impl Kept for Half<'_> {
    const EXPAND: bool = true;

    #[inline(always)]
    fn row(&self, row: usize, width: usize) -> (*const u8, usize) {
        (self.0[row * width..].as_ptr().cast(), 2 * width)
    }

    #[inline(always)]
    unsafe fn load<L: Lanes>(row: *const u8, at: usize) -> L {
        // SAFETY: see above.
        unsafe { L::load_f16(row.cast::<u16>().add(at)) }
    }

    #[inline(always)]
    unsafe fn one(row: *const u8, at: usize) -> f32 {
        // SAFETY: see above.
        from_f16(unsafe { row.cast::<u16>().add(at).read_unaligned() })
    }
}
