#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| devicebound_testkit::fuzz::packet_round_trip(data));
