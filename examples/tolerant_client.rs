//! A client that expects the network to fail: every wait has an end, and a request that failed is sent again on a fresh
//! connection, after a pause that grows, for some seconds and no longer. That is right only because these requests may be
//! handled twice; one that may not needs a name that the server knows it by.
//!
//! ```text
//! cargo run --example echo_server &
//! halfopen matrix --timeout 10s -- target/debug/examples/tolerant_client 127.0.0.1:7777
//! ```
//!
//! Its workloads are those of `naive_client`. A file is not begun anew when a connection is lost: only the block is.

#![allow(clippy::disallowed_methods, reason = "a program of its own reads the clock")]

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

/// The same requests, blocks and calls as those of `naive_client`.
const REQUESTS: &[usize] = &[10, 1000, 10, 400_000];
const BLOCKS: &[usize] = &[600_000; 6];
const CALLS: &[usize] = &[2000; 8];
const HALF_CLOSED: usize = 10_000;
const LAST: u32 = 1 << 31;
const UNTIL_END: u32 = u32::MAX;
const START: u32 = u32::MAX - 1;
/// A request is sent so often, if the last time is not too soon: a server that restarts refuses a few in no time.
const ATTEMPTS: u32 = 3;
const PERSISTENCE: Duration = Duration::from_secs(5);
/// A lost SYN is sent again after 1 s: this leaves room for two of them.
const CONNECT: Duration = Duration::from_millis(2500);
/// Longest wait for any progress of an open connection.
const PROGRESS: Duration = Duration::from_secs(2);
/// The pause before the second attempt; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (server, time) = (args.next(), args.next().map_or(Ok(0), |millis| millis.parse()));
    let (Some(server), Ok(time)) = (server, time) else {
        eprintln!("usage: tolerant_client ADDRESS [MILLISECONDS [WORKLOAD]]");
        return ExitCode::from(2);
    };
    let workload = args.next().unwrap_or_else(|| "requests".to_owned());
    match run(&server, Duration::from_millis(time), &workload) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("gave up: {e}");
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
        "half-close" => persist("the request", || half_close(server, time)),
        "start" => start(server, time),
        _ => Err(io::Error::other(format!("{workload}: allowed: requests, bulk, calls, half-close, start"))),
    }
}

/// Attempts something until it works, or has failed often enough and for long enough.
fn persist(what: &str, mut attempt: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let (begin, mut rest, mut nth) = (Instant::now(), PAUSE, 1);
    while let Err(e) = attempt() {
        if nth >= ATTEMPTS && begin.elapsed() + rest > PERSISTENCE {
            return Err(e);
        }
        eprintln!("{what}, attempt {nth}: {e}; once more on a fresh connection");
        pause(rest);
        rest *= 2;
        nth += 1;
    }
    Ok(())
}

/// Asks all on one connection as long as it lasts, with time to think in between.
fn requests(server: &str, lengths: &[usize], thought: Duration) -> io::Result<()> {
    let mut connection = None;
    for (nth, len) in lengths.iter().copied().enumerate() {
        if nth > 0 {
            std::thread::park_timeout(thought);
        }
        let request = request(&[len as u32], nth as u8, len);
        persist(&format!("request {nth}"), || ask(server, &mut connection, &request))?;
        println!("request {nth}: {len} bytes there and back");
    }
    Ok(())
}

/// In one piece, so that no part of it waits for the acknowledgement of another.
fn request(head: &[u32], fill: u8, len: usize) -> Vec<u8> {
    let mut request: Vec<u8> = head.iter().flat_map(|number| number.to_be_bytes()).collect();
    request.resize(request.len() + len, fill);
    request
}

/// Sends the request and waits for the reply. A connection that failed is not used again: who knows what is under way on it.
fn ask(server: &str, connection: &mut Option<TcpStream>, request: &[u8]) -> io::Result<()> {
    let mut stream = match connection.take() {
        Some(stream) => stream,
        None => connect(server, 0)?,
    };
    stream.write_all(request)?;
    let mut reply = vec![0; request.len()];
    stream.read_exact(&mut reply)?;
    if reply != request {
        return Err(io::ErrorKind::InvalidData.into());
    }
    *connection = Some(stream);
    Ok(())
}

/// Asks each on a connection of its own, from the same source port if that is free.
fn calls(server: &str, work: Duration) -> io::Result<()> {
    let mut port = 0;
    for (nth, len) in CALLS.iter().copied().enumerate() {
        let request = request(&[LAST | len as u32, work.as_millis() as u32], nth as u8, len);
        persist(&format!("call {nth}"), || {
            let mut stream = connect(server, port)?;
            port = stream.local_addr()?.port();
            stream.write_all(&request)?;
            read_to_end(&mut stream, &request[8..])?;
            // The port is free when the server has heard of our end, and not when we have spoken of it: close() waits.
            SockRef::from(&stream).set_linger(Some(PROGRESS))
        })?;
        println!("call {nth}: {len} bytes there and back");
    }
    Ok(())
}

/// Asks, says that this was all, and waits for the reply, as long as for any other.
fn half_close(server: &str, work: Duration) -> io::Result<()> {
    let request = request(&[UNTIL_END, work.as_millis() as u32], 7, HALF_CLOSED);
    let mut stream = connect(server, 0)?;
    stream.write_all(&request)?;
    stream.shutdown(Shutdown::Write)?;
    read_to_end(&mut stream, &request[8..])?;
    println!("{HALF_CLOSED} bytes there and back");
    Ok(())
}

/// Has a server started and asks it until it answers: that is what shows that it is up, not an open port.
fn start(server: &str, delay: Duration) -> io::Result<()> {
    let mut starter = connect(server, 0)?;
    starter.write_all(&request(&[START, delay.as_millis() as u32], 0, 0))?;
    let mut port = [0; 4];
    starter.read_exact(&mut port)?;
    let started = SocketAddr::new(starter.peer_addr()?.ip(), u32::from_be_bytes(port) as u16).to_string();
    requests(&started, REQUESTS, Duration::ZERO)
}

/// Reads until the server closes. A part of the reply is no reply.
fn read_to_end(stream: &mut TcpStream, expected: &[u8]) -> io::Result<()> {
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    match () {
        () if reply == expected => Ok(()),
        () if expected.starts_with(&reply) => Err(io::ErrorKind::UnexpectedEof.into()),
        () => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The first address that answers. The source port is `port`, unless that is in use or 0; then it is any.
fn connect(server: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in server.to_socket_addrs()? {
        let from_any_if_used = |e: io::Error| match e.kind() {
            io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable if port != 0 => dial(address, 0),
            _ => Err(e),
        };
        match dial(address, port).or_else(from_any_if_used) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PROGRESS))?;
                stream.set_write_timeout(Some(PROGRESS))?;
                return Ok(stream);
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}

fn dial(server: SocketAddr, port: u16) -> io::Result<TcpStream> {
    let any = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
    if port != 0 {
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::new(any, port).into())?;
    }
    socket.connect_timeout(&server.into(), CONNECT)?;
    Ok(socket.into())
}

fn pause(time: Duration) {
    // Nothing is awaited here but that the network recovers.
    std::thread::park_timeout(time);
}
