//! The command's network: names, UDP, the caller's loopback, faults.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use halfopen::setup::netlink::Family;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::Single;
use crate::command::{CALLERS, exec, exec_by, printed};
use crate::lab::ns::Ns;
use crate::lab::process::{command, myself};
use crate::lab::sniff::Sniffer;
use crate::lab::{Lab, PATIENCE, Way, accept, server_at, silent_at};
use crate::stream::{bad_cable, more_than_4_gib};

pub(crate) const SINGLES: &[Single] = &[
    ("names are resolved by the caller's name server", names),
    ("datagrams of any size come and go, and a closed port is told", datagrams),
    ("the caller's loopback is reachable as far as it is wanted", loopback),
    ("the caller's loopback can be refused by ICMP", refused_loopback),
    ("a port of the command's own loopback stays its own", own_loopback),
    ("what has no route outside has none inside", no_route),
    ("without /dev/net/tun the packets take a veth pair", without_tun),
    ("two lost SYNs cost the client two seconds", syn_drop),
    ("a reset after the first byte reaches the client and the server", rst_inject),
    ("a client that gives up dialling takes the caller's dial with it", gives_up),
    ("what the command sent before its end is delivered", last_words),
    ("more than 4 GiB upstream arrive with an equal SHA-256", || {
        more_than_4_gib(Way::Exec, Family::V4, false)
    }),
    ("more than 4 GiB downstream arrive with an equal SHA-256, without privileges", || {
        more_than_4_gib(Way::UserExec, Family::V6, true);
    }),
    ("loss and reordering change no byte", || bad_cable(Way::Exec, Family::V4)),
    ("the same seed chooses the same flows", seeds),
    ("--strict fails a run in which a rule never fired", strict),
    ("5,000 connections are open at once and each is its own", many),
];

/// Does something in the background until it is dropped.
pub(crate) struct Service {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// `turn` is called again and again and must not take long.
    fn start(mut turn: impl FnMut() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                turn();
            }
        });
        Self { stop, thread: Some(thread) }
    }

    /// Says `hello` to whoever connects to this address of a host, and hears him out.
    fn greeter(ns: &Ns, address: SocketAddr) -> Self {
        let listener = ns.run(|| TcpListener::bind(address).expect("the port is free"));
        listener.set_nonblocking(true).expect("an open socket");
        Self::start(move || match listener.accept() {
            Ok((stream, _)) => greet(stream),
            Err(_) => thread::sleep(Duration::from_millis(2)),
        })
    }

    /// Answers every datagram to this address of a host with what `answer` makes of it.
    fn answerer(ns: &Ns, address: SocketAddr, answer: fn(&[u8]) -> Vec<u8>) -> Self {
        let socket = ns.run(|| UdpSocket::bind(address).expect("the port is free"));
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("an open socket");
        let mut buf = vec![0; 1 << 16];
        Self::start(move || {
            if let Ok((len, from)) = socket.recv_from(&mut buf) {
                let _ = socket.send_to(&answer(&buf[..len]), from);
            }
        })
    }
}

fn greet(mut stream: TcpStream) {
    // A client that is reset by a fault does not hear it; that is the test's business.
    let heard = stream.set_nonblocking(false).and_then(|()| {
        stream.set_read_timeout(Some(PATIENCE))?;
        std::io::Read::read_exact(&mut stream, &mut [0])?;
        stream.write_all(b"hello")
    });
    drop(heard);
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(thread::panicking() || !matches!(ended, Some(Err(_))), "the service panicked");
    }
}

/// Answers a DNS query for `A` and `AAAA` of any name with one address each.
fn dns_answer(query: &[u8]) -> Vec<u8> {
    let end_of_name = query[12..].iter().position(|b| *b == 0).expect("a name") + 13;
    let question = &query[12..end_of_name + 4];
    let data = match query[end_of_name + 1] {
        1 => Ipv4Addr::new(10, 81, 2, 2).octets().to_vec(),
        28 => "fd81:2::2".parse::<Ipv6Addr>().expect("an address").octets().to_vec(),
        _ => Vec::new(),
    };
    let answers = u8::from(!data.is_empty());
    let mut answer = vec![query[0], query[1], 0x85, 0x80, 0, 1, 0, answers, 0, 0, 0, 0];
    answer.extend_from_slice(question);
    if !data.is_empty() {
        answer.extend([0xc0, 12, 0, query[end_of_name + 1], 0, 1, 0, 0, 0, 60, 0, data.len() as u8]);
        answer.extend(data);
    }
    answer
}

