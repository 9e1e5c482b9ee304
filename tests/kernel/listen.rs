//! halfopen at addresses of its own: the rows of the gateway once more, clients on the same host, the faults, upstreams of
//! all sorts, and what is left of it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use halfopen::setup::netlink::{Family, RouteKind};
use libtest_mimic::Trial;
use nix::mount::{MsFlags, mount};
use nix::poll::PollFlags;
use nix::sys::signal::{Signal, kill};

use crate::lab::events::Events;
use crate::lab::process::{Halfopen, command};
use crate::lab::sniff::Sniffer;
use crate::lab::{
    Lab, Listener, PATIENCE, PORT, Way, accept, address, chosen, compare, compare_in, drain, outcome, wait,
};
use crate::setup::{NONE, carried, fails, state, talk, with_mounts};
use crate::sidecar::{CAP_NET_ADMIN, FAULTS, without, word};
use crate::{Row, Single, VERSIONS, close, faults, handshake, stream, trial};

const SINGLES: &[Single] = &[
    ("a stop refuses new connections, lets open ones end, and undoes what was set up", stopped),
    ("after a kill connections are refused, and a restart listens again", killed),
    ("what cannot be listened at is told with what to do, and nothing is changed", bad_input),
    ("a second instance is refused", second_instance),
    ("a missing right is told, and nothing is changed", no_rights),
    ("a missing /dev/net/tun is told, and nothing is changed", no_tun),
    ("IPv6 that cannot get through is told with what to add", no_ipv6),
    ("a dry run prints the commands and changes nothing", dry_run),
    ("reverse path filtering does not stop clients", reverse_path_filter),
    ("other connections, other ports and pings of the host are left alone", others),
    ("an address of its own is listened at, and no other", one_address),
    ("all addresses of an upstream are tried in order", several_addresses),
    ("a name that nobody has is told at the start, and its clients are refused", no_such_name),
    ("an upstream that does not answer is told to the client as it is", unreachable),
    ("syn-drop delays connect by the client's schedule, and the upstream sees one connection", syn_drop),
    ("syn-ack-delay is what connect takes longer", syn_ack_delay),
    ("fin-drop hides the upstream's end from the client, and the client's from the upstream", fin_drop),
    ("a client over IPv6 reaches an upstream over IPv4, and the other way round", crossed),
];

/// Rows that say something about this seat. The others need the server's own segments, or servers at many addresses.
const HANDSHAKE: &[&str] = &["a refused connection is refused to the client"];

/// Proofs that look at segments or states of the server leg, which is a kernel socket; singles stand for them. H13 is about two
/// hosts behind one address.
const NOT_HERE: &[&str] = &["H1", "H22", "T1", "H13"];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> =
        SINGLES.iter().map(|(name, test)| trial(format!("listen: {name}"), test)).collect();
    let rows = [&chosen(handshake::ROWS, HANDSHAKE)[..], close::ROWS, &stream::of_kernel_sockets()].concat();
    for (name, row) in rows {
        trials.extend(VERSIONS.map(|(family, version)| {
            trial(format!("listen: {name} ({version})"), move || compare(Way::Listen, |lab| row(lab, family)))
        }));
        trials.extend(at_home((name, row)));
    }
    for (name, row) in [close::ROWS, &stream::of_kernel_sockets()].concat() {
        trials.extend(VERSIONS.map(|(family, version)| {
            let test = move || compare(Way::ListenSockets, |lab| row(lab, family));
            trial(format!("listen: kernel sockets: {name} ({version})"), test)
        }));
    }
    let can = |proof: &&faults::Proof| FAULTS.contains(&proof.fault) && !NOT_HERE.contains(&proof.entry);
    let proofs = faults::PROOFS.iter().copied().flatten().filter(can);
    trials.extend(proofs.map(|proof| {
        let name = format!("listen: {} ({}): {}", proof.fault, proof.entry, proof.expected);
        trial(name, || faults::seated(Way::Listen, proof.run))
    }));
    trials
}

