//! `halfopen config`: what the config says, and where it says so.

use std::process::ExitCode;

use clap::{Args as ClapArgs, Subcommand};
use serde_json::json;

use super::{Failure, Shared};
use crate::config::{Place, load};

/// Check the config, or show every value and where it comes from
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Tell everything that is wrong with the config; exit code 78 if anything is
    Check(Args),
    /// Show every value that is in force, and where it was written
    Show(Args),
}

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    shared: Shared,
}

pub(super) fn config(command: &Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Check(args) => check(args),
        Command::Show(args) => show(args),
    }
}

fn check(args: &Args) -> Result<ExitCode, Failure> {
    let layers = load(&args.shared.request([]))?;
    let file =
        layers.file().map_or_else(|| "no config file; defaults".to_owned(), |f| f.display().to_string());
    anstream::println!("{file}: ok, {} rules", layers.raw.rule.len());
    Ok(ExitCode::SUCCESS)
}

fn show(args: &Args) -> Result<ExitCode, Failure> {
    let values = load(&args.shared.request([]))?.values();
    if args.shared.json {
        let all: Vec<_> = values
            .iter()
            .map(|(key, value, place)| json!({ "key": key, "value": value, "from": place.to_string() }))
            .collect();
        anstream::println!("{}", serde_json::Value::from(all));
        return Ok(ExitCode::SUCCESS);
    }
    let lines: Vec<(String, &Place)> =
        values.iter().map(|(key, value, place)| (format!("{key} = {value}"), place)).collect();
    let width = lines.iter().map(|(line, _)| line.len()).max().unwrap_or(0).min(60);
    for (line, place) in lines {
        anstream::println!("{line:width$}  # {place}");
    }
    Ok(ExitCode::SUCCESS)
}
