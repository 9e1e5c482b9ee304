//! `halfopen report`: merges interval logs, tells what they say, and compares two runs.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args as ClapArgs;

use super::page::VERSION;
use super::{Failure, paint};
use crate::measure::Latencies;
use crate::measure::hlog::Reader;
use crate::report::{Comparison, LoggedRun, html};

/// Longest line of a log: several times that of a histogram with all its values different.
const LONGEST: u64 = 1 << 20;

/// Tell what the logs of --hlog say
///
/// Several files are one run: their values are merged without loss. With
/// --against two runs are put side by side: how much larger the quantiles of
/// FILE are, with the interval that chance explains in 95 % of the cases
/// (bootstrap).
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The logs of a run
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Compare with the run of these logs, which was the first one
    #[arg(long, value_name = "FILE", num_args = 1..)]
    against: Vec<PathBuf>,

    /// Start the dice of the intervals at SEED. Default: 1
    #[arg(long, value_name = "SEED", default_value_t = 1, hide_default_value = true)]
    seed: u64,

    /// Print the result as JSON
    #[arg(long, conflicts_with = "csv")]
    json: bool,

    /// Print the result as CSV, a line per quantile
    #[arg(long)]
    csv: bool,

    /// Write the result to FILE, too, as a page with the curves of all latencies
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

pub(super) fn report(args: &Args) -> Result<ExitCode, Failure> {
    let latencies = read(&args.files)?;
    let run = LoggedRun::new(names(&args.files), &latencies);
    if args.against.is_empty() {
        write_page(args, || html::log(&run, VERSION))?;
        return print(args, &run, || run.csv(), |style| run.draw(style));
    }
    let before = read(&args.against)?;
    let before = LoggedRun::new(names(&args.against), &before);
    let both = Comparison::new(before, run, args.seed);
    write_page(args, || html::comparison(&both, VERSION))?;
    print(args, &both, || both.csv(), |style| both.draw(style))
}

fn write_page(args: &Args, page: impl FnOnce() -> String) -> Result<(), Failure> {
    let Some(path) = &args.html else { return Ok(()) };
    let failed = |e: io::Error| {
        Failure::new(Failure::FAILED, format_args!("--html {}: cannot be written: {e}", path.display()))
    };
    std::fs::write(path, page()).map_err(failed)
}

fn print(
    args: &Args,
    json: &impl serde::Serialize,
    csv: impl FnOnce() -> String,
    text: impl FnOnce(&crate::report::Style) -> crate::report::Text,
) -> Result<ExitCode, Failure> {
    let mut out = anstream::stdout().lock();
    let written = match (args.json, args.csv) {
        (true, _) => {
            serde_json::to_writer(&mut out, json).map_err(io::Error::from).and_then(|()| writeln!(out))
        }
        (_, true) => out.write_all(csv().as_bytes()),
        _ => paint::write(&mut out, &text(&paint::style(&io::stdout()))),
    };
    written
        .and_then(|()| out.flush())
        .map_err(|e| Failure::new(Failure::FAILED, format_args!("cannot print the report: {e}")))?;
    Ok(ExitCode::SUCCESS)
}

fn names(files: &[PathBuf]) -> Vec<String> {
    files.iter().map(|path| path.display().to_string()).collect()
}

/// Reads the logs of one run.
pub(super) fn read(files: &[PathBuf]) -> Result<Latencies, Failure> {
    let mut reader = Reader::default();
    files.iter().try_for_each(|path| read_file(path, &mut reader))?;
    Ok(reader.finish())
}

fn read_file(path: &Path, reader: &mut Reader) -> Result<(), Failure> {
    let failed =
        |e: io::Error| Failure::new(Failure::FAILED, format_args!("{}: cannot be read: {e}", path.display()));
    let mut file = BufReader::new(File::open(path).map_err(failed)?);
    reader.begin();
    for number in 1.. {
        let mut line = Vec::new();
        let length = file.by_ref().take(LONGEST).read_until(b'\n', &mut line).map_err(failed)?;
        let wrong = |what: &str| {
            let what = format!("{}, line {number}: {what}", path.display());
            Failure::new(Failure::FAILED, what).hint("it must be a file that halfopen wrote with --hlog")
        };
        if length == 0 {
            return if number == 1 { Err(wrong("the file is empty")) } else { Ok(()) };
        }
        let text = std::str::from_utf8(&line).map_err(|_| wrong("not text"));
        let read = text.and_then(|text| reader.line(text).map_err(|what| wrong(&what)));
        match read {
            // A full disk, or a run that was killed. All before it is there.
            Err(_) if number > 1 && !line.ends_with(b"\n") && (length as u64) < LONGEST => {
                anstream::eprintln!("halfopen: {}, line {number}: cut off, left out", path.display());
                return Ok(());
            }
            read => read?,
        }
    }
    Ok(())
}
