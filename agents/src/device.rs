//! Where tensors live. The only file that chooses between CPU and CUDA, and asks either what it has left.

use std::fmt;
use std::str::FromStr;

pub use candle_core::Device;

use crate::engine::memory;
use crate::error::{ModelError, Result, bare};
use crate::kernel;

/// A device a scenario or a command line can ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceKind {
    /// The CPU: exact from run to run.
    #[default]
    Cpu,
    /// The CUDA device with this index.
    Cuda(usize),
}

impl DeviceKind {
    /// Opens the device. What is made on it lives with what else is made on this opening of it, and with
    /// nothing of another.
    ///
    /// # Errors
    /// When the binary was built without CUDA, or there is no such device.
    pub fn open(self) -> Result<Device> {
        let Self::Cuda(index) = self else { return Ok(Device::Cpu) };
        let fail = |reason| ModelError::Device { device: self, reason };
        if !candle_core::utils::cuda_is_available() {
            return Err(fail(
                "this program was built without CUDA; build it with `cargo build --release --features cuda`"
                    .to_owned(),
            ));
        }
        // One stream for all threads: what one of them asked for is done before what another asks for then.
        let opened = Device::new_cuda_with_stream(index).map_err(|error| {
            fail(format!("{}; `nvidia-smi -L` lists what there is", bare(&error)))
        })?;
        #[cfg(feature = "cuda")]
        if let Device::Cuda(card) = &opened {
            #[expect(unsafe_code, reason = "events would cost thousands of calls a step")]
            // SAFETY: this opening has one stream, on which all of its memory is taken, used and given back,
            // so the order of the stream is all the order that is needed; nothing is shared with another.
            unsafe {
                card.disable_event_tracking();
            }
        }
        Ok(opened)
    }
}

/// Cores that products can use: as many as candle finds, but no more than this process may have.
#[must_use]
pub fn cores() -> usize {
    candle_core::utils::get_num_threads().min(kernel::threads())
}

/// Bytes that can be allocated on a device now; none where it does not tell.
#[must_use]
pub fn free_memory(device: &Device) -> Option<u64> {
    match device {
        Device::Cpu => memory::available(),
        #[cfg(feature = "cuda")]
        Device::Cuda(card) => {
            let (free, _all) = card.cuda_stream().context().mem_get_info().ok()?;
            Some(free as u64)
        }
        _ => None,
    }
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
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

/// The devices of a run, in order; at least one. The same may stand there more than once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devices(Vec<DeviceKind>);

impl Devices {
    /// They, in order.
    #[must_use]
    pub fn all(&self) -> &[DeviceKind] {
        &self.0
    }

    /// Whether a run on these has the bits of one on `other`: as many, each of the same kind. Which card it
    /// is does not matter.
    #[must_use]
    pub fn are_like(&self, other: &Self) -> bool {
        let kinds = |devices: &Self| -> Vec<bool> {
            devices.0.iter().map(|device| *device == DeviceKind::Cpu).collect()
        };
        kinds(self) == kinds(other)
    }
}

impl Default for Devices {
    fn default() -> Self {
        Self(vec![DeviceKind::default()])
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, device) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{device}")?;
        }
        Ok(())
    }
}

impl FromStr for Devices {
    type Err = ModelError;

    /// Reads devices with commas between them.
    fn from_str(text: &str) -> Result<Self> {
        text.split(',').map(|word| word.trim().parse()).collect::<Result<_>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_from_words_and_written_as_such() {
        let read = |text: &str| text.parse::<DeviceKind>().ok();
        assert_eq!(read("cpu"), Some(DeviceKind::Cpu));
        assert_eq!(read("cuda"), Some(DeviceKind::Cuda(0)));
        assert_eq!(read("cuda:3"), Some(DeviceKind::Cuda(3)));
        assert_eq!((read("gpu"), read("cuda:x"), read("cuda:-1")), (None, None, None));
        let list = |text: &str| text.parse::<Devices>().map(|devices| devices.to_string()).ok();
        assert_eq!(list("cuda, cuda:1,cpu").as_deref(), Some("cuda:0,cuda:1,cpu"));
        assert_eq!((list(""), list("cpu,"), list("cpu;cpu")), (None, None, None));
    }

    #[test]
    fn a_run_has_the_same_bits_on_as_many_devices_of_the_same_kinds() {
        let alike = |one: &str, other: &str| {
            one.parse::<Devices>().unwrap().are_like(&other.parse().unwrap())
        };
        assert!(alike("cuda:0,cuda:1", "cuda:3,cuda:3") && alike("cpu", "cpu"));
        assert!(
            !alike("cpu", "cpu,cpu") && !alike("cpu", "cuda") && !alike("cpu,cuda", "cuda,cpu")
        );
    }

    #[test]
    fn a_device_that_cannot_be_used_is_told_with_what_helps() {
        let told = DeviceKind::Cuda(97).open().map(drop).unwrap_err();
        let help =
            if candle_core::utils::cuda_is_available() { "nvidia-smi" } else { "--features cuda" };
        assert!(told.is_input(), "{told}");
        let told = told.to_string();
        assert!(told.contains("cuda:97") && told.contains(help), "{told}");
    }
}
