#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| devicebound_tests::fuzz::world(data));
