//! Runs many commands as processes of their own, a few at a time, each with a time limit. Whatever happens to one of them
//! hurts no other, and nothing of them is left at the end.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::engine::Clock;
use crate::setup::process;
use crate::time::Duration;

/// Between telling a command to end and ending it.
const KILL_AFTER: Duration = Duration::from_secs(2);

/// A command to run.
#[derive(Clone, Debug)]
pub struct Job {
    /// The program and its arguments; not empty.
    pub words: Vec<OsString>,
    /// Where its `stdout` and `stderr` are kept; exists.
    pub directory: PathBuf,
}

/// How a command ended.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// How it ended; by us, if `timed_out`.
    pub status: ExitStatus,
    /// It took longer than it may.
    pub timed_out: bool,
    /// How long it took.
    pub took: Duration,
}

/// What happens meanwhile.
#[derive(Clone, Copy, Debug)]
pub enum News {
    /// The job of this index begins.
    Begins(usize),
    /// The job of this index has ended.
    Ended(usize),
}

/// Why there are no results.
#[derive(Debug)]
pub enum Error {
    /// This signal asked to stop; everything has been ended.
    Stopped(i32),
    /// The system refused something.
    System(io::Error),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// Runs commands. While it lives, orphans of the commands are children of this process; they end with it.
#[derive(Debug)]
pub struct Runner {
    runtime: tokio::runtime::Runtime,
    clock: Clock,
    timeout: Duration,
}

impl Runner {
    /// Each command may take `timeout`.
    pub fn new(timeout: Duration) -> io::Result<Self> {
        process::adopt_orphans();
        // One thread: what it starts ends when that thread ends.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, clock: Clock::start(), timeout })
    }

    /// Runs all jobs, at most `at_once` at a time, until SIGINT, SIGTERM or SIGHUP. The results are in the order of the jobs.
    pub fn run(&self, jobs: &[Job], at_once: usize, mut news: impl FnMut(News)) -> Result<Vec<Done>, Error> {
        self.runtime.block_on(async {
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            let mut hangup = signal(SignalKind::hangup())?;
            let (stop, stopped) = watch::channel(false);
            let mut running = JoinSet::new();
            let mut results: Vec<Option<Done>> = vec![None; jobs.len()];
            let mut waiting = jobs.iter().cloned().enumerate();
            let mut failed = None;
            loop {
                while failed.is_none() && running.len() < at_once.max(1) {
                    let Some((index, job)) = waiting.next() else { break };
                    news(News::Begins(index));
                    let (clock, timeout, stopped) = (self.clock, self.timeout, stopped.clone());
                    running.spawn(async move { (index, one(&job, clock, timeout, stopped).await) });
                }
                let by = tokio::select! {
                    ended = running.join_next() => {
                        let Some(ended) = ended else { break };
                        let problem = match ended {
                            Ok((index, Ok(done))) => {
                                results[index] = Some(done);
                                news(News::Ended(index));
                                continue;
                            }
                            Ok((_, Err(error))) => error,
                            Err(panic) => io::Error::other(panic),
                        };
                        failed = failed.or(Some(Error::System(problem)));
                        let _ = stop.send(true);
                        continue;
                    }
                    _ = interrupt.recv() => SignalKind::interrupt(),
                    _ = terminate.recv() => SignalKind::terminate(),
                    _ = hangup.recv() => SignalKind::hangup(),
                };
                failed = failed.or(Some(Error::Stopped(by.as_raw_value())));
                let _ = stop.send(true);
            }
            match failed {
                Some(error) => Err(error),
                None => Ok(results.into_iter().flatten().collect()),
            }
        })
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        process::end_orphans();
    }
}

async fn one(
    job: &Job,
    clock: Clock,
    timeout: Duration,
    mut stopped: watch::Receiver<bool>,
) -> io::Result<Done> {
    let file = |name: &str| File::create(job.directory.join(name));
    let (program, arguments) = job.words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = std::process::Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(file("stdout")?).stderr(file("stderr")?);
    process::lead_group(&mut command);
    let begin = clock.now();
    let mut child = Command::from(command).spawn()?;
    let leader = child.id().unwrap_or_default();
    let mut timed_out = false;
    let ended = tokio::select! {
        status = child.wait() => Some(status?),
        () = tokio::time::sleep(timeout) => { timed_out = true; None }
        _ = stopped.wait_for(|stopped| *stopped) => None,
    };
    let status = match ended {
        Some(status) => status,
        None => end(&mut child, leader).await?,
    };
    // What the command has left in its group.
    process::kill_group(leader);
    Ok(Done { status, timed_out, took: clock.now().since(begin) })
}

/// Tells it to end, so that it can report; then ends it.
async fn end(child: &mut Child, leader: u32) -> io::Result<ExitStatus> {
    process::end_group(leader);
    if let Ok(status) = tokio::time::timeout(KILL_AFTER, child.wait()).await {
        return status;
    }
    process::kill_group(leader);
    child.wait().await
}
