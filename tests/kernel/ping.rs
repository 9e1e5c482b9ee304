//! `halfopen ping` against Linux: by our own TCP and by kernel sockets, over IPv4 and IPv6.

use std::fs;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use halfopen::setup::netlink::Family;
use nix::poll::PollFlags;
use serde_json::Value;

use crate::Single;
use crate::lab::icmp::Refuser;
use crate::lab::ns::Ns;
use crate::lab::process::{self, Halfopen, command_of_user};
use crate::lab::sniff::Sniffer;
use crate::lab::{Lab, Listener, PATIENCE, PORT, Way, address, listen, server_at, silent_at, wait};

pub(crate) const SINGLES: &[Single] = &[
    ("connects are counted and closed by FIN, and the server reads the end of each", full),
    ("a half handshake leaves the server without a connection and without a socket", half),
    ("refusals by RST and by ICMP errors are told apart, with their kind", refused),
    ("silence ends by the timeout and counts as a lower bound", silence),
    ("a lost SYN sits at its step and is named", lost_syn),
    ("a target that stalls does not hide the later starts", stalled),
    ("several targets are told apart, a log of them is read, and assertions judge", told),
    ("two at once leave each other alone", two_at_once),
    ("a target on the own host is reached", own_host),
    ("a signal ends it with a summary of all, also of what is under way", interrupted),
    ("the floor is a ping of the own host that needs no server", floor),
    ("without a privilege it goes by kernel sockets, and half a handshake is refused", no_privilege),
];

const VIAS: [&str; 2] = ["own", "kernel"];

