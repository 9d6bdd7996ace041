//! Blocks of 256 numbers whose parts have small scales, and often least values, under one scale of all.

#![expect(unsafe_code, reason = "blocks are read through pointers, whose callers prove them")]

use super::{Format, Parts, upper};
use crate::kernel::eight::Integers;
use crate::kernel::scales::{Halves, HalvesFrom, WholeFrom};

pub(in crate::kernel) struct Q2K;
pub(in crate::kernel) struct Q3K;
pub(in crate::kernel) struct Q4K;
pub(in crate::kernel) struct Q5K;
pub(in crate::kernel) struct Q6K;

/// A number in every byte.
const fn bytes(number: u32) -> u32 {
    number * 0x0101_0101
}

/// 32 bytes of each of sixteen rows.
///
/// # Safety
/// As [`Integers::words`], twice.
#[inline(always)]
unsafe fn all<L: Integers>(at: *const u8, stride: usize) -> [L::Words; 8] {
    // SAFETY: as the caller says.
    unsafe {
        let [a, b, c, d] = L::words(at, stride);
        let [e, f, g, h] = L::words(at.add(16), stride);
        [a, b, c, d, e, f, g, h]
    }
}

/// Of every byte some bits, from one on, and `count` of another raised above them.
///
/// # Safety
/// The processor must have the instructions of `L`.
#[inline(always)]
unsafe fn joined<L: Integers>(
    [lower, upper]: [&[L::Words; 8]; 2],
    [from, bits]: [u32; 2],
    [upper_from, upper_bits]: [u32; 2],
) -> [L::Words; 8] {
    let mut words = *lower;
    // SAFETY: as the caller says.
    unsafe {
        for (word, &upper) in words.iter_mut().zip(upper) {
            let upper = L::bits(upper, upper_from, bytes((1 << upper_bits) - 1));
            let lower = L::bits(*word, from, bytes((1 << bits) - 1));
            *word = L::or(lower, L::raised(upper, bits));
        }
    }
    words
}

/// Some bits of every byte, from one on.
///
/// # Safety
/// The processor must have the instructions of `L`.
#[inline(always)]
unsafe fn some<L: Integers>(words: &[L::Words; 8], from: u32, bits: u32) -> [L::Words; 8] {
    let mut words = *words;
    for word in &mut words {
        // SAFETY: as the caller says.
        *word = unsafe { L::bits(*word, from, bytes((1 << bits) - 1)) };
    }
    words
}

/// Scales and least values of halves, four bits each, from one bit on.
///
/// # Safety
/// The processor must have the instructions of `L`.
#[inline(always)]
unsafe fn fours<L: Integers>(outer: [L; 2], small: L::Words, from: u32) -> HalvesFrom<L> {
    let [scale, least] = outer;
    // SAFETY: as the caller says.
    unsafe {
        HalvesFrom(
            [
                scale.times(L::number(L::bits(small, from, 15))),
                scale.times(L::number(L::bits(small, from + 8, 15))),
            ],
            [
                least.times(L::number(L::bits(small, from + 4, 15))),
                least.times(L::number(L::bits(small, from + 12, 15))),
            ],
        )
    }
}

/// Scales of halves, six bits each less 32: four lower bits from one bit of a word on, two upper ones from
/// one of another.
///
/// # Safety
/// The processor must have the instructions of `L`.
#[inline(always)]
unsafe fn sixes_below<L: Integers>(
    scale: L,
    [four, two]: [L::Words; 2],
    [from, upper_from]: [u32; 2],
) -> Halves<L> {
    let mut scales = [scale; 2];
    // SAFETY: as the caller says.
    unsafe {
        for (half, scale) in scales.iter_mut().enumerate() {
            let byte = 8 * half as u32;
            let four = L::bits(four, from + byte, 15);
            let two = L::bits(two, upper_from + byte, 3);
            let six = L::number(L::or(four, L::raised(two, 4)));
            *scale = scale.times(six.add(L::splat(-32.0)));
        }
    }
    Halves(scales)
}

