//! Kernel sockets with the addresses of others (TPROXY), in a gateway and in a sidecar: the rows that do not depend on who
//! answers a SYN, the faults, and what is left of it.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use halfopen::fault::{Engine, KINDS};
use halfopen::setup::netlink::{Family, RouteKind};
use libtest_mimic::Trial;
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use socket2::SockRef;
use socket2::{Domain, Socket, Type};

use crate::lab::events::Events;
use crate::lab::ns::Ns;
use crate::lab::process::{Halfopen, command, output};
use crate::lab::{
    Lab, PATIENCE, PORT, Way, accept, address, chosen, client_ip, compare, compare_in, drain, errno, listen,
    outcome, reset, server_at,
};
use crate::setup::{NONE, fails, state, talk, with_mounts};
use crate::sidecar::{CAP_NET_ADMIN, without, word};
use crate::{Row, Single, VERSIONS, beginning, close, faults, stream, transparent, trial};

const SINGLES: &[Single] = &[
    ("a connection that is cut off hears nobody, and nobody hears it", cut_off),
    ("who dials the listener itself is reset", the_door_itself),
    ("connections that were there before go on, through a start and a stop", survivors),
    ("what is for the gateway itself, or passes a sidecar's host, is left alone", others),
    ("a port that is taken may be that of a client, too", shared_ports),
    ("a server may listen again while connections of its port live", listens_again),
    ("what was set up is undone at the end, and what was there before stays", stopped),
    ("a gateway that stops lets new connections pass", stopping),
    ("after a kill new connections are direct within a second, and a restart intercepts again", killed),
    ("reverse path filtering does not stop intercepted packets", reverse_path_filter),
    ("who looks up ways back by marks is told why not, and what to do", marks_lead_back),
    ("CAP_NET_ADMIN alone, no device and a read-only /proc/sys are enough for a sidecar", few_rights),
    ("a missing right is told, and nothing is changed", no_rights),
    ("a second instance is refused", second_instance),
    ("a dry run prints the commands and changes nothing", dry_run),
    ("many connections at once are carried", many),
    ("many ports are taken", many_ports),
];

pub(crate) const PLACES: [(&str, Way); 3] =
    [("gateway", Way::GatewaySockets), ("sidecar", Way::SidecarSockets), ("inbound", Way::InboundSockets)];

const DOORS: [&str; 2] = ["127.0.0.1:10400", "[::1]:10400"];

/// Rows of a gateway that do not ask for the headers of the peers, or for the mood of the server.
const IN_A_GATEWAY: &[&str] = &[
    "a client port that the server has closed may connect again at once",
    "a tiny receive buffer gets all bytes",
    "TCP Fast Open loses no byte",
    "Multipath TCP falls back, or works",
];

/// Rows of the stream that say something new about the way through a sidecar.
const STREAM: &[&str] = &[
    "a slow reader stops the writer, and loses nothing",
    "the urgent mark stays between the same bytes",
    "both directions at full speed carry equal bytes",
];

/// Rows with a server on the client's own host.
const AT_HOME: &[&str] = &[
    "a client that has finished still gets the answer",
    "a reset by the client is a reset for the server, and then a broken pipe",
    "a reset by the server is a reset for the client, and then a broken pipe",
    "a server that speaks first is heard",
    "both directions at full speed carry equal bytes",
];

pub(crate) fn trials() -> Vec<Trial> {
    let single = |(name, test): &Single| trial(format!("tproxy: {name}"), *test);
    let mut trials: Vec<Trial> = SINGLES.iter().chain(beginning::SINGLES).map(single).collect();
    for (place, way) in PLACES {
        for (name, row) in rows(way) {
            trials.extend(VERSIONS.map(|(family, version)| {
                let test = move || compare(way, |lab| row(lab, family));
                trial(format!("tproxy: {place}: {name} ({version})"), test)
            }));
        }
        let proofs = faults::PROOFS.iter().copied().flatten();
        trials.extend(proofs.filter(|proof| is_shown(way, proof.fault)).map(|proof| {
            let name = format!("tproxy: {place}: {} ({}): {}", proof.fault, proof.entry, proof.expected);
            trial(name, move || faults::seated(way, proof.run))
        }));
    }
    let every = close::ROWS.iter().chain(stream::ROWS).copied();
    trials.extend(every.filter(|(name, _)| AT_HOME.contains(name)).flat_map(at_home));
    trials
}

