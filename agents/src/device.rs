//! Where tensors live. The only file that chooses between CPU and CUDA.

use candle_core::Device;

use crate::error::Result;

/// A device a scenario or a command line can ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceKind {
    /// The CPU: exact from run to run.
    #[default]
    Cpu,
    /// The CUDA device with this index.
    Cuda(usize),
}

impl DeviceKind {
    /// Opens the device.
    ///
    /// # Errors
    /// When the binary was built without CUDA, or there is no such device.
    pub fn open(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(index) => Ok(Device::new_cuda(index)?),
        }
    }
}
