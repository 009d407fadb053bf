//! Lists of flows, as `bulkhead verify` reads them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulkhead_tests::fuzz::flows(data));
