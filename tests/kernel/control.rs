//! The control socket: flows are listed, shown and killed, whatever other clients of the socket do.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr as TcpAddress, TcpStream};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::Output;
use std::time::{Duration, Instant};

use halfopen::setup::netlink::Family;
use nix::poll::PollFlags;
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::lab::ns::Ns;
use crate::lab::process::{Halfopen, command, command_of_user, has_many_users, output};
use crate::lab::{Lab, Listener, PATIENCE, Way, drain, errno, wait};

/// Something that is done in several modes.
type InMode = (&'static str, fn(Way));

/// What both modes can do.
pub(crate) const BOTH: &[InMode] = &[
    ("control: flows lists both legs and the bytes of each direction", list),
    ("control: flows kill --rst resets both ends", rst),
    ("control: flows kill --fin ends both ends", fin),
    ("control: flows kill --vanish leaves the client in silence", vanish),
    ("control: flows N draws the ladder so far", ladder),
];

pub(crate) const SINGLES: &[crate::Single] = &[
    ("a stuck client of the control socket holds up nobody, and one too many is counted", stuck),
    ("stats are the summary at the end", stats),
    ("an instance in another network namespace is asked by its process", elsewhere),
    ("somebody else is not answered", foreign),
    ("an instance of another version is told as such", other_version),
    ("an instance that is stopped is given up after ten seconds", frozen),
];

/// What needs several instances on one host.
pub(crate) const OF_EXEC: &[crate::Single] =
    &[("control: one instance of several must be named, and one that ends says nothing", several)];

/// A proxied lab and one connection through it.
struct Bench {
    lab: Lab,
    _listener: Listener,
    client: TcpStream,
    server: TcpStream,
}

impl Bench {
    fn new(way: Way, options: &[&str]) -> Self {
        let lab = Lab::with(way, options);
        let listener = lab.listen(Family::V4);
        let (client, server) = lab.pair_by(&listener);
        Self { lab, _listener: listener, client, server }
    }

    /// The host of the instance.
    fn host(&self) -> &Ns {
        if self.lab.way.is_exec() { self.lab.client_host() } else { &self.lab.gateway }
    }

    /// What `halfopen ARGS` prints on that host.
    fn ask(&self, args: &[&str]) -> String {
        said(&output(self.host(), args))
    }

    /// The flow of the connection, once it fulfils `done`.
    fn flow(&self, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let told: Value = serde_json::from_str(&self.ask(&["flows", "--json"])).expect("JSON");
            let flows = told["flows"].as_array().expect("a list");
            if let [flow] = &flows[..]
                && done(flow)
            {
                return flow.clone();
            }
            assert!(Instant::now() < deadline, "no {what}: {told}");
        }
    }

    /// Its number.
    fn number(&self) -> String {
        self.flow("open flow", |_| true)["flow"].to_string()
    }

    fn kill(&self, way: &str) {
        self.ask(&["flows", "kill", &self.number(), way]);
    }

    /// Bytes there and back.
    fn talk(&mut self, up: usize, down: usize) {
        let say = |from: &mut TcpStream, to: &mut TcpStream, len| {
            let writer = from.try_clone().expect("a live socket");
            // More than the buffers hold is read while it is written.
            std::thread::scope(|scope| {
                scope.spawn(move || (&writer).write_all(&vec![7; len]).expect("the connection lives"));
                to.read_exact(&mut vec![0; len]).expect("the connection lives");
            });
        };
        say(&mut self.client, &mut self.server, up);
        say(&mut self.server, &mut self.client, down);
    }
}

/// What a command printed; it succeeded.
fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// The exit code and the first line on stderr of a command that failed.
fn failed(output: &Output) -> (Option<i32>, String) {
    let text = String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text.lines().next().unwrap_or_default().to_owned())
}