fn names() {
    let lab = Lab::new(Way::Direct);
    // A stub resolver on the caller's loopback, as systemd-resolved and Docker have it.
    let server: SocketAddr = "127.0.0.53:53".parse().expect("an address");
    let _dns = Service::answerer(&lab.client, server, dns_answer);
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), "nameserver 127.0.0.53\noptions timeout:5\n").expect("it is ours");
    let path = file.path().to_owned();
    for loopback in ["on", "off"] {
        let args = ["exec", "--host-loopback", loopback, "--", &myself(), "inside", "resolve", "www.example"];
        let mut command = command(&lab.client, &args);
        let path = path.clone();
        // SAFETY: system calls only.
        unsafe {
            command.pre_exec(move || {
                let none = None::<&str>;
                unshare(CloneFlags::CLONE_NEWNS)?;
                mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
                mount(Some(&path), "/etc/resolv.conf", none, MsFlags::MS_BIND, none)?;
                Ok(())
            });
        }
        let output = command.output().expect("the program was built with the test");
        assert_eq!(printed(&output), "10.81.2.2 fd81:2::2", "host loopback {loopback}");
    }
}

fn datagrams() {
    let lab = Lab::new(Way::Direct);
    for family in Family::ALL {
        let server = server_at(family);
        let _echo = Service::answerer(&lab.server, server, <[u8]>::to_vec);
        let closed = SocketAddr::new(server.ip(), 1).to_string();
        for way in CALLERS {
            for len in ["0", "1", "1472", "1473", "60000"] {
                let said = printed(&exec_by(way, &lab.client, &[], &["ask", &server.to_string(), len]));
                assert_eq!(said, len, "{way:?} {family:?}");
            }
            for len in ["1", "60000"] {
                let said = printed(&exec_by(way, &lab.client, &[], &["ask", &closed, len]));
                assert_eq!(said, "ECONNREFUSED", "{way:?} {family:?}");
            }
        }
    }
}

fn loopback() {
    let ns = Ns::new();
    let greeters: Vec<Service> = ["127.0.0.1:8001", "127.0.0.1:8002", "[::1]:8001", "127.0.0.2:8003"]
        .map(|address| Service::greeter(&ns, address.parse().expect("an address")))
        .into();
    let addresses = [
        "127.0.0.1:8001",
        "127.0.0.1:8002",
        "127.0.0.2:8003",
        "10.0.2.2:8001",
        "[fd00:2::2]:8001",
        "[::1]:8001",
    ];
    let words: Vec<&str> = ["dial"].into_iter().chain(addresses).collect();
    let (yes, no) = ("hello", "ECONNREFUSED");
    for (wanted, expected) in [
        ("on", [yes, yes, yes, yes, yes, yes]),
        ("off", [no, no, no, no, no, no]),
        ("8001,9000-9999", [yes, no, no, yes, yes, yes]),
    ] {
        for way in CALLERS {
            let said = printed(&exec_by(way, &ns, &["--host-loopback", wanted], &words));
            let said: Vec<&str> =
                said.lines().map(|line| line.split_once(' ').expect("two words").1).collect();
            assert_eq!(said, expected, "{way:?} {wanted} {addresses:?}");
        }
    }
    drop(greeters);
}

fn refused_loopback() {
    let ns = Ns::new();
    let addresses = ["127.0.0.1:8001", "127.0.0.2:8001", "[::1]:8001"];
    let greeters: Vec<Service> =
        addresses.map(|address| Service::greeter(&ns, address.parse().expect("an address"))).into();
    let words: Vec<&str> = ["dial"].into_iter().chain(addresses).collect();
    for way in CALLERS {
        let said = printed(&exec_by(way, &ns, &["--fault", "refuse style=icmp-host"], &words));
        let said: Vec<&str> = said.lines().map(|line| line.split_once(' ').expect("two words").1).collect();
        assert_eq!(said, ["EHOSTUNREACH"; 3], "{way:?}");
    }
    drop(greeters);
}

