//! `halfopen faults`: the catalogue.

use std::process::ExitCode;

use clap::Args as ClapArgs;

use super::Failure;

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
    let _ = (&args.name, args.json);
    Ok(ExitCode::SUCCESS)
}
