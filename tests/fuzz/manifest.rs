//! Files of manifests.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bulkhead_tests::fuzz::manifest(data));
