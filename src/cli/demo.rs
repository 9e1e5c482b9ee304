//! `halfopen demo`: shows one fault, or a healthy connection, as a ladder.

use std::process::ExitCode;

use clap::Args as ClapArgs;

use super::Failure;

/// Show a connection between a real client and a real server as a ladder, in
/// namespaces of its own: healthy, or with one fault
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The fault to show, by name or as a rule. Default: none
    #[arg(value_name = "FAULT")]
    fault: Option<String>,
}

pub(super) fn demo(args: &Args) -> Result<ExitCode, Failure> {
    let _ = &args.fault;
    Err(Failure::new(Failure::UNAVAILABLE, "demo: not wired up yet"))
}