/// The faults that kernel sockets can do; in a sidecar one of them, because it is the same code.
fn is_shown(way: Way, fault: &str) -> bool {
    // What the kernel has taken already, and what it makes of writes: these proofs ask for the figures of our own TCP.
    #[rustfmt::skip]
    const OF_OUR_TCP: [&str; 12] = [
        "bandwidth", "slicer", "syn-drop", "syn-ack-drop", "syn-ack-delay", "refuse", "ecn-blackhole", "mss-rewrite",
        "tiny-window", "zero-window-stall", "idle-timeout", "blackhole",
    ];
    let can = KINDS.iter().any(|kind| kind.name == fault && kind.engines.contains(&Engine::Sockets));
    can && !OF_OUR_TCP.contains(&fault) && (way == Way::GatewaySockets || fault == "rst-inject")
}

fn rows(way: Way) -> Vec<Row> {
    let more = match way {
        Way::GatewaySockets => {
            [stream::of_kernel_sockets(), chosen(transparent::ROWS, IN_A_GATEWAY)].concat()
        }
        _ => chosen(stream::ROWS, STREAM),
    };
    [close::ROWS, &more].concat()
}

/// The row with a server on the client's own host.
fn at_home((name, row): Row) -> impl Iterator<Item = Trial> {
    homes().into_iter().map(move |(family, at, place)| {
        trial(format!("tproxy: sidecar: {name} ({place})"), move || {
            compare_in(Way::SidecarSockets, |lab| lab.bring_home(at), |lab| row(lab, family));
        })
    })
}

/// The addresses of the client's own host.
fn homes() -> [(Family, IpAddr, &'static str); 4] {
    [
        (Family::V4, client_ip(Family::V4), "own address, IPv4"),
        (Family::V6, client_ip(Family::V6), "own address, IPv6"),
        (Family::V4, Ipv4Addr::LOCALHOST.into(), "127.0.0.1"),
        (Family::V6, Ipv6Addr::LOCALHOST.into(), "::1"),
    ]
}

/// Where halfopen runs.
pub(crate) fn host(lab: &Lab, way: Way) -> &Ns {
    match way {
        Way::GatewaySockets => &lab.gateway,
        Way::SidecarSockets => &lab.client,
        _ => &lab.server,
    }
}

/// The options of `halfopen run` in each place, without its engine.
pub(crate) fn run(way: Way) -> Vec<&'static str> {
    let mode: &[&str] = match way {
        Way::GatewaySockets => &["run", "--mode", "gateway", "--ports", "5432"],
        Way::SidecarSockets => &["run", "--mode", "sidecar", "--ports", "5432"],
        _ => &["run", "--mode", "sidecar", "--inbound-ports", "5432"],
    };
    [mode, &["--engine", "sockets"]].concat()
}

/// A lab in which halfopen could start; a gateway forwards already.
pub(crate) fn untouched(way: Way) -> Lab {
    let mut lab = Lab::new(Way::Direct);
    lab.way = way;
    lab
}

fn cut_off() {
    for (_, way) in PLACES {
        let rules = ["idle-timeout idle=300ms", "blackhole after_bytes=4"];
        for rule in rules.into_iter().take(if way == Way::GatewaySockets { 2 } else { 1 }) {
            let mut lab = untouched(way);
            let events = Events::new();
            lab.start(&["--fault", rule, "--events", events.path(), "--grace", "0"]);
            let (mut client, mut server) = lab.pair(Family::V4);
            word(&mut client, &mut server);
            events.wait("cut", |log| log.0.iter().any(|e| e.text("event") == "fired"));
            // It is told a moment before it is done, and a busy machine may make that longer.
            thread::sleep(Duration::from_millis(500));
            let sockets = [&client, &server].map(|socket| {
                let socket = SockRef::from(socket);
                socket.set_tcp_user_timeout(Some(Duration::from_secs(1))).expect("a live socket");
                socket.try_clone().expect("a live socket")
            });
            client.write_all(b"anybody?").expect("it is not told");
            server.write_all(b"anybody?").expect("it is not told");
            for (mut socket, who) in sockets.into_iter().zip(["client", "server"]) {
                let seen = socket.read(&mut [0]).map_err(|e| errno(&e));
                assert_eq!(seen, Err("ETIMEDOUT".to_owned()), "{way:?} {rule}: the {who}\n{}", events.read());
            }
        }
    }
}

