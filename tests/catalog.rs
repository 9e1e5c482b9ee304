//! The catalogue is complete: each fault has what help, config and documentation are made from. A failure names the missing
//! piece.

use halfopen::fault::{BOUNDS, ENTRIES, KINDS, Kind, MATCH, Rule, RuleSpec, Value, served};

/// Fails with everything that is missing, not only the first piece.
fn complete(missing: Vec<String>) {
    assert!(missing.is_empty(), "missing:\n  {}", missing.join("\n  "));
}

fn rule(text: &str) -> Result<Rule, String> {
    text.parse::<RuleSpec>().and_then(Rule::build).map_err(|e| e.to_string())
}

#[test]
fn every_fault_has_texts_source_engine_and_an_example_that_builds() {
    let mut missing = Vec::new();
    for kind in KINDS {
        let mut lacks = |piece: &str, lacks: bool| {
            if lacks {
                missing.push(format!("{}: {piece}", kind.name));
            }
        };
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        lacks("a name of small letters and dashes", kind.name.is_empty() || !kind.name.chars().all(word));
        lacks(
            "a summary in one line, without full stop",
            kind.summary.is_empty() || kind.summary.ends_with('.'),
        );
        lacks("what the application sees, as a sentence", !kind.sees.ends_with('.'));
        lacks("an engine", kind.engines.is_empty());
        lacks("a source number such as H1", !is_entry(kind.source.id));
        lacks("an incident", kind.source.incident.is_empty());
        lacks("an example of itself", !kind.example.starts_with(kind.name));
        if let Err(error) = rule(kind.example) {
            lacks(&format!("an example that builds: {error}"), true);
        }
        if let Err(error) = rule(kind.name) {
            lacks(&format!("defaults that build: {error}"), true);
        }
        if let Err(error) = rule(kind.scene.rule) {
            lacks(&format!("a scene that builds: {error}"), true);
        }
        for alias in kind.also {
            lacks(&format!("a number for {}", alias.name), !is_entry(alias.id));
            match rule(alias.rule) {
                Ok(rule) => {
                    lacks(&format!("a rule of its own kind for {}", alias.id), rule.kind.name != kind.name)
                }
                Err(error) => lacks(&format!("a rule for {} that builds: {error}", alias.id), true),
            }
        }
    }
    complete(missing);
}

#[test]
fn every_entry_of_the_catalogue_is_served_and_no_fault_serves_another() {
    let unserved = ENTRIES.iter().filter(|entry| served(entry.id).is_none());
    let unserved = unserved.map(|entry| format!("{} ({}): a fault", entry.id, entry.name));
    let known = |id: &str| ENTRIES.iter().any(|entry| entry.id == id);
    let ids =
        |kind: &Kind| kind.also.iter().map(|alias| alias.id).chain([kind.source.id]).collect::<Vec<_>>();
    let unknown = KINDS.iter().flat_map(|kind| ids(kind).into_iter().map(move |id| (kind.name, id)));
    let unknown = unknown.filter(|(_, id)| !known(id)).map(|(name, id)| format!("{name}: the entry {id}"));
    complete(unserved.chain(unknown).collect());
}

/// H1 to H30, E1 to E30, T1 to T20 are the entries of the catalogue; X stands for Toxiproxy's toxics.
fn is_entry(id: &str) -> bool {
    let number = id.get(1..).and_then(|number| number.parse::<u8>().ok());
    id.starts_with(['H', 'E', 'T', 'X']) && number.is_some_and(|n| (1..=30).contains(&n))
}

#[test]
fn every_attribute_has_unit_default_and_the_meaning_of_zero() {
    let mut missing = Vec::new();
    let own = KINDS.iter().flat_map(|kind| kind.attributes.iter().map(move |doc| (kind.name, doc, true)));
    let shared =
        BOUNDS.iter().map(|doc| ("bounds", doc, false)).chain(MATCH.iter().map(|doc| ("match", doc, false)));
    for (owner, doc, needs_default) in own.chain(shared) {
        let mut lacks = |piece: &str, lacks: bool| {
            if lacks {
                missing.push(format!("{owner}.{}: {piece}", doc.name));
            }
        };
        lacks("a default", needs_default && doc.default.is_empty());
        lacks("the meaning of zero", doc.unit.takes_zero() && doc.zero.is_empty());
        lacks("a sentence about it", !doc.doc.ends_with(['.', ')']));
        lacks("a unit", doc.unit.name().is_empty() || doc.unit.range().is_empty());
    }
    complete(missing);
}

