//! A safetensors file: whatever the bytes are, tensors or an error.

#![no_main]

use std::path::Path;

use agents::backbone::checkpoint::Checkpoint;
use agents::device::DeviceKind;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let path = Path::new("model.safetensors");
    let Ok(checkpoint) = Checkpoint::from_bytes(data.to_vec(), path) else { return };
    let Ok(device) = DeviceKind::Cpu.open() else { return };
    let Ok(tensors) = checkpoint.all(&device) else { return };
    assert_eq!(tensors.len(), checkpoint.names().count());
    let bytes: usize = tensors.values().map(|tensor| tensor.elem_count() * 2).sum();
    assert!(bytes <= data.len(), "{bytes} bytes of values in a file of {}", data.len());
});
