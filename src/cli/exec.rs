//! `halfopen exec`: runs a command whose TCP goes through halfopen.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Args as ClapArgs;
use socket2::{Domain, Protocol, Socket, Type};
use tracing::Level;

use super::page::About;
use super::{Failure, Shared, ending, log};
use crate::app::Run;
use crate::config::listeners::Publish;
use crate::config::{Loopback, Machine, Settings, load};
use crate::engine::exec::address::FIRST_NAMESERVER;
use crate::engine::exec::{AddressMap, Caller, HostLoopback, Published};
use crate::setup::namespace::{self, Inside, Running};
use crate::setup::{listeners::LoopbackPorts, resolv::Resolv};
use crate::time::Duration;

/// The set-up failed; lower codes belong to the command (as with env(1)).
const SETUP_FAILED: u8 = 125;
/// When the command has ended, what it sent is still delivered; nothing is left to deliver when nothing was seen waiting
/// so many times in a row, so far apart.
const QUIET_LOOKS: u32 = 10;
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);
/// Clients of a published port that may wait until they are accepted; Linux's `somaxconn`.
const BACKLOG: i32 = 4096;
/// Nor if nothing has moved for so many looks, two seconds: it waits for a peer that is dead, or that a fault has cut off.
const STUCK_LOOKS: u32 = 100;

/// Run a command whose TCP connections go through halfopen; needs no root
///
/// Exit code: that of the command; 125 if the set-up failed, 126 if the command
/// cannot be run, 127 if it is not found, 128+n if signal n ended it. The
/// summary goes to stderr: stdout belongs to the command.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    shared: Shared,

    /// Reach services on the caller's 127.0.0.1 and ::1 at the same address:
    /// "on", "off", or on these ports, such as 5432,8000-8099. Default: on
    #[arg(long, value_name = "PORTS")]
    host_loopback: Option<String>,

    /// Let clients of the caller's host, or with ADDR of others, connect to this
    /// port of the command, or to the second one; ADDR is 127.0.0.1 if none is
    /// given. May be repeated
    #[arg(short, long, value_name = "[ADDR:]PORT[:PORT]")]
    publish: Vec<String>,

    /// When the command has ended, wait this long until what it sent is
    /// delivered. Default: 8s
    #[arg(long, value_name = "TIME")]
    grace: Option<String>,

    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(super) fn exec(args: &Args) -> Result<ExitCode, Failure> {
    let (settings, about) = settings(args).map_err(|failure| failure.code(SETUP_FAILED))?;
    log::start(&args.shared, Level::WARN);
    let (watch, end) =
        ending::prepare(&args.shared, &settings, about).map_err(|failure| failure.code(SETUP_FAILED))?;
    let resolv = Resolv::read().map_err(|e| setup_failed("read /etc/resolv.conf", &e))?;
    let host_loopback = host_loopback(&settings.host_loopback);
    let inside = Inside {
        command: args.command.clone(),
        loopback_ports: loopback_ports(&host_loopback).map_err(|e| setup_failed("read /proc/net/tcp", &e))?,
        destinations: namespace::destinations().map_err(|e| Failure::from(e).code(SETUP_FAILED))?,
        resolv_conf: Some(resolv.with_nameservers_from(FIRST_NAMESERVER)),
    };
    // After the ports that listen already: a published one is the command's own.
    let published = publish(&settings.publish)?;
    // Before the first thread.
    let (prepared, device) = namespace::prepare(&inside)?;
    let addresses = AddressMap { host_loopback, nameservers: resolv.nameservers };
    let caller = Caller::new(addresses, settings.udp_flows, published);
    let run = Run::start(&settings, watch, vec![device], Some(Box::new(caller)))
        .map_err(|e| setup_failed("start the engine", &e))?;
    let running = prepared.start()?;
    let code = running.wait().map_err(|e| setup_failed("wait for the command", &e))?;
    deliver(&run, &running, settings.grace);
    match ending::tell(&args.shared, end, &run.finish(), &mut io::stderr()) {
        Err(failure) if code == 0 => Err(failure),
        // The exit code of a command that failed by itself says more.
        Err(failure) => {
            let _ = failure.report();
            Ok(ExitCode::from(code))
        }
        _ => Ok(ExitCode::from(code)),
    }
}