fn list(way: Way) {
    let mut bench = Bench::new(way, &["--fault", "fin-drop first=1"]);
    bench.talk(100, 2000);
    // The last ACK may take its time.
    let flow = bench
        .flow("delivered bytes", |flow| flow["upstream_bytes"] == 100 && flow["downstream_bytes"] == 2000);
    let own = bench.client.local_addr().expect("connected");
    assert_eq!(flow["client"], own.to_string());
    let server: TcpAddress = bench.lab.server_at(Family::V4);
    assert_eq!(flow["server"], server.to_string());
    assert_eq!(
        (&flow["client_state"], &flow["server_state"]),
        (&"ESTABLISHED".into(), &"ESTABLISHED".into())
    );
    assert_eq!(flow["rules"][0]["rule"], "fin-drop");
    let text = bench.ask(&["flows"]);
    let row: Vec<&str> = text.lines().nth(1).expect("a row").split_ascii_whitespace().collect();
    assert_eq!(row[1..5], [&*own.to_string(), "ESTABLISHED", &*server.to_string(), "ESTABLISHED"], "{text}");
}

fn rst(way: Way) {
    let mut bench = Bench::new(way, &[]);
    bench.talk(10, 10);
    let number = bench.number();
    bench.kill("--rst");
    for stream in [&mut bench.client, &mut bench.server] {
        assert_eq!(errno(&stream.read(&mut [0]).expect_err("it is reset")), "ECONNRESET");
    }
    let again = output(bench.host(), &["flows", "kill", &number, "--rst"]);
    assert_eq!(failed(&again), (Some(1), format!("halfopen: flow {number} has ended")));
}

fn fin(way: Way) {
    let mut bench = Bench::new(way, &[]);
    bench.talk(10, 10);
    bench.kill("--fin");
    for stream in [&mut bench.client, &mut bench.server] {
        assert_eq!(drain(stream), (Vec::new(), "EOF".to_owned()));
    }
}

/// Whatever the client sends is swallowed; it sends it again, and hears nothing.
fn vanish(way: Way) {
    let mut bench = Bench::new(way, &[]);
    bench.talk(10, 10);
    bench.kill("--vanish");
    let ends: &mut [&mut TcpStream] = match way.is_exec() {
        // There the kernel of the server's socket still acknowledges.
        true => &mut [&mut bench.client],
        false => &mut [&mut bench.client, &mut bench.server],
    };
    for end in ends.iter_mut() {
        end.write_all(b"hello?").expect("the kernel takes it");
    }
    // Each is sent again after 0.2 s, 0.6 s and so on.
    let wanted = 3 * ends.len() as u64;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let stats: Value = serde_json::from_str(&bench.ask(&["stats", "--json"])).expect("JSON");
        assert_eq!(stats["outcomes"]["killed"], 1);
        let swallowed = stats["discarded"].as_array().expect("a list").iter();
        let swallowed = swallowed.filter(|n| n["name"] == "its flow was killed without a word");
        if swallowed.map(|n| n["count"].as_u64().expect("a number")).sum::<u64>() >= wanted {
            break;
        }
        assert!(Instant::now() < deadline, "{stats}");
    }
    for stream in [&bench.client, &bench.server] {
        let heard = PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR;
        assert!(!wait(stream.as_fd(), heard, Duration::from_millis(1)), "something came");
    }
}

fn ladder(way: Way) {
    let mut bench = Bench::new(way, &["--history", "4"]);
    let number = bench.number();
    bench.talk(100, 2000);
    let mut expected =
        vec!["── S 0:0(0)", "◀── S. 0:0(0) ack 1", "── . ack 1", "ESTABLISHED", "── P. 1:101(100) ack 1"];
    expected.push("◀── P. 1:2001(2000)");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = bench.ask(&["flows", &number]);
        let mut rest = &*text;
        let there = expected.iter().all(|part| match rest.find(part) {
            Some(at) => {
                rest = &rest[at + part.len()..];
                true
            }
            None => false,
        });
        if there {
            assert!(text.starts_with(&format!("flow {number}\nclient  ")), "{text}");
            break;
        }
        assert!(Instant::now() < deadline, "{text}");
    }
    let told: Value = serde_json::from_str(&bench.ask(&["flows", &number, "--json"])).expect("JSON");
    assert!(told["ladder"][0].as_str().expect("a line").starts_with(&format!("flow {number}: ")), "{told}");
}

/// A connection to the control socket of an instance that has said half a request.
fn half_a_request(ns: &Ns, pid: nix::unistd::Pid) -> UnixStream {
    let address = SocketAddr::from_abstract_name(format!("halfopen.control.{pid}")).expect("a short name");
    let mut stream = ns.run(|| UnixStream::connect_addr(&address).expect("it listens"));
    stream.write_all(b"GET /v1/flows HTTP/1.1\r\nHost: x").expect("the kernel takes it");
    stream
}

