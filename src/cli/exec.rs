//! `halfopen exec`: runs a command whose TCP goes through halfopen.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args as ClapArgs;

use super::{Failure, Shared};
use crate::config::load;

/// Run a command whose TCP connections go through halfopen; needs no root
///
/// Exit code: that of the command; 125 if the set-up failed, 126 if the command
/// cannot be run, 127 if it is not found, 128+n if signal n ended it.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    shared: Shared,

    /// Reach services on the caller's 127.0.0.1 at the same address: "on",
    /// "off", or on these ports, such as 5432,8000-8099. Default: on
    #[arg(long, value_name = "PORTS")]
    host_loopback: Option<String>,

    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(super) fn exec(args: &Args) -> Result<ExitCode, Failure> {
    let request = args.shared.sources.request([(
        "--host-loopback",
        "intercept.host_loopback",
        args.host_loopback.clone(),
    )]);
    let _ = (load(&request)?, &args.command);
    Err(Failure::new(125, "exec: not wired up yet"))
}
