//! What this test program does as the command of `halfopen exec`.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, raise};

use crate::lab::{PATIENCE, errno};

/// `words` are the command line after `inside`.
pub(crate) fn main(words: &[String]) -> ExitCode {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["idle"] => idle(),
        ["exit", code] => return ExitCode::from(code.parse::<u8>().expect("an exit code")),
        ["die", signal] => raise(signal.parse::<Signal>().expect("a signal")).expect("it is ours"),
        ["who"] => who(),
        ["dial", ref servers @ ..] => servers.iter().for_each(|server| dial(server)),
        ["blurt", server, len] => blurt(server, len.parse().expect("a length")),
        ["resolve", name] => resolve(name),
        ["ask", server, len] => ask(server, len.parse().expect("a length")),
        _ => panic!("{words:?} is nothing to do"),
    }
    ExitCode::SUCCESS
}

/// Waits for a signal.
fn idle() {
    eprintln!("ready {}", std::process::id());
    loop {
        nix::unistd::pause();
    }
}

fn who() {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).expect("it is there");
    println!("user {} capabilities {capabilities}", nix::unistd::getuid());
}

/// Connects and reads what the server says first: `SECONDS TEXT` or `SECONDS ERRNO`.
fn dial(server: &str) {
    let start = Instant::now();
    let to: SocketAddr = server.parse().expect("an address");
    let connected = TcpStream::connect_timeout(&to, PATIENCE);
    let seconds = start.elapsed().as_secs_f64();
    let said = connected.and_then(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        // One byte, so that a fault after so many bytes has something to count.
        stream.write_all(b"?")?;
        let mut said = String::new();
        stream.read_to_string(&mut said).map(|_| said)
    });
    println!("{seconds:.1} {}", said.unwrap_or_else(|e| errno(&e)));
}

/// Puts so many bytes into a connection and does not wait for their delivery.
fn blurt(server: &str, len: usize) {
    let stream = TcpStream::connect(server).expect("the server listens");
    socket2::SockRef::from(&stream).set_send_buffer_size(len).expect("an open socket");
    (&stream).write_all(&vec![7; len]).expect("an open connection");
}

/// All addresses of a name.
fn resolve(name: &str) {
    match (name, 80).to_socket_addrs() {
        Ok(addresses) => {
            let mut all: Vec<String> = addresses.map(|a| a.ip().to_string()).collect();
            all.sort_unstable();
            all.dedup();
            println!("{}", all.join(" "));
        }
        Err(e) => println!("{e}"),
    }
}

/// Sends a datagram of this length and tells how long the answer is. Asks again like everyone who uses UDP: a busy kernel
/// drops datagrams, too.
fn ask(server: &str, len: usize) {
    let to: SocketAddr = server.parse().expect("an address");
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("an open socket");
    let once = || {
        socket.connect(to)?;
        socket.send(&vec![7; len])?;
        socket.recv(&mut vec![0; 1 << 16])
    };
    let answers = (0..5).map(|_| once().map_or_else(|e| errno(&e), |len| len.to_string()));
    let answer = answers.into_iter().find(|answer| answer != "EAGAIN");
    println!("{}", answer.unwrap_or_else(|| "no answer".to_owned()));
}
