//! A client as one writes it first: it connects, asks, waits, and trusts the network in everything. It has no timeouts, so
//! a silent network stops it for ever; it never tries again, so the first reset is the end; it writes a request in two
//! pieces without TCP_NODELAY, so a slow acknowledgement costs it 40 ms each time.
//!
//! ```text
//! cargo run --example echo_server &
//! halfopen matrix --timeout 10s -- target/debug/examples/naive_client 127.0.0.1:7777
//! ```
//!
//! | workload | is |
//! |---|---|
//! | `requests` | a few requests on one connection; this one if none is named |
//! | `bulk` | a file of some MiB on one connection, block by block |
//! | `calls` | a connection for each request, which the server closes, always from the same source port |
//! | `half-close` | one request that ends where the client shuts down its side; the reply comes after that |
//! | `start` | a server is started, and asked once it is up; needs `--host-loopback 7777,7778` |
//!
//! The time is for the client to think between two requests, or for the server to work on each call or to come up.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::process::ExitCode;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

/// The lengths of the requests; the last one is more than a receiver takes that has stopped reading.
const REQUESTS: &[usize] = &[10, 1000, 10, 400_000];
/// The lengths of the blocks.
const BLOCKS: &[usize] = &[600_000; 6];
/// The lengths of the calls.
const CALLS: &[usize] = &[2000; 8];
/// The length of a request that ends with a half-close.
const HALF_CLOSED: usize = 10_000;
/// What marks such requests for the server.
const LAST: u32 = 1 << 31;
const UNTIL_END: u32 = u32::MAX;
const START: u32 = u32::MAX - 1;
/// Between two looks whether a port is open.
const LOOK: Duration = Duration::from_millis(50);
/// How long it may take the server to hear of the end of a call.
const LINGER: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (server, time) = (args.next(), args.next().map_or(Ok(0), |millis| millis.parse()));
    let (Some(server), Ok(time)) = (server, time) else {
        eprintln!("usage: naive_client ADDRESS [MILLISECONDS [WORKLOAD]]");
        return ExitCode::from(2);
    };
    let workload = args.next().unwrap_or_else(|| "requests".to_owned());
    match run(&server, Duration::from_millis(time), &workload) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("failed: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Does all that is to do.
pub(crate) fn run(server: &str, time: Duration, workload: &str) -> io::Result<()> {
    match workload {
        "requests" => requests(server, REQUESTS, time),
        "bulk" => requests(server, BLOCKS, time),
        "calls" => calls(server, time),
        "half-close" => half_close(server, time),
        "start" => start(server, time),
        _ => Err(io::Error::other(format!("{workload}: allowed: requests, bulk, calls, half-close, start"))),
    }
}

/// Asks all on one connection, with time to think in between.
fn requests(server: &str, lengths: &[usize], thought: Duration) -> io::Result<()> {
    let mut stream = TcpStream::connect(server)?;
    for (nth, len) in lengths.iter().copied().enumerate() {
        if nth > 0 {
            std::thread::park_timeout(thought);
        }
        let body = vec![nth as u8; len];
        stream.write_all(&(len as u32).to_be_bytes())?;
        stream.write_all(&body)?;
        let mut reply = vec![0; 4 + len];
        stream.read_exact(&mut reply)?;
        if reply[4..] != body {
            return Err(io::ErrorKind::InvalidData.into());
        }
        println!("request {nth}: {len} bytes there and back");
    }
    Ok(())
}

/// Asks each on a connection of its own. The first has any source port and all others the same one, as if a firewall let
/// only that through.
fn calls(server: &str, work: Duration) -> io::Result<()> {
    let mut port = 0;
    for (nth, len) in CALLS.iter().copied().enumerate() {
        let mut stream = connect_from(port, server)?;
        port = stream.local_addr()?.port();
        let body = vec![nth as u8; len];
        stream.write_all(&(LAST | len as u32).to_be_bytes())?;
        stream.write_all(&(work.as_millis() as u32).to_be_bytes())?;
        stream.write_all(&body)?;
        read_to_end(&mut stream, &body)?;
        // The port is free when the server has heard of our end, and not when we have spoken of it: close() waits.
        SockRef::from(&stream).set_linger(Some(LINGER))?;
        println!("call {nth}: {len} bytes there and back");
    }
    Ok(())
}

/// From a port of the system's choice if it is 0.
fn connect_from(port: u16, server: &str) -> io::Result<TcpStream> {
    let server = server.to_socket_addrs()?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let any = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
    if port != 0 {
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::new(any, port).into())?;
    }
    socket.connect(&server.into())?;
    Ok(socket.into())
}

/// Asks, says that this was all, and waits for the reply.
fn half_close(server: &str, work: Duration) -> io::Result<()> {
    let mut stream = TcpStream::connect(server)?;
    let body = vec![7; HALF_CLOSED];
    stream.write_all(&UNTIL_END.to_be_bytes())?;
    stream.write_all(&(work.as_millis() as u32).to_be_bytes())?;
    stream.write_all(&body)?;
    stream.shutdown(Shutdown::Write)?;
    read_to_end(&mut stream, &body)?;
    println!("{HALF_CLOSED} bytes there and back");
    Ok(())
}

/// Has a server started, waits until its port is open, and asks.
fn start(server: &str, delay: Duration) -> io::Result<()> {
    let mut starter = TcpStream::connect(server)?;
    starter.write_all(&START.to_be_bytes())?;
    starter.write_all(&(delay.as_millis() as u32).to_be_bytes())?;
    let mut port = [0; 4];
    starter.read_exact(&mut port)?;
    let started = SocketAddr::new(starter.peer_addr()?.ip(), u32::from_be_bytes(port) as u16).to_string();
    while let Err(e) = TcpStream::connect(&started) {
        if e.kind() != io::ErrorKind::ConnectionRefused {
            return Err(e);
        }
        std::thread::park_timeout(LOOK);
    }
    requests(&started, REQUESTS, Duration::ZERO)
}

/// Reads until the server closes, which must be after these bytes.
fn read_to_end(stream: &mut TcpStream, expected: &[u8]) -> io::Result<()> {
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    if reply == expected { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}
