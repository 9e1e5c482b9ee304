//! The command line: one file per command. Data goes to stdout, everything else to stderr.

mod config;
mod demo;
mod ending;
mod exec;
mod failure;
mod faults;
mod floor;
mod flows;
mod healthcheck;
mod instance;
mod ladder;
mod log;
mod matrix;
mod options;
mod page;
mod paint;
mod ping;
mod presets;
mod report;
mod rules;
mod run;
mod stats;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use failure::Failure;
pub use options::{LogFormat, Shared, Sources, Telling};

/// Transparent TCP proxy and fault injector with its own TCP on both sides.
#[derive(Debug, Parser)]
#[command(
    name = "halfopen",
    version,
    max_term_width = 80,
    help_expected = true,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    Exec(exec::Args),
    Run(run::Args),
    Flows(flows::Args),
    Stats(stats::Args),
    Rules(rules::Args),
    Report(report::Args),
    Matrix(Box<matrix::Args>),
    Ping(ping::Args),
    Floor(floor::Args),
    Ladder(ladder::Args),
    Faults(faults::Args),
    Presets(presets::Args),
    Healthcheck(healthcheck::Args),
    #[command(subcommand)]
    Config(config::Command),
}

/// Runs the command line; what `main` does.
#[must_use]
pub fn main() -> ExitCode {
    // clap exits with 2 for wrong usage, and with 0 for --help and --version.
    let outcome = match Cli::parse().command {
        Command::Demo(args) => demo::demo(&args),
        Command::Exec(args) => exec::exec(&args),
        Command::Matrix(args) => matrix::matrix(&args),
        Command::Ping(args) => ping::ping(&args),
        Command::Floor(args) => floor::floor(&args),
        Command::Ladder(args) => ladder::ladder(&args),
        Command::Run(args) => run::run(&args),
        Command::Flows(args) => flows::flows(&args),
        Command::Stats(args) => stats::stats(&args),
        Command::Rules(args) => rules::rules(&args),
        Command::Report(args) => report::report(&args),
        Command::Faults(args) => faults::faults(&args),
        Command::Presets(args) => presets::presets(&args),
        Command::Healthcheck(args) => healthcheck::healthcheck(&args),
        Command::Config(command) => config::config(&command),
    };
    outcome.unwrap_or_else(|failure| failure.report())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_every_option_has_a_help_text() {
        Cli::command().debug_assert();
    }
}