fn the_door_itself() {
    for (_, way) in PLACES {
        let mut lab = untouched(way);
        lab.start(&["--json"]);
        let host = host(&lab, way).again();
        for door in DOORS {
            let door: SocketAddr = door.parse().expect("an address");
            let seen = match host.run(|| TcpStream::connect(door)) {
                Err(e) => errno(&e),
                Ok(mut client) => drain(&mut client).1,
            };
            assert_eq!(seen, "ECONNRESET", "{way:?}");
        }
        assert_eq!(lab.halfopen.take().expect("it runs").finish()["flows"], 0, "{way:?}");
    }
}

fn survivors() {
    for (_, way) in PLACES {
        let mut lab = untouched(Way::Direct);
        let listeners = Family::ALL.map(|family| lab.listen(family));
        let mut pairs: Vec<_> = listeners.iter().map(|listener| lab.pair_by(listener)).collect();
        lab.way = way;
        lab.start(&["--json"]);
        say(&mut pairs);
        pairs.extend(listeners.iter().map(|listener| lab.pair_by(listener)));
        say(&mut pairs);
        // The intercepted ones end within the grace; those from before do not notice.
        for (client, mut server) in pairs.split_off(2) {
            drop(client);
            assert_eq!(drain(&mut server).1, "EOF");
        }
        assert_eq!(lab.halfopen.take().expect("it runs").finish()["flows"], 2, "{way:?}");
        say(&mut pairs);
        for (client, mut server) in pairs {
            drop(client);
            assert_eq!(drain(&mut server).1, "EOF");
        }
    }
}

pub(crate) fn say(pairs: &mut [(TcpStream, TcpStream)]) {
    for (client, server) in pairs {
        word(client, server);
        word(server, client);
    }
}

fn others() {
    let mut lab = Lab::with(Way::GatewaySockets, &["--json"]);
    let server = std::mem::replace(&mut lab.server, lab.gateway.again());
    for family in Family::ALL {
        lab.at = Some(address(family, 1, 1));
        talk(&lab, &lab.listen(family));
    }
    (lab.server, lab.at) = (server, None);
    assert_eq!(lab.halfopen.take().expect("it runs").finish()["flows"], 0);

    let mut lab = untouched(Way::InboundSockets);
    lab.server.forward(&["s0"]);
    lab.server.route(Family::V4, Some((3, 9)), None, RouteKind::Unreachable);
    lab.start(&["--json"]);
    let refused = lab.connect(SocketAddr::new(address(Family::V4, 3, 9), PORT));
    assert_eq!(outcome(&refused), "EHOSTUNREACH", "the server's host is its router");
    assert_eq!(lab.halfopen.take().expect("it runs").finish()["flows"], 0);
}

/// The host behind the sidecar dials from an inbound port, and another host does from a server port.
fn shared_ports() {
    const OTHER: u16 = 80;
    for way in [Way::InboundSockets, Way::SidecarSockets] {
        let mut lab = untouched(way);
        host(&lab, way).sysctl("net/ipv4/ip_local_port_range", "5400 5499");
        lab.start(&["--json"]);
        for family in Family::ALL {
            let service = SocketAddr::new(client_ip(family), OTHER);
            let listener = lab.client.run(|| listen(service)).expect("nobody listens there");
            let socket = lab.server.run(|| Socket::new(Domain::for_address(service), Type::STREAM, None));
            let socket = socket.expect("a socket");
            socket.set_reuse_address(true).expect("an option of TCP sockets");
            socket.bind(&server_at(family).into()).expect("nobody has the port");
            socket.connect_timeout(&service.into(), PATIENCE).expect("it listens");
            let (accepted, _) = accept(&listener).expect("it is connected");
            let mut pair = [(TcpStream::from(socket), accepted)];
            say(&mut pair);
            // It is over when the other one may have its port.
            let [(dialled, accepted)] = pair;
            reset(dialled);
            drop(accepted);
            talk(&lab, &lab.listen(family));
        }
        assert_eq!(lab.halfopen.take().expect("it runs").finish()["flows"], 2, "{way:?}");
    }
}

/// As a service does that is started again.
fn listens_again() {
    for (_, way) in PLACES {
        let lab = Lab::new(way);
        for family in Family::ALL {
            let mut pairs = vec![lab.pair(family)];
            pairs.push(lab.pair(family));
            say(&mut pairs);
        }
    }
}

