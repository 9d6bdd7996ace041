//! `adapter_config.json`: the first byte chooses a golden model and adapter, the rest takes the place of that
//! adapter's configuration. Whatever it is, an adapter that runs, or an error.

#![no_main]

#[path = "../golden.rs"]
mod golden;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&choice, config)) = data.split_first() else { return };
    golden::choose(choice).run(Some(config), None);
});
