//! Mode listen with kernel sockets on both sides, as its users run it: without any privilege, on this machine's loopback.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

/// The tests' own limit.
const LONG: Duration = Duration::from_secs(20);

/// A running halfopen, which is ready.
struct Halfopen {
    child: Child,
    at: SocketAddr,
    log: BufReader<ChildStderr>,
}

impl Halfopen {
    fn start(upstream: &str, at: &str, options: &[&str]) -> Self {
        let listener = TcpListener::bind(at).unwrap();
        let at = listener.local_addr().unwrap();
        drop(listener);
        let mut child = Command::new(env!("CARGO_BIN_EXE_halfopen"))
            .args([
                "run",
                "--mode",
                "listen",
                "--engine",
                "sockets",
                "--metrics-addr",
                "off",
                "--json",
                "--grace",
                "1s",
            ])
            .arg(format!("--listen={at}={upstream}"))
            .args(options)
            .env_clear()
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("ready") {
            assert_ne!(log.read_line(&mut said).unwrap(), 0, "{said}");
        }
        Self { child, at, log }
    }

    fn client(&self) -> TcpStream {
        let client = TcpStream::connect(self.at).unwrap();
        client.set_read_timeout(Some(LONG)).unwrap();
        client
    }

    /// Ends it, and gives its summary.
    fn stop(mut self) -> serde_json::Value {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let mut summary = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut summary).unwrap();
        let mut log = String::new();
        self.log.read_to_string(&mut log).unwrap();
        assert!(self.child.wait().unwrap().success(), "{log}");
        serde_json::from_str(&summary).unwrap()
    }
}

impl Drop for Halfopen {
    fn drop(&mut self) {
        // It has ended already, unless a test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server, and where it is.
fn server(at: &str) -> (TcpListener, String) {
    let listener = TcpListener::bind(at).unwrap();
    let at = listener.local_addr().unwrap().to_string();
    (listener, at)
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

fn rest(mut stream: &TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    all
}

#[test]
fn bytes_and_half_closes_cross_either_way_by_ipv4_and_ipv6() {
    let mut addresses = vec!["127.0.0.1:0"];
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        addresses.push("[::1]:0");
    }
    for at in addresses {
        let (listener, upstream) = server(at);
        let halfopen = Halfopen::start(&upstream, at, &[]);
        let (mut client, mut server) = (halfopen.client(), accept(&listener));
        let sent: Vec<u8> = (0..2_000_000_u32).map(|n| (n % 251) as u8).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                client.write_all(&sent).unwrap();
                client.shutdown(Shutdown::Write).unwrap();
            });
            assert!(rest(&server) == sent);
        });
        server.write_all(b"after its FIN").unwrap();
        drop(server);
        assert_eq!(rest(&client), b"after its FIN");
        let summary = halfopen.stop();
        assert_eq!(summary["outcomes"]["ok"], 1, "{summary:#}");
    }
}

#[test]
fn an_upstream_that_refuses_is_a_reset_and_is_counted_as_refused() {
    let (listener, upstream) = server("127.0.0.1:0");
    drop(listener);
    let halfopen = Halfopen::start(&upstream, "127.0.0.1:0", &[]);
    // The reset may be there before the connect has returned.
    let reset = TcpStream::connect(halfopen.at).and_then(|mut client| client.read(&mut [0]));
    assert_eq!(reset.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let summary = halfopen.stop();
    assert_eq!(summary["outcomes"]["refused-rst"], 1, "{summary:#}");
}

#[test]
fn faults_of_bytes_and_ends_work() {
    let (listener, upstream) = server("127.0.0.1:0");
    let limited = "limit-data bytes=10 direction=upstream match.flows=1";
    let reset = "rst-inject after_bytes=1 match.flows=2";
    let halfopen = Halfopen::start(&upstream, "127.0.0.1:0", &["--fault", limited, "--fault", reset]);
    let (mut client, server) = (halfopen.client(), accept(&listener));
    client.write_all(&[7; 100]).unwrap();
    assert_eq!(rest(&server), [7; 10], "limit-data finishes after ten bytes");
    let (mut client, mut server) = (halfopen.client(), accept(&listener));
    client.write_all(b"x").unwrap();
    for end in [&mut client, &mut server] {
        let error = std::iter::repeat_with(|| end.read(&mut [0])).find_map(Result::err).unwrap();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    halfopen.stop();
}

#[test]
fn a_fault_of_segments_is_refused_with_the_engine_that_can() {
    let output = Command::new(env!("CARGO_BIN_EXE_halfopen"))
        .args(["run", "--mode", "listen", "--engine", "sockets", "--listen", "127.0.0.1:9=127.0.0.1:10"])
        .args(["--fault", "syn-ack-delay delay=1s"])
        .env_clear()
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8(output.stderr).unwrap();
    for part in ["the plain-sockets engine cannot do `syn-ack-delay delay=1s`", "so can the tun engine"] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn much_crosses_either_way_and_is_counted_with_and_without_a_descriptor_for_it() {
    for has_descriptor in [true, false] {
        let (listener, upstream) = server("127.0.0.1:0");
        let halfopen = Halfopen::start(&upstream, "127.0.0.1:0", &[]);
        let (client, server) = (halfopen.client(), accept(&listener));
        if !has_descriptor {
            let pid = rustix::process::Pid::from_raw(halfopen.child.id() as i32);
            let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
            rustix::process::prlimit(pid, rustix::process::Resource::Nofile, none).unwrap();
        }
        let sent: Vec<u8> = (0..16_000_000_u32).map(|n| (n % 251) as u8).collect();
        std::thread::scope(|scope| {
            for mut end in [&client, &server] {
                let sent = &sent;
                scope.spawn(move || {
                    end.write_all(sent).unwrap();
                    end.shutdown(Shutdown::Write).unwrap();
                });
                scope.spawn(move || assert!(rest(end) == *sent));
            }
        });
        let summary = halfopen.stop();
        let counted = ["upstream_bytes", "downstream_bytes"].map(|key| summary[key].as_u64().unwrap());
        assert_eq!(counted, [sent.len() as u64; 2], "{summary:#}");
        let limits = summary["limits"].as_array().unwrap();
        let hit = limits.iter().any(|limit| limit["name"] == "RLIMIT_NOFILE");
        assert_eq!(hit, !has_descriptor, "{summary:#}");
    }
}
