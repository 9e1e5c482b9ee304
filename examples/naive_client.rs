//! A client as one writes it first: it connects, asks, waits, and trusts the network in everything. It has no timeouts, so
//! a silent network stops it for ever; it has one connection, so the first reset is the end; it writes a request in two
//! pieces without TCP_NODELAY, so a slow acknowledgement costs it 40 ms each time.
//!
//! ```text
//! cargo run --example echo_server &
//! halfopen matrix --timeout 10s -- target/debug/examples/naive_client 127.0.0.1:7777
//! ```

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::Duration;

/// The lengths of the requests; the last one is more than a receiver takes that has stopped reading.
const REQUESTS: [usize; 4] = [10, 1000, 10, 400_000];

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (server, thought) = (args.next(), args.next().map_or(Ok(0), |millis| millis.parse()));
    let (Some(server), Ok(thought)) = (server, thought) else {
        eprintln!("usage: naive_client ADDRESS [MILLISECONDS BETWEEN REQUESTS]");
        return ExitCode::from(2);
    };
    match run(&server, Duration::from_millis(thought)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("failed: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Asks all that it has to ask, with time to think in between.
pub(crate) fn run(server: &str, thought: Duration) -> io::Result<()> {
    let mut stream = TcpStream::connect(server)?;
    for (nth, len) in REQUESTS.into_iter().enumerate() {
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