/// The row with a client on the host that listens.
fn at_home((name, row): Row) -> impl Iterator<Item = Trial> {
    let own = VERSIONS
        .map(|(family, version)| (family, address(family, 2, 1), format!("client at home, {version}")));
    let loopback = (Family::V4, IpAddr::V4(Ipv4Addr::LOCALHOST), "127.0.0.1".to_owned());
    own.into_iter().chain([loopback]).map(move |(family, at, place)| {
        trial(format!("listen: {name} ({place})"), move || {
            let arrange = |lab: &mut Lab| {
                lab.move_client();
                lab.dial = Some(at);
            };
            compare_in(Way::Listen, arrange, |lab| row(lab, family));
        })
    })
}

/// A lab without halfopen, in which one could listen.
fn untouched() -> Lab {
    let mut lab = Lab::unconnected(Way::Listen);
    crate::lab::cable(&lab.client, "c0", &lab.gateway, "cli0");
    crate::lab::cable(&lab.server, "s0", &lab.gateway, "srv0");
    lab.configure();
    lab.dial = None;
    // Cables that have just been plugged in lose packets for a moment.
    for family in Family::ALL {
        for (from, to) in [(&lab.client, address(family, 1, 1)), (&lab.gateway, lab.server_at(family).ip())] {
            let closed = SocketAddr::new(to, 1);
            let refused = from.run(|| TcpStream::connect_timeout(&closed, PATIENCE));
            assert_eq!(outcome(&refused), "ECONNREFUSED", "the hosts are connected");
        }
    }
    lab
}

/// Starts halfopen with these listeners instead of the usual ones.
fn listening(lab: &mut Lab, listeners: &[&str]) {
    let listeners = listeners.iter().flat_map(|listener| ["--listen", listener]);
    let args: Vec<&str> = RUN.iter().copied().chain(listeners).chain(["--json", "--grace", "0"]).collect();
    lab.halfopen = Some(Halfopen::start(&lab.gateway, &args));
}

const RUN: &[&str] = &["run", "--mode", "listen"];

fn refused(lab: &Lab, family: Family) {
    assert_eq!(outcome(&lab.connect(lab.server_at(family))), "ECONNREFUSED");
}

fn stopped() {
    let mut lab = untouched();
    let before = state(&lab.gateway);
    lab.start(&["--json"]);
    let listener = lab.listen(Family::V4);
    let (mut client, mut server) = lab.pair_by(&listener);
    assert!(carried(&lab.gateway) > 2, "it takes the way through the device");
    let pid = lab.halfopen.as_ref().expect("it runs").pid();
    kill(pid, Signal::SIGTERM).expect("our child");
    // The signal takes a moment to arrive.
    let deadline = Instant::now() + PATIENCE;
    while lab.connect(lab.server_at(Family::V4)).is_ok() {
        assert!(Instant::now() < deadline, "it still takes connections");
    }
    refused(&lab, Family::V4);
    word(&mut client, &mut server);
    word(&mut server, &mut client);
    drop(client);
    assert_eq!(drain(&mut server).1, "EOF");
    // With it go the connections that came before the signal.
    drop((server, listener));
    let halfopen = lab.halfopen.as_mut().expect("it runs");
    assert_eq!(halfopen.end_by(Signal::SIGCONT).code(), Some(0), "it ends by itself");
    assert_eq!(state(&lab.gateway), before);
    Family::ALL.into_iter().for_each(|family| refused(&lab, family));
}

fn killed() {
    let mut lab = Lab::new(Way::Listen);
    let listeners = Family::ALL.map(|family| lab.listen(family));
    let (mut client, _server) = lab.pair_by(&listeners[0]);
    lab.halfopen.as_mut().expect("it runs").end_by(Signal::SIGKILL);
    Family::ALL.into_iter().for_each(|family| refused(&lab, family));
    assert_eq!(carried(&lab.gateway), 0, "the device is gone");
    std::io::Write::write_all(&mut client, b"anybody?").expect("it goes into the socket");
    assert_eq!(drain(&mut client).1, "ECONNRESET", "an open connection ends");
    assert!(!state(&lab.gateway).rules.is_empty(), "the rules stay");
    lab.start(&[]);
    listeners.iter().for_each(|listener| talk(&lab, listener));
    let status = lab.halfopen.as_mut().expect("it runs").end_by(Signal::SIGTERM);
    assert_eq!(status.code(), Some(0));
    let end = state(&lab.gateway);
    assert!(end.rules.is_empty() && end.routes.is_empty(), "{end:?}");
}

