//! `tokenizer.json`: whatever the bytes are, a tokenizer that encodes and decodes, or an error.

#![no_main]

use agents::tokenizer::Tokenizer;
use libfuzzer_sys::fuzz_target;

/// Letters, white space, marks, other scripts, a combining accent, an invisible character.
const TEXTS: [&str; 3] = ["", "Hello, wörld!  a_b\t12", "日本 e\u{301}\u{200b}\u{0}<|end|>"];

fuzz_target!(init: quiet(), |data: &[u8]| {
    let Ok(tokenizer) = Tokenizer::from_bytes(data) else { return };
    let _ = tokenizer.vocabulary();
    for text in TEXTS {
        let tokens = tokenizer.encode(text).unwrap_or_default();
        let _ = tokenizer.decode(&tokens);
        let _ = tokenizer.encode_with_specials(text, 4);
    }
    let _ = tokenizer.decode(&[0, 1, 2, u32::MAX]);
});

/// A panic that the reader catches and reports is no finding; one that leaves the target ends the process.
fn quiet() {
    std::panic::set_hook(Box::new(|_| {}));
}
