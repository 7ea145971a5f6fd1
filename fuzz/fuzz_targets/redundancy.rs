#![no_main]

#[allow(dead_code)]
#[path = "../src/media.rs"]
mod media;

libfuzzer_sys::fuzz_target!(|data: &[u8]| media::redundancy(data));