fn bad_input() {
    let lab = untouched();
    let _taken = lab.gateway.run(|| TcpListener::bind("127.0.0.1:5433").expect("a free port"));
    let bad = |listeners: &[&str], code, says: &[&str]| {
        let listeners = listeners.iter().flat_map(|listener| ["--listen", listener]);
        let args: Vec<&str> = RUN.iter().copied().chain(listeners).collect();
        fails(&lab.gateway, &mut command(&lab.gateway, &args), code, says);
    };
    let taken = ["cannot listen at 0.0.0.0:5433: Address", "stop who listens there"];
    bad(&["0.0.0.0:5433=10.81.2.2:5432"], 69, &taken);
    bad(&["10.9.9.9:5432=db:5432"], 78, &["cannot listen at 10.9.9.9:5432", "an address of this host"]);
    bad(&["[::1]:5432=db:5432"], 78, &["cannot listen at [::1]:5432", "127.0.0.1 instead of ::1"]);
    bad(&["0.0.0.0:80=db:80", "127.0.0.1:80=db:80"], 69, &["cannot listen at 127.0.0.1:80: Address"]);
    bad(&[], 78, &["listener = []: is empty", "--listen 0.0.0.0:5432=db:5432"]);
}

fn second_instance() {
    let lab = Lab::new(Way::Listen);
    let pid = lab.halfopen.as_ref().expect("it runs").pid();
    let args = [RUN, &["--listen", "0.0.0.0:80=10.81.2.2:80"]].concat();
    let says = ["already intercepts", &format!("(process {pid})"), "add the ports"];
    fails(&lab.gateway, &mut command(&lab.gateway, &args), 69, &says);
    talk(&lab, &lab.listen(Family::V4));
}

const USUAL: &[&str] = &["run", "--mode", "listen", "--listen", "0.0.0.0:5432=10.81.2.2:5432"];

fn no_rights() {
    let lab = untouched();
    let mut command = without(command(&lab.gateway, USUAL), [CAP_NET_ADMIN].into_iter());
    fails(&lab.gateway, &mut command, 77, &["`cap_add: [NET_ADMIN]`"]);
}

fn no_tun() {
    let lab = untouched();
    let hide = || mount(Some("none"), "/dev/net", Some("tmpfs"), MsFlags::empty(), NONE);
    let mut command = with_mounts(command(&lab.gateway, USUAL), hide);
    fails(&lab.gateway, &mut command, 69, &["cannot open /dev/net/tun", "`devices: [\"/dev/net/tun\"]`"]);
}

fn no_ipv6() {
    let lab = untouched();
    lab.gateway.sysctl("net/ipv6/conf/all/forwarding", "0");
    let args = [RUN, &["--listen", "[::]:5432=10.81.2.2:5432"]].concat();
    let says = ["cannot listen at [::]:5432", "add `sysctls: {net.ipv6.conf.all.forwarding: 1}`"];
    fails(&lab.gateway, &mut command(&lab.gateway, &args), 69, &says);
}

fn dry_run() {
    let lab = untouched();
    let before = state(&lab.gateway);
    let output =
        command(&lab.gateway, &[USUAL, &["--dry-run"]].concat()).output().expect("built with the test");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for line in [
        "ip -4 route replace 10.81.1.1/32 dev halfopen0 table 10401 protocol 104 src 10.81.1.1",
        "ip -4 rule add pref 16 ipproto tcp dport 5432 lookup 10401 protocol 104",
    ] {
        assert!(said.contains(line), "{said}");
    }
    assert_eq!(state(&lab.gateway), before);
}

fn reverse_path_filter() {
    for strictness in ["1", "2"] {
        let mut lab = untouched();
        for key in ["all", "default", "cli0", "srv0"] {
            lab.gateway.sysctl(&format!("net/ipv4/conf/{key}/rp_filter"), strictness);
        }
        lab.start(&["--json"]);
        talk(&lab, &lab.listen(Family::V4));
        lab.move_client();
        for at in [address(Family::V4, 1, 1), Ipv4Addr::LOCALHOST.into()] {
            lab.dial = Some(at);
            talk(&lab, &lab.listen(Family::V4));
        }
        assert_eq!(lab.halfopen.take().expect("it runs").finish()["flows"], 3, "{strictness}");
    }
}

