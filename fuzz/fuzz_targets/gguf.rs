//! A GGUF file: whatever the bytes are, configuration, tokenizer and weights, or an error.

#![no_main]

use std::path::Path;

use agents::backbone::Architecture;
use agents::backbone::gguf::Gguf;
use agents::device::DeviceKind;
use candle_core::DType;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let path = Path::new("model.gguf");
    let Ok(file) = Gguf::from_bytes(data.to_vec(), path) else { return };
    let _ = file.chat_template();
    let _ = file.tokenizer();
    let Ok(config) = file.config() else { return };
    let Ok(architecture) = Architecture::from_json(&config.to_string(), path) else { return };
    let Ok(device) = DeviceKind::Cpu.open() else { return };
    for (name, shape) in architecture.weights() {
        if file.has(&name) {
            let _ = file.read(&name, &shape, DType::F32, &device);
        }
    }
});
