//! A server that sends every request back: what `naive_client` and `tolerant_client` talk to.
//!
//! ```text
//! cargo run --example echo_server -- 127.0.0.1:7777
//! ```
//!
//! A request and its reply are a length, four bytes from the most significant, and so many bytes. A request with
//! [`LAST`] in its length is the last of its connection: four more bytes say how many milliseconds the server works on it,
//! then come its bytes, which are the reply, and the server closes. With [`UNTIL_END`] for a length its bytes are all that
//! come until the client has shut down its side.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

/// Longest request.
const LONGEST: u32 = 16 << 20;
/// Marks the length of a request after whose reply the server closes.
const LAST: u32 = 1 << 31;
/// Instead of a length: the request ends where the client's side of the connection ends.
const UNTIL_END: u32 = u32::MAX;

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
        let head = read_u32(&mut stream)?;
        if head & LAST != 0 {
            return answer_last(stream, head);
        }
        let body = read_body(&mut stream, head)?;
        stream.write_all(&[&head.to_be_bytes(), &body[..]].concat())?;
    }
}

fn answer_last(mut stream: TcpStream, head: u32) -> io::Result<()> {
    let work = Duration::from_millis(read_u32(&mut stream)?.into());
    let body = match head {
        UNTIL_END => {
            let mut body = Vec::new();
            (&mut stream).take(LONGEST.into()).read_to_end(&mut body)?;
            body
        }
        _ => read_body(&mut stream, head & !LAST)?,
    };
    // Nothing is awaited here: so long does the work take.
    std::thread::park_timeout(work);
    stream.write_all(&body)
}

fn read_u32(stream: &mut TcpStream) -> io::Result<u32> {
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

fn read_body(stream: &mut TcpStream, len: u32) -> io::Result<Vec<u8>> {
    if len > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; len as usize];
    stream.read_exact(&mut body)?;
    Ok(body)
}
