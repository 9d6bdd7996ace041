//! Tokens on their way from a device to main memory.
//!
//! The copy is asked for when the tokens are drawn, into memory that the card writes to by itself. So the next
//! step can be given to the card before anybody here has seen them, and waiting for them is not waiting for
//! that step.

#[cfg(feature = "cuda")]
use std::sync::{Arc, Mutex, PoisonError};

#[cfg(feature = "cuda")]
use candle_core::cuda_backend::{WrapErr, cudarc::driver::PinnedHostSlice};
use candle_core::{Result, Tensor};

/// Memory that cards write tokens to, used again and again: to allocate it, or free it, would hold up the card.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shore {
    #[cfg(feature = "cuda")]
    free: Arc<Mutex<Vec<PinnedHostSlice<u32>>>>,
}

/// Tokens on their way.
#[derive(Debug)]
pub(crate) struct Arrival {
    tokens: Tensor,
    #[cfg(feature = "cuda")]
    copy: Option<Copy>,
}

impl Arrival {
    /// Tokens `[rows]` of main memory, which need no copy.
    pub(crate) fn here(tokens: Tensor) -> Self {
        Self {
            tokens,
            #[cfg(feature = "cuda")]
            copy: None,
        }
    }

    /// The tokens where they were drawn, `[rows]`.
    pub(crate) fn tokens(&self) -> &Tensor {
        &self.tokens
    }

    /// The tokens here: waits until they have come.
    ///
    /// # Errors
    /// When the device has failed.
    pub(crate) fn wait(&self) -> Result<Vec<u32>> {
        #[cfg(feature = "cuda")]
        if let Some(Copy { memory: Some(memory), rows, .. }) = &self.copy {
            return Ok(memory.as_slice().w()?[..*rows].to_vec());
        }
        self.tokens.to_vec1()
    }
}

/// A copy that is being made.
#[cfg(feature = "cuda")]
#[derive(Debug)]
struct Copy {
    memory: Option<PinnedHostSlice<u32>>,
    rows: usize,
    shore: Shore,
}

#[cfg(feature = "cuda")]
impl Drop for Copy {
    fn drop(&mut self) {
        let mut free = self.shore.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.extend(self.memory.take());
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    #![expect(unsafe_code, reason = "memory for the card to write to begins without content")]

    use candle_core::CudaDevice;
    use candle_core::cuda_backend::cudarc::driver::CudaSlice;

    use super::*;
    use crate::gpu::memory::wrap;

    impl Shore {
        /// Sends what `write` has a kernel write, one token for each of so many rows.
        ///
        /// # Errors
        /// When the card has failed, or the system has no memory that a card can write to.
        pub(crate) fn send(
            &self,
            rows: usize,
            device: &CudaDevice,
            write: impl FnOnce(&CudaSlice<u32>) -> Result<()>,
        ) -> Result<Arrival> {
            let mut memory = self.memory(rows, device)?;
            // A copy fills the memory that it goes to.
            let tokens = device.alloc_zeros::<u32>(memory.len())?;
            write(&tokens)?;
            device.cuda_stream().memcpy_dtoh(&tokens, &mut memory).w()?;
            let all = memory.len();
            let copy = Some(Copy { memory: Some(memory), rows, shore: self.clone() });
            Ok(Arrival { tokens: wrap(tokens, all, device).narrow(0, 0, rows)?, copy })
        }

        /// Memory for so many tokens.
        fn memory(&self, rows: usize, device: &CudaDevice) -> Result<PinnedHostSlice<u32>> {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(place) = free.iter().position(|memory| memory.len() >= rows) {
                return Ok(free.swap_remove(place));
            }
            let context = device.cuda_stream().context().clone();
            // SAFETY: it gets its first numbers in the next line, before anybody reads it.
            let memory = unsafe { context.alloc_pinned_with_flags(rows.next_power_of_two(), 0) };
            let mut memory = memory.w()?;
            let first: *mut u32 = memory.as_mut_ptr().w()?;
            // SAFETY: the memory has `len` numbers from `first` on, and is only known here.
            unsafe { first.write_bytes(0, memory.len()) };
            Ok(memory)
        }
    }
}
