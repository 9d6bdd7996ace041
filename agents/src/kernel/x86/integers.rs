//! Products of 8-bit integers on x86-64: AVX-512 with VNNI, and AVX2.

use std::arch::x86_64::*;

use super::{Pair, Wide};
use crate::kernel::eight::{Integers, Product};
use crate::kernel::rounded::Block;

/// Does a product with AVX-512.
///
/// # Safety
/// The processor must have these features.
#[target_feature(enable = "avx512f,avx512vnni,avx2,fma")]
pub(in crate::kernel) unsafe fn product_with_vnni(product: Product<'_>) {
    // SAFETY: the features of `Wide` are those of this function.
    unsafe { product.run::<Wide>() }
}

/// Does a product with AVX2.
///
/// # Safety
/// The processor must have these features.
#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::kernel) unsafe fn product_with_avx2(product: Product<'_>) {
    // SAFETY: the features of `Pair` are those of this function.
    unsafe { product.run::<Pair>() }
}

// SAFETY of every block below: the caller vouches for the processor and for the pointers, as the trait says.
impl Integers for Wide {
    /// Four neighbouring integers of each row, with 128 added to make them positive; eight times.
    type Tile = [__m512i; 8];
    type Words = __m512i;

    #[inline(always)]
    unsafe fn tile(at: *const i8, stride: usize) -> Self::Tile {
        // SAFETY: see above.
        unsafe {
            // Rows 0 to 3 beside 4 to 7, and 8 to 11 beside 12 to 15.
            let mut rows = [_mm512_setzero_si512(); 8];
            for (i, two) in rows.iter_mut().enumerate() {
                let first = at.add((i + i / 4 * 4) * stride);
                let low = _mm512_castsi256_si512(_mm256_loadu_si256(first.cast()));
                let high = _mm256_loadu_si256(first.add(4 * stride).cast());
                *two = _mm512_inserti64x4::<1>(low, high);
            }
            let upper = four_by_four([rows[0], rows[1], rows[2], rows[3]]);
            let lower = four_by_four([rows[4], rows[5], rows[6], rows[7]]);
            let signs = _mm512_set1_epi8(-128);
            let mut tile = rows;
            for i in 0..4 {
                let first = _mm512_shuffle_i32x4::<0x88>(upper[i], lower[i]);
                let second = _mm512_shuffle_i32x4::<0xDD>(upper[i], lower[i]);
                tile[i] = _mm512_xor_si512(first, signs);
                tile[i + 4] = _mm512_xor_si512(second, signs);
            }
            tile
        }
    }

    #[inline(always)]
    unsafe fn packed(words: [__m512i; 8], less: u8) -> Self::Tile {
        let mut tile = words;
        for words in &mut tile {
            // SAFETY: see above. Bytes stay below 256: nothing is carried to the next.
            *words =
                unsafe { _mm512_add_epi32(*words, _mm512_set1_epi8((128 - less).cast_signed())) };
        }
        tile
    }

    #[inline(always)]
    unsafe fn words(at: *const u8, stride: usize) -> [__m512i; 4] {
        // SAFETY: see above.
        unsafe {
            let mut rows = [_mm512_setzero_si512(); 4];
            for (i, four) in rows.iter_mut().enumerate() {
                let first = at.add(i * stride);
                *four = _mm512_castsi128_si512(_mm_loadu_si128(first.cast()));
                let next = _mm_loadu_si128(first.add(4 * stride).cast());
                *four = _mm512_inserti32x4::<1>(*four, next);
                let next = _mm_loadu_si128(first.add(8 * stride).cast());
                *four = _mm512_inserti32x4::<2>(*four, next);
                let next = _mm_loadu_si128(first.add(12 * stride).cast());
                *four = _mm512_inserti32x4::<3>(*four, next);
            }
            four_by_four(rows)
        }
    }

    #[inline(always)]
    unsafe fn bits(words: __m512i, from: u32, mask: u32) -> __m512i {
        // SAFETY: see above.
        unsafe {
            let words = _mm512_srl_epi32(words, _mm_cvtsi32_si128(from.cast_signed()));
            _mm512_and_si512(words, _mm512_set1_epi32(mask.cast_signed()))
        }
    }

