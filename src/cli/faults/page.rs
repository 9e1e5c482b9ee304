//! The catalogue as a page of documentation: `docs/faults.md` is what `halfopen faults --markdown` prints.

use std::fmt::Write as _;

use crate::fault::{AttributeDoc, ENTRIES, Engine, KINDS, Kind, Rule, Rules, Topic, served};

/// The whole page.
pub(super) fn page() -> String {
    let mut out = String::from(
        "# Faults\n\n`halfopen faults --markdown` writes this page. `halfopen faults NAME` also draws the ladder.\n\n\
         ## Entries of the catalogue\n\nWhat is known from production, and which fault is it. Where an engine is not named, the fault \
         is refused there with the reason: `tun` is a gateway,\n`exec` a wrapped command, whose server leg is a kernel socket, \
         `sockets` kernel sockets on both sides in a gateway\nor a sidecar, and `plain-sockets` those behind a listener.\n\n\
         | entry | what happens | rule | engines |\n|---|---|---|---|\n",
    );
    for entry in ENTRIES {
        let _ = match served(entry.id) {
            Some((_, rule)) => {
                writeln!(out, "| {} | {} | `{rule}` | {} |", entry.id, entry.name, can_do(rule))
            }
            None => writeln!(out, "| {} | {} | not there yet | |", entry.id, entry.name),
        };
    }
    for topic in Topic::ALL {
        let _ = writeln!(out, "\n## {}", topic.title());
        KINDS.iter().filter(|kind| kind.topic == topic).for_each(|kind| section(&mut out, kind));
    }
    out
}

fn engines(kind: &Kind) -> String {
    kind.engines.iter().map(|engine: &Engine| engine.name()).collect::<Vec<_>>().join(", ")
}

/// The engines that take just this rule, whatever they can do with other attributes.
fn can_do(rule: &str) -> String {
    let takes = |engine: &Engine| {
        let rule = rule.parse().and_then(Rule::build);
        rule.and_then(|rule| Rules::new(0, *engine, vec![rule])).is_ok()
    };
    let engines = Engine::ALL.into_iter().filter(takes);
    engines.map(Engine::name).collect::<Vec<_>>().join(", ")
}

fn section(out: &mut String, kind: &Kind) {
    let _ = writeln!(out, "\n### {}\n\nIt {}.\n", kind.name, kind.summary);
    let _ = writeln!(out, "- The application sees: {}", kind.sees);
    let _ = writeln!(out, "- Known from: {} ({})", kind.source.incident, kind.source.id);
    for alias in kind.also {
        let _ = writeln!(out, "- {} ({}): `{}`", alias.name, alias.id, alias.rule);
    }
    let _ = writeln!(out, "- Engines: {}\n- Example: `--fault '{}'`", engines(kind), kind.example);
    let _ = writeln!(
        out,
        "- On the wire: [`{}`](../tests/golden/ladder/fault/{}.txt), as a ladder",
        kind.scene.rule, kind.name
    );
    let attributes = kind.documented();
    if !attributes.is_empty() {
        let _ = writeln!(out, "\n| attribute | takes | default | zero | what it is |\n|---|---|---|---|---|");
        attributes.iter().for_each(|doc| row(out, doc));
    }
}

fn row(out: &mut String, doc: &AttributeDoc) {
    let cell = |text: &str| text.replace('|', "\\|");
    let _ = writeln!(
        out,
        "| `{}` | {} | {} | {} | {} |",
        doc.name,
        cell(&doc.unit.range()),
        cell(doc.default),
        cell(doc.zero),
        cell(doc.doc)
    );
}
