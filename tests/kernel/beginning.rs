//! What is there while a sidecar with kernel sockets starts: its own sockets know only what comes after.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use halfopen::setup::netlink::Family;

use crate::Single;
use crate::lab::Way;
use crate::lab::process::Halfopen;
use crate::setup::talk;
use crate::tproxy::{host, run, say, untouched};

pub(crate) const SINGLES: &[Single] = &[
    ("connections that come up while a sidecar starts go on", busy),
    ("no connection gets the port of one from before", ports_of_survivors),
    ("no leg to a service gets the port of a client", ports_of_clients),
];

fn busy() {
    thread::scope(|scope| {
        for way in [Way::SidecarSockets, Way::InboundSockets] {
            scope.spawn(move || start_in_traffic(way));
        }
    });
}

/// One connection after the other, so that there is always one that moves.
fn start_in_traffic(way: Way) {
    let (lab, is_over) = (untouched(way), AtomicBool::new(false));
    let listener = lab.listen(Family::V4);
    let (host, args) = (host(&lab, way).again(), [&run(way)[..], &["--json"]].concat());
    thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let mut pairs = [lab.pair_by(&listener)];
                (0..20).for_each(|_| say(&mut pairs));
            }
        });
        thread::sleep(Duration::from_millis(20));
        let halfopen = Halfopen::start(&host, &args);
        is_over.store(true, Ordering::Relaxed);
        traffic.join().expect("no connection fails");
        talk(&lab, &listener);
        assert_ne!(halfopen.finish()["flows"], 0, "{way:?}");
    });
}

/// The answers of a service on a connection from before pass, and would pass on a new one between the same ports.
fn ports_of_survivors() {
    const RANGE: &str = "net/ipv4/ip_local_port_range";
    let mut lab = untouched(Way::InboundSockets);
    let listener = lab.listen(Family::V4);
    lab.client.sysctl(RANGE, "40000 40007");
    lab.server.sysctl(RANGE, "40000 40015");
    let direct = |_| {
        let client = lab.connect(listener.local_addr().expect("it is bound")).expect("it listens");
        (client, listener.accept().expect("a client").0)
    };
    let mut pairs: Vec<_> = (0..8).map(direct).collect();
    lab.client.sysctl(RANGE, "45000 45099");
    lab.start(&["--json"]);
    pairs.extend((0..8).map(|_| lab.pair_by(&listener)));
    say(&mut pairs);
}

/// A leg between the same ports would meet the socket of that client on this host, instead of the service.
fn ports_of_clients() {
    const RANGE: &str = "net/ipv4/ip_local_port_range";
    let mut lab = untouched(Way::InboundSockets);
    lab.client.sysctl(RANGE, "40000 40007");
    lab.server.sysctl(RANGE, "40000 40007");
    lab.start(&["--json"]);
    let listener = lab.listen(Family::V4);
    // Of these ports every second one, as a Linux takes them.
    let mut pairs: Vec<_> = (0..4).map(|_| lab.pair_by(&listener)).collect();
    say(&mut pairs);
}
