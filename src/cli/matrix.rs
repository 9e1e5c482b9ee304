//! `halfopen matrix`: runs a command once clean and once under each preset or fault.

mod plan;
mod result;

use std::ffi::OsString;
use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args as ClapArgs;

use super::{Failure, ending, page, paint};
use crate::app::matrix::{Done, Error, Job, News, Runner};
use crate::config::Machine;
use crate::config::units::Time;
use crate::report::Matrix;
use crate::report::matrix::Outcome;
use crate::time::Duration;
use plan::{Plan, Planned};

/// How long a run may take if nobody says it.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Most runs at a time.
const MOST_JOBS: usize = 64;

/// Run a command once clean and once under each preset or fault: which of them
/// does it cope with?
///
/// Each run is a "halfopen exec" of its own and passes if its exit code is 0.
/// Exit code: 0 if the command coped with every fault that it met, 1 if not, or
/// if it fails already without a fault.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Run under this preset, such as stuck-reader or 'stuck-reader
    /// match.server=:5432', or under "all". May be repeated. Default, without
    /// --fault: all
    #[arg(long = "preset", value_name = "NAME")]
    presets: Vec<String>,

    /// Run under this rule, such as 'syn-drop first=2', or under "all": the
    /// example of each fault. May be repeated
    #[arg(short, long = "fault", value_name = "RULE")]
    faults: Vec<String>,

    /// Multiply the idle times of the rules, such as 0.01 to make 350 s 3.5 s;
    /// rules without any run as they are. Default: 1
    #[arg(long, value_name = "FACTOR")]
    time_scale: Option<String>,

    /// End a run that takes longer than this, as a hang. Default: 60s
    #[arg(long, value_name = "TIME")]
    timeout: Option<String>,

    /// Do this many runs at a time; more make each other slow. Default: 1
    #[arg(long, value_name = "N")]
    jobs: Option<String>,

    /// Start the dice of all rules at SEED, to repeat a matrix. Default: random
    #[arg(long, value_name = "SEED")]
    seed: Option<String>,

    /// A run under a fault fails unless EXPR holds at its end; see "halfopen
    /// exec". May be repeated
    #[arg(long = "assert", value_name = "EXPR")]
    assertions: Vec<String>,

    /// Fail also if a fault was not exercised, because no connection met it
    #[arg(long)]
    strict: bool,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,

    /// Write the result as JUnit XML to FILE
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,

    /// Write the result to FILE, as JSON; to a FILE that ends in .html as a page
    /// with a part for each run, and links to their own reports in DIR. May be
    /// repeated
    #[arg(long = "report", value_name = "FILE")]
    reports: Vec<PathBuf>,

    /// Keep the output of each run in DIR. Default: a new directory for
    /// temporary files
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,

    /// Keep the ladder of each flow with the output
    #[arg(long)]
    ladder: bool,

    /// Read the config from FILE, as "halfopen exec" does; it may have no rules
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Reach services on the caller's loopback, as "halfopen exec" does
    #[arg(long, value_name = "PORTS")]
    host_loopback: Option<String>,

    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(super) fn matrix(args: &Args) -> Result<ExitCode, Failure> {
    let timeout = args.timeout.as_deref().map_or(Ok(TIMEOUT), timeout)?;
    let at_once = args.jobs.as_deref().map_or(Ok(1), jobs)?;
    ending::assertions(&args.assertions)?;
    let plan = Plan::new(args)?;
    let failed =
        |what: String| move |e: io::Error| Failure::new(Failure::FAILED, format_args!("{what}: {e}"));
    let junit = args.junit.as_ref().map(|path| ending::create("--junit", path)).transpose()?;
    let reports = args.reports.iter().map(|path| ending::create("--report", path));
    let reports = reports.collect::<Result<Vec<_>, _>>()?;
    let output = output(args.output.as_deref())?;
    let halfopen = std::env::current_exe().map_err(failed("cannot find this program".to_owned()))?;
    let job = |run: &Planned| {
        let directory = output.join(&run.directory);
        fs::create_dir_all(&directory)
            .map_err(failed(format!("{}: cannot be created", directory.display())))?;
        Ok::<_, Failure>(Job { words: run.words(args, &plan, &halfopen, &directory), directory })
    };
    let jobs = plan.runs.iter().map(job).collect::<Result<Vec<_>, _>>()?;
    anstream::eprintln!("halfopen: {}, output in {}", plan.told(), output.display());
    let mut runner = Runner::new(timeout).map_err(failed("cannot start".to_owned()))?;
    let clean_job = job(&plan.clean)?;
    let clean = one_by_one(&mut runner, &[clean_job], 1, &["clean"])?;
    let clean = clean.first().map(|done| result::read(&plan.clean, done, &output)).ok_or_else(unknown)?;
    let passed = clean.outcome == Outcome::Pass;
    let mut matrix = Matrix {
        seed: plan.seed,
        time_scale: plan.time_scale,
        output: output.display().to_string(),
        clean,
        runs: Vec::new(),
    };
    if passed {
        let names: Vec<&str> = plan.runs.iter().map(|run| run.name.as_str()).collect();
        let done = one_by_one(&mut runner, &jobs, at_once, &names)?;
        let judged = plan.runs.iter().zip(&done).map(|(planned, done)| result::read(planned, done, &output));
        matrix.runs.extend(judged.chain(plan.impossible));
    }
    if let Some(mut file) = junit {
        file.write_all(matrix.junit(args.strict).as_bytes()).map_err(failed("--junit".to_owned()))?;
    }
    for (mut file, path) in reports.into_iter().zip(&args.reports) {
        let written = match page::is_page(path) {
            true => file.write_all(plan.about.matrix(&matrix, &output, path).as_bytes()),
            false => write_json(file, &matrix),
        };
        written.map_err(failed(format!("--report {}: cannot be written", path.display())))?;
    }
    if !passed {
        return Err(result::clean_failed(&matrix.clean, &output));
    }
    print(&matrix, args.json).map_err(failed("cannot print the result".to_owned()))?;
    Ok(if matrix.is_good(args.strict) { ExitCode::SUCCESS } else { ExitCode::from(Failure::FAILED) })
}

