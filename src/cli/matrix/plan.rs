//! What is to be run, checked before anything runs.

use std::ffi::OsString;
use std::path::Path;

use super::Args;
use crate::cli::options::Sources;
use crate::cli::page::{self, About};
use crate::cli::{Failure, ending};
use crate::config::presets::{Asked, PRESETS};
use crate::config::{Machine, Problem, Request, Settings, load};
use crate::fault::{Engine, KINDS, Rule, Rules};
use crate::report::matrix::{Outcome, Run};

/// How long a run waits for the delivery of what its command has sent: under many faults it would wait in vain, and count
/// as a hang.
const GRACE: &str = "1s";
/// The word for all presets or faults.
const ALL: &str = "all";

/// All that is to be run.
pub(super) struct Plan {
    /// The seed of every run.
    pub(super) seed: u64,
    /// What idle times are multiplied with.
    pub(super) time_scale: f64,
    /// Without a fault.
    pub(super) clean: Planned,
    /// Under one fault each.
    pub(super) runs: Vec<Planned>,
    /// What belongs to "all" and cannot be done around a command.
    pub(super) impossible: Vec<Run>,
    /// What a page tells of it.
    pub(super) about: About,
}

/// One run.
pub(super) struct Planned {
    /// The preset, or the rule.
    pub(super) name: String,
    /// Its directory in that of the output.
    pub(super) directory: String,
    /// `--preset` or `--fault`, if it is not clean.
    pub(super) option: Option<&'static str>,
    /// True if it has idle times that are scaled.
    pub(super) scaled: bool,
}

impl Plan {
    pub(super) fn new(args: &Args) -> Result<Self, Failure> {
        let layers = load(&request(args, None, args.seed.clone()))?;
        let clean = Settings::resolve(&layers, Machine::here())?;
        let program =
            args.command.first().map_or_else(String::new, |word| word.to_string_lossy().into_owned());
        let about = About::new(&format!("matrix: {program}"), &layers);
        let (seed, time_scale) = (clean.rules.seed(), clean.scaling.factor);
        if !clean.rules.rules().is_empty() {
            return Err(Failure::new(
                Failure::BAD_CONFIG,
                "the config has rules, which would act on every run",
            )
            .hint("take them out of the config, and give them as --fault or --preset"));
        }
        let clean =
            Planned { name: "clean".to_owned(), directory: "clean".to_owned(), option: None, scaled: false };
        let mut plan = Self { seed, time_scale, clean, runs: Vec::new(), impossible: Vec::new(), about };
        for (option, text, expanded) in wanted(args) {
            if expanded && let Some(why) = impossible(option, &text) {
                plan.impossible.push(not_run(text, why));
                continue;
            }
            let settings = resolve(&request(args, Some((option, &text)), Some(seed.to_string())))?;
            ending::known_rules(&ending::assertions(&args.assertions)?, &settings.rules)?;
            let directory = format!("{:02}-{}", plan.runs.len() + 1, file_name(&text));
            let scaled = !settings.scaling.scaled.is_empty();
            plan.runs.push(Planned { name: text, directory, option: Some(option), scaled });
        }
        if time_scale != 1.0 && plan.runs.iter().all(|run| !run.scaled) {
            return Err(Failure::new(Failure::USAGE, "--time-scale: no run has a time that may be scaled")
                .hint("remove it; \"halfopen presets NAME\" tells what it scales"));
        }
        Ok(plan)
    }
}

impl Plan {
    /// `6 runs, time scale 0.01 (stuck-reader), seed 42`.
    pub(super) fn told(&self) -> String {
        let scaled: Vec<&str> =
            self.runs.iter().filter(|run| run.scaled).map(|run| run.name.as_str()).collect();
        let scale = match self.time_scale {
            1.0 => String::new(),
            factor => format!("time scale {factor} ({}), ", scaled.join(", ")),
        };
        format!("{} runs, {scale}seed {}", 1 + self.runs.len(), self.seed)
    }
}

