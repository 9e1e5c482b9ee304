//! Which running instance is asked, and how what it says is told.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use axum::http::StatusCode;
use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Failure, paint};
use crate::control::api::{Look, Problem};
use crate::control::client::{Error, Instance};
use crate::control::socket::Name;
use crate::report::{Style, Text};
use crate::setup::process;

/// Options of every command that asks a running instance.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(super) struct Asked {
    /// Ask the instance with this process id, also in a container or in another
    /// network namespace if privileges allow. Default: the only one there is
    #[arg(long, value_name = "PID", global = true)]
    pid: Option<u32>,

    /// Print JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
}

/// An instance, and what to call it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Running {
    instance: Instance,
    pid: u32,
}

impl Asked {
    /// Finds the instance. May move this process into its network namespace.
    pub(super) fn find(&self) -> Result<Running, Failure> {
        let (name, pid) = match self.pid {
            Some(pid) => (by_process(pid)?, pid),
            None => {
                let name = only_one(&names("/proc/net/unix"))?;
                (name, name.0)
            }
        };
        Ok(Running { instance: Instance::new(name, process::owner()), pid })
    }
}

/// The control sockets in a table; none if there is no such table.
fn names(table: &str) -> Vec<Name> {
    fs::read_to_string(table).map_or_else(|_| Vec::new(), |table| Name::all(&table))
}

fn only_one(names: &[Name]) -> Result<Name, Failure> {
    match names {
        [name] => Ok(*name),
        [] => Err(Failure::new(Failure::UNAVAILABLE, "no instance of halfopen runs here").hint(
            "in a container or another network namespace: --pid PID as root, or run this command inside",
        )),
        several => {
            let all: Vec<String> = several.iter().map(|name| name.0.to_string()).collect();
            let what = format_args!("{} instances of halfopen run here", several.len());
            Err(Failure::new(Failure::USAGE, what)
                .hint(format_args!("choose one: --pid {}", all.join(", --pid "))))
        }
    }
}

/// The control socket of a process, in whose network namespace this process is then.
fn by_process(pid: u32) -> Result<Name, Failure> {
    let name = Name(own_number(pid).unwrap_or(pid));
    if names(&format!("/proc/{pid}/net/unix")).contains(&name) {
        if !is_same_network(pid) {
            enter(pid)?;
        }
        return Ok(name);
    }
    // Processes of another container that shares this network have numbers of their own.
    if names("/proc/net/unix").contains(&Name(pid)) {
        return Ok(Name(pid));
    }
    let failure = Failure::new(Failure::UNAVAILABLE, format_args!("--pid {pid}: no instance of halfopen"));
    let here = names("/proc/net/unix");
    Err(if here.is_empty() {
        failure.hint("it may have ended, or has control.socket = false")
    } else {
        let all: Vec<String> = here.iter().map(|name| name.0.to_string()).collect();
        failure.hint(format_args!("there are: {}", all.join(", ")))
    })
}

/// The number that a process has for itself: that of its own, innermost PID namespace.
fn own_number(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_ascii_whitespace().last()?.parse().ok()
}

/// True if the process is known to be in this network namespace.
fn is_same_network(pid: u32) -> bool {
    let namespace =
        |pid: &dyn fmt::Display| -> io::Result<PathBuf> { fs::read_link(format!("/proc/{pid}/ns/net")) };
    matches!((namespace(&pid), namespace(&"self")), (Ok(its), Ok(ours)) if its == ours)
}

fn enter(pid: u32) -> Result<(), Failure> {
    process::enter_network_of(pid).map_err(|error| {
        let what = format_args!("--pid {pid}: cannot enter its network namespace: {error}");
        match error.kind() {
            ErrorKind::PermissionDenied => Failure::new(Failure::NO_PERMISSION, what).hint(
                "be root, or run this command inside: ip netns exec NAME halfopen, docker exec NAME halfopen",
            ),
            ErrorKind::NotFound => Failure::new(Failure::UNAVAILABLE, what),
            _ => Failure::new(Failure::FAILED, what),
        }
    })
}

impl Running {
    /// Prints what `GET path` gives as it came: JSON.
    pub(super) fn print_body(&self, path: &str) -> Result<ExitCode, Failure> {
        let answer = self.instance.get(path).map_err(|error| self.failure(error))?;
        print(|out| out.write_all(&answer.body).and_then(|()| out.write_all(b"\n")))
    }

    /// What `GET path` gives.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let answer = self.instance.get(path);
        answer.and_then(|answer| answer.read()).map_err(|error| self.failure(error))
    }

    /// The same as a drawing for stdout; or why there is none.
    pub(super) fn draw(&self, path: &str) -> Result<Result<Text, Problem>, Failure> {
        let Style { width, ascii, .. } = paint::style(&io::stdout());
        let look = Look { width: Some(width), ascii };
        match self.instance.get(&format!("{path}?{look}")).and_then(|answer| answer.read()) {
            Ok(text) => Ok(Ok(text)),
            Err(Error::Refused(StatusCode::NOT_FOUND, problem)) => Ok(Err(problem)),
            Err(error) => Err(self.failure(error)),
        }
    }

    /// The same where there is always one.
    pub(super) fn text(&self, path: &str) -> Result<Text, Failure> {
        self.draw(path)?.map_err(|problem| Failure::new(Failure::FAILED, problem.error))
    }

    /// `POST path`.
    pub(super) fn post(&self, path: &str, body: &impl Serialize) -> Result<(), Failure> {
        self.instance.post(path, body).map(drop).map_err(|error| self.failure(error))
    }

    fn failure(&self, error: Error) -> Failure {
        let what = format!("instance {} {error}", self.pid);
        let failed = |code| Failure::new(code, &what);
        match error {
            Error::NotThere => failed(Failure::UNAVAILABLE),
            Error::Foreign(_) => failed(Failure::NO_PERMISSION).hint("be root or that user"),
            Error::Closed => failed(Failure::UNAVAILABLE)
                .hint("it has ended, or has too many connections (limits.control_connections)"),
            Error::TooSlow => failed(Failure::FAILED).hint("it is stopped, or very busy"),
            Error::OtherVersion(_) => failed(Failure::FAILED).hint("use the same version for both"),
            Error::System(_) => failed(Failure::FAILED),
            Error::Refused(status, Problem { error, hint }) => {
                let code = match status {
                    StatusCode::NOT_FOUND => Failure::USAGE,
                    StatusCode::SERVICE_UNAVAILABLE => Failure::UNAVAILABLE,
                    _ => Failure::FAILED,
                };
                let failure = Failure::new(code, error);
                match hint {
                    Some(hint) => failure.hint(hint),
                    None => failure,
                }
            }
        }
    }
}

/// Writes to stdout. Whoever read on the other side of a pipe has seen enough.
pub(super) fn print(write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> Result<ExitCode, Failure> {
    let mut out = anstream::stdout().lock();
    match write(&mut out).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(Failure::FAILED, format_args!("cannot print the answer: {e}")))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Writes JSON and a line break.
pub(super) fn print_json(json: &impl Serialize) -> Result<ExitCode, Failure> {
    print(|out| {
        serde_json::to_writer(&mut *out, json)?;
        out.write_all(b"\n")
    })
}