/// Ends the run as soon as all that the command sent before its end is delivered, at the latest after `grace`, when nothing
/// moves any more, or when a signal says that nobody wants to wait.
fn deliver(run: &Run, running: &Running, grace: Duration) {
    run.stop(grace);
    let (mut quiet, mut stuck, mut before) = (0, 0, 0);
    while !run.has_ended()
        && quiet < QUIET_LOOKS
        && stuck < STUCK_LOOKS
        && !running.is_told_to_end_within(BETWEEN_LOOKS)
    {
        let waiting = run.waiting_bytes();
        quiet = if waiting == 0 { quiet + 1 } else { 0 };
        stuck = if waiting == before { stuck + 1 } else { 0 };
        before = waiting;
    }
    run.stop(Duration::ZERO);
}

fn settings(args: &Args) -> Result<(Settings, About), Failure> {
    let request = args.shared.sources.request([
        ("exec", "intercept.mode", Some("exec".to_owned())),
        ("--host-loopback", "intercept.host_loopback", args.host_loopback.clone()),
        ("--publish", "intercept.publish", (!args.publish.is_empty()).then(|| args.publish.join(","))),
        ("--grace", "engine.grace", args.grace.clone()),
        ("--metrics-addr", "metrics.addr", args.shared.metrics_addr.clone()),
        ("--history", "control.history", args.shared.history.clone()),
    ]);
    let layers = load(&request)?;
    let program = args.command.first().map_or_else(String::new, |word| word.to_string_lossy().into_owned());
    let about = About::new(&format!("exec: {program}"), &layers);
    Ok((Settings::resolve(&layers, Machine::here())?, about))
}

/// Listens at the published addresses.
fn publish(all: &[Publish]) -> Result<Vec<Published>, Failure> {
    let listen = |at: SocketAddr| {
        let socket = Socket::new(Domain::for_address(at), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        if at.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.bind(&at.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    let publish = |Publish { listen: at, port }: &Publish| match listen(at.0) {
        Ok(listener) => Ok(Published { listener, port: *port }),
        Err(e) => Err(setup_failed(&format!("publish {at}"), &e).hint(
            "publish another port, or stop who listens there; ADDR is an address of the caller's host",
        )),
    };
    all.iter().map(publish).collect()
}

fn host_loopback(config: &Loopback) -> HostLoopback {
    match config {
        Loopback::On => HostLoopback::On,
        Loopback::Off => HostLoopback::Off,
        Loopback::Ports(ports) => HostLoopback::Ports(ports.0.iter().map(|r| r.first..=r.last).collect()),
    }
}

/// The ports that are the caller's at the loopback addresses: those that listen there now, as far as they are wanted.
fn loopback_ports(wanted: &HostLoopback) -> io::Result<LoopbackPorts> {
    match wanted {
        HostLoopback::Off => Ok(LoopbackPorts::default()),
        // Named ports are the caller's even if nobody listens yet.
        HostLoopback::Ports(ranges) => Ok(LoopbackPorts::both(ranges)),
        HostLoopback::On => LoopbackPorts::listening(),
    }
}

fn setup_failed(what: &str, cause: &io::Error) -> Failure {
    Failure::new(SETUP_FAILED, format!("cannot {what}: {cause}"))
}

impl From<namespace::Error> for Failure {
    fn from(error: namespace::Error) -> Self {
        let failure = Self::new(error.code, &error.what);
        if error.hint.is_empty() { failure } else { failure.hint(&error.hint) }
    }
}