fn stuck() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = directory.path().join("c.toml");
    fs::write(&config, "limits.control_connections = 2\n").expect("it is writable");
    let config = config.to_str().expect("temporary directories have plain names");
    let mut bench = Bench::new(Way::Proxied, &["--json", "--grace", "0", "-c", config]);
    let pid = bench.lab.halfopen.as_ref().expect("proxied").pid();
    let first = half_a_request(bench.host(), pid);
    bench.talk(1 << 20, 1 << 20);
    assert!(bench.ask(&["flows"]).contains("ESTABLISHED"));
    let second = half_a_request(bench.host(), pid);
    bench.talk(1 << 20, 1 << 20);
    let third = output(bench.host(), &["flows"]);
    let expected = format!("halfopen: instance {pid} has closed the connection without an answer");
    assert_eq!(failed(&third), (Some(69), expected));
    drop((first, second));
    // It hears of that in its own time.
    let deadline = Instant::now() + PATIENCE;
    while !output(bench.host(), &["flows"]).status.success() {
        assert!(Instant::now() < deadline, "no room comes back");
    }
    bench.talk(10, 10);
    let summary = bench.lab.halfopen.take().expect("proxied").finish();
    assert_eq!(summary["limits"][0]["name"], "limits.control_connections");
}

fn stats() {
    let lab = Lab::with(Way::Proxied, &["--json", "--grace", "0", "--fault", "syn-drop first=1"]);
    let mut bench = {
        let listener = lab.listen(Family::V6);
        let (client, server) = lab.pair_by(&listener);
        Bench { lab, _listener: listener, client, server }
    };
    bench.talk(100, 2000);
    bench.kill("--rst");
    let (mut client, mut server) = bench.lab.pair_by(&bench._listener);
    client.write_all(b"bye").expect("an open connection");
    drop(client);
    assert_eq!(drain(&mut server), (b"bye".to_vec(), "EOF".to_owned()));
    drop(server);
    let deadline = Instant::now() + PATIENCE;
    let mut stats = loop {
        let stats: Value = serde_json::from_str(&bench.ask(&["stats", "--json"])).expect("JSON");
        if stats["open"] == 0 {
            break stats;
        }
        assert!(Instant::now() < deadline, "{stats}");
    };
    let rules: Value = serde_json::from_str(&bench.ask(&["rules", "--json"])).expect("JSON");
    let mut summary = bench.lab.halfopen.take().expect("proxied").finish();
    assert_eq!(rules, summary["rules"]);
    assert_eq!((&summary["outcomes"]["ok"], &summary["outcomes"]["killed"]), (&1.into(), &1.into()));
    for told in [&mut stats, &mut summary] {
        assert!(told["seconds"].take().as_f64() > Some(0.0));
    }
    assert_eq!(stats, summary);
}

fn elsewhere() {
    let bench = Bench::new(Way::Proxied, &[]);
    let pid = bench.lab.halfopen.as_ref().expect("proxied").pid().to_string();
    let none = output(&bench.lab.client, &["flows"]);
    assert_eq!(failed(&none), (Some(69), "halfopen: no instance of halfopen runs here".to_owned()));
    assert!(said(&output(&bench.lab.client, &["flows", "--pid", &pid])).contains("ESTABLISHED"));
    let ours = std::process::id().to_string();
    let wrong = output(&bench.lab.client, &["flows", "--pid", &ours]);
    assert_eq!(failed(&wrong), (Some(69), format!("halfopen: --pid {ours}: no instance of halfopen")));
}

/// Somebody who calls himself an instance, and answers what no instance of this version does.
fn other_version() {
    let host = Ns::new();
    let address = SocketAddr::from_abstract_name("halfopen.control.1").expect("a short name");
    let listener = host.run(|| UnixListener::bind_addr(&address)).expect("a free name");
    let answers = [("server: halfopen/9.8.7\r\n", "halfopen/9.8.7"), ("", "no halfopen")];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (header, _) in answers {
                let (mut stream, _) = listener.accept().expect("a client");
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).expect("a request");
                    asked.extend(byte);
                }
                let body = r#"{"streams": []}"#;
                let head = format!("HTTP/1.1 200 OK\r\n{header}content-length: {}\r\n\r\n", body.len());
                stream.write_all((head + body).as_bytes()).expect("the client reads");
            }
        });
        for (_, named) in answers {
            let said = format!(
                "halfopen: instance 1 is {named}, whose answer halfopen/{} does not understand",
                env!("CARGO_PKG_VERSION")
            );
            assert_eq!(failed(&output(&host, &["flows"])), (Some(1), said));
        }
    });
}

