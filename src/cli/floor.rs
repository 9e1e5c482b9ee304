//! `halfopen floor`: what of a connect is our own and the kernel's.

use std::io::Read as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args as ClapArgs;
use socket2::{Domain, Protocol, Socket, Type};
use tracing::Level;

use super::ping::{self, Defaults, Pace};
use super::{Failure, Telling, log};

/// A client that does not close keeps the next ones waiting no longer than this.
const PATIENCE: Duration = Duration::from_secs(1);
/// Connections that wait to be accepted; the kernel has its own limit (`net.core.somaxconn`, 4096).
const BACKLOG: i32 = 4096;

/// Measure what of a connect is the noise of this machine
///
/// Pings a listener of its own on the loopback: no network and no other host
/// takes part, so what is left is what halfopen, the kernel and everything else
/// that runs here add to each measurement. What "halfopen ping" shows with the
/// same --rate, --handshake and --via is known no better than this: a difference
/// of less than the floor's own spread (p50 to p99) says nothing.
///
/// "connect" is the whole; "added_by_proxy" of it is how late the SYN left after
/// the intended start (timers, scheduling, opening a socket), "server_connect"
/// the rest: the kernel's TCP, and the way of the answer to us.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Use ::1 instead of 127.0.0.1
    #[arg(short = '6', long)]
    ipv6: bool,

    #[command(flatten)]
    pace: Pace,

    #[command(flatten)]
    telling: Telling,
}

pub(super) fn floor(args: &Args) -> Result<ExitCode, Failure> {
    log::start(&args.telling, Level::INFO);
    let target = listen(args.ipv6).map_err(|e| {
        Failure::new(Failure::UNAVAILABLE, format_args!("cannot listen on the loopback: {e}"))
            .hint("its interface must be up: ip link set lo up")
    })?;
    let defaults = Defaults { rate: Some(100.0), count: Some(1000) };
    ping::run(&args.telling, &args.pace, "floor", vec![target], defaults)
}

/// A listener that accepts and closes until the end of the process. The kernel answers SYNs by itself: what this does is not in
/// the latency of a handshake.
fn listen(ipv6: bool) -> std::io::Result<SocketAddr> {
    let ip = if ipv6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
    let any_port = SocketAddr::new(ip, 0);
    let socket = Socket::new(Domain::for_address(any_port), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    socket.bind(&any_port.into())?;
    // A queue that overflows would lose SYNs, and they are no noise.
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from(socket);
    let target = listener.local_addr()?;
    let accept = move || {
        for mut stream in listener.incoming().flatten() {
            // Whatever comes, the next one is more important.
            let _ = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.read(&mut [0]));
        }
    };
    std::thread::Builder::new().name("listener".to_owned()).spawn(accept)?;
    Ok(target)
}