fn own_loopback() {
    let lab = Lab::new(Way::Exec);
    for address in ["127.0.0.1:7001", "[::1]:7002", "10.0.2.100:7003", "[fd00:2::100]:7004"] {
        let address: SocketAddr = address.parse().expect("an address");
        let _greeter = Service::greeter(&lab.client, address);
        let stream = lab.connect(address).expect("the command's own server listens");
        (&stream).write_all(b"?").expect("an open connection");
        assert_eq!(std::io::read_to_string(&stream).expect("an open connection"), "hello");
    }
}

fn no_route() {
    // A host with nothing but its own networks.
    let ns = Ns::new();
    let mut expected = Vec::new();
    let addresses = ["192.0.2.1:80", "[2001:db8::1]:80"];
    for address in addresses {
        let to: SocketAddr = address.parse().expect("an address");
        let error = ns.run(|| TcpStream::connect_timeout(&to, PATIENCE)).expect_err("there is no route");
        expected.push(format!("0.0 {}", crate::lab::errno(&error)));
    }
    let said = printed(&exec(&ns, &[], &["dial", addresses[0], addresses[1]]));
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
}

fn without_tun() {
    for family in Family::ALL {
        let (lab, _greeter, server) = greeting_lab(family);
        let run = |words: &[&str]| {
            let mut command = command(&lab.client, &[&["exec", "--"], words].concat());
            // SAFETY: system calls only.
            unsafe {
                command.pre_exec(|| {
                    let none = None::<&str>;
                    unshare(CloneFlags::CLONE_NEWNS)?;
                    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
                    match mount(none, "/dev/net", Some("tmpfs"), MsFlags::empty(), none) {
                        Err(Errno::ENOENT) => Ok(()), // there is none to hide
                        mounted => Ok(mounted?),
                    }
                });
            }
            printed(&command.output().expect("the program was built with the test"))
        };
        let devices = run(&["/bin/cat", "/proc/net/dev"]);
        assert!(devices.contains("halfopen0:") && devices.contains("halfopen1:"), "{devices}");
        let said = run(&[&myself(), "inside", "dial", &server]);
        assert!(said.ends_with(" hello"), "{family:?}: {said}");
    }
}

/// A server on network 2 that greets.
pub(crate) fn greeting_lab(family: Family) -> (Lab, Service, String) {
    let lab = Lab::new(Way::Direct);
    let server = server_at(family);
    let greeter = Service::greeter(&lab.server, server);
    (lab, greeter, server.to_string())
}

fn syn_drop() {
    for family in Family::ALL {
        let (lab, _greeter, server) = greeting_lab(family);
        for way in CALLERS {
            let said =
                printed(&exec_by(way, &lab.client, &["--fault", "syn-drop first=2"], &["dial", &server]));
            let (seconds, greeting) = said.split_once(' ').expect("two words");
            assert_eq!(greeting, "hello");
            // Linux since 6.5 sends its first SYNs a second apart, older ones after 1 and 3 seconds.
            let seconds: f64 = seconds.parse().expect("a number");
            assert!((1.9..3.6).contains(&seconds), "{way:?} {family:?}: {seconds}");
        }
    }
}

fn rst_inject() {
    let lab = Lab::new(Way::Direct);
    let listener = lab.listen(Family::V4);
    let server = server_at(Family::V4).to_string();
    let client = {
        let caller = &lab.client;
        let server = server.clone();
        thread::scope(|scope| {
            let run = scope.spawn(move || {
                exec(caller, &["--fault", "rst-inject after_bytes=1", "--strict"], &["dial", &server])
            });
            let (mut stream, _) = accept(&listener).expect("the client connects");
            stream.set_read_timeout(Some(PATIENCE)).expect("an open socket");
            let mut end = crate::lab::drain(&mut stream).1;
            if end == "EOF" {
                end = crate::lab::pending_error(&stream);
            }
            assert_eq!(end, "ECONNRESET");
            run.join().expect("no panic")
        })
    };
    assert!(printed(&client).ends_with(" ECONNRESET"), "{client:?}");
}

fn gives_up() {
    let lab = Lab::new(Way::Exec);
    for family in Family::ALL {
        let server = Sniffer::start(&lab.server, "s0");
        let dialled =
            lab.client.run(|| TcpStream::connect_timeout(&silent_at(family), Duration::from_millis(1_500)));
        assert!(dialled.is_err());
        thread::sleep(Duration::from_secs(7));
        let seen = server.stop();
        assert!(seen.iter().all(|segment| segment.flags() == "S"), "{seen:?}");
        // The caller's kernel repeats its SYN by itself until the client's next one is overdue for half a second.
        let last = seen.last().expect("a SYN").at;
        assert!((2..=4).contains(&seen.len()) && last < Duration::from_millis(4_000), "{seen:?}");
    }
}