    #[inline(always)]
    unsafe fn raised(words: __m512i, by: u32) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_sll_epi32(words, _mm_cvtsi32_si128(by.cast_signed())) }
    }

    #[inline(always)]
    unsafe fn or(words: __m512i, others: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_or_si512(words, others) }
    }

    #[inline(always)]
    unsafe fn number(words: __m512i) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_cvtepi32_ps(words) })
    }

    #[inline(always)]
    unsafe fn half(words: __m512i) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words)) })
    }

    #[inline(always)]
    unsafe fn dots(tile: &Self::Tile, x: *const Block) -> Self {
        // SAFETY: see above; four integers are read at a time, eight times.
        unsafe {
            let mut sums = _mm512_set1_epi32((*x).offset);
            let integers = (&raw const (*x).integers).cast::<i32>();
            for (i, &rows) in tile.iter().enumerate() {
                let four = _mm512_set1_epi32(integers.add(i).read_unaligned());
                sums = _mm512_dpbusd_epi32(sums, rows, four);
            }
            Self(_mm512_cvtepi32_ps(sums))
        }
    }

    #[inline(always)]
    unsafe fn halves(tile: &Self::Tile, x: *const Block) -> [Self; 2] {
        // SAFETY: see above; four integers are read at a time, eight times.
        unsafe {
            let Block { offset, half, .. } = *x;
            let mut sums = [_mm512_set1_epi32(half), _mm512_set1_epi32(offset - half)];
            let integers = (&raw const (*x).integers).cast::<i32>();
            for (i, &rows) in tile.iter().enumerate() {
                let four = _mm512_set1_epi32(integers.add(i).read_unaligned());
                sums[i / 4] = _mm512_dpbusd_epi32(sums[i / 4], rows, four);
            }
            [Self(_mm512_cvtepi32_ps(sums[0])), Self(_mm512_cvtepi32_ps(sums[1]))]
        }
    }
}

/// In each quarter: the four first numbers of the vectors, the four second ones, and so on.
///
/// # Safety
/// The processor must have AVX-512.
#[inline(always)]
unsafe fn four_by_four(v: [__m512i; 4]) -> [__m512i; 4] {
    // SAFETY: the caller vouches for the processor.
    unsafe {
        let [a, b] = [_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1])];
        let [c, d] = [_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3])];
        [
            _mm512_unpacklo_epi64(a, c),
            _mm512_unpackhi_epi64(a, c),
            _mm512_unpacklo_epi64(b, d),
            _mm512_unpackhi_epi64(b, d),
        ]
    }
}

// SAFETY of every block below: as for `Wide`.
impl Integers for Pair {
    /// Four neighbouring integers of the first eight rows and of the others; eight times.
    type Tile = [[__m256i; 2]; 8];
    type Words = [__m256i; 2];

    #[inline(always)]
    unsafe fn tile(at: *const i8, stride: usize) -> Self::Tile {
        // SAFETY: see above.
        unsafe {
            let mut tile = [[_mm256_setzero_si256(); 2]; 8];
            for half in [0, 1] {
                let mut rows = [_mm256_setzero_si256(); 8];
                for (i, row) in rows.iter_mut().enumerate() {
                    *row = _mm256_loadu_si256(at.add((8 * half + i) * stride).cast());
                }
                let upper = four_by_four_halves([rows[0], rows[1], rows[2], rows[3]]);
                let lower = four_by_four_halves([rows[4], rows[5], rows[6], rows[7]]);
                for i in 0..4 {
                    tile[i][half] = _mm256_permute2x128_si256::<0x20>(upper[i], lower[i]);
                    tile[i + 4][half] = _mm256_permute2x128_si256::<0x31>(upper[i], lower[i]);
                }
            }
            tile
        }
    }

    #[inline(always)]
    unsafe fn packed(words: [[__m256i; 2]; 8], less: u8) -> Self::Tile {
        let mut tile = words;
        for half in tile.as_flattened_mut() {
            // SAFETY: see above.
            *half = unsafe { _mm256_sub_epi8(*half, _mm256_set1_epi8(less.cast_signed())) };
        }
        tile
    }

    #[inline(always)]
    unsafe fn words(at: *const u8, stride: usize) -> [[__m256i; 2]; 4] {
        // SAFETY: see above.
        unsafe {
            let mut words = [[_mm256_setzero_si256(); 2]; 4];
            for half in [0, 1] {
                let mut rows = [_mm256_setzero_si256(); 4];
                for (i, two) in rows.iter_mut().enumerate() {
                    let first = at.add((8 * half + i) * stride);
                    let next = _mm_loadu_si128(first.add(4 * stride).cast());
                    *two = _mm256_castsi128_si256(_mm_loadu_si128(first.cast()));
                    *two = _mm256_inserti128_si256::<1>(*two, next);
                }
                for (words, turned) in words.iter_mut().zip(four_by_four_halves(rows)) {
                    words[half] = turned;
                }
            }
            words
        }
    }

