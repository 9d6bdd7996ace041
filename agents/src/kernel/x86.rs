//! Vector instructions of x86-64: AVX-512, and AVX2 with two vectors of eight.

#![expect(unsafe_code, reason = "vector instructions exist on some processors only")]

mod integers;

use std::arch::x86_64::*;

pub(super) use self::integers::{product_with_avx2, product_with_vnni};
use super::Task;
use super::lanes::Lanes;

/// Does `task` with AVX-512.
///
/// # Safety
/// The processor must have these features.
#[target_feature(enable = "avx512f,avx2,fma")]
pub(super) unsafe fn with_avx512<T: Task>(task: T) -> T::Output {
    // SAFETY: the features of `Wide` are those of this function.
    unsafe { task.run::<Wide>() }
}

/// Does `task` with AVX2.
///
/// # Safety
/// The processor must have these features.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn with_avx2<T: Task>(task: T) -> T::Output {
    // SAFETY: the features of `Pair` are those of this function.
    unsafe { task.run::<Pair>() }
}

#[derive(Clone, Copy)]
struct Wide(__m512);

// SAFETY of every block below: the caller vouches for the processor and for the pointers, as the trait says.
impl Lanes for Wide {
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_loadu_ps(at) })
    }

    #[inline(always)]
    unsafe fn load_bf16(at: *const u16) -> Self {
        // SAFETY: see above.
        Self(unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(at.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        })
    }

    #[inline(always)]
    unsafe fn load_f16(at: *const u16) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())) })
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(at, self.0) };
    }

    #[inline(always)]
    unsafe fn times(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn plus(self, a: Self, b: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: see above.
        unsafe {
            let high = _mm512_shuffle_f32x4::<0b1110>(self.0, self.0);
            let eight = _mm256_add_ps(_mm512_castps512_ps256(self.0), _mm512_castps512_ps256(high));
            eight_sum(eight)
        }
    }

    #[inline(always)]
    unsafe fn sums(all: [Self; 16]) -> [f32; 16] {
        // SAFETY: see above.
        unsafe {
            // No closures here: they would not have the features of the function around them.
            let mut halves = [all[0].0; 8];
            for (i, half) in halves.iter_mut().enumerate() {
                let (a, b) = (all[2 * i].0, all[2 * i + 1].0);
                let low = _mm512_shuffle_f32x4::<0x44>(a, b);
                *half = _mm512_add_ps(low, _mm512_shuffle_f32x4::<0xEE>(a, b));
            }
            from_halves(halves)
        }
    }

    #[inline(always)]
    unsafe fn eights(at: *const f32, twice: Self) -> [f32; 16] {
        // SAFETY: see above; 128 numbers lie at `at`.
        unsafe {
            let mut products = [twice.0; 8];
            for (i, product) in products.iter_mut().enumerate() {
                *product = _mm512_mul_ps(_mm512_loadu_ps(at.add(16 * i)), twice.0);
            }
            from_halves(products)
        }
    }

    #[inline(always)]
    unsafe fn columns(at: *const f32) -> [Self; 8] {
        // SAFETY: see above; 128 numbers lie at `at`.
        unsafe {
            // Four rows: number j of row i goes to place 4j + i, the first four of each row and the others.
            let first = _mm512_setr_epi32(0, 8, 16, 24, 1, 9, 17, 25, 2, 10, 18, 26, 3, 11, 19, 27);
            let others = _mm512_add_epi32(first, _mm512_set1_epi32(4));
            let mut fours = [[_mm512_setzero_ps(); 2]; 4];
            for (i, four) in fours.iter_mut().enumerate() {
                let (a, b) =
                    (_mm512_loadu_ps(at.add(32 * i)), _mm512_loadu_ps(at.add(32 * i + 16)));
                *four = [_mm512_permutex2var_ps(a, first, b), _mm512_permutex2var_ps(a, others, b)];
            }
            let mut columns = [Self(_mm512_setzero_ps()); 8];
            for (half, columns) in columns.chunks_exact_mut(4).enumerate() {
                let low = _mm512_shuffle_f32x4::<0x44>(fours[0][half], fours[1][half]);
                let high = _mm512_shuffle_f32x4::<0xEE>(fours[0][half], fours[1][half]);
                let low_after = _mm512_shuffle_f32x4::<0x44>(fours[2][half], fours[3][half]);
                let high_after = _mm512_shuffle_f32x4::<0xEE>(fours[2][half], fours[3][half]);
                columns[0].0 = _mm512_shuffle_f32x4::<0x88>(low, low_after);
                columns[1].0 = _mm512_shuffle_f32x4::<0xDD>(low, low_after);
                columns[2].0 = _mm512_shuffle_f32x4::<0x88>(high, high_after);
                columns[3].0 = _mm512_shuffle_f32x4::<0xDD>(high, high_after);
            }
            columns
        }
    }
}

