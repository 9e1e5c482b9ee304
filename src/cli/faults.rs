//! `halfopen faults`: the catalogue.

mod page;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Args as ClapArgs;
use serde_json::{Value, json};

use super::{Failure, paint};
use crate::fault::{AttributeDoc, Engine, KINDS, Kind, Rule, Rules, kind, nearest};
use crate::report::{Ladder, Style, Text};
use crate::sim::scene;

/// List the faults, or explain one: what it does on the wire, what the
/// application sees, its attributes
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The fault to explain
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// Print the whole catalogue as a page of Markdown
    #[arg(long, conflicts_with_all = ["name", "json"])]
    markdown: bool,
}

pub(super) fn faults(args: &Args) -> Result<ExitCode, Failure> {
    match (&args.name, args.json) {
        _ if args.markdown => anstream::print!("{}", page::page()),
        (None, false) => list(),
        (None, true) => anstream::println!("{}", KINDS.iter().map(as_json).collect::<Value>()),
        (Some(name), false) => match explain(find(name)?) {
            // Whoever read on the other side of a pipe has seen enough.
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
                return Err(Failure::new(Failure::FAILED, format_args!("faults: {e}")));
            }
            _ => {}
        },
        (Some(name), true) => anstream::println!("{}", as_json(find(name)?)),
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn find(name: &str) -> Result<&'static Kind, Failure> {
    kind(name).ok_or_else(|| {
        let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        let failure = Failure::new(Failure::USAGE, format_args!("no fault \"{name}\""));
        match nearest(name, &names) {
            Some(near) => failure.hint(format_args!("did you mean \"{near}\"?")),
            None => failure.hint("\"halfopen faults\" lists them"),
        }
    })
}

fn list() {
    let width = KINDS.iter().map(|kind| kind.name.len()).max().unwrap_or(0);
    for kind in KINDS {
        anstream::println!("{:width$}  {:11}  {}", kind.name, kind.topic.name(), kind.summary);
    }
}

fn explain(kind: &Kind) -> io::Result<()> {
    let mut out = format!("{}: {}\n\n", kind.name, kind.summary);
    paragraph(&mut out, "the application sees: ", "  ", kind.sees);
    paragraph(&mut out, "known from: ", "  ", kind.source.incident);
    for alias in kind.also {
        paragraph(&mut out, &format!("also {}: ", alias.name), "  ", &format!("--fault '{}'", alias.rule));
    }
    let engines: Vec<&str> = kind.engines.iter().map(|engine| engine.name()).collect();
    out.push_str(&format!("engines: {}\n", engines.join(", ")));
    if !kind.scales.is_empty() {
        out.push_str(&format!("scaled by --time-scale: {}\n", kind.scales.join(", ")));
    }
    out.push_str(&format!("example: --fault '{}'\n\nattributes:\n", kind.example));
    for doc in kind.documented() {
        attribute(&mut out, &doc);
    }
    let mut stdout = anstream::stdout().lock();
    write!(stdout, "{out}\non the wire, with {}:\n", kind.scene.rule)?;
    paint::write(&mut stdout, &wire(kind, &paint::style(&io::stdout())))?;
    stdout.flush()
}

/// The ladder of the fault's scene, in virtual time.
fn wire(kind: &Kind, style: &Style) -> Text {
    let rule = Rule::build(kind.scene.rule.parse().expect("tests read every scene")).expect("and build it");
    let rules = Rules::new(42, Engine::Tun, vec![rule]).expect("and the engine can do it");
    let records = scene::perform(rules, kind.scene.play).expect("and no rule of TCP is broken");
    Ladder::of(&records).draw(style)
}

fn attribute(out: &mut String, doc: &AttributeDoc) {
    out.push_str(&format!("  {}: {}", doc.name, doc.unit.range()));
    if !doc.default.is_empty() {
        out.push_str(&format!("; default {}", doc.default));
    }
    if !doc.zero.is_empty() {
        out.push_str(&format!("; 0 is {}", doc.zero));
    }
    out.push('\n');
    paragraph(out, "      ", "      ", doc.doc);
}

/// Appends a text of lines of at most 80 columns.
pub(super) fn paragraph(out: &mut String, first: &str, indent: &str, text: &str) {
    let mut line = first.to_owned();
    let mut empty = true;
    for word in text.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > 80 {
            out.push_str(line.trim_end());
            out.push('\n');
            line = indent.to_owned();
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    out.push_str(line.trim_end());
    out.push('\n');
}

fn as_json(kind: &Kind) -> Value {
    let attribute = |doc: &AttributeDoc| {
        json!({
            "name": doc.name, "unit": doc.unit.name(), "allowed": doc.unit.range(), "default": doc.default,
            "zero": doc.zero, "doc": doc.doc,
        })
    };
    json!({
        "name": kind.name,
        "summary": kind.summary,
        "topic": kind.topic.name(),
        "engines": kind.engines.iter().map(|engine| engine.name()).collect::<Vec<_>>(),
        "example": kind.example,
        "scales": kind.scales,
        "sees": kind.sees,
        "source": kind.source.incident,
        "entry": kind.source.id,
        "also": kind.also.iter().map(|alias| json!({ "entry": alias.id, "name": alias.name, "rule": alias.rule })).collect::<Vec<_>>(),
        "scene": kind.scene.rule,
        "attributes": kind.documented().iter().map(attribute).collect::<Vec<_>>(),
    })
}