/// It listens, and its kernel takes the connection, but it does nothing any more.
fn frozen() {
    let bench = Bench::new(Way::Proxied, &[]);
    let pid = bench.lab.halfopen.as_ref().expect("proxied").pid();
    kill(pid, Signal::SIGSTOP).expect("our child");
    let begin = Instant::now();
    let asked = output(bench.host(), &["flows"]);
    let took = begin.elapsed();
    kill(pid, Signal::SIGCONT).expect("our child");
    assert_eq!(failed(&asked), (Some(1), format!("halfopen: instance {pid} has not answered within 10 s")));
    assert!(
        String::from_utf8_lossy(&asked.stderr).contains("hint: it is stopped, or very busy"),
        "{asked:?}"
    );
    assert!(took >= Duration::from_secs(10), "{took:?}");
    assert_eq!(bench.flow("it goes on", |_| true)["flow"], 1);
}

fn foreign() {
    let bench = Bench::new(Way::Proxied, &[]);
    let pid = bench.lab.halfopen.as_ref().expect("proxied").pid();
    let asked = command_of_user(bench.host(), &["flows"]).output().expect("the program was built");
    if has_many_users() {
        let expected = format!("halfopen: instance {pid} belongs to another user (uid 0)");
        assert_eq!(failed(&asked), (Some(77), expected));
        // Not even if the client does not look.
        let address =
            SocketAddr::from_abstract_name(format!("halfopen.control.{pid}")).expect("a short name");
        let uid = nix::unistd::Uid::from_raw(crate::lab::process::NOBODY);
        let answer = bench.host().run(|| {
            // Only this thread becomes somebody else.
            // SAFETY: a system call without memory effects.
            let done =
                unsafe { libc::syscall(libc::SYS_setresuid, uid.as_raw(), uid.as_raw(), uid.as_raw()) };
            assert_eq!(done, 0);
            let mut stream = UnixStream::connect_addr(&address).expect("it listens");
            // It may be closed already.
            let _ = stream.write_all(b"GET /v1/flows HTTP/1.1\r\nHost: x\r\n\r\n");
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            answer
        });
        assert_eq!(String::from_utf8_lossy(&answer), "");
    } else {
        // A user who can be nobody else is the same user, whatever its name.
        said(&asked);
    }
}

fn several() {
    let ns = Ns::new();
    let (mut one, _inside) = Halfopen::exec(&ns, false, &[]);
    assert_eq!(said(&output(&ns, &["flows"])), "no open flows\n");
    let (two, _inside_too) = Halfopen::exec(&ns, false, &[]);
    let asked = output(&ns, &["flows"]);
    assert_eq!(failed(&asked), (Some(2), "halfopen: 2 instances of halfopen run here".to_owned()));
    let pid = one.pid().to_string();
    assert!(String::from_utf8_lossy(&asked.stderr).contains(&format!("--pid {pid}")));
    said(&output(&ns, &["flows", "--pid", &pid]));
    drop(two);
    // It stops, so that it cannot answer, and ends while it is asked.
    kill(one.pid(), Signal::SIGSTOP).expect("our child");
    let asking = command(&ns, &["flows"]).stderr(std::process::Stdio::piped()).spawn().expect("it was built");
    let deadline = Instant::now() + PATIENCE;
    let connections = || {
        let table = ns.run(|| fs::read_to_string("/proc/thread-self/net/unix").expect("procfs"));
        table.lines().filter(|line| line.ends_with(&format!("@halfopen.control.{pid}"))).count()
    };
    while connections() < 2 {
        assert!(Instant::now() < deadline, "it does not connect");
    }
    assert!(!one.end_by(Signal::SIGKILL).success());
    let told = asking.wait_with_output().expect("it ends");
    let expected = format!("halfopen: instance {pid} has closed the connection without an answer");
    assert_eq!(failed(&told), (Some(69), expected));
}
