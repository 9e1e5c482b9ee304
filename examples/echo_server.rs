//! A server that sends every request back: what `naive_client` and `tolerant_client` talk to.
//!
//! ```text
//! cargo run --example echo_server -- 127.0.0.1:7777
//! ```
//!
//! A request and its reply are a length, four bytes from the most significant, and so many bytes.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;

/// Longest request.
const LONGEST: u32 = 16 << 20;

fn main() -> ExitCode {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7777".to_owned());
    match TcpListener::bind(&address) {
        Ok(listener) => {
            println!("listening on {address}");
            serve(&listener);
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("cannot listen on {address}: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Serves each connection in a thread of its own, so that one that stands still stops no other.
pub(crate) fn serve(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || {
            // A client that leaves is no business of the others.
            let _ = answer(stream);
        });
    }
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let mut head = [0; 4];
        stream.read_exact(&mut head)?;
        let len = u32::from_be_bytes(head);
        if len > LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut reply = head.to_vec();
        reply.resize(4 + len as usize, 0);
        stream.read_exact(&mut reply[4..])?;
        stream.write_all(&reply)?;
    }
}
