//! `halfopen rules`: what the rules of a running instance have done so far.

use std::process::ExitCode;

use clap::Args as ClapArgs;

use super::instance::{Asked, print};
use super::{Failure, paint};

/// Print the rules of a running instance: how many flows each has matched, and
/// how often its fault has acted
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    asked: Asked,
}

pub(super) fn rules(args: &Args) -> Result<ExitCode, Failure> {
    let running = args.asked.find()?;
    if args.asked.json {
        return running.print_body("/v1/rules");
    }
    let text = running.text("/v1/rules/text")?;
    print(|mut out| paint::write(&mut out, &text))
}
