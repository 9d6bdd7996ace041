//! `config.json` of a model: whatever the bytes are, a checked architecture or an error.

#![no_main]

use std::path::Path;

use agents::backbone::Architecture;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let Ok(architecture) = Architecture::from_json(&text, Path::new("config.json")) else { return };
    let weights = architecture.weights().len() + architecture.optional_weights().len();
    assert!(weights > 0 && architecture.parameters() > 0);
    for rope in &architecture.ropes {
        // Longer heads take memory as they should.
        let width = architecture.head_width.min(4096);
        assert_eq!(rope.frequencies(width).len(), width / 2);
    }
});
