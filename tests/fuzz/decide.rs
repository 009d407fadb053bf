//! Frames in turn, judged over the maps in memory.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulkhead_tests::fuzz::decide_in_turn(data));
