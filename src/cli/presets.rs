//! `halfopen presets`: rules tied to documented incidents.

use std::process::ExitCode;

use clap::Args as ClapArgs;
use serde_json::{Value, json};

use super::Failure;
use super::faults::paragraph;
use crate::config::Preset;
use crate::config::presets::PRESETS;
use crate::fault::{Engine, Error, Rule, Rules};

/// List the presets, or explain one: what happened to whom, what it does on the
/// wire, what an application does that copes
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The preset to explain
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn presets(args: &Args) -> Result<ExitCode, Failure> {
    match &args.name {
        Some(name) => {
            let known = Known::of(name).map_err(failure)?;
            if args.json { anstream::println!("{}", known.as_json()) } else { known.explain() }
        }
        None => {
            let all: Vec<Known> =
                PRESETS.iter().map(|(name, _)| Known::of(name)).collect::<Result<_, _>>().map_err(failure)?;
            if args.json {
                anstream::println!("{}", all.iter().map(Known::as_json).collect::<Value>());
            } else {
                list(&all);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn failure(mut error: Error) -> Failure {
    let hint = error.hint.take();
    let what = if error.key.is_empty() { error.problem } else { error.to_string() };
    let failure = Failure::new(Failure::USAGE, what);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn list(all: &[Known]) {
    let width = all.iter().map(|known| known.preset.name.len()).max().unwrap_or(0);
    for Known { preset, .. } in all {
        anstream::println!("{:width$}  {:11}  {}", preset.name, preset.topic, preset.summary);
    }
}

/// A preset and its rules.
struct Known {
    preset: Preset,
    rules: Vec<Rule>,
    scales: Vec<String>,
}

impl Known {
    fn of(name: &str) -> Result<Self, Error> {
        let preset = Preset::named(name)?;
        let rules = preset.specs()?.into_iter().map(Rule::build).collect::<Result<_, _>>()?;
        let scales = preset.scales()?;
        Ok(Self { preset, rules, scales })
    }

    /// The engines that can do all of it, and why exec cannot if it cannot.
    fn engines(&self) -> (Vec<&'static str>, Option<String>) {
        let can = |engine| Rules::new(0, engine, self.rules.clone());
        let engines = Engine::ALL.into_iter().filter(|engine| can(*engine).is_ok());
        (engines.map(Engine::name).collect(), can(Engine::Exec).err().map(|error| error.problem))
    }

    /// The rules as one would write them with `--fault`.
    fn written(&self) -> Vec<String> {
        let written = |rule: &Rule| {
            let mut spec = rule.spec.clone();
            spec.name = None;
            spec.to_string()
        };
        self.rules.iter().map(written).collect()
    }

    fn explain(&self) {
        let Preset { name, summary, incident, source, wire, cope, .. } = &self.preset;
        let mut out = format!("{name}: {summary}\n");
        for (head, text) in [
            ("what happened", incident),
            ("known from", source),
            ("on the wire", wire),
            ("an application that copes", cope),
        ] {
            out.push_str(&format!("\n{head}:\n"));
            paragraph(&mut out, "  ", "  ", text);
        }
        let (engines, refused) = self.engines();
        out.push_str(&format!("\nengines: {}\n", engines.join(", ")));
        if let Some(refused) = refused {
            paragraph(&mut out, "  ", "  ", &refused);
        }
        let scales = if self.scales.is_empty() { "nothing".to_owned() } else { self.scales.join("; ") };
        out.push_str(&format!("scaled by --time-scale: {scales}\n\nthe same as:\n"));
        for rule in self.written() {
            out.push_str(&format!("  --fault '{rule}'\n"));
        }
        anstream::print!("{out}");
    }

    fn as_json(&self) -> Value {
        let Preset { name, summary, incident, source, wire, cope, topic, .. } = &self.preset;
        let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        json!({
            "name": name, "summary": summary, "topic": topic, "source": source,
            "incident": flat(incident), "wire": flat(wire), "cope": flat(cope),
            "engines": self.engines().0, "scales": self.scales, "rules": self.written(),
        })
    }
}
