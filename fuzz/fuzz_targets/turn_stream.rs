#![no_main]

#[allow(dead_code)]
#[path = "../src/turn.rs"]
mod turn;

libfuzzer_sys::fuzz_target!(|data: &[u8]| turn::turn_stream(data));
