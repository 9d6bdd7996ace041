//! Blocks of 32 numbers with one scale, and a least value where integers begin at zero.

#![expect(unsafe_code, reason = "blocks are read through pointers, whose callers prove them")]

use super::{Format, Parts, upper};
use crate::kernel::eight::Integers;
use crate::kernel::scales::{Whole, WholeFrom};

/// The lower four bits of every byte.
const LOWER: u32 = 0x0F0F_0F0F;

pub(in crate::kernel) struct Q4_0;
pub(in crate::kernel) struct Q4_1;
pub(in crate::kernel) struct Q5_0;
pub(in crate::kernel) struct Q5_1;
pub(in crate::kernel) struct Q8_0;

// SAFETY of every block below: the caller vouches for the processor and for sixteen blocks, and whoever reads
// sixteen or 32 bytes of each does so within its `BYTES`.
impl Format for Q4_0 {
    const PARTS: usize = 1;
    const BYTES: usize = 18;
    type Scales<L: Integers> = Whole<L>;

    #[inline(always)]
    unsafe fn open<L: Integers>(at: *const u8, stride: usize, to: &mut impl Parts<L, Whole<L>>) {
        // SAFETY: see above.
        unsafe {
            let scale = L::half(L::words(at, stride)[0]);
            let words = fours::<L>(at.add(2), stride);
            to.take(L::packed(words, 8), Whole(scale));
        }
    }
}

impl Format for Q4_1 {
    const PARTS: usize = 1;
    const BYTES: usize = 20;
    type Scales<L: Integers> = WholeFrom<L>;

    #[inline(always)]
    unsafe fn open<L: Integers>(
        at: *const u8,
        stride: usize,
        to: &mut impl Parts<L, WholeFrom<L>>,
    ) {
        // SAFETY: see above.
        unsafe {
            let both = L::words(at, stride)[0];
            let words = fours::<L>(at.add(4), stride);
            let scales = WholeFrom(L::half(both), upper::<L>(both));
            to.take(L::packed(words, 0), scales);
        }
    }
}

impl Format for Q5_0 {
    const PARTS: usize = 1;
    const BYTES: usize = 22;
    type Scales<L: Integers> = Whole<L>;

    #[inline(always)]
    unsafe fn open<L: Integers>(at: *const u8, stride: usize, to: &mut impl Parts<L, Whole<L>>) {
        // SAFETY: see above.
        unsafe {
            let scale = L::half(L::words(at, stride)[0]);
            let fifths = L::words(at.add(2), stride)[0];
            let words = with_fifths::<L>(fours::<L>(at.add(6), stride), fifths);
            to.take(L::packed(words, 16), Whole(scale));
        }
    }
}

impl Format for Q5_1 {
    const PARTS: usize = 1;
    const BYTES: usize = 24;
    type Scales<L: Integers> = WholeFrom<L>;

    #[inline(always)]
    unsafe fn open<L: Integers>(
        at: *const u8,
        stride: usize,
        to: &mut impl Parts<L, WholeFrom<L>>,
    ) {
        // SAFETY: see above.
        unsafe {
            let [both, fifths, ..] = L::words(at, stride);
            let words = with_fifths::<L>(fours::<L>(at.add(8), stride), fifths);
            let scales = WholeFrom(L::half(both), upper::<L>(both));
            to.take(L::packed(words, 0), scales);
        }
    }
}

impl Format for Q8_0 {
    const PARTS: usize = 1;
    const BYTES: usize = 34;
    type Scales<L: Integers> = Whole<L>;

    #[inline(always)]
    unsafe fn open<L: Integers>(at: *const u8, stride: usize, to: &mut impl Parts<L, Whole<L>>) {
        // SAFETY: see above.
        unsafe {
            let scale = L::half(L::words(at, stride)[0]);
            to.take(L::tile(at.add(2).cast(), stride), Whole(scale));
        }
    }
}

/// Integers of four bits: the lower halves of sixteen bytes, then the upper ones.
///
/// # Safety
/// As [`Integers::words`].
#[inline(always)]
unsafe fn fours<L: Integers>(at: *const u8, stride: usize) -> [L::Words; 8] {
    // SAFETY: as the caller says.
    unsafe {
        let [a, b, c, d] = L::words(at, stride);
        let mut words = [a, b, c, d, a, b, c, d];
        for (i, word) in words.iter_mut().enumerate() {
            *word = L::bits(*word, i as u32 / 4 * 4, LOWER);
        }
        words
    }
}

/// The same with a fifth bit each, which lie side by side in `fifths`.
///
/// # Safety
/// The processor must have the instructions of `L`.
#[inline(always)]
unsafe fn with_fifths<L: Integers>(mut words: [L::Words; 8], fifths: L::Words) -> [L::Words; 8] {
    // SAFETY: as the caller says.
    unsafe {
        for (i, word) in words.iter_mut().enumerate() {
            // Bit j goes to places j, j + 7, j + 14 and j + 21, of which one is 8j.
            let four = L::bits(fifths, 4 * i as u32, 15);
            let two = L::or(four, L::raised(four, 14));
            let one = L::raised(L::or(two, L::raised(two, 7)), 4);
            *word = L::or(*word, L::bits(one, 0, 0x1010_1010));
        }
        words
    }
}
