//! Bytes as a packet: see `halfopen::sim::fuzz::wire`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| halfopen::sim::fuzz::wire(data));