/// A connection of the host itself to the same port elsewhere, a listener of its own, and what is for others.
fn others() {
    let mut lab = Lab::new(Way::Listen);
    let device = Sniffer::start(&lab.gateway, "halfopen0");
    lab.way = Way::Direct;
    for family in Family::ALL {
        let at = SocketAddr::new(address(family, 1, 1), PORT + 1);
        let own = lab.gateway.run(|| crate::lab::listen(at).expect("a free port"));
        talk(&lab, &own);
    }
    let through = lab.client.run(|| {
        let to = crate::lab::server_at(Family::V4);
        TcpStream::connect_timeout(&to, Duration::from_millis(700))
    });
    assert_eq!(outcome(&through), "TimedOut", "the host is no router");
    lab.move_client();
    Family::ALL.into_iter().for_each(|family| talk(&lab, &lab.listen(family)));
    let seen = device.stop();
    assert!(seen.is_empty(), "the device has nothing to do with it: {seen:?}");
}

fn one_address() {
    let mut lab = untouched();
    let upstream = lab.server_at(Family::V4);
    listening(&mut lab, &[&format!("127.0.0.1:{PORT}={upstream}"), &format!("10.81.2.1:80={upstream}")]);
    let listener = lab.listen(Family::V4);
    refused(&lab, Family::V4);
    lab.move_client();
    refused(&lab, Family::V4);
    lab.dial = Some(Ipv4Addr::LOCALHOST.into());
    talk(&lab, &listener);
    assert_eq!(outcome(&lab.connect("127.0.0.1:80".parse().expect("an address"))), "ECONNREFUSED");
    assert_eq!(lab.halfopen.take().expect("it runs").finish()["flows"], 1);
}

const HOSTS: [&str; 2] =
    [concat!(env!("CARGO_TARGET_TMPDIR"), "/hosts.1"), concat!(env!("CARGO_TARGET_TMPDIR"), "/hosts.2")];

/// A name with three addresses, two of which refuse, in both orders.
fn several_addresses() {
    let mounts: [fn() -> nix::Result<()>; 2] = [
        || mount(Some(HOSTS[0]), "/etc/hosts", NONE, MsFlags::MS_BIND, NONE),
        || mount(Some(HOSTS[1]), "/etc/hosts", NONE, MsFlags::MS_BIND, NONE),
    ];
    for ((file, change), lines) in
        HOSTS.into_iter().zip(mounts).zip([["2.2", "2.9", "1.2"], ["1.2", "2.9", "2.2"]])
    {
        fs::write(file, lines.map(|host| format!("10.81.{host} db.test\n")).concat()).expect("a test's file");
        let mut lab = untouched();
        // Another address of the server, at which nobody listens.
        lab.server.run(|| {
            let mut netlink = halfopen::setup::netlink::Netlink::open().expect("netlink");
            let index = netlink.link("s0").expect("the device").index;
            netlink.add_address(index, address(Family::V4, 2, 9), 24).expect("an address");
        });
        let args = [RUN, &["--listen", "0.0.0.0:5432=db.test:5432", "--json"]].concat();
        let command = with_mounts(command(&lab.gateway, &args), change);
        lab.halfopen = Some(Halfopen::start_command(command));
        let listener = lab.listen(Family::V4);
        talk(&lab, &listener);
        drop(listener);
        refused(&lab, Family::V4);
        assert_eq!(lab.halfopen.take().expect("it runs").finish()["flows"], 2);
    }
}

fn no_such_name() {
    let mut lab = untouched();
    // Longer than a label of a name may be: no server has to be asked.
    let name = "x".repeat(64);
    listening(&mut lab, &[&format!("0.0.0.0:{PORT}={name}:5432")]);
    refused(&lab, Family::V4);
    let halfopen = lab.halfopen.take().expect("it runs");
    let deadline = Instant::now() + PATIENCE;
    while !(halfopen.said().contains("not found now") && halfopen.said().contains("its clients are refused"))
    {
        assert!(Instant::now() < deadline, "{}", halfopen.said());
        thread::sleep(Duration::from_millis(10));
    }
    let summary = halfopen.finish();
    assert_eq!(summary["outcomes"]["refused-rst"], 1, "{summary}");
}

