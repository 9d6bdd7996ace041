//! Arithmetic on f32 numbers in memory, for reading and writing texts on a CPU: what candle does slowly.
//!
//! Every sum is taken in one order that depends on its length only: sixteen running sums, added pairwise
//! from halves. So a result never depends on the number of rows beside it, on how work was cut into pieces
//! or on the number of threads. Machines with different instructions may differ in the last bits where one
//! of them has no fused multiply-add. Nothing here knows what a layer is, and nothing is differentiable.

mod board;
mod kept;
mod lanes;
mod matrix;
mod row;
mod team;
mod tile;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use self::board::Board;
use self::lanes::{Lanes, Portable};
pub(crate) use self::matrix::{Matrix, Numbers, Target};
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
    fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx512f")
                && std::arch::is_x86_feature_detected!("avx2")
                && std::arch::is_x86_feature_detected!("fma")
            {
                return Self::Avx512;
            }
            if std::arch::is_x86_feature_detected!("avx2")
                && std::arch::is_x86_feature_detected!("fma")
                && std::arch::is_x86_feature_detected!("f16c")
            {
                return Self::Avx2;
            }
        }
        Self::Portable
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

/// Asks for memory that will be read soon: into the second cache, whose queue of what it waits for is long
/// enough to keep memory busy.
#[inline(always)]
fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "a hint to the processor")]
    // SAFETY: a hint never faults, whatever the address, and every x86-64 has the instruction.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

#[cfg(test)]
mod tests;
