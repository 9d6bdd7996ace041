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

    #[inline(always)]
    unsafe fn tile(at: *const i8, bytes: usize) -> Self::Tile {
        // SAFETY: see above.
        unsafe {
            // Rows 0 to 3 beside 4 to 7, and 8 to 11 beside 12 to 15.
            let mut rows = [_mm512_setzero_si512(); 8];
            for (i, two) in rows.iter_mut().enumerate() {
                let first = at.add((i + i / 4 * 4) * bytes);
                let low = _mm512_castsi256_si512(_mm256_loadu_si256(first.cast()));
                let high = _mm256_loadu_si256(first.add(4 * bytes).cast());
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

    #[inline(always)]
    unsafe fn tile(at: *const i8, bytes: usize) -> Self::Tile {
        // SAFETY: see above.
        unsafe {
            let mut tile = [[_mm256_setzero_si256(); 2]; 8];
            for half in 0..2 {
                let mut rows = [_mm256_setzero_si256(); 8];
                for (i, row) in rows.iter_mut().enumerate() {
                    *row = _mm256_loadu_si256(at.add((8 * half + i) * bytes).cast());
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
    unsafe fn dots(tile: &Self::Tile, x: *const Block) -> Self {
        // SAFETY: see above; four integers are read at a time, eight times.
        unsafe {
            let ones = _mm256_set1_epi16(1);
            let mut sums = [_mm256_setzero_si256(); 2];
            let integers = (&raw const (*x).integers).cast::<i32>();
            for (i, rows) in tile.iter().enumerate() {
                let four = _mm256_set1_epi32(integers.add(i).read_unaligned());
                for (sum, &rows) in sums.iter_mut().zip(rows) {
                    // |w| · (±x): at most 128 · 127 twice, which 16 bits hold.
                    let signed = _mm256_sign_epi8(four, rows);
                    let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(rows), signed);
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
                }
            }
            Self(_mm256_cvtepi32_ps(sums[0]), _mm256_cvtepi32_ps(sums[1]))
        }
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
