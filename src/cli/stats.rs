//! `halfopen stats`: the summary of a running instance so far.

use std::process::ExitCode;

use clap::Args as ClapArgs;

use super::instance::{Asked, print};
use super::{Failure, paint};

/// Print the summary so far of a running instance
///
/// The same as at the end of a run. What is open now counts as "open"; bytes are
/// those of flows that have ended.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    asked: Asked,
}

pub(super) fn stats(args: &Args) -> Result<ExitCode, Failure> {
    let running = args.asked.find()?;
    if args.asked.json {
        return running.print_body("/v1/stats");
    }
    let text = running.text("/v1/stats/text")?;
    print(|mut out| paint::write(&mut out, &text))
}