/// Scales of halves, bytes with a sign, from one bit on; `scale` is 2²⁴ times too small.
///
/// # Safety
/// The processor must have the instructions of `L`.
#[inline(always)]
unsafe fn signed<L: Integers>(scale: L, small: L::Words, from: u32) -> Halves<L> {
    let mut scales = [scale; 2];
    // SAFETY: as the caller says.
    unsafe {
        for (half, scale) in scales.iter_mut().enumerate() {
            let raised = L::raised(small, 24 - from - 8 * half as u32);
            *scale = scale.times(L::number(L::bits(raised, 0, 0xFF00_0000)));
        }
    }
    Halves(scales)
}

// Parts are written out one by one, so that shifts are known when this is compiled: loops are not unrolled.
// SAFETY of every block below: the caller vouches for the processor and for sixteen blocks, and whoever reads
// sixteen or 32 bytes of each does so within its `BYTES`.
impl Format for Q2K {
    const PARTS: usize = 8;
    const BYTES: usize = 84;
    type Scales<L: Integers> = HalvesFrom<L>;

    #[inline(always)]
    unsafe fn open<L: Integers>(
        at: *const u8,
        stride: usize,
        to: &mut impl Parts<L, HalvesFrom<L>>,
    ) {
        // SAFETY: see above.
        unsafe {
            let small = L::words(at, stride);
            let outer = L::words(at.add(68), stride)[3];
            let outer = [L::half(outer), upper::<L>(outer).times(L::splat(-1.0))];
            for half in 0..2 {
                let two = all::<L>(at.add(16 + 32 * half), stride);
                let [a, b] = [small[2 * half], small[2 * half + 1]];
                to.take(L::packed(some::<L>(&two, 0, 2), 0), fours::<L>(outer, a, 0));
                to.take(L::packed(some::<L>(&two, 2, 2), 0), fours::<L>(outer, a, 16));
                to.take(L::packed(some::<L>(&two, 4, 2), 0), fours::<L>(outer, b, 0));
                to.take(L::packed(some::<L>(&two, 6, 2), 0), fours::<L>(outer, b, 16));
            }
        }
    }
}

impl Format for Q3K {
    const PARTS: usize = 8;
    const BYTES: usize = 110;
    type Scales<L: Integers> = Halves<L>;

    #[inline(always)]
    unsafe fn open<L: Integers>(at: *const u8, stride: usize, to: &mut impl Parts<L, Halves<L>>) {
        // SAFETY: see above.
        unsafe {
            let scale = upper::<L>(L::words(at.add(94), stride)[3]);
            // Lower four bits of sixteen numbers in two words, the upper two bits of all in a third.
            let [_, first, second, two] = L::words(at.add(92), stride);
            let third = all::<L>(at, stride);
            for half in 0..2 {
                let integers = all::<L>(at.add(32 + 32 * half), stride);
                let from = 4 * half as u32;
                let both = [&integers, &third];
                let words = joined::<L>(both, [0, 2], [from, 1]);
                let scales = sixes_below(scale, [first, two], [from, from]);
                to.take(L::packed(words, 4), scales);
                let words = joined::<L>(both, [2, 2], [from + 1, 1]);
                let scales = sixes_below(scale, [first, two], [from + 16, from + 16]);
                to.take(L::packed(words, 4), scales);
                let words = joined::<L>(both, [4, 2], [from + 2, 1]);
                let scales = sixes_below(scale, [second, two], [from, from + 2]);
                to.take(L::packed(words, 4), scales);
                let words = joined::<L>(both, [6, 2], [from + 3, 1]);
                let scales = sixes_below(scale, [second, two], [from + 16, from + 18]);
                to.take(L::packed(words, 4), scales);
            }
        }
    }
}

