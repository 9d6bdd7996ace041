//! Arithmetic on f32 numbers in memory, for reading and writing texts on a CPU: what candle does slowly.
//!
//! Every sum is taken in one order that depends on its length only: sixteen running sums, added pairwise
//! from halves; with a matrix in blocks of integers block by block, exact within a block. So a result never
//! depends on the number of rows beside it, on how work was cut into pieces or on the number of threads.
//! Machines with different instructions may differ in the last bits where one of them has no fused
//! multiply-add, but not in products with blocks. Nothing here knows what a layer is, and nothing is
//! differentiable.

mod beside;
mod blocks;
mod board;
mod eight;
mod kept;
mod lanes;
mod matrix;
mod narrow;
mod rounded;
mod row;
mod scales;
mod team;
mod tile;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use self::blocks::Blocks;
pub(crate) use self::board::Board;
use self::lanes::{Lanes, Portable};
pub(crate) use self::matrix::{Input, Matrix, Numbers, Scratch, Target};
pub(crate) use self::rounded::{BLOCK, Rounded};
pub(crate) use self::row::{Seen, attend, gate, normalize, rotate};
pub(crate) use self::team::{Member, run, threads};

/// Something to do with vector instructions; `run` must be inlined into its caller, and all it calls too.
trait Task {
    /// What it gives.
    type Output;

    /// Does it.
    ///
    /// # Safety
    /// The processor must have the instructions of `L`.
    #[expect(unsafe_code, reason = "vector instructions exist on some processors only")]
    unsafe fn run<L: Lanes>(self) -> Self::Output;
}

/// The widest instructions of this processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Width {
    /// For f32.
    fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx512f")
                && std::arch::is_x86_feature_detected!("avx2")
                && std::arch::is_x86_feature_detected!("fma")
            {
                return Self::Avx512;
            }
            if Self::has_avx2() {
                return Self::Avx2;
            }
        }
        Self::Portable
    }

    /// For integers of 8 bits, whose products AVX-512 got later.
    fn integers() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if Self::detect() == Self::Avx512 && std::arch::is_x86_feature_detected!("avx512vnni") {
                return Self::Avx512;
            }
            if Self::has_avx2() {
                return Self::Avx2;
            }
        }
        Self::Portable
    }

    #[cfg(target_arch = "x86_64")]
    fn has_avx2() -> bool {
        std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("fma")
            && std::arch::is_x86_feature_detected!("f16c")
    }
}

/// Does `task` with the widest instructions there are.
fn dispatch<T: Task>(task: T) -> T::Output {
    dispatch_on(Width::detect(), task)
}

#[expect(unsafe_code, reason = "vector instructions exist on some processors only")]
fn dispatch_on<T: Task>(width: Width, task: T) -> T::Output {
    match width {
        // SAFETY: `Width::detect` gives this only where the processor has all features that it names.
        #[cfg(target_arch = "x86_64")]
        Width::Avx512 => unsafe { x86::with_avx512(task) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Width::Avx2 => unsafe { x86::with_avx2(task) },
        // SAFETY: plain arithmetic asks nothing of the processor.
        Width::Portable => unsafe { task.run::<Portable>() },
    }
}

/// Multiplies integers with the widest instructions there are for it.
fn dispatch_integers(product: eight::Product<'_>) {
    integers_on(Width::integers(), product);
}

#[expect(unsafe_code, reason = "vector instructions exist on some processors only")]
fn integers_on(width: Width, product: eight::Product<'_>) {
    match width {
        // SAFETY: `Width::integers` gives this only where the processor has all features that it names.
        #[cfg(target_arch = "x86_64")]
        Width::Avx512 => unsafe { x86::product_with_vnni(product) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Width::Avx2 => unsafe { x86::product_with_avx2(product) },
        // SAFETY: plain arithmetic asks nothing of the processor.
        Width::Portable => unsafe { product.run::<Portable>() },
    }
}

/// Asks for memory that will be read soon: into the second cache, whose queue of what it waits for is long
/// enough to keep memory busy.
#[inline(always)]
fn prefetch(at: *const u8) {
    hint::<false>(at);
}

/// Asks for memory that will be read next: into the first cache.
#[inline(always)]
fn prefetch_near(at: *const u8) {
    hint::<true>(at);
}

#[inline(always)]
fn hint<const NEAR: bool>(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "a hint to the processor")]
    // SAFETY: a hint never faults, whatever the address, and every x86-64 has the instruction.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        if NEAR {
            _mm_prefetch::<_MM_HINT_T0>(at.cast());
        } else {
            _mm_prefetch::<_MM_HINT_T1>(at.cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

#[cfg(test)]
mod tests;
