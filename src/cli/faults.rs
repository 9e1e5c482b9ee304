//! `halfopen faults`: the catalogue.

use std::process::ExitCode;

use clap::Args as ClapArgs;
use serde_json::{Value, json};

use super::Failure;
use crate::fault::{AttributeDoc, KINDS, Kind, kind, nearest};

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
}

pub(super) fn faults(args: &Args) -> Result<ExitCode, Failure> {
    match (&args.name, args.json) {
        (None, false) => list(),
        (None, true) => anstream::println!("{}", KINDS.iter().map(as_json).collect::<Value>()),
        (Some(name), false) => explain(find(name)?),
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

fn explain(kind: &Kind) {
    let mut out = format!("{}: {}\n\n", kind.name, kind.summary);
    paragraph(&mut out, "the application sees: ", "  ", kind.sees);
    paragraph(&mut out, "known from: ", "  ", kind.source.incident);
    let engines: Vec<&str> = kind.engines.iter().map(|engine| engine.name()).collect();
    out.push_str(&format!("engines: {}\n", engines.join(", ")));
    if !kind.scales.is_empty() {
        out.push_str(&format!("scaled by --time-scale: {}\n", kind.scales.join(", ")));
    }
    out.push_str(&format!("example: --fault '{}'\n\nattributes:\n", kind.example));
    for doc in kind.documented() {
        attribute(&mut out, &doc);
    }
    anstream::print!("{out}");
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
        "attributes": kind.documented().iter().map(attribute).collect::<Vec<_>>(),
    })
}