fn stopped() {
    for (_, way) in PLACES {
        let mut lab = untouched(way);
        let before = state(host(&lab, way));
        lab.start(&[]);
        Family::ALL.into_iter().for_each(|family| talk(&lab, &lab.listen(family)));
        assert_ne!(state(host(&lab, way)), before, "{way:?}");
        let status = lab.halfopen.as_mut().expect("it runs").end_by(Signal::SIGTERM);
        assert_eq!(status.code(), Some(0), "{way:?}");
        assert_eq!(state(host(&lab, way)), before, "{way:?}");
        lab.way = Way::Direct;
        Family::ALL.into_iter().for_each(|family| talk(&lab, &lab.listen(family)));
    }
}

fn stopping() {
    let mut lab = Lab::with(Way::GatewaySockets, &["--json"]);
    let listener = lab.listen(Family::V4);
    let (client, mut server) = lab.pair_by(&listener);
    let mut halfopen = lab.halfopen.take().expect("it runs");
    halfopen.signal(Signal::SIGTERM);
    let begin = Instant::now();
    while !halfopen.said().contains("stopping") {
        assert!(begin.elapsed() < PATIENCE, "it stops");
        thread::sleep(Duration::from_millis(5));
    }
    // It is told a moment before it is done; the shard answers behind that.
    assert!(output(&lab.gateway, &["flows"]).status.success());
    talk(&lab, &listener);
    assert!(halfopen.is_alive(), "a flow is open");
    drop(client);
    assert_eq!(drain(&mut server).1, "EOF");
    drop(server);
    assert!(halfopen.wait_for_end("the end of its last flow").success());
    assert_eq!(halfopen.summary()["flows"], 1);
}

fn killed() {
    for (_, way) in PLACES {
        let mut lab = untouched(way);
        lab.start(&[]);
        let listeners = Family::ALL.map(|family| lab.listen(family));
        let (mut client, _server) = lab.pair_by(&listeners[0]);
        // Until all buffers on the way are full: a kernel that has bytes which nobody will read says so by a RST. After a FIN alone a
        // gateway would lead the client's next segments to the server, which knows a connection of these addresses.
        stream::fill(&mut client, Duration::from_millis(200));
        lab.halfopen.as_mut().expect("it runs").end_by(Signal::SIGKILL);
        let start = Instant::now();
        lab.way = Way::Direct;
        listeners.iter().for_each(|listener| talk(&lab, listener));
        assert!(start.elapsed() < Duration::from_secs(1), "direct again after {:?}", start.elapsed());
        let end = client.read(&mut [0]).expect_err("nobody writes");
        assert_eq!(errno(&end), "ECONNRESET", "{way:?}: an intercepted connection ends");
        assert!(!state(host(&lab, way)).rules.is_empty(), "the rules stay");
        lab.way = way;
        lab.start(&["--json"]);
        listeners.iter().for_each(|listener| talk(&lab, listener));
        assert_eq!(lab.halfopen.take().expect("it runs").finish()["flows"], 2, "{way:?}: intercepted again");
        assert!(state(host(&lab, way)).rules.is_empty(), "{way:?}");
    }
}

fn reverse_path_filter() {
    for strictness in ["1", "2"] {
        for (_, way) in PLACES {
            let mut lab = untouched(way);
            for device in ["all", "default", "lo", "c0", "cli0", "srv0", "s0"] {
                let key = format!("net/ipv4/conf/{device}/rp_filter");
                if host(&lab, way).run(|| std::path::Path::new("/proc/sys").join(&key).exists()) {
                    host(&lab, way).sysctl(&key, strictness);
                }
            }
            lab.start(&["--json"]);
            talk(&lab, &lab.listen(Family::V4));
            let flows = lab.halfopen.take().expect("it runs").finish()["flows"].clone();
            assert_eq!(flows, 1, "{strictness} {way:?}");
        }
    }
}

/// As `wg-quick` leaves it; and on an interface that packets cross.
fn marks_lead_back() {
    for (_, way) in PLACES {
        let lab = untouched(way);
        let crossed = match way {
            Way::GatewaySockets => "srv0",
            Way::SidecarSockets => "c0",
            _ => "s0",
        };
        for name in ["all", crossed] {
            let key = format!("net/ipv4/conf/{name}/src_valid_mark");
            host(&lab, way).sysctl(&key, "1");
            let says = [&format!("net.ipv4.conf.{name}.src_valid_mark is on"), "--engine tun"];
            fails(host(&lab, way), &mut command(host(&lab, way), &run(way)), 69, &says);
            host(&lab, way).sysctl(&key, "0");
        }
    }
}