/// The sums of sixteen rows of eight numbers, two rows a vector, in the order of [`Lanes::sum`].
///
/// # Safety
/// The processor must have AVX-512.
#[inline(always)]
unsafe fn from_halves(rows: [__m512; 8]) -> [f32; 16] {
    // SAFETY: the caller vouches for the processor; `out` holds sixteen numbers.
    unsafe {
        let mut quarters = [rows[0]; 4];
        for (i, quarter) in quarters.iter_mut().enumerate() {
            let (a, b) = (rows[2 * i], rows[2 * i + 1]);
            let low = _mm512_shuffle_f32x4::<0x88>(a, b);
            *quarter = _mm512_add_ps(low, _mm512_shuffle_f32x4::<0xDD>(a, b));
        }
        let mut pairs = [rows[0]; 2];
        for (i, pair) in pairs.iter_mut().enumerate() {
            let (a, b) = (quarters[2 * i], quarters[2 * i + 1]);
            let low = _mm512_shuffle_ps::<0x44>(a, b);
            *pair = _mm512_add_ps(low, _mm512_shuffle_ps::<0xEE>(a, b));
        }
        let sums = _mm512_add_ps(
            _mm512_shuffle_ps::<0x88>(pairs[0], pairs[1]),
            _mm512_shuffle_ps::<0xDD>(pairs[0], pairs[1]),
        );
        // Row 4j + i lies in lane 4i + j.
        let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        let mut out = [0.0; 16];
        _mm512_storeu_ps(out.as_mut_ptr(), _mm512_permutexvar_ps(order, sums));
        out
    }
}

/// # Safety
/// The processor must have AVX2.
#[inline(always)]
unsafe fn eight_sum(eight: __m256) -> f32 {
    // SAFETY: the caller vouches for the processor.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
    }
}

#[derive(Clone, Copy)]
struct Pair(__m256, __m256);

// SAFETY of every block below: as for `Wide`; the second vector is the upper eight of sixteen numbers.
impl Lanes for Pair {
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_set1_ps(value), _mm256_set1_ps(value)) }
    }

    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))) }
    }

    #[inline(always)]
    unsafe fn load_bf16(at: *const u16) -> Self {
        // SAFETY: see above.
        unsafe {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(at.add(8).cast()));
            Self(
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
            )
        }
    }

    #[inline(always)]
    unsafe fn load_f16(at: *const u16) -> Self {
        // SAFETY: see above.
        unsafe {
            Self(
                _mm256_cvtph_ps(_mm_loadu_si128(at.cast())),
                _mm256_cvtph_ps(_mm_loadu_si128(at.add(8).cast())),
            )
        }
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        // SAFETY: see above.
        unsafe {
            _mm256_storeu_ps(at, self.0);
            _mm256_storeu_ps(at.add(8), self.1);
        }
    }

    #[inline(always)]
    unsafe fn times(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn plus(self, a: Self, b: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_fmadd_ps(a.0, b.0, self.0), _mm256_fmadd_ps(a.1, b.1, self.1)) }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: see above.
        unsafe { eight_sum(_mm256_add_ps(self.0, self.1)) }
    }
}
