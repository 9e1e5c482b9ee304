//! A client that expects the network to fail: every wait has an end, and a request that failed is sent again on a fresh
//! connection, after a pause that grows, a few times and no more. That is right only because these requests may be handled
//! twice; one that may not needs a name that the server knows it by.
//!
//! ```text
//! cargo run --example echo_server &
//! halfopen matrix --timeout 10s -- target/debug/examples/tolerant_client 127.0.0.1:7777
//! ```

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::process::ExitCode;
use std::time::Duration;

/// The same requests as those of `naive_client`.
const REQUESTS: [usize; 4] = [10, 1000, 10, 400_000];
/// How often a request is sent at most.
const ATTEMPTS: u32 = 3;
/// A lost SYN is sent again after 1 s: this leaves room for two of them.
const CONNECT: Duration = Duration::from_millis(2500);
/// Longest wait for any progress of an open connection.
const PROGRESS: Duration = Duration::from_secs(2);
/// The pause before the second attempt; the third waits twice as long.
const PAUSE: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (server, thought) = (args.next(), args.next().map_or(Ok(0), |millis| millis.parse()));
    let (Some(server), Ok(thought)) = (server, thought) else {
        eprintln!("usage: tolerant_client ADDRESS [MILLISECONDS BETWEEN REQUESTS]");
        return ExitCode::from(2);
    };
    match run(&server, Duration::from_millis(thought)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("gave up: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Asks all that it has to ask, with time to think in between.
pub(crate) fn run(server: &str, thought: Duration) -> io::Result<()> {
    let mut connection = None;
    for (nth, len) in REQUESTS.into_iter().enumerate() {
        if nth > 0 {
            std::thread::park_timeout(thought);
        }
        let request = request(nth as u8, len);
        let mut attempt = 1;
        while let Err(e) = ask(server, &mut connection, &request) {
            if attempt == ATTEMPTS {
                return Err(e);
            }
            eprintln!("request {nth}, attempt {attempt}: {e}; once more on a fresh connection");
            pause(PAUSE * attempt);
            attempt += 1;
        }
        println!("request {nth}: {len} bytes there and back");
    }
    Ok(())
}

/// In one piece, so that no part of it waits for the acknowledgement of another.
fn request(fill: u8, len: usize) -> Vec<u8> {
    let mut request = (len as u32).to_be_bytes().to_vec();
    request.resize(4 + len, fill);
    request
}

/// Sends the request and waits for the reply. A connection that failed is not used again: who knows what is under way on it.
fn ask(server: &str, connection: &mut Option<TcpStream>, request: &[u8]) -> io::Result<()> {
    let mut stream = match connection.take() {
        Some(stream) => stream,
        None => connect(server)?,
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

/// The first address that answers.
fn connect(server: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in server.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT) {
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

fn pause(time: Duration) {
    // Nothing is awaited here but that the network recovers.
    std::thread::park_timeout(time);
}
