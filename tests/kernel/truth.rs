//! `docs/truth.md`: what each fault was expected to do to an application, and what it did.
//!
//! `UPDATE=1 cargo test --test kernel` writes it; `tests/catalog.rs` checks that it knows every proof.

use std::fmt::Write as _;
use std::sync::Mutex;

use crate::faults::{PROOFS, Proof};

/// Fault, expectation and observation of the proofs that have run.
static OBSERVED: Mutex<Vec<(&str, &str, String)>> = Mutex::new(Vec::new());

/// Notes what a proof has seen.
pub(crate) fn observe(proof: &Proof, observed: String) {
    let mut all = OBSERVED.lock().expect("nobody panics with it");
    all.push((proof.fault, proof.expected, observed));
}

/// Writes the table if it is asked for. Rows that have not run stay as they are.
pub(crate) fn update() {
    if std::env::var("UPDATE").as_deref() != Ok("1") {
        return;
    }
    let kernel = nix::sys::utsname::uname().expect("there is a kernel");
    let mut out = format!(
        "# Expected and observed\n\nWhat each fault does to unmodified applications, expected by the field or by measurement, and \
         observed\nby `cargo test --test kernel` on {} {}. `UPDATE=1` writes this file.\n\n| fault | entry | expected | observed |\n\
         |---|---|---|---|\n",
        kernel.sysname().display(),
        kernel.release().display(),
    );
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/truth.md");
    let before = std::fs::read_to_string(path).unwrap_or_default();
    let observed = OBSERVED.lock().expect("nobody panics with it");
    for proof in PROOFS.iter().flat_map(|proofs| proofs.iter()) {
        let seen =
            observed.iter().find(|(fault, expected, _)| *fault == proof.fault && *expected == proof.expected);
        let front =
            format!("| `{}` | {} | {} | ", proof.fault, proof.entry, proof.expected.replace('|', "\\|"));
        let row = match seen {
            Some((_, _, seen)) => format!("{front}{} |", seen.replace('|', "\\|")),
            None => before.lines().find(|line| line.starts_with(&front)).unwrap_or_default().to_owned(),
        };
        let _ = writeln!(out, "{row}");
    }
    std::fs::write(path, out).expect("docs can be written");
}
