//! How connections begin, or do not.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use halfopen::setup::netlink::{Family, RouteKind};
use nix::poll::PollFlags;
use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::icmp::Refuser;
use crate::lab::sniff::{Seen as Segment, Sniffer};
use crate::lab::{Lab, PATIENCE, PORT, address, errno, outcome, silent_at, wait};
use crate::{Row, Seen};

pub(crate) const ROWS: &[Row] = &[
    ("a refused connection is refused to the client", refused),
    ("an ICMP error in answer to a SYN reaches the client with its meaning", icmp_errors),
    ("a router without a route tells the client", routers),
    ("a server that does not exist on the gateway's own network is unreachable", no_neighbour),
    ("a silent server sees the client's own SYNs, and the client sees nothing", silent),
    ("a client that gives up dialling is gone for the server too", gives_up),
    ("options of the SYN and SYN-ACK are those of the peers", syn_options),
];

fn refused(lab: &Lab, family: Family) -> Seen {
    vec![format!("connect: {}", outcome(&lab.connect(lab.server_at(family))))]
}

fn icmp_errors(lab: &Lab, family: Family) -> Seen {
    // Network, host, protocol, port unreachable, net prohibited, host prohibited, prohibited, TTL exceeded.
    const V4: &[(u8, u8)] = &[(3, 0), (3, 1), (3, 2), (3, 3), (3, 9), (3, 10), (3, 13), (11, 0)];
    // No route, prohibited, beyond scope, address, port unreachable, policy, reject route, hop limit exceeded.
    const V6: &[(u8, u8)] = &[(1, 0), (1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (1, 6), (3, 0)];
    let errors = if family == Family::V4 { V4 } else { V6 };
    let _refuser = Refuser::start(&lab.server, "s0", family, errors);
    let connect = |(host, (kind, code)): (usize, &(u8, u8))| {
        let to = SocketAddr::new(address(family, 3, host as u8 + 1), PORT);
        let socket =
            lab.client.run(|| Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)));
        // Each of these ends the dial of a Linux at once; a busy machine may need its time.
        let result = socket.expect("a socket").connect_timeout(&to.into(), Duration::from_millis(5000));
        format!("ICMP {kind}/{code}: {}", outcome(&result))
    };
    errors.iter().enumerate().map(connect).collect()
}

fn routers(lab: &Lab, family: Family) -> Seen {
    lab.server.forward(&["s0"]);
    let kinds = [RouteKind::Unreachable, RouteKind::Prohibit];
    let connect = |(host, kind): (usize, RouteKind)| {
        lab.server.route(family, Some((4, host as u8 + 1)), None, kind);
        let to = SocketAddr::new(address(family, 4, host as u8 + 1), PORT);
        format!("{kind:?} route: {}", outcome(&lab.connect(to)))
    };
    kinds.into_iter().enumerate().map(connect).collect()
}

fn no_neighbour(lab: &Lab, family: Family) -> Seen {
    let to = SocketAddr::new(address(family, 2, 99), PORT);
    let start = Instant::now();
    let result = lab.connect(to);
    // Linux asks for a neighbour three times, a second apart, before it says so.
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    vec![format!("connect: {}", outcome(&result))]
}

/// Dials without waiting for the end.
fn dial(lab: &Lab, to: SocketAddr) -> Socket {
    lab.client.run(|| {
        let socket =
            Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        socket.set_nonblocking(true).expect("an open socket");
        let begun = socket.connect(&to.into()).expect_err("it takes at least a moment");
        assert_eq!(errno(&begun), "EINPROGRESS");
        socket
    })
}

fn times(segments: &[Segment]) -> Vec<Duration> {
    segments.iter().map(|s| s.at).collect()
}

fn silent(lab: &Lab, family: Family) -> Seen {
    let to = silent_at(family);
    let (client, server) =
        (Sniffer::start(&lab.client, lab.client_device()), Sniffer::start(&lab.server, "s0"));
    let socket = dial(lab, to);
    let while_dialling = Duration::from_millis(3_600);
    let ended = wait(socket.as_fd(), PollFlags::POLLOUT, while_dialling);
    // A loaded machine may have gone on for a while.
    let seen =
        |sniffer: Sniffer| sniffer.stop().into_iter().filter(|s| s.at < while_dialling).collect::<Vec<_>>();
    let (client, server) = (seen(client), seen(server));
    let (sent, got): (Vec<_>, Vec<_>) = client.into_iter().partition(|s| s.to == to);
    assert!(sent.iter().chain(&server).all(|s| s.flags() == "S"), "only SYNs: {sent:?} {server:?}");
    // The server hears each SYN when the client says it: nobody repeats it on his own account.
    let off = times(&sent).into_iter().zip(times(&server)).map(|(a, b)| a.abs_diff(b)).max();
    assert!(off < Some(Duration::from_millis(200)), "{sent:?} {server:?}");
    vec![
        format!("client: {} SYNs, {} answers, connected or failed: {ended}", sent.len(), got.len()),
        format!("server: {} SYNs", server.len()),
    ]
}

fn gives_up(lab: &Lab, family: Family) -> Seen {
    let server = Sniffer::start(&lab.server, "s0");
    let socket = dial(lab, silent_at(family));
    let ended = wait(socket.as_fd(), PollFlags::POLLOUT, Duration::from_millis(1_500));
    drop(socket);
    // Two more SYNs would be due in this time.
    std::thread::sleep(Duration::from_millis(2_600));
    let flags: Vec<String> = server.stop().iter().map(Segment::flags).collect();
    vec![format!("client: connected or failed: {ended}"), format!("server: {flags:?}")]
}

/// Options without the numbers that differ from connection to connection.
fn options(segment: &Segment) -> String {
    let list: Vec<String> = segment
        .tcp
        .options_iterator()
        .map(|option| match option.expect("whole options") {
            etherparse::TcpOptionElement::Timestamp(..) => "Timestamp".to_owned(),
            other => format!("{other:?}"),
        })
        .collect();
    format!("{} {}", segment.flags(), list.join(" "))
}

fn syn_options(lab: &Lab, family: Family) -> Seen {
    let mut seen = Vec::new();
    for (timestamps, sack, scaling) in [("1", "1", "1"), ("0", "1", "1"), ("1", "0", "0"), ("0", "0", "0")] {
        for (key, value) in [("timestamps", timestamps), ("sack", sack), ("window_scaling", scaling)] {
            lab.server.sysctl(&format!("net/ipv4/tcp_{key}"), value);
        }
        let (client, server) =
            (Sniffer::start(&lab.client, lab.client_device()), Sniffer::start(&lab.server, "s0"));
        let (_client_end, _server_end) = lab.pair(family);
        let handshake = |seen: Vec<Segment>| seen.into_iter().filter(|s| s.tcp.syn).map(|s| options(&s));
        seen.extend(handshake(client.stop()).map(|o| format!("client's cable: {o}")));
        seen.extend(handshake(server.stop()).map(|o| format!("server's cable: {o}")));
    }
    assert_eq!(
        seen.len(),
        16,
        "one SYN and one SYN-ACK per cable and setting within {PATIENCE:?}: {seen:#?}"
    );
    seen
}
