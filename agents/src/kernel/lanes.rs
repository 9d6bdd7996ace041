//! Sixteen f32 numbers that are computed at once: what the vector instructions of each processor share.

#![expect(unsafe_code, reason = "loads through pointers, whose callers prove that they are valid")]

/// Sixteen f32 numbers.
///
/// # Safety of all functions
/// The processor must have the instructions of the type, and a pointer must be good for sixteen numbers.
pub(super) trait Lanes: Copy {
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(at: *const f32) -> Self;
    /// Numbers of bfloat16, given by their bits.
    unsafe fn load_bf16(at: *const u16) -> Self;
    /// Numbers of IEEE half precision, given by their bits.
    unsafe fn load_f16(at: *const u16) -> Self;
    unsafe fn store(self, at: *mut f32);
    unsafe fn times(self, other: Self) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    /// `self + a · b`, rounded once where the processor can.
    unsafe fn plus(self, a: Self, b: Self) -> Self;
    /// The sum: halves added to each other until one number is left.
    unsafe fn sum(self) -> f32;

    /// Sixteen such sums.
    #[inline(always)]
    unsafe fn sums(all: [Self; 16]) -> [f32; 16] {
        let mut sums = [0.0; 16];
        for (sum, lanes) in sums.iter_mut().zip(all) {
            // SAFETY: as for this function.
            *sum = unsafe { lanes.sum() };
        }
        sums
    }

    /// The product of sixteen rows of eight numbers at `at` with eight numbers `[u, u]`: the last three
    /// steps of sixteen sums.
    ///
    /// # Safety
    /// `at` must be good for 128 numbers.
    #[inline(always)]
    unsafe fn eights(at: *const f32, twice: Self) -> [f32; 16] {
        let mut sums = [0.0; 16];
        for (pair, sums) in sums.chunks_exact_mut(2).enumerate() {
            let mut both = [0.0; 16];
            // SAFETY: 16·8 numbers lie at `at`, and `pair` is below 8; `both` holds sixteen.
            unsafe { Self::load(at.add(16 * pair)).times(twice).store(both.as_mut_ptr()) };
            for (sum, of) in sums.iter_mut().zip(both.chunks_exact(8)) {
                *sum = ((of[0] + of[4]) + (of[2] + of[6])) + ((of[1] + of[5]) + (of[3] + of[7]));
            }
        }
        sums
    }

    /// Sixteen rows of eight numbers at `at`, turned: the first numbers of all rows, and so on.
    ///
    /// # Safety
    /// `at` must be good for 128 numbers.
    #[inline(always)]
    unsafe fn columns(at: *const f32) -> [Self; 8] {
        // SAFETY: 16·8 numbers lie at `at`; `turned` holds as many.
        unsafe {
            let mut turned = [0.0; 128];
            for (i, number) in turned.iter_mut().enumerate() {
                *number = at.add(i % 16 * 8 + i / 16).read();
            }
            let mut columns = [Self::splat(0.0); 8];
            for (i, column) in columns.iter_mut().enumerate() {
                *column = Self::load(turned.as_ptr().add(16 * i));
            }
            columns
        }
    }
}

/// What every processor can do; compilers make it as wide as they may.
#[derive(Clone, Copy)]
pub(super) struct Portable([f32; 16]);

/// `a · b + c`; fused only where that is one instruction.
#[inline(always)]
fn fused(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
        a.mul_add(b, c)
    } else {
        a * b + c
    }
}

/// The value of IEEE half-precision bits.
#[inline(always)]
pub(super) fn from_f16(bits: u16) -> f32 {
    half::f16::from_bits(bits).to_f32()
}

impl Portable {
    #[inline(always)]
    unsafe fn each<T: Copy>(at: *const T, f: impl Fn(T) -> f32) -> Self {
        // SAFETY: the caller's pointer is good for sixteen numbers.
        Self(std::array::from_fn(|i| f(unsafe { at.add(i).read_unaligned() })))
    }

    #[inline(always)]
    pub(super) fn from_fn(f: impl Fn(usize) -> f32) -> Self {
        Self(std::array::from_fn(f))
    }
}

impl Lanes for Portable {
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 16])
    }

    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        // SAFETY: as the trait says.
        unsafe { Self::each(at, |x| x) }
    }

    #[inline(always)]
    unsafe fn load_bf16(at: *const u16) -> Self {
        // SAFETY: as the trait says.
        unsafe { Self::each(at, |x| f32::from_bits(u32::from(x) << 16)) }
    }

    #[inline(always)]
    unsafe fn load_f16(at: *const u16) -> Self {
        // SAFETY: as the trait says.
        unsafe { Self::each(at, from_f16) }
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        // SAFETY: as the trait says.
        unsafe { at.cast::<[f32; 16]>().write_unaligned(self.0) };
    }

    #[inline(always)]
    unsafe fn times(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] * other.0[i]))
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }

    #[inline(always)]
    unsafe fn plus(self, a: Self, b: Self) -> Self {
        Self(std::array::from_fn(|i| fused(a.0[i], b.0[i], self.0[i])))
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let mut lanes = self.0;
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                lanes[i] += lanes[i + half];
            }
        }
        lanes[0]
    }
}