fn unreachable() {
    let mut lab = untouched();
    lab.server.forward(&["s0"]);
    for (host, kind) in [(1, RouteKind::Unreachable), (2, RouteKind::Prohibit)] {
        lab.server.route(Family::V4, Some((4, host)), None, kind);
    }
    listening(
        &mut lab,
        &["0.0.0.0:5432=10.81.4.1:5432", "0.0.0.0:5433=10.81.4.2:5432", "0.0.0.0:5434=10.81.3.7:5432"],
    );
    let connect = |port| outcome(&lab.connect(SocketAddr::new(address(Family::V4, 1, 1), port)));
    assert_eq!((connect(5432), connect(5433)), ("EHOSTUNREACH".to_owned(), "EHOSTUNREACH".to_owned()));
    let silent = lab.client.run(|| {
        let to = SocketAddr::new(address(Family::V4, 1, 1), 5434);
        TcpStream::connect_timeout(&to, Duration::from_millis(1_500))
    });
    assert_eq!(outcome(&silent), "TimedOut", "silence stays silence");
}

fn crossed() {
    let mut lab = untouched();
    let [v4, v6] = Family::ALL.map(|family| lab.server_at(family));
    listening(&mut lab, &[&format!("0.0.0.0:{PORT}={v6}"), &format!("[::]:{PORT}={v4}")]);
    for (from, to) in [(Family::V4, Family::V6), (Family::V6, Family::V4)] {
        let listener = lab.listen(to);
        let mut client = lab.connect(lab.server_at(from)).expect("the upstream listens");
        let (mut server, _) = accept(&listener).expect("it has connected");
        word(&mut client, &mut server);
        word(&mut server, &mut client);
        drop((client, listener));
        assert_eq!(drain(&mut server).1, "EOF");
        refused(&lab, from);
    }
}

/// How much later than it could a thing may happen on a loaded machine.
const SLACK: Duration = Duration::from_millis(600);

/// A listener with this fault, the server behind it, and a connection with the time that it took.
fn faulty(family: Family, fault: &str) -> (Lab, Events, Listener, TcpStream, Duration) {
    let events = Events::new();
    let options = ["--seed", "42", "--grace", "0", "--events", events.path(), "--fault", fault];
    let lab = Lab::with(Way::Listen, &options);
    let listener = lab.listen(family);
    let start = Instant::now();
    let client = lab.connect(lab.server_at(family)).expect("the server listens");
    (lab, events, listener, client, start.elapsed())
}

#[track_caller]
fn took(time: Duration, expected: Duration) {
    assert!(time >= expected && time < expected + SLACK, "connect took {time:?} instead of {expected:?}");
}

fn syn_drop() {
    for (family, drops, expected) in [(Family::V4, 1, 1), (Family::V6, 2, 2)] {
        let (_lab, events, listener, _client, time) = faulty(family, &format!("syn-drop first={drops}"));
        took(time, Duration::from_secs(expected));
        let log = events.wait("fault that fired", |log| log.fired().len() >= drops);
        assert_eq!(log.fired(), vec!["syn-drop client upstream drop S"; drops]);
        accept(&listener).expect("it has connected");
        assert!(!wait(listener.as_fd(), PollFlags::POLLIN, Duration::from_millis(300)), "one connection");
    }
}

fn syn_ack_delay() {
    let (_lab, events, _listener, _client, time) = faulty(Family::V4, "syn-ack-delay delay=300ms");
    took(time, Duration::from_millis(300));
    let log = events.wait("fault that fired", |log| !log.fired().is_empty());
    assert_eq!(log.fired(), ["syn-ack-delay client downstream hold S."]);
}

fn fin_drop() {
    for direction in ["downstream", "upstream"] {
        let (_lab, events, listener, client, _) =
            faulty(Family::V4, &format!("fin-drop direction={direction} first=all"));
        let (server, _) = accept(&listener).expect("it has connected");
        let (closer, other) = if direction == "upstream" { (client, server) } else { (server, client) };
        closer.shutdown(Shutdown::Write).expect("an open connection");
        events.wait("fault that fired", |log| !log.fired().is_empty());
        let ended = wait(other.as_fd(), PollFlags::POLLIN, Duration::from_millis(1_500));
        assert!(!ended, "{direction}: the other side hears of it");
    }
}
