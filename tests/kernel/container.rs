//! What a container engine or a service manager has to do with a run: its rights, its health, its messages, and the network
//! namespace that it was given.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

use halfopen::setup::netlink::Family;
use nix::sys::signal::{Signal, kill};

use crate::Single;
use crate::lab::process::{Halfopen, command};
use crate::lab::{Lab, PATIENCE, Way, drain};
use crate::setup::state;

pub(crate) const SINGLES: &[Single] = &[
    ("a run gives up the rights that it needs no more", confined),
    ("files that a run makes later can still be made, and others be read again", files),
    ("the health check tells whether a run takes connections", health),
    ("the service manager is told of start, reload and end", service_manager),
    ("a sidecar ends when its network namespace has lost its owner", abandoned),
];

/// CAP_NET_ADMIN, and CAP_DAC_READ_SEARCH for reading the config again.
const KEPT: u64 = 1 << 12 | 1 << 2;
const DAC_OVERRIDE: u64 = 1 << 1;

fn confined() {
    let capture = tempfile::tempdir().expect("a directory");
    let file = capture.path().join("x.pcapng");
    let pcap = ["--pcap", file.to_str().expect("a plain path")];
    let env = ("HALFOPEN_CAPTURE__ROTATE", "1MiB");
    for (options, env, kept) in [(&[][..], None, KEPT), (&pcap, Some(env), KEPT | DAC_OVERRIDE)] {
        let mut lab = Lab::new(Way::Direct);
        lab.way = Way::Sidecar;
        let mut command = command(&lab.client, &[RUN, &["-v"], options].concat());
        command.envs(env);
        lab.halfopen = Some(Halfopen::start_command(command));
        let pid = lab.halfopen.as_ref().expect("it runs").pid();
        let mut threads = 0;
        for thread in fs::read_dir(format!("/proc/{pid}/task")).expect("it runs") {
            let status =
                fs::read_to_string(thread.expect("a thread").path().join("status")).expect("it runs");
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field");
                u64::from_str_radix(line.trim(), 16).expect("a number")
            };
            let found = ["CapPrm:", "CapEff:", "CapBnd:", "CapInh:", "CapAmb:"].map(field);
            assert_eq!(found, [kept, kept, kept, 0, 0], "{status}");
            assert_eq!(field("NoNewPrivs:"), 1, "{status}");
            threads += 1;
        }
        assert!(threads > 1, "the engine has a thread of its own");
        let said = lab.halfopen.as_ref().expect("it runs").said();
        assert!(said.contains(&format!("landlock=\"{}\"", landlock())), "{said}");
    }
}

const RUN: &[&str] = &["run", "--mode", "sidecar", "--ports", "5432"];

/// How much of Landlock this kernel does: all that is asked for since its fifth version.
fn landlock() -> &'static str {
    const VERSION: libc::c_long = 1;
    let (no_rules, no_size) = (0 as libc::c_long, 0 as libc::c_long);
    // SAFETY: a question about the version, without a pointer.
    match unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, no_rules, no_size, VERSION) } {
        5.. => "full",
        1..=4 => "partial",
        _ => "none",
    }
}

/// Nothing tells when another process has got there.
fn until(what: &str, mut there: impl FnMut() -> bool) {
    let start = Instant::now();
    while !there() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn files() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).to_str().expect("a plain path").to_owned();
    let config = |rules: &str| {
        // A new file in place of the old one, as editors do it.
        fs::write(path("new.toml"), format!("[capture]\nrotate = \"1MiB\"\n{rules}")).expect("room");
        fs::rename(path("new.toml"), path("config.toml")).expect("both are there");
    };
    config("");
    let mut lab = Lab::new(Way::Direct);
    lab.way = Way::Sidecar;
    lab.start(&["--json", "--config", &path("config.toml"), "--pcap", &path("x.pcapng")]);
    let listener = lab.listen(Family::V4);
    let (mut client, mut server) = lab.pair_by(&listener);
    let writer = thread::spawn(move || client.write_all(&vec![0; 2 << 20]));
    assert_eq!(drain(&mut server).0.len(), 2 << 20);
    writer.join().expect("no panic").expect("the server reads");
    let second = path("x.pcapng.1");
    until("the second file of the capture", || Path::new(&second).exists());
    config("[[rule]]\nfault.fin-drop = {}\n");
    let halfopen = lab.halfopen.take().expect("it runs");
    kill(halfopen.pid(), Signal::SIGHUP).expect("our child");
    until("rules replaced", || halfopen.said().contains("rules replaced"));
    halfopen.finish();
}

fn says(output: &Output, code: i32, text: &str) {
    let said = [&output.stdout[..], &output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(text), "{said}");
}

fn health() {
    let mut lab = Lab::with(Way::Sidecar, &["--grace", "60s"]);
    let client = lab.client.again();
    let check = |options: &[&str]| {
        command(&client, &[&["healthcheck"], options].concat()).output().expect("built with the test")
    };
    says(&check(&[]), 0, "ready");
    says(&check(&["--metrics-addr", "0.0.0.0:8474"]), 0, "ready");
    let open = lab.pair(Family::V4);
    let halfopen = lab.halfopen.as_mut().expect("it runs");
    kill(halfopen.pid(), Signal::SIGTERM).expect("our child");
    until("not ready", || !check(&[]).status.success());
    says(&check(&[]), 1, "503");
    assert!(halfopen.is_alive(), "a connection is open");
    assert!(halfopen.end_by(Signal::SIGTERM).success());
    drop(open);
    says(&check(&[]), 1, "no answer from 127.0.0.1:8474");
    says(&check(&["--metrics-addr", "off"]), 78, "there is nobody to ask");
}

fn service_manager() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a new path");
    manager.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let told = || {
        let mut message = [0; 256];
        let len = manager.recv(&mut message).expect("a message");
        String::from_utf8_lossy(&message[..len]).into_owned()
    };
    let lab = Lab::new(Way::Direct);
    let mut command = command(&lab.client, RUN);
    command.env("NOTIFY_SOCKET", &path);
    let mut halfopen = Halfopen::start_command(command);
    assert_eq!(told(), "READY=1\n");
    kill(halfopen.pid(), Signal::SIGHUP).expect("our child");
    let reloading = told();
    let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").map(str::trim_end);
    assert!(time.is_some_and(|time| time.parse::<u64>().is_ok()), "{reloading}");
    assert_eq!(told(), "READY=1\n");
    assert!(halfopen.end_by(Signal::SIGTERM).success());
    assert_eq!(told(), "STOPPING=1\n");
}

/// As when the container of the application is stopped: its interfaces go, and the namespace stays with who is in it.
fn abandoned() {
    let mut lab = Lab::new(Way::Sidecar);
    let open = lab.pair(Family::V4);
    // The last descriptor of the gateway, and with it its end of the cable.
    lab.gateway = lab.client.again();
    let halfopen = lab.halfopen.as_mut().expect("it runs");
    assert_eq!(halfopen.wait_for_end("its network is gone").code(), Some(69), "{}", halfopen.said());
    // What it said last may still be on its way.
    until("the hint", || halfopen.said().contains("`restart: always`"));
    assert!(halfopen.said().contains("has lost its network"), "{}", halfopen.said());
    let left = state(&lab.client);
    assert!(left.rules.is_empty() && left.routes.is_empty(), "{left:?}");
    drop(open);
}
