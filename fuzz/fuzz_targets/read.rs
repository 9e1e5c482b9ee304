//! Bytes as a file of an earlier run: see `halfopen::sim::fuzz::read`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| halfopen::sim::fuzz::read(data));
