//! The seed corpus of the fuzz targets, run by a plain `cargo test`. Each target keeps its seeds in `fuzz/corpus/<target>/`;
//! an input that once failed is added there, under a name that says what it is.
#![allow(clippy::unwrap_used, reason = "helpers of a test may panic")]

use std::fs;
use std::path::Path;

/// Runs every seed of a target.
fn run(target: &str, check: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut seeds: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "{} is empty", dir.display());
    for seed in seeds {
        println!("{}", seed.display());
        check(&fs::read(seed).unwrap());
    }
}

#[test]
fn the_seeds_of_wire_are_read_and_written() {
    run("wire", halfopen::sim::fuzz::wire);
}

#[test]
fn the_seeds_of_flow_keep_what_must_hold() {
    run("flow", halfopen::sim::fuzz::flow);
}

#[test]
fn the_seeds_of_read_are_read_and_drawn() {
    run("read", halfopen::sim::fuzz::read);
}