/// As in a container with `cap_drop: [ALL]`, `cap_add: [NET_ADMIN]`, `no-new-privileges`, and no device.
fn few_rights() {
    const LAST: libc::c_ulong = 40;
    let freeze = || {
        let bind = MsFlags::MS_BIND;
        mount(Some("none"), "/dev/net", Some("tmpfs"), MsFlags::empty(), NONE)?;
        mount(Some("/proc/sys"), "/proc/sys", NONE, bind, NONE)?;
        mount(NONE, "/proc/sys", NONE, bind | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, NONE)
    };
    let mut lab = untouched(Way::SidecarSockets);
    let command = with_mounts(command(&lab.client, &[&run(lab.way)[..], &["--json"]].concat()), freeze);
    let mut command = without(command, (0..=LAST).filter(|c| *c != CAP_NET_ADMIN));
    // SAFETY: one system call.
    unsafe {
        command.pre_exec(|| Ok(nix::sys::prctl::set_no_new_privs()?));
    }
    lab.halfopen = Some(Halfopen::start_command(command));
    Family::ALL.into_iter().for_each(|family| talk(&lab, &lab.listen(family)));
    for (family, at, _) in homes() {
        lab.bring_home(at);
        talk(&lab, &lab.listen(family));
    }
    assert_eq!(lab.halfopen.take().expect("it runs").finish()["flows"], 6);
}

fn no_rights() {
    for (_, way) in PLACES {
        let lab = untouched(way);
        let command = command(host(&lab, way), &run(way));
        let mut command: Command = without(command, [CAP_NET_ADMIN].into_iter());
        fails(host(&lab, way), &mut command, 77, &["Operation not permitted", "NET_ADMIN"]);
    }
}

fn second_instance() {
    for (_, way) in PLACES {
        let lab = Lab::new(way);
        let pid = lab.halfopen.as_ref().expect("it runs").pid();
        let says = ["already intercepts", &format!("(process {pid})")];
        fails(host(&lab, way), &mut command(host(&lab, way), &run(way)), 69, &says);
        talk(&lab, &lab.listen(Family::V4));
    }
}

fn dry_run() {
    for (_, way) in PLACES {
        let lab = untouched(way);
        let before = state(host(&lab, way));
        let output = command(host(&lab, way), &[&run(way)[..], &["--dry-run"]].concat()).output();
        let output = output.expect("built with the test");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for line in [
            "ip -6 route replace local default dev lo table 10400 protocol 104",
            "ip -6 rule add pref 10 fwmark 0x28a0 lookup 10400 protocol 104",
            "tproxy ip to 127.0.0.1:10400 meta mark set 0x000028a0 accept",
        ] {
            assert!(said.contains(line), "{way:?}: {said}");
        }
        assert_eq!(state(host(&lab, way)), before, "{way:?}");
    }
}

/// More connections than one turn of the loop accepts, all open at once.
fn many() {
    for (_, way) in PLACES {
        let lab = Lab::new(way);
        let listener = lab.listen(Family::V4);
        let mut pairs: Vec<_> = (0..300).map(|_| lab.pair_by(&listener)).collect();
        say(&mut pairs);
        let late = outcome(&lab.connect(server_at(Family::V4)).map(drop));
        assert_eq!(late, "ok", "{way:?}");
    }
}

/// Their table is larger than what a socket may send at once by default.
fn many_ports() {
    let odd: String = (1..1000).step_by(2).map(|port| format!(",{port}")).collect();
    for way in [Way::GatewaySockets, Way::SidecarSockets] {
        let mut lab = untouched(way);
        let ports = format!("{PORT}{odd}");
        let mut args = [&run(way)[..], &["--json"]].concat();
        args[4] = &ports;
        lab.halfopen = Some(Halfopen::start(host(&lab, way), &args));
        Family::ALL.into_iter().for_each(|family| talk(&lab, &lab.listen(family)));
        assert_eq!(lab.halfopen.take().expect("it runs").finish()["flows"], 2, "{way:?}");
    }
}
