//! A server that sends every request back: what `naive_client` and `tolerant_client` talk to.
//!
//! ```text
//! cargo run --example echo_server -- 127.0.0.1:7777 127.0.0.1:7778
//! ```
//!
//! A request and its reply are a length, four bytes from the most significant, and so many bytes. A request with
//! [`LAST`] in its length is the last of its connection: four more bytes say how many milliseconds the server works on it,
//! then come its bytes, which are the reply, and the server closes. With [`UNTIL_END`] for a length its bytes are all that
//! come until the client has shut down its side.
//!
//! With [`START`] for a length the client has another server started, at the second address: it is told its port, and so many
//! milliseconds later that listens, until the client leaves.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

/// Longest request.
const LONGEST: u32 = 16 << 20;
/// Marks the length of a request after whose reply the server closes.
const LAST: u32 = 1 << 31;
/// Instead of a length: the request ends where the client's side of the connection ends.
const UNTIL_END: u32 = u32::MAX;
/// Instead of a length: another server is wanted.
const START: u32 = u32::MAX - 1;
/// Connections that may wait to be accepted there.
const BACKLOG: i32 = 128;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or_else(|| "127.0.0.1:7777".to_owned());
    let second = args.next().unwrap_or_else(|| "127.0.0.1:7778".to_owned());
    let begun = TcpListener::bind(&address).and_then(|listener| {
        let second = second.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok((listener, Second::reserve(second)?))
    });
    match begun {
        Ok((listener, second)) => {
            println!("listening on {address}");
            serve(&listener, second);
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("cannot listen on {address} and {second}: {e}");
            ExitCode::FAILURE
        }
    }
}

/// The address of a server that clients may start.
pub(crate) struct Second {
    pub(crate) address: SocketAddr,
    /// Nobody else takes the port while nobody listens there. Whoever has it started holds the lock: one at a time.
    reserved: Mutex<Socket>,
}

impl Second {
    pub(crate) fn reserve(address: SocketAddr) -> io::Result<Self> {
        let reserved = bound(address)?;
        let address = reserved.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { address, reserved: Mutex::new(reserved) })
    }
}

/// A socket that shares its port with others that do not listen.
fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Serves each connection in a thread of its own, so that one that stands still stops no other.
pub(crate) fn serve(listener: &TcpListener, second: Second) {
    let second = Arc::new(second);
    for stream in listener.incoming().flatten() {
        let second = Arc::clone(&second);
        std::thread::spawn(move || {
            // A client that leaves is no business of the others.
            let _ = answer(stream, Some(&second));
        });
    }
}

fn answer(mut stream: TcpStream, second: Option<&Second>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let head = read_u32(&mut stream)?;
        match (head, second) {
            (START, Some(second)) => return start(stream, second),
            (START, None) => return Err(io::ErrorKind::InvalidData.into()),
            _ if head & LAST != 0 => return answer_last(stream, head),
            _ => {}
        }
        let body = read_body(&mut stream, head)?;
        stream.write_all(&[&head.to_be_bytes(), &body[..]].concat())?;
    }
}

fn answer_last(mut stream: TcpStream, head: u32) -> io::Result<()> {
    let work = read_u32(&mut stream)?;
    let body = match head {
        UNTIL_END => {
            let mut body = Vec::new();
            (&mut stream).take(LONGEST.into()).read_to_end(&mut body)?;
            body
        }
        _ => read_body(&mut stream, head & !LAST)?,
    };
    pass(work);
    stream.write_all(&body)
}

/// Starts the second server, and ends it when the client leaves.
fn start(mut client: TcpStream, second: &Second) -> io::Result<()> {
    let delay = read_u32(&mut client)?;
    // The client hears of the port when nobody listens there any more for another one.
    let _held = second.reserved.lock().unwrap_or_else(PoisonError::into_inner);
    client.write_all(&u32::from(second.address.port()).to_be_bytes())?;
    pass(delay);
    let socket = bound(second.address)?;
    socket.listen(BACKLOG)?;
    let listener: TcpListener = socket.into();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while let Ok((stream, _)) = listener.accept() {
                std::thread::spawn(move || _ = answer(stream, None));
            }
        });
        let left = client.read(&mut [0]);
        // Ends accept().
        SockRef::from(&listener).shutdown(Shutdown::Both)?;
        left.map(drop)
    })
}

/// Nothing is awaited here: so long does the work take.
fn pass(millis: u32) {
    std::thread::park_timeout(Duration::from_millis(millis.into()));
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
