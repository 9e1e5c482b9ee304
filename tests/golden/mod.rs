//! Golden files: the texts that people read, kept under `tests/golden/` and compared to the letter.
//!
//! `UPDATE=1 cargo test` rewrites them; read the diff before you commit it.

use std::fmt::Write as _;
use std::path::Path;

/// Compares `actual` with `tests/golden/<name>`; with `UPDATE=1` in the environment, writes it instead.
#[track_caller]
pub(crate) fn check(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(path.parent().expect("a golden file has a directory"))
            .expect("directory made");
        std::fs::write(&path, actual).expect("golden file written");
        return;
    }
    let expected = std::fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{}: {e}\n  hint: UPDATE=1 cargo test writes it", path.display()));
    if expected != actual {
        let diff = first_difference(&expected, actual);
        panic!(
            "tests/golden/{name} differs:\n{diff}\n  hint: if it is meant, UPDATE=1 cargo test rewrites it"
        );
    }
}

/// The first line that differs, with the lines around it on both sides.
fn first_difference(expected: &str, actual: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (expected.lines().collect(), actual.lines().collect());
    let at = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let mut out = format!("line {} of {} expected, {} found\n", at + 1, old.len(), new.len());
    for line in &new[at.saturating_sub(3)..at] {
        let _ = writeln!(out, "   {line}");
    }
    for (mark, lines) in [('-', &old), ('+', &new)] {
        for line in lines.iter().skip(at).take(12) {
            let _ = writeln!(out, " {mark} {line}");
        }
    }
    out
}
