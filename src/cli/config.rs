//! `halfopen config`: what the config says, and where it says so.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::{Failure, Sources};
use crate::config::{Machine, Place, Settings, load};

/// Check the config, or show every value and where it comes from
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Tell everything that is wrong with the config; exit code 78 if anything is
    Check {
        #[command(flatten)]
        sources: Sources,
    },
    /// Show every value that is in force, and where it was written
    Show {
        #[command(flatten)]
        sources: Sources,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of the config, with every fault and attribute
    Schema,
}

pub(super) fn config(command: &Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Check { sources } => check(sources),
        Command::Show { sources, json } => show(sources, *json),
        Command::Schema => {
            anstream::println!("{:#}", crate::config::schema());
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn check(sources: &Sources) -> Result<ExitCode, Failure> {
    let layers = load(&sources.request([]))?;
    Settings::resolve(&layers, Machine::here())?;
    let file =
        layers.file().map_or_else(|| "no config file; defaults".to_owned(), |f| f.display().to_string());
    anstream::println!("{file}: ok, {} rules", layers.raw.rule.len());
    Ok(ExitCode::SUCCESS)
}

fn show(sources: &Sources, json: bool) -> Result<ExitCode, Failure> {
    let values = load(&sources.request([]))?.values();
    if json {
        let entry = |(key, value, place): &(String, String, Place)| json!({ "key": key, "value": value, "from": place.to_string() });
        let all: Vec<_> = values.iter().map(entry).collect();
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
