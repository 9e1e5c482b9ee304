//! `halfopen run`: intercepts until it is told to stop.

use std::process::ExitCode;

use clap::Args as ClapArgs;

use super::{Failure, Shared};
use crate::config::{Machine, Settings, load};

/// Intercept connections until SIGTERM or SIGINT, then undo everything
///
/// SIGHUP reads the config again and replaces the rules; a file with mistakes
/// changes nothing. Prints a summary at the end.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    shared: Shared,

    /// Stand between two networks ("gateway"). Default: gateway
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,

    /// Take connections to these server ports, such as 5432,8000-8099;
    /// everything else passes untouched
    #[arg(short, long, value_name = "PORTS")]
    ports: Option<String>,

    /// Take connections that come in from the clients by this interface.
    /// Default: any
    #[arg(long, value_name = "NAME")]
    client_interface: Option<String>,

    /// Take answers that come in from the servers by this interface.
    /// Default: any
    #[arg(long, value_name = "NAME")]
    server_interface: Option<String>,

    /// Wait this long for open flows to end when told to stop. Default: 8s
    #[arg(long, value_name = "TIME")]
    grace: Option<String>,

    /// Print the commands that would set up the interception, and do nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let request = args.shared.sources.request([
        ("--mode", "intercept.mode", args.mode.clone()),
        ("--ports", "intercept.ports", args.ports.clone()),
        ("--client-interface", "intercept.client_interface", args.client_interface.clone()),
        ("--server-interface", "intercept.server_interface", args.server_interface.clone()),
        ("--grace", "engine.grace", args.grace.clone()),
    ]);
    let settings = Settings::resolve(&load(&request)?, Machine::here())?;
    let _ = (settings, args.dry_run);
    Err(Failure::new(Failure::UNAVAILABLE, "run: the gateway is not wired up yet"))
}