impl Planned {
    /// The command line of the run.
    pub(super) fn words(&self, args: &Args, plan: &Plan, halfopen: &Path, directory: &Path) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec![halfopen.into(), "exec".into(), "--seed".into()];
        words.push(plan.seed.to_string().into());
        words.extend(["--report".into(), directory.join("report.json").into()]);
        if args.reports.iter().any(|path| page::is_page(path)) {
            words.extend(["--report".into(), directory.join(page::REPORT).into()]);
        }
        words.extend(["--hlog".into(), directory.join("latencies.hlog").into()]);
        words.extend(["--grace".into(), GRACE.into()]);
        let scale = if self.scaled { plan.time_scale } else { 1.0 };
        words.extend(["--time-scale".into(), scale.to_string().into()]);
        if let Some(config) = &args.config {
            words.extend(["--config".into(), config.into()]);
        }
        if let Some(ports) = &args.host_loopback {
            words.extend(["--host-loopback".into(), ports.into()]);
        }
        if args.ladder {
            words.push("--ladder".into());
        }
        if let Some(option) = self.option {
            words.extend([option.into(), OsString::from(&self.name)]);
            for assertion in &args.assertions {
                words.extend(["--assert".into(), assertion.into()]);
            }
        }
        words.push("--".into());
        words.extend(args.command.iter().cloned());
        words
    }
}

/// Option, value, and whether it comes from "all".
fn wanted(args: &Args) -> Vec<(&'static str, String, bool)> {
    let every = |option: &'static str, text: &str| -> Vec<_> {
        match (text, option) {
            (ALL, "--preset") => PRESETS.iter().map(|(name, _)| (option, (*name).to_owned(), true)).collect(),
            (ALL, _) => KINDS.iter().map(|kind| (option, kind.example.to_owned(), true)).collect(),
            _ => vec![(option, text.to_owned(), false)],
        }
    };
    if args.presets.is_empty() && args.faults.is_empty() {
        return every("--preset", ALL);
    }
    let presets = args.presets.iter().flat_map(|text| every("--preset", text));
    presets.chain(args.faults.iter().flat_map(|text| every("--fault", text))).collect()
}

fn request(args: &Args, fault: Option<(&str, &String)>, seed: Option<String>) -> Request {
    let mut sources = Sources {
        config: args.config.clone(),
        time_scale: args.time_scale.clone(),
        seed,
        ..Sources::default()
    };
    match fault {
        Some(("--preset", text)) => sources.presets.push(text.clone()),
        Some((_, text)) => sources.faults.push(text.clone()),
        None => {}
    }
    let request = sources.request([
        ("matrix", "intercept.mode", Some("exec".to_owned())),
        ("--host-loopback", "intercept.host_loopback", args.host_loopback.clone()),
    ]);
    Request { scale_if_possible: true, ..request }
}

fn resolve(request: &Request) -> Result<Settings, Vec<Problem>> {
    Settings::resolve(&load(request)?, Machine::here())
}

/// Why this cannot be done around a command, if it cannot.
fn impossible(option: &str, text: &str) -> Option<String> {
    let specs = match option {
        "--preset" => Asked::read(text).and_then(|asked| asked.specs()),
        _ => text.parse().map(|spec| vec![spec]),
    };
    let rules = specs.and_then(|specs| specs.into_iter().map(Rule::build).collect::<Result<Vec<_>, _>>());
    rules.and_then(|rules| Rules::new(0, Engine::Exec, rules)).err().map(|error| error.problem)
}

fn not_run(name: String, why: String) -> Run {
    Run {
        name,
        outcome: Outcome::Impossible,
        why: Some(why),
        exit_code: None,
        seconds: None,
        flows: None,
        fired: None,
        time_scaled: false,
        directory: None,
    }
}

/// A rule as the name of a file: words of letters and digits, and not too many of them.
fn file_name(text: &str) -> String {
    const LONGEST: usize = 60;
    let plain = text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(LONGEST);
    plain.collect::<String>().trim_matches('-').to_owned()
}
