//! A client that a kernel socket has accepted.

use super::*;
use crate::trace::Outcome::Killed;

/// What is so, what the SYN to the server offers or that it is dialled by a socket, the rules, the script, the outcome.
type Accepted = (&'static str, bool, &'static [&'static str], &'static str, Option<Outcome>);

const OPEN_ACCEPTED: &str = "
    k< dial 10.0.0.2:80
    k> connected
    a< join
    a< read 65536
    k< read 65536
";

/// Faults want to see the bytes.
fn open_accepted(rules: &[&str]) -> String {
    let open = OPEN_ACCEPTED.to_owned();
    if rules.is_empty() { open } else { open.replace("a< join", "") }
}

#[rustfmt::skip]
const ACCEPTED: &[Accepted] = &[
    ("bytes and ends cross between two sockets, each way by itself", false, &[], "
        open
        a> data 10
        k< write 10
        a> eof
        k< shutdown
        k> sent 10
        k> data 5
        a< write 5
        a> sent 5
        k> eof
        a< shutdown
        a< close
        k< close
    ", Some(Fine)),
    ("what crosses by itself is credit used, and what waits of it keeps the end waiting", false, &[], "
        open
        a> crossed 65536 0
        a< read 196608
        k> crossed 40000 1500
        k< read 115500
        k> eof
        a< shutdown
        a> data 10
        k< write 10
        a> eof
        k< shutdown
        k> sent 10
        k< close
        a> sent 1000
        a> sent 500
        a< close
    ", Some(Fine)),
    ("a peer that takes nothing of what crosses stops the other", false, &[], "
        open
        a> crossed 65536 65536
        k> sent 30000
        a< read 90000
    ", None),
    ("two sockets whose flow vanishes hear nobody, and are reset when it is forgotten", false, &[], "
        open
        kill vanish
        a< part
        a< silent
        k< part
        k< silent
        a> data 10
        k> eof
        +3h
        a< abort
        k< abort
    ", Some(Killed)),
    ("a server that refuses makes a RST of the connection that the client has already", false, &[], "
        k< dial 10.0.0.2:80
        k> refused
        a< abort
    ", Some(RefusedRst)),
    ("one that is silent, too", false, &[], "
        k< dial 10.0.0.2:80
        k> silence
        a< abort
    ", Some(Timeout)),
    ("a client that is gone before the server has answered ends the dial", false, &[], "
        k< dial 10.0.0.2:80
        a> reset
        k< abort
    ", Some(Reset)),
    ("a RST crosses", false, &[], "
        open
        k> reset
        a< abort
    ", Some(Reset)),
    ("a RST comes after the bytes before it", false, &[], "
        open
        k> data 10
        a< write 10
        k> reset
        a< flush
        a< abort
    ", Some(Reset)),
    ("bytes are shaped", false, &["latency latency=1s direction=upstream"], "
        open
        a> data 10
        +1s
        k< write 10
    ", None),
    ("a fault may reset both ends", false, &["rst-inject after_bytes=10"], "
        open
        a> data 10
        a< abort
        k< write 10
        k< abort
    ", Some(Reset)),
    ("our own TCP dials from the client's address, on a schedule of its own", true, &[], "
        s< S 0
        +1s
        s< S 0
        +1500ms
        s> S. 0 ack 1
        a< read 65536
        s< . 1 ack 1
        a> data 10
        s< P. 1:11 ack 1
        s> F. 1 ack 11
        a< shutdown
        s< . 11 ack 2
        a> eof
        a< close
        s< F. 11 ack 2
        s> . 2 ack 12
    ", Some(Fine)),
    ("its server's RST is one for the client", true, &[], "
        s< S 0
        s> R. 0 ack 1
        a< abort
    ", Some(RefusedRst)),
    ("its server's bytes meet faults", true, &["rst-inject direction=downstream after_bytes=1"], "
        s< S 0
        s> S. 0 ack 1
        a< read 65536
        s< . 1 ack 1
        s> P. 1:4 ack 1
        a< write 3
        a< abort
        s< R. 1 ack 4
    ", Some(Reset)),
];

/// `own`: the server leg is our own TCP.
fn script_of(own: bool, rules: &[&str]) -> Script {
    let engine = if own { Engine::Tun } else { Engine::PlainSockets };
    let offer = own.then(|| SynInfo::of(&segment("S 0", 0, None)).options);
    let mut s = Script::with(Transparent, engine, rules, |cx, settings, tuple, plan| {
        Flow::accepted(cx, settings, FlowId(1), tuple, offer, plan)
    });
    s.drain();
    s
}

#[test]
fn accepted() {
    for (sentence, own, rules, script, outcome) in ACCEPTED {
        println!("{sentence}");
        let mut s = script_of(*own, rules);
        s.run(&script.replace("open", &open_accepted(rules)));
        assert_eq!(s.outcome(), *outcome, "{sentence}");
    }
}

/// What no segment tells: when the first bytes have come from the client, and when they have gone to it.
#[test]
fn first_payloads_are_told_when_they_come_and_when_they_go() {
    for (own, script) in [
        (false, "open\n a> data 10\n k< write 10\n +1s\n k> data 5\n +1s\n a< write 5"),
        (
            true,
            "s< S 0\n s> S. 0 ack 1\n a< read 65536\n s< . 1 ack 1\n a> data 10\n s< P. 1:11 ack 1\n s> . 1 ack 11\n +1s
            s> P. 1:6 ack 11\n s< . 11 ack 6\n +1s\n a< write 5",
        ),
    ] {
        let rules = &["latency latency=1s direction=downstream"];
        let mut s = script_of(own, rules);
        let start = s.now;
        s.run(&script.replace("open", &open_accepted(rules)));
        let told: Vec<_> = s
            .log
            .iter()
            .filter_map(|record| match record.event {
                Event::FirstPayload { direction } => Some((direction, record.at.since(start).as_millis())),
                _ => None,
            })
            .collect();
        assert_eq!(told, [(Direction::Upstream, 0), (Direction::Downstream, 2000)], "own TCP: {own}");
    }
}

#[test]
fn what_crosses_by_itself_is_counted_and_told_like_any_bytes() {
    let mut s = script_of(false, &[]);
    s.run(
        &"open\n k> crossed 40000 100\n k< read 119700\n a> crossed 5 0\n a> sent 60"
            .replace("open", OPEN_ACCEPTED),
    );
    let info = s.flow.info(s.now);
    assert_eq!((info.upstream_bytes, info.downstream_bytes, info.waiting_bytes), (5, 39_960, 40));
    let progress = s.flow.progress();
    assert_eq!((progress.upstream_bytes, progress.downstream_bytes), (5, 40_000));
    let first = |record: &Record| match record.event {
        Event::FirstPayload { direction } => Some(direction),
        _ => None,
    };
    let told: Vec<_> = s.log.iter().filter_map(first).collect();
    assert_eq!(told, [Direction::Downstream, Direction::Upstream]);
}