#[test]
fn names_are_unique_and_bounds_exist() {
    let mut missing = Vec::new();
    for (i, kind) in KINDS.iter().enumerate() {
        let entries =
            |kind: &Kind| kind.also.iter().map(|alias| alias.id).chain([kind.source.id]).collect::<Vec<_>>();
        let own = entries(kind);
        let taken = |other: &Kind| entries(other).iter().any(|id| own.contains(id));
        if KINDS[..i].iter().any(|other| other.name == kind.name || taken(other)) {
            missing.push(format!("{}: a name and numbers of its own", kind.name));
        }
        for bound in kind.bounds.iter().filter(|name| BOUNDS.iter().all(|doc| doc.name != **name)) {
            missing.push(format!("{}: the bound {bound}", kind.name));
        }
        if kind.default_bound.is_some_and(|(name, _)| !kind.bounds.contains(&name)) {
            missing.push(format!("{}: its default bound among its bounds", kind.name));
        }
        let names: Vec<&str> = kind.documented().iter().map(|doc| doc.name).collect();
        for name in names.iter().filter(|name| names.iter().filter(|other| other == name).count() > 1) {
            missing.push(format!("{}: only one attribute {name}", kind.name));
        }
    }
    complete(missing);
}

/// What the documentation promises is what the builder takes: each documented default, written out, builds the same rule.
#[test]
fn defaults_written_out_change_nothing() {
    for kind in KINDS {
        let mut spec: RuleSpec = kind.name.parse().expect("a name is a rule");
        let implied = Rule::build(spec.clone()).expect("defaults build");
        for doc in kind.documented().iter().filter(|doc| !doc.default.is_empty()) {
            spec.attributes.insert(doc.name.to_owned(), Value::from(doc.default));
        }
        let written = Rule::build(spec).unwrap_or_else(|e| panic!("{}: {e}", kind.name));
        assert_eq!(format!("{:?}", implied.fault), format!("{:?}", written.fault), "{}", kind.name);
        assert_eq!(implied.bounds, written.bounds, "{}", kind.name);
    }
}

/// The file of a fault has its name, `src/fault/catalog/<topic>/<name>.rs`, and so has its ladder, which
/// `UPDATE=1 cargo test --test catalog_ladders` writes.
#[test]
fn every_fault_has_a_file_and_a_ladder_of_its_name() {
    let files = |kind: &Kind| {
        let source = format!("src/fault/catalog/{}/{}.rs", kind.topic.name(), kind.name.replace('-', "_"));
        [source, format!("tests/golden/ladder/fault/{}.txt", kind.name)]
    };
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    complete(KINDS.iter().flat_map(files).filter(|path| !root.join(path).exists()).collect());
}

/// `fault: "NAME"` and its `expected: "…"` in the kernel tests.
fn proofs() -> Vec<(String, String)> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = std::fs::read_dir(root.join("tests/kernel/faults")).expect("the kernel tests are there");
    let files =
        directory.map(|entry| std::fs::read_to_string(entry.expect("listed").path()).expect("a text"));
    let quoted = |text: &str| text.split('"').nth(1).unwrap_or_default().to_owned();
    let of_file = |text: String| {
        let parts = text.split("Proof {").skip(1).filter(|proof| proof.trim_start().starts_with("fault: "));
        let parts = parts.map(|proof| {
            let (_, expected) = proof.split_once("expected:").unwrap_or_default();
            (quoted(proof), quoted(expected))
        });
        parts.collect::<Vec<_>>()
    };
    files.flat_map(of_file).collect()
}

#[test]
fn every_fault_is_proven_against_the_kernel_and_the_table_of_truth_knows_it() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let truth = std::fs::read_to_string(root.join("docs/truth.md")).expect("the table is there");
    let proofs = proofs();
    let unproven = KINDS.iter().filter(|kind| proofs.iter().all(|(fault, _)| fault != kind.name));
    let unproven = unproven.map(|kind| format!("{}: a proof in tests/kernel/faults", kind.name));
    let row = |fault: &str, expected: &str| {
        truth.lines().any(|line| line.starts_with(&format!("| `{fault}` |")) && line.contains(expected))
    };
    let untold = proofs.iter().filter(|(fault, expected)| !row(fault, expected));
    let untold = untold.map(|(fault, expected)| {
        format!("docs/truth.md: {fault}: {expected}\n    hint: UPDATE=1 cargo test --test kernel")
    });
    complete(unproven.chain(untold).collect());
}