/// Every way over every IP version.
fn each(test: impl Fn(&'static str, Family)) {
    for via in VIAS {
        for family in Family::ALL {
            test(via, family);
        }
    }
}

/// Accepts, reads to the end and closes, as long as it lives.
struct Server {
    stop: Arc<AtomicBool>,
    ends: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(listener: Listener) -> Self {
        let (stop, ends) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&ends));
        let thread = thread::spawn(move || {
            loop {
                // One more look after the stop: who connected before it is in the queue.
                let last = stopped.load(Ordering::Relaxed);
                while wait(listener.as_fd(), PollFlags::POLLIN, Duration::from_millis(20)) {
                    let (mut stream, _) = listener.accept().expect("it is there");
                    stream.set_read_timeout(Some(PATIENCE)).expect("a live socket");
                    // An end by FIN; a reset would be an error.
                    if matches!(stream.read_to_end(&mut Vec::new()), Ok(0)) {
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                }
                if last {
                    return;
                }
            }
        });
        Self { stop, ends, thread: Some(thread) }
    }

    /// How many connections were closed by FIN, once it has seen them all.
    fn ends(mut self) -> usize {
        self.end();
        self.ends.load(Ordering::Relaxed)
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(thread::panicking() || ended.is_ok(), "the server panicked");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn ping(ns: &Ns, via: &str, target: SocketAddr, options: &[&str]) -> Output {
    let target = target.to_string();
    let mut args = vec!["ping", &target, "--via", via, "--json"];
    args.extend(options);
    process::output(ns, &args)
}

fn summary(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

/// Pings, successfully, and returns the summary.
fn pinged(ns: &Ns, via: &str, target: SocketAddr, options: &[&str]) -> Value {
    let output = ping(ns, via, target, options);
    assert!(output.status.success(), "{output:?}");
    summary(&output)
}

fn outcome(told: &Value, name: &str) -> u64 {
    told["outcomes"][name].as_u64().expect("a count")
}

fn number(told: &Value, latency: &str, what: &str) -> u64 {
    told["latencies"][latency][what].as_u64().unwrap_or_else(|| panic!("no {what} of {latency}: {told}"))
}

fn full() {
    let lab = Lab::new(Way::Direct);
    each(|via, family| {
        let server = Server::start(lab.listen(family));
        let sniffer = Sniffer::start(&lab.server, "s0");
        let told = pinged(&lab.client, via, server_at(family), &["--rate", "50", "-n", "5"]);
        assert_eq!((outcome(&told, "ok"), &told["flows"]), (5, &5.into()), "{via}: {told}");
        for latency in ["connect", "server_connect", "server_net", "added_by_proxy"] {
            assert_eq!(number(&told, latency, "count"), 5, "{via}: {latency}");
        }
        assert_eq!(number(&told, "connect", "unfinished"), 0, "{via}");
        assert!(number(&told, "connect", "max_us") >= number(&told, "server_connect", "max_us"), "{via}");
        let seen = sniffer.stop();
        assert_eq!(server.ends(), 5, "{via}: each was closed by FIN");
        let resets: Vec<_> = seen.iter().filter(|s| s.tcp.rst).collect();
        assert!(resets.is_empty(), "{via}: {resets:?}");
    });
}

fn half() {
    let lab = Lab::new(Way::Direct);
    for family in Family::ALL {
        let listener = lab.listen(family);
        let sniffer = Sniffer::start(&lab.server, "s0");
        let options = ["--handshake", "half", "--rate", "50", "-n", "5"];
        let told = pinged(&lab.client, "own", server_at(family), &options);
        assert_eq!(outcome(&told, "ok"), 5, "{told}");
        listener.set_nonblocking(true).expect("an open socket");
        let accepted = listener.accept().map(|_| ()).map_err(|e| e.kind());
        assert_eq!(accepted, Err(io::ErrorKind::WouldBlock), "nobody has connected");
        let flags: Vec<_> = sniffer.stop().iter().map(|seen| seen.flags()).collect();
        let of = |wanted: &str| flags.iter().filter(|flags| *flags == wanted).count();
        assert_eq!((of("S"), of("S."), of("R.") + of("R"), of(".")), (5, 5, 5, 0), "{flags:?}");
        // 03 is SYN-RECEIVED; the reset has ended it.
        let file = if family == Family::V4 { "tcp" } else { "tcp6" };
        let table = lab.server.run(|| fs::read_to_string(format!("/proc/thread-self/net/{file}")));
        let table = table.expect("procfs");
        let states: Vec<_> = table.lines().filter_map(|line| line.split_whitespace().nth(3)).collect();
        assert!(states.contains(&"0A") && !states.contains(&"03"), "{table}");
    }
}

fn refused() {
    let lab = Lab::new(Way::Direct);
    each(|via, family| {
        let told = pinged(&lab.client, via, server_at(family), &["--rate", "50", "-n", "3"]);
        assert_eq!(outcome(&told, "refused-rst"), 3, "{via}: {told}");
        assert_eq!(number(&told, "connect", "count"), 0, "{via}: a refusal is no connect");
        let errors =
            if family == Family::V4 { &[(3, 1), (3, 13), (3, 3)] } else { &[(1, 3), (1, 1), (1, 4)] };
        let _refuser = Refuser::start(&lab.server, "s0", family, errors);
        let names = ["host unreachable", "administratively prohibited", "port unreachable"];
        for (host, (name, error)) in names.into_iter().zip(errors).enumerate() {
            let target = SocketAddr::new(address(family, 3, host as u8 + 1), PORT);
            let told = pinged(&lab.client, via, target, &["-n", "1"]);
            assert_eq!(outcome(&told, "refused-icmp"), 1, "{via}: {error:?}: {told}");
            assert_eq!(told["refused_icmp"][0]["name"], name, "{via}: {error:?}");
        }
    });
}

fn silence() {
    let lab = Lab::new(Way::Direct);
    each(|via, family| {
        let options = ["--rate", "20", "-n", "4", "--timeout", "1500ms"];
        let told = pinged(&lab.client, via, silent_at(family), &options);
        assert_eq!(outcome(&told, "timeout"), 4, "{via}: {told}");
        assert_eq!(number(&told, "connect", "unfinished"), 4, "{via}");
        assert!(number(&told, "connect", "p50_us") >= 1_490_000, "{via}: {told}");
        let again = told["groups"].as_array().expect("a list").iter().find(|g| g["by"] == "retransmits");
        assert_eq!(again.expect("a group")["name"], "1", "{via}: the SYN left again after a second");
        let output = ping(
            &lab.client,
            via,
            silent_at(family),
            &["-n", "1", "--timeout", "100ms", "--assert", "p50(connect) < 1h"],
        );
        assert_eq!(output.status.code(), Some(3), "a lower bound proves no upper limit: {output:?}");
    });
}

fn lost_syn() {
    let lab = Lab::with(Way::Proxied, &["--fault", "syn-drop first=1"]);
    each(|via, family| {
        let server = Server::start(lab.listen(family));
        let told = pinged(&lab.client, via, server_at(family), &["--rate", "20", "-n", "3"]);
        assert_eq!(outcome(&told, "ok"), 3, "{via}: {told}");
        assert!(number(&told, "connect", "p50_us") >= 990_000, "{via}: {told}");
        let loss = &told["suspected_syn_loss"][0];
        assert_eq!(
            (&loss["latency"], &loss["steps"][0]["seconds"]),
            (&"connect".into(), &1.into()),
            "{via}: {told}"
        );
        let again = told["groups"].as_array().expect("a list").iter().find(|g| g["by"] == "retransmits");
        let again = again.expect("a group");
        assert_eq!((&again["name"], &again["values"]["count"]), (&"1".into(), &3.into()), "{via}: {told}");
        drop(server);
    });
}

fn stalled() {
    const HOLD: u64 = 300_000;
    let lab = Lab::with(Way::Proxied, &["--fault", "syn-ack-delay delay=300ms first=all"]);
    each(|via, family| {
        let server = Server::start(lab.listen(family));
        let options = ["--rate", "50", "-n", "4", "--in-flight", "1"];
        let told = pinged(&lab.client, via, server_at(family), &options);
        assert_eq!(outcome(&told, "ok"), 4, "{via}: {told}");
        // The last was due after 60 ms, and had to wait for three others.
        assert!(number(&told, "connect", "max_us") >= 4 * HOLD - 61_000, "{via}: {told}");
        assert!(number(&told, "server_connect", "max_us") < number(&told, "connect", "max_us"), "{via}");
        assert!(number(&told, "added_by_proxy", "max_us") >= 3 * HOLD - 61_000, "{via}: {told}");
        let limit = &told["limits"][0];
        assert_eq!((&limit["name"], &limit["count"]), (&"--in-flight".into(), &3.into()), "{via}");
        drop(server);
    });
}

fn told() {
    let lab = Lab::new(Way::Direct);
    let servers: Vec<_> = Family::ALL.map(|family| Server::start(lab.listen(family))).into();
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).to_str().expect("text").to_owned();
    let (log, report) = (path("ping.hlog"), path("report.json"));
    for via in VIAS {
        let [v4, v6] = Family::ALL.map(|family| server_at(family).to_string());
        let assert = "count(ok) == 6 and unfinished(connect) == 0 and max(connect) < 1h";
        let args = ["ping", &v4, &v6, "--via", via, "--rate", "50", "-n", "3", "--hlog", &log];
        let args = [&args[..], &["--report", &report, "--assert", assert, "--plot"]].concat();
        let output = process::output(&lab.client, &args);
        assert!(output.status.success(), "{via}: {output:?}");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.starts_with("6 flows: 6 ok\n") && text.contains("logarithmic"), "{via}: {text}");
        assert!(text.contains("holds; count(ok) 6") && !text.contains("client_rtt"), "{via}: {text}");
        let told: Value = serde_json::from_slice(&fs::read(&report).expect("written")).expect("JSON");
        let read = process::output(&Ns::new(), &["report", "--json", &log]);
        let read: Value = serde_json::from_slice(&read.stdout).expect("JSON");
        for latency in ["connect", "server_connect"] {
            assert_eq!(read["latencies"][latency]["count"], told["latencies"][latency]["count"], "{via}");
            assert_eq!(number(&told, latency, "count"), 6, "{via}");
        }
        let groups = read["groups"].as_array().expect("a list");
        let targets = groups.iter().filter(|g| g["by"] == "target" && g["latency"] == "connect");
        let mut targets: Vec<_> =
            targets.map(|g| (g["name"].as_str(), g["values"]["count"].as_u64())).collect();
        targets.sort_unstable();
        assert_eq!(targets, [(Some(&*v4), Some(3)), (Some(&*v6), Some(3))], "{via}");
        let failing =
            ping(&lab.client, via, server_at(Family::V4), &["-n", "1", "--assert", "count(ok) > 1"]);
        assert_eq!(failing.status.code(), Some(3), "{via}: {failing:?}");
    }
    drop(servers);
}

fn two_at_once() {
    let lab = Lab::new(Way::Direct);
    let server = Server::start(lab.listen(Family::V4));
    let both = thread::scope(|scope| {
        let one = || pinged(&lab.client, "own", server_at(Family::V4), &["--rate", "50", "-n", "20"]);
        let (a, b) = (scope.spawn(one), scope.spawn(one));
        [a, b].map(|thread| thread.join().expect("it returns"))
    });
    for told in both {
        assert_eq!(outcome(&told, "ok"), 20, "{told}");
    }
    assert_eq!(server.ends(), 40);
}

fn own_host() {
    let host = Ns::new();
    each(|via, family| {
        let ip = if family == Family::V4 { "127.0.0.1:0" } else { "[::1]:0" };
        let listener = host.run(|| listen(ip.parse().expect("an address"))).expect("a free port");
        let target = listener.local_addr().expect("it is bound");
        let server = Server::start(listener);
        let told = pinged(&host, via, target, &["--rate", "50", "-n", "3"]);
        assert_eq!(outcome(&told, "ok"), 3, "{via}: {told}");
        assert_eq!(server.ends(), 3, "{via}");
    });
}

fn floor() {
    let host = Ns::new();
    for via in VIAS {
        for version in [&[][..], &["-6"]] {
            let args = [&["floor", "--via", via, "-n", "5", "--json"], version].concat();
            let output = process::output(&host, &args);
            assert!(output.status.success(), "{output:?}");
            let told = summary(&output);
            assert_eq!(outcome(&told, "ok"), 5, "{via} {version:?}: {told}");
            // 100 in a second, unless it is told otherwise.
            assert!(told["seconds"].as_f64().expect("a number") >= 0.04, "{told}");
            assert_eq!(number(&told, "connect", "count"), 5, "{told}");
        }
    }
    let alone = process::output(&Ns::new(), &["floor", "-n", "1", "--handshake", "half"]);
    let text = String::from_utf8_lossy(&alone.stdout);
    assert!(text.starts_with("1 flow: 1 ok\n") && text.contains("connect"), "{alone:?}");
}

fn interrupted() {
    let lab = Lab::new(Way::Direct);
    for via in VIAS {
        let server = Server::start(lab.listen(Family::V4));
        let (v4, silent) = (server_at(Family::V4).to_string(), silent_at(Family::V4).to_string());
        let args = ["ping", &silent, &v4, "--via", via, "--rate", "20", "--json", "-v"];
        let mut running = Halfopen::start(&lab.client, &args);
        // The log tells of the first attempt that has ended.
        let patience = Instant::now() + PATIENCE;
        while !running.said().contains("outcome=\"ok\"") {
            assert!(Instant::now() < patience && running.is_alive(), "{}", running.said());
            thread::yield_now();
        }
        let told = running.finish();
        let (flows, ok) = (told["flows"].as_u64().expect("a count"), outcome(&told, "ok"));
        assert!(ok >= 1 && outcome(&told, "open") >= 1, "{via}: {told}");
        assert_eq!(flows, ok + outcome(&told, "open"), "{via}: {told}");
        drop(server);
    }
}

fn no_privilege() {
    let lab = Lab::new(Way::Direct);
    let server = Server::start(lab.listen(Family::V4));
    let target = server_at(Family::V4).to_string();
    let run = |options: &[&str]| {
        let args = [&["ping", &target, "-n", "2", "--rate", "50"], options].concat();
        command_of_user(&lab.client, &args).output().expect("the program was built with the test")
    };
    let output = run(&["--json"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(outcome(&summary(&output), "ok"), 2);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("via=\"kernel\""), "{said}");
    for options in [&["--handshake", "half"][..], &["--via", "own"]] {
        let output = run(options);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(77), "{said}");
        assert!(said.contains("CAP_NET_RAW") && said.lines().count() == 2, "{said}");
    }
    drop(server);
}