fn last_words() {
    let lab = Lab::new(Way::Direct);
    let listener = lab.listen(Family::V4);
    let server = server_at(Family::V4).to_string();
    for way in CALLERS {
        let client = thread::scope(|scope| {
            let run = scope.spawn(|| exec_by(way, &lab.client, &[], &["blurt", &server, "8000000"]));
            let (mut stream, _) = accept(&listener).expect("the client connects");
            stream.set_read_timeout(Some(PATIENCE)).expect("an open socket");
            // Slow enough that the command is gone long before its last byte.
            thread::sleep(Duration::from_millis(500));
            let (bytes, end) = crate::lab::drain(&mut stream);
            assert_eq!((bytes.len(), end.as_str()), (8_000_000, "EOF"), "{way:?}");
            run.join().expect("no panic")
        });
        printed(&client);
    }
}

fn seeds() {
    let (lab, _greeter, server) = greeting_lab(Family::V4);
    let run = |seed: &str| {
        let rule = "rst-inject after_bytes=1 match.share=0.5";
        let words: Vec<&str> = std::iter::once("dial").chain(std::iter::repeat_n(&*server, 16)).collect();
        let said = printed(&exec(&lab.client, &["--seed", seed, "--fault", rule], &words));
        let said: Vec<String> =
            said.lines().map(|line| line.split_once(' ').expect("two words").1.to_owned()).collect();
        said
    };
    let first = run("7");
    assert!(
        first.iter().any(|end| end == "hello") && first.iter().any(|end| end == "ECONNRESET"),
        "{first:?}"
    );
    assert_eq!(run("7"), first);
    assert_ne!(run("8"), first);
}

fn strict() {
    let (lab, _greeter, server) = greeting_lab(Family::V4);
    for (rule, words, code) in [
        ("syn-ack-delay delay=10ms", vec!["dial", &server], 0),
        ("syn-ack-delay delay=10ms", vec!["exit", "0"], 1),
        ("syn-ack-delay delay=10ms", vec!["exit", "9"], 9),
    ] {
        let output = exec(&lab.client, &["--strict", "--fault", rule], &words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
    }
}

fn many() {
    const N: usize = 5_000;
    let limit = nix::sys::resource::Resource::RLIMIT_NOFILE;
    let (_, hard) = nix::sys::resource::getrlimit(limit).expect("a limit");
    nix::sys::resource::setrlimit(limit, hard, hard).expect("up to the hard limit");
    assert!(hard > 2 * N as u64 + 100, "needs 10,100 descriptors, the hard limit is {hard}");
    let lab = Lab::new(Way::Exec);
    let listener = lab.listen(Family::V4);
    let to = listener.local_addr().expect("bound");
    let (mut clients, mut servers) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let accepting =
            scope.spawn(|| (0..N).map(|_| accept(&listener).expect("a client").0).collect::<Vec<_>>());
        let dialling =
            || (0..N).map(|_| TcpStream::connect_timeout(&to, PATIENCE).expect("the server listens"));
        clients = lab.client.run(|| dialling().collect());
        servers = accepting.join().expect("no panic");
    });
    // Each client sends its number; the server answers with its own, and both must be told by one partner only.
    for (number, client) in clients.iter_mut().enumerate() {
        client.write_all(&(number as u32).to_be_bytes()).expect("an open connection");
    }
    let mut seen = vec![false; N];
    for server in &mut servers {
        server.set_read_timeout(Some(PATIENCE)).expect("an open socket");
        let mut number = [0; 4];
        std::io::Read::read_exact(server, &mut number).expect("an open connection");
        assert!(!std::mem::replace(&mut seen[u32::from_be_bytes(number) as usize], true), "{number:?} twice");
        server.write_all(&number).expect("an open connection");
    }
    for (number, client) in clients.iter_mut().enumerate() {
        client.set_read_timeout(Some(PATIENCE)).expect("an open socket");
        let mut answer = [0; 4];
        std::io::Read::read_exact(client, &mut answer).expect("an open connection");
        assert_eq!(u32::from_be_bytes(answer) as usize, number);
    }
}
