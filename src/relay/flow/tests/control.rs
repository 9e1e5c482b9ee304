//! What is asked and done from outside.

use super::*;
use crate::relay::{NotKilled, RuleFired};
use crate::trace::Outcome::Killed;

#[rustfmt::skip]
const KILLS: &[Row] = &[
    ("a RST ends both sides at once", Transparent, &[], "
        open
        c> P. 1:11 ack 1
        c< . 1 ack 11
        s< P. 1:11 ack 1
        kill rst
        c< R. 1 ack 11
        s< R. 11 ack 1
    ", Some(Killed)),
    ("a RST of a flow whose server has not answered refuses the client, and the server hears that it is over", Transparent, &[], "
        c> S 0
        s< S 0
        kill rst
        s< R 1
        c< R. 0 ack 1
    ", Some(Killed)),
    ("a RST of a flow that a fault keeps from its server refuses the client", Transparent, &["syn-drop first=all"], "
        c> S 0
        kill rst
        c< R. 0 ack 1
    ", Some(Killed)),
    ("a RST comes out of a blackhole, which loses what comes in", Transparent, &["blackhole after=1s"], "
        open
        +2s
        kill rst
        c< R. 1 ack 1
        s< R. 1 ack 1
    ", Some(Killed)),
    ("a FIN comes after the bytes that wait, and the flow is over when both peers have finished", Transparent, &[], "
        open
        window 5
        c> P. 1:11 ack 1
        c< . 1 ack 11
        s< P. 1:11 ack 1
        kill fin
        c< F. 1 ack 11
        s< F. 11 ack 1
        s> . 1 ack 12
        c> . 11 ack 2
        s> P. 1:5 ack 12
        s< . 12 ack 5
        s> F. 5 ack 12
        s< . 12 ack 6
        c> F. 11 ack 2
        c< . 2 ack 12
    ", Some(Killed)),
    ("a FIN comes after the bytes that a fault holds back", Transparent, &["latency latency=100ms direction=upstream"], "
        open
        c> P. 1:11 ack 1
        c< . 1 ack 11
        kill fin
        c< F. 1 ack 11
        +100ms
        s< FP. 1:11 ack 1
    ", None),
    ("a flow that vanishes is silent, whatever its peers send, for three hours", Transparent, &[], "
        open
        c> P. 1:11 ack 1
        c< . 1 ack 11
        s< P. 1:11 ack 1
        kill vanish
        +1s
        c> P. 1:11 ack 1
        c> F. 11 ack 1
        s> P. 1:11 ack 1
        s> R. 1 ack 1
        +3h
    ", Some(Killed)),
    ("a flow that vanishes keeps nothing of its faults", Transparent, &["latency latency=1s direction=upstream", "idle-timeout idle=2s"], "
        open
        c> P. 1:11 ack 1
        c< . 1 ack 11
        kill vanish
        +1min
        c> P. 1:11 ack 1
    ", Some(Killed)),
    ("a flow that vanishes while it dials dials no more", Transparent, &[], "
        c> S 0
        s< S 0
        kill vanish
        c> S 0
        s> S. 0 ack 1
    ", Some(Killed)),
    ("where the server is a socket, a RST resets it", Socket, &[], "
        open
        kill rst
        c< R. 1 ack 1
        k< abort
    ", Some(Killed)),
    ("where the server is a socket, a FIN shuts it down", Socket, &[], "
        open
        kill fin
        c< F. 1 ack 1
        k< shutdown
        k> eof
        k< close
        c> F. 1 ack 2
        c< . 2 ack 2
    ", Some(Killed)),
    ("where the server is a socket, one that vanishes hears nobody and is reset when it is forgotten", Socket, &[], "
        open
        kill vanish
        k< silent
        c> P. 1:11 ack 1
        k> data 100
        k> eof
        +3h
        k< abort
    ", Some(Killed)),
    ("a dial of a socket that vanishes is given up", Socket, &[], "
        c> S 0
        k< dial 10.0.0.2:80
        kill vanish
        k< abort
        c> S 0
    ", Some(Killed)),
];

#[test]
fn kills() {
    check(KILLS);
}

#[test]
fn what_has_ended_or_is_not_open_yet_is_not_killed() {
    let mut s = Script::new(Transparent, &[]);
    s.run("c> S 0\ns< S 0");
    let kill = |s: &mut Script, how| s.flow.kill(&mut Cx::new(s.now, &mut s.log), how);
    assert_eq!(kill(&mut s, Kill::Fin), Err(NotKilled::HalfOpen));
    s.run("kill vanish");
    assert_eq!(kill(&mut s, Kill::Rst), Err(NotKilled::Ended(Killed)));
    let kills = s.log.iter().filter(|record| matches!(record.event, Event::Killed { .. })).count();
    assert_eq!(kills, 1);
}

#[test]
fn a_flow_that_was_killed_gives_way_to_a_new_syn() {
    let mut s = Script::new(Transparent, &[]);
    s.run("open\nkill vanish");
    assert!(s.flow.is_superseded_by(&segment("S 5000", CLIENT_ISN, None)));
    assert!(!s.flow.is_superseded_by(&segment("S 0", CLIENT_ISN, None)), "a late copy of its own");
}

#[test]
fn a_flow_tells_its_states_bytes_times_and_rules() {
    let mut s = Script::new(Transparent, &["fin-drop direction=downstream first=2", "ack-delay after=1day"]);
    s.run("c> S 0\ns< S 0");
    let states = |s: &Script| {
        let info = s.flow.info(s.now);
        [info.client_state.name(), info.server_state.name()]
    };
    assert_eq!(states(&s), ["LISTEN", "SYN-SENT"]);
    s.run(
        "s> S. 0 ack 1
        c< S. 0 ack 1
        c> . 1 ack 1
        s< . 1 ack 1
        c> P. 1:11 ack 1
        c< . 1 ack 11
        s< P. 1:11 ack 1
        s> P. 1:5 ack 11
        c< P. 1:5 ack 11
        s< . 11 ack 5
        c> . 11 ack 5
        +2s
        s> F. 5 ack 11",
    );
    s.now += Duration::from_secs(3);
    let info = s.flow.info(s.now);
    assert_eq!(
        (info.client, info.server, info.source_port),
        ("10.0.0.1:4000".parse().unwrap(), "10.0.0.2:80".parse().unwrap(), None)
    );
    assert_eq!(states(&s), ["ESTABLISHED", "ESTABLISHED"]);
    assert_eq!((info.upstream_bytes, info.downstream_bytes, info.waiting_bytes), (10, 4, 0));
    assert_eq!((info.age, info.idle, info.outcome), (5.0, 3.0, None));
    let rule = |name: &'static str, fired| RuleFired { rule: name.into(), fault: name.into(), fired };
    assert_eq!(info.rules, [rule("fin-drop", 1), rule("ack-delay", 0)]);
}
