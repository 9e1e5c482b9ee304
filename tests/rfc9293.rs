//! `docs/rfc9293.md` names every requirement of RFC 9293, and proofs that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The cells of each row whose first cell is an identifier.
fn rows() -> Vec<[String; 3]> {
    let text = fs::read_to_string(root().join("docs/rfc9293.md")).expect("it is part of the package");
    text.lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
        .map(|line| line.split(" | ").map(str::to_owned).collect::<Vec<_>>())
        .filter(|cells| cells[0] != "id")
        .map(|cells| cells.try_into().unwrap_or_else(|cells| panic!("not three cells: {cells:?}")))
        .collect()
}

/// MUST-1 to 69, SHLD-1 to 31, MAY-1 to 18, REC-1.
fn identifiers() -> BTreeSet<String> {
    let numbered = |kind: &'static str, last: u32| (1..=last).map(move |n| format!("{kind}-{n}"));
    numbered("MUST", 69)
        .chain(numbered("SHLD", 31))
        .chain(numbered("MAY", 18))
        .chain(numbered("REC", 1))
        .collect()
}

#[test]
fn every_identifier_of_appendix_b_has_one_row() {
    let rows = rows();
    let named: BTreeSet<String> = rows.iter().map(|[id, ..]| id.clone()).collect();
    assert_eq!(identifiers().len(), 119);
    assert_eq!(named, identifiers());
    assert_eq!(rows.len(), 119, "one row each");
}

#[test]
fn every_proof_exists_and_every_row_has_one_or_a_reason() {
    let mut sources = String::new();
    for dir in ["src", "tests"] {
        read_rust(&root().join(dir), &mut sources);
    }
    for [id, _, proof] in rows() {
        let proofs: Vec<&str> = proof.split('`').skip(1).step_by(2).collect();
        assert!(!proofs.is_empty() || proof.starts_with("— "), "{id} has neither a proof nor a reason");
        for proof in proofs {
            let exists = match proof.contains('/') {
                true => root().join("tests/scripts").join(proof).with_extension("txt").is_file(),
                false => sources.contains(&format!("fn {proof}(")),
            };
            assert!(exists, "{id}: {proof} does not exist");
        }
    }
}

fn read_rust(dir: &Path, into: &mut String) {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir)
        .expect("a directory of the package")
        .map(|entry| entry.expect("it can be read").path())
        .collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            read_rust(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push_str(&fs::read_to_string(&path).expect("a source is text"));
        }
    }
}
