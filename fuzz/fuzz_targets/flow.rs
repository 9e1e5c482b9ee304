//! Operations on a flow: see `halfopen::sim::fuzz::flow`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| halfopen::sim::fuzz::flow(data));
