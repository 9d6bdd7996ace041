//! Where tensors live. The only file that chooses between CPU and CUDA.

use std::str::FromStr;

use candle_core::Device;

use crate::error::{ModelError, Result};

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

impl FromStr for DeviceKind {
    type Err = ModelError;

    /// Reads `cpu`, `cuda` or `cuda:N`.
    fn from_str(text: &str) -> Result<Self> {
        let number = match text {
            "cpu" => return Ok(Self::Cpu),
            "cuda" => Some(0),
            other => other.strip_prefix("cuda:").and_then(|number| number.parse().ok()),
        };
        number.map(Self::Cuda).ok_or_else(|| ModelError::Setting {
            what: "the device",
            found: text.to_owned(),
            expected: "cpu, cuda or cuda:N",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_from_words() {
        let read = |text: &str| text.parse::<DeviceKind>().ok();
        assert_eq!(read("cpu"), Some(DeviceKind::Cpu));
        assert_eq!(read("cuda"), Some(DeviceKind::Cuda(0)));
        assert_eq!(read("cuda:3"), Some(DeviceKind::Cuda(3)));
        assert_eq!((read("gpu"), read("cuda:x"), read("cuda:-1")), (None, None, None));
    }
}
