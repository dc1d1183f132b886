#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| devicebound_testkit::fuzz::sas_token(data));