fn unknown() -> Failure {
    Failure::new(Failure::FAILED, "the clean run has no result")
}

fn print(matrix: &Matrix, json: bool) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    if json {
        write_json(&mut out, matrix)?;
    } else {
        paint::write(&mut out, &matrix.draw(&paint::style(&io::stdout())))?;
    }
    out.flush()
}

fn write_json(mut out: impl io::Write, matrix: &Matrix) -> io::Result<()> {
    serde_json::to_writer(&mut out, matrix)?;
    writeln!(out)
}

/// Runs the jobs and shows on a terminal how far they are.
fn one_by_one(
    runner: &mut Runner,
    jobs: &[Job],
    at_once: usize,
    names: &[&str],
) -> Result<Vec<Done>, Failure> {
    let terminal = io::stderr().is_terminal();
    let (mut ended, mut running) = (0, Vec::new());
    let done = runner.run(jobs, at_once, |news| {
        match news {
            News::Begins(index) => running.push(index),
            News::Ended(index) => {
                running.retain(|other| *other != index);
                ended += 1;
            }
        }
        if terminal {
            let now: Vec<&str> = running.iter().filter_map(|index| names.get(*index).copied()).collect();
            eprint!("\r\x1b[2K{ended} of {}: {}", jobs.len(), now.join(", "));
        }
    });
    if terminal {
        eprint!("\r\x1b[2K");
    }
    done.map_err(|error| match error {
        Error::Stopped(signal) => {
            let code = u8::try_from(128 + signal).unwrap_or(Failure::FAILED);
            Failure::new(code, format_args!("stopped by signal {signal}; all runs have been ended"))
        }
        Error::System(error) => Failure::new(Failure::FAILED, format_args!("cannot run: {error}")),
    })
}

fn timeout(text: &str) -> Result<Duration, Failure> {
    match text.parse::<Time>() {
        Ok(Time(time)) if time > Duration::ZERO && time <= Duration::from_secs(86_400) => Ok(time),
        Ok(_) => Err(Failure::new(Failure::USAGE, format_args!("--timeout {text}: out of range"))
            .hint("allowed: above 0, to 1day")),
        Err(message) => {
            let (what, hint) = message.split_once('\n').unwrap_or((&message, "such as 60s"));
            Err(Failure::new(Failure::USAGE, format_args!("--timeout {text}: {what}")).hint(hint))
        }
    }
}

fn jobs(text: &str) -> Result<usize, Failure> {
    text.parse().ok().filter(|jobs| (1..=MOST_JOBS).contains(jobs)).ok_or_else(|| {
        Failure::new(Failure::USAGE, format_args!("--jobs {text}: not a number of runs"))
            .hint(format_args!("allowed: 1 to {MOST_JOBS}"))
    })
}

/// Where the output of the runs is kept. A directory for temporary files is ours alone.
fn output(wanted: Option<&Path>) -> Result<PathBuf, Failure> {
    let (path, made) = match wanted {
        Some(path) => (path.to_owned(), fs::create_dir_all(path)),
        None => {
            let path = std::env::temp_dir().join(format!("halfopen-matrix-{:016x}", Machine::here().random));
            let made = fs::DirBuilder::new().mode(0o700).create(&path);
            (path, made)
        }
    };
    let absolute = made.and_then(|()| path.canonicalize());
    absolute.map_err(|e| {
        Failure::new(Failure::FAILED, format_args!("--output {}: cannot be made: {e}", path.display()))
    })
}