    #[inline(always)]
    unsafe fn bits(mut words: [__m256i; 2], from: u32, mask: u32) -> [__m256i; 2] {
        for half in &mut words {
            // SAFETY: see above.
            unsafe {
                let shifted = _mm256_srl_epi32(*half, _mm_cvtsi32_si128(from.cast_signed()));
                *half = _mm256_and_si256(shifted, _mm256_set1_epi32(mask.cast_signed()));
            }
        }
        words
    }

    #[inline(always)]
    unsafe fn raised(mut words: [__m256i; 2], by: u32) -> [__m256i; 2] {
        for half in &mut words {
            // SAFETY: see above.
            *half = unsafe { _mm256_sll_epi32(*half, _mm_cvtsi32_si128(by.cast_signed())) };
        }
        words
    }

    #[inline(always)]
    unsafe fn or(words: [__m256i; 2], others: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: see above.
        unsafe { [_mm256_or_si256(words[0], others[0]), _mm256_or_si256(words[1], others[1])] }
    }

    #[inline(always)]
    unsafe fn number(words: [__m256i; 2]) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_cvtepi32_ps(words[0]), _mm256_cvtepi32_ps(words[1])) }
    }

    #[inline(always)]
    unsafe fn half(words: [__m256i; 2]) -> Self {
        // SAFETY: see above.
        unsafe {
            let [first, second] = Self::bits(words, 0, 0xFFFF);
            // Quarters of both in turn, then in order.
            let mixed = _mm256_packus_epi32(first, second);
            let halves = _mm256_permute4x64_epi64::<0b11_01_10_00>(mixed);
            let upper = _mm256_extracti128_si256::<1>(halves);
            Self(_mm256_cvtph_ps(_mm256_castsi256_si128(halves)), _mm256_cvtph_ps(upper))
        }
    }

    #[inline(always)]
    unsafe fn dots(tile: &Self::Tile, x: *const Block) -> Self {
        // SAFETY: see above; four integers are read at a time, eight times.
        unsafe {
            let sums = fours(tile, (&raw const (*x).integers).cast());
            Self(_mm256_cvtepi32_ps(sums[0]), _mm256_cvtepi32_ps(sums[1]))
        }
    }

    #[inline(always)]
    unsafe fn halves(tile: &Self::Tile, x: *const Block) -> [Self; 2] {
        // SAFETY: see above; four integers are read at a time, eight times.
        unsafe {
            let integers = (&raw const (*x).integers).cast::<i32>();
            let first = fours(&tile[..4], integers);
            let second = fours(&tile[4..], integers.add(4));
            [
                Self(_mm256_cvtepi32_ps(first[0]), _mm256_cvtepi32_ps(first[1])),
                Self(_mm256_cvtepi32_ps(second[0]), _mm256_cvtepi32_ps(second[1])),
            ]
        }
    }
}

/// The products of each row with as many fours as a tile has.
///
/// # Safety
/// The processor must have AVX2, and so many fours must lie at `integers`.
#[inline(always)]
unsafe fn fours(tile: &[[__m256i; 2]], integers: *const i32) -> [__m256i; 2] {
    // SAFETY: as the caller says.
    unsafe {
        let ones = _mm256_set1_epi16(1);
        let mut sums = [_mm256_setzero_si256(); 2];
        for (i, rows) in tile.iter().enumerate() {
            let four = _mm256_set1_epi32(integers.add(i).read_unaligned());
            for (sum, &rows) in sums.iter_mut().zip(rows) {
                // |w| · (±x): at most 128 · 127 twice, which 16 bits hold.
                let signed = _mm256_sign_epi8(four, rows);
                let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(rows), signed);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
            }
        }
        sums
    }
}

/// As [`four_by_four`], in halves.
///
/// # Safety
/// The processor must have AVX2.
#[inline(always)]
unsafe fn four_by_four_halves(v: [__m256i; 4]) -> [__m256i; 4] {
    // SAFETY: the caller vouches for the processor.
    unsafe {
        let [a, b] = [_mm256_unpacklo_epi32(v[0], v[1]), _mm256_unpackhi_epi32(v[0], v[1])];
        let [c, d] = [_mm256_unpacklo_epi32(v[2], v[3]), _mm256_unpackhi_epi32(v[2], v[3])];
        [
            _mm256_unpacklo_epi64(a, c),
            _mm256_unpackhi_epi64(a, c),
            _mm256_unpacklo_epi64(b, d),
            _mm256_unpackhi_epi64(b, d),
        ]
    }
}
