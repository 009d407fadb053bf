//! Frames, read by the parser and by a second one.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulkhead_tests::fuzz::parse(data));
