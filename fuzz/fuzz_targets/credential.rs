#![no_main]

#[allow(dead_code)]
#[path = "../src/overlay.rs"]
mod overlay;

libfuzzer_sys::fuzz_target!(|data: &[u8]| overlay::credential(data));
