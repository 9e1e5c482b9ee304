//! What became of a run: its exit code, and the report that it has written.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;

use serde::Deserialize;

use super::plan::Planned;
use crate::app::matrix::Done;
use crate::cli::Failure;
use crate::report::matrix::{Outcome, Run};

/// What is read of a report.
#[derive(Deserialize)]
struct Report {
    flows: u64,
    fired: u64,
    #[serde(default)]
    assertions: Vec<Assertion>,
}

#[derive(Deserialize)]
struct Assertion {
    assertion: String,
    holds: bool,
}

/// Judges a run.
pub(super) fn read(planned: &Planned, done: &Done, output: &Path) -> Run {
    let directory = output.join(&planned.directory);
    let report = fs::read(directory.join("report.json")).ok();
    let report: Option<Report> = report.and_then(|json| serde_json::from_slice(&json).ok());
    let status = done.status;
    let exit_code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    let (outcome, why) = outcome(planned, done, report.as_ref(), exit_code, &directory);
    Run {
        name: planned.name.clone(),
        outcome,
        why,
        exit_code,
        seconds: Some(done.took.as_secs_f64()),
        flows: report.as_ref().map(|report| report.flows),
        fired: report.as_ref().map(|report| report.fired),
        time_scaled: planned.scaled,
        directory: Some(planned.directory.clone()),
    }
}

fn outcome(
    planned: &Planned,
    done: &Done,
    report: Option<&Report>,
    code: Option<i32>,
    directory: &Path,
) -> (Outcome, Option<String>) {
    if done.timed_out {
        return (Outcome::Hang, None);
    }
    let Some(report) = report else {
        // halfopen tells at the end of its last words.
        return (Outcome::Broken, Some(said(directory).unwrap_or_else(|| "no report".to_owned())));
    };
    let broken: Vec<&str> =
        report.assertions.iter().filter(|a| !a.holds).map(|a| a.assertion.as_str()).collect();
    let mut why = match code {
        Some(0) => Vec::new(),
        // Only ours: the command has passed.
        Some(3) if !broken.is_empty() => Vec::new(),
        Some(code) if code > 128 => vec![format!("signal {}", code - 128)],
        Some(code) => vec![format!("exit code {code}")],
        None => vec!["no exit code".to_owned()],
    };
    why.extend(broken.into_iter().map(|assertion| format!("assertion failed: {assertion}")));
    if code != Some(0) && report.fired == 0 && planned.option.is_some() {
        why.push("no fault has acted".to_owned());
    }
    match code {
        Some(0) if report.fired == 0 && planned.option.is_some() => (Outcome::NotExercised, None),
        Some(0) => (Outcome::Pass, None),
        _ => (Outcome::Fail, Some(why.join("; "))),
    }
}

/// What halfopen has said against the run, without its hint.
fn said(directory: &Path) -> Option<String> {
    let stderr = fs::read(directory.join("stderr")).ok()?;
    let stderr = String::from_utf8_lossy(&stderr);
    let line = stderr.lines().rev().find_map(|line| line.strip_prefix("halfopen: "))?;
    Some(line.to_owned())
}

/// A command that fails without a fault says nothing about faults.
pub(super) fn clean_failed(clean: &Run, output: &Path) -> Failure {
    let what = match (&clean.why, clean.outcome) {
        (_, Outcome::Hang) => "it took too long".to_owned(),
        (Some(why), _) => why.clone(),
        (None, outcome) => outcome.name().to_owned(),
    };
    let directory = output.join(clean.directory.as_deref().unwrap_or_default());
    let hint =
        format!("see {0}/stdout and {0}/stderr; --timeout is how long it may take", directory.display());
    Failure::new(Failure::FAILED, format_args!("the command fails already without a fault: {what}"))
        .hint(hint)
}
