//! `adapter_model.safetensors`: the first byte chooses a golden model and adapter, the rest takes the place of
//! that adapter's tensors. Whatever they are, an adapter that runs, or an error.

#![no_main]

#[path = "../golden.rs"]
mod golden;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&choice, weights)) = data.split_first() else { return };
    golden::choose(choice).run(None, Some(weights));
});
