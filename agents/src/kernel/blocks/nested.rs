//! Blocks of 256 numbers whose parts have small scales, and often least values, under one scale of all.

#![expect(unsafe_code, reason = "blocks are read through pointers, whose callers prove them")]

use super::{Format, Parts};
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

/// Half-precision numbers in the upper 16 bits.
///
/// # Safety
/// The processor must have the instructions of `L`.
#[inline(always)]
unsafe fn upper<L: Integers>(words: L::Words) -> L {
    // SAFETY: as the caller says.
    unsafe { L::half(L::bits(words, 16, 0xFFFF)) }
}

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
            let (scale, least) = (L::half(outer), upper::<L>(outer).times(L::splat(-1.0)));
            for quarter in 0..2 {
                let integers = all::<L>(at.add(16 + 32 * quarter), stride);
                for inner in 0..4 {
                    let part = 4 * quarter + inner;
                    let (mut scales, mut leasts) = ([scale; 2], [least; 2]);
                    for half in 0..2 {
                        let from = (part % 2 * 16 + half * 8) as u32;
                        let small = small[part / 2];
                        scales[half] = scale.times(L::number(L::bits(small, from, 15)));
                        leasts[half] = least.times(L::number(L::bits(small, from + 4, 15)));
                    }
                    let words = some::<L>(&integers, 2 * inner as u32, 2);
                    to.take(L::packed(words, 0), HalvesFrom(scales, leasts));
                }
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
            for quarter in 0..2 {
                let integers = all::<L>(at.add(32 + 32 * quarter), stride);
                for inner in 0..4 {
                    let part = 4 * quarter + inner;
                    let mut scales = [scale; 2];
                    for (half, scale) in scales.iter_mut().enumerate() {
                        let place = 2 * part + half;
                        let from = (place % 4 * 8) as u32;
                        let four = if place / 4 % 2 == 0 { first } else { second };
                        let four = L::bits(four, from + (place / 8 * 4) as u32, 15);
                        let two = L::bits(two, from + (place / 4 * 2) as u32, 3);
                        let six = L::number(L::or(four, L::raised(two, 4)));
                        *scale = scale.times(six.add(L::splat(-32.0)));
                    }
                    let (two, one) = ([2 * inner as u32, 2], [part as u32, 1]);
                    let words = joined::<L>([&integers, &third], two, one);
                    to.take(L::packed(words, 4), Halves(scales));
                }
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
                for half in 0..2 {
                    let words = some::<L>(&integers, 4 * half as u32, 4);
                    to.take(L::packed(words, 0), scales[2 * two + half]);
                }
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
                for half in 0..2 {
                    let part = 2 * two + half;
                    let (four, one) = ([4 * half as u32, 4], [part as u32, 1]);
                    let words = joined::<L>([&integers, &fifths], four, one);
                    to.take(L::packed(words, 0), scales[part]);
                }
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
                for inner in 0..4 {
                    let part = 4 * outer + inner;
                    let mut scales = [scale; 2];
                    for (half, scale) in scales.iter_mut().enumerate() {
                        let raised = 24 - (part % 2 * 16 + half * 8) as u32;
                        let small = L::bits(L::raised(small[part / 2], raised), 0, 0xFF00_0000);
                        *scale = scale.times(L::number(small));
                    }
                    let lower = if inner % 2 == 0 { &first } else { &second };
                    let (four, two) = ([inner as u32 / 2 * 4, 4], [2 * inner as u32, 2]);
                    let words = joined::<L>([lower, &upper], four, two);
                    to.take(L::packed(words, 32), Halves(scales));
                }
            }
        }
    }
}