/// Scales and least values of the parts of a block, six bits each; `words` are its first sixteen bytes.
///
/// # Safety
/// The processor must have the instructions of `L`.
#[inline(always)]
unsafe fn sixes<L: Integers>(words: [L::Words; 4]) -> [WholeFrom<L>; 8] {
    let [both, scales, leasts, others] = words;
    // SAFETY: as the caller says.
    unsafe {
        let (scale, least) = (L::half(both), upper::<L>(both).times(L::splat(-1.0)));
        let mut all = [WholeFrom(scale, least); 8];
        for (part, WholeFrom(scale, least)) in all.iter_mut().enumerate() {
            let from = part as u32 % 4 * 8;
            let (a, b) = if part < 4 {
                (L::bits(scales, from, 63), L::bits(leasts, from, 63))
            } else {
                // Four bits here, two above those of the part four before.
                let (a, b) = (L::bits(scales, from + 6, 3), L::bits(leasts, from + 6, 3));
                let (c, d) = (L::bits(others, from, 15), L::bits(others, from + 4, 15));
                (L::or(c, L::raised(a, 4)), L::or(d, L::raised(b, 4)))
            };
            *scale = scale.times(L::number(a));
            *least = least.times(L::number(b));
        }
        all
    }
}

impl Format for Q4K {
    const PARTS: usize = 8;
    const BYTES: usize = 144;
    type Scales<L: Integers> = WholeFrom<L>;

    #[inline(always)]
    unsafe fn open<L: Integers>(
        at: *const u8,
        stride: usize,
        to: &mut impl Parts<L, WholeFrom<L>>,
    ) {
        // SAFETY: see above.
        unsafe {
            let scales = sixes::<L>(L::words(at, stride));
            for two in 0..4 {
                let integers = all::<L>(at.add(16 + 32 * two), stride);
                to.take(L::packed(some::<L>(&integers, 0, 4), 0), scales[2 * two]);
                to.take(L::packed(some::<L>(&integers, 4, 4), 0), scales[2 * two + 1]);
            }
        }
    }
}

impl Format for Q5K {
    const PARTS: usize = 8;
    const BYTES: usize = 176;
    type Scales<L: Integers> = WholeFrom<L>;

    #[inline(always)]
    unsafe fn open<L: Integers>(
        at: *const u8,
        stride: usize,
        to: &mut impl Parts<L, WholeFrom<L>>,
    ) {
        // SAFETY: see above.
        unsafe {
            let scales = sixes::<L>(L::words(at, stride));
            let fifths = all::<L>(at.add(16), stride);
            for two in 0..4 {
                let integers = all::<L>(at.add(48 + 32 * two), stride);
                let (both, part) = ([&integers, &fifths], 2 * two as u32);
                let words = joined::<L>(both, [0, 4], [part, 1]);
                to.take(L::packed(words, 0), scales[2 * two]);
                let words = joined::<L>(both, [4, 4], [part + 1, 1]);
                to.take(L::packed(words, 0), scales[2 * two + 1]);
            }
        }
    }
}

impl Format for Q6K {
    const PARTS: usize = 8;
    const BYTES: usize = 210;
    type Scales<L: Integers> = Halves<L>;

    #[inline(always)]
    unsafe fn open<L: Integers>(at: *const u8, stride: usize, to: &mut impl Parts<L, Halves<L>>) {
        // SAFETY: see above.
        unsafe {
            let small = L::words(at.add(192), stride);
            // Bytes with a sign are numbers 2²⁴ times as large once they are the highest of four.
            let scale = upper::<L>(L::words(at.add(194), stride)[3]);
            let scale = scale.times(L::splat(1.0 / 16_777_216.0));
            for outer in 0..2 {
                let first = all::<L>(at.add(64 * outer), stride);
                let second = all::<L>(at.add(64 * outer + 32), stride);
                let upper = all::<L>(at.add(128 + 32 * outer), stride);
                let [a, b] = [small[2 * outer], small[2 * outer + 1]];
                let words = joined::<L>([&first, &upper], [0, 4], [0, 2]);
                to.take(L::packed(words, 32), signed(scale, a, 0));
                let words = joined::<L>([&second, &upper], [0, 4], [2, 2]);
                to.take(L::packed(words, 32), signed(scale, a, 16));
                let words = joined::<L>([&first, &upper], [4, 4], [4, 2]);
                to.take(L::packed(words, 32), signed(scale, b, 0));
                let words = joined::<L>([&second, &upper], [4, 4], [6, 2]);
                to.take(L::packed(words, 32), signed(scale, b, 16));
            }
        }
    }
}
