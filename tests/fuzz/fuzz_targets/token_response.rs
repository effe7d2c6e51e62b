#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zg_tokend_fuzz::token_response(data));
