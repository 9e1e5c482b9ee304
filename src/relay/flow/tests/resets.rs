//! Faults that reset, forget or silence a flow.

use super::*;

#[rustfmt::skip]
const FAULTS: &[Row] = &[
    ("a reset for both", Transparent, &["rst-inject"], "
        open
        c> P. 1:11 ack 1
        c< R. 1 ack 11
        s< R. 1 ack 1
    ", Some(Reset)),
    ("a reset for the client: the server hears nothing until it speaks", Transparent, &["rst-inject to=client after=5s"], "
        open
        +4999ms
        +1ms
        c< R. 1 ack 1
        +10s
        s> P. 1:11 ack 1
        s< R 1
    ", Some(Reset)),
    ("a reset for the server: the client hears nothing until it speaks", Transparent, &["rst-inject to=server after=5s"], "
        open
        +5s
        s< R. 1 ack 1
        +10s
        c> P. 1:11 ack 1
        c< R 1
    ", Some(Reset)),
    ("a reset comes on an idle flow too", Transparent, &["reset-peer timeout=1s"], "
        open
        +999ms
        +1ms
        c< R. 1 ack 1
        s< R. 1 ack 1
    ", Some(Reset)),
    ("a reset that thinks first", Transparent, &["rst-inject delay=7ms"], "
        open
        c> P. 1:11 ack 1
        c< . 1 ack 11
        s< P. 1:11 ack 1
        +6ms
        +1ms
        c< R. 1 ack 11
        s< R. 11 ack 1
    ", Some(Reset)),
    ("a path that has forgotten the flow is silent", Transparent, &["idle-timeout idle=5s"], "
        open
        +6s
        c> P. 1:11 ack 1
        s> P. 1:11 ack 1
        c> R. 11 ack 1
        s> F. 11 ack 1
    ", None),
    ("or resets who speaks next, and the other when it does", Transparent, &["idle-timeout idle=5s style=rst-on-next"], "
        open
        +4s
        c> P. 1:11 ack 1
        c< . 1 ack 11
        s< P. 1:11 ack 1
        s> . 1 ack 11
        +6s
        c> P. 11:21 ack 1
        c< R. 1 ack 11
        s> P. 1:11 ack 11
        s< R 11
    ", Some(Reset)),
    ("or the inside alone, each time", Transparent, &["idle-timeout idle=5s style=rst-on-next rst_to=inside"], "
        open
        +6s
        s> P. 1:11 ack 1
        c> P. 1:11 ack 1
        c< R. 1 ack 11
        c> P. 1:11 ack 1
        c< R. 1 ack 11
        s> P. 1:11 ack 1
    ", None),
    ("or both when the time is over", Transparent, &["idle-timeout idle=5s style=rst-both"], "
        open
        +4999ms
        +1ms
        c< R. 1 ack 1
        s< R. 1 ack 1
    ", Some(Reset)),
    ("a server behind a socket that speaks next is reset", Socket, &["idle-timeout idle=5s style=rst-on-next"], "
        open
        +4s
        k> data 10
        c< P. 1:11 ack 1
        c> . 1 ack 11
        +4s
        +2s
        k> data 10
        k< abort
        c> P. 1:11 ack 11
        c< R 11
    ", Some(Reset)),
    ("and a client that speaks next, too", Socket, &["idle-timeout idle=5s style=rst-on-next"], "
        open
        +6s
        c> P. 1:11 ack 1
        c< R. 1 ack 1
        k> data 10
        k< abort
    ", Some(Reset)),
    ("a flow whose path is cut ends when nobody has spoken for three hours", Transparent, &["blackhole"], "
        open
        c> P. 1:11 ack 1
        c< . 1 ack 11
        s< P. 1:11 ack 1
        +1s
        c> R. 11 ack 1
        s> R. 1 ack 11
        +10799s
        +1s
    ", Some(Timeout)),
    ("where it goes to a socket, the server hears of it", Socket, &["idle-timeout idle=5s"], "
        open
        +10800s
        k< abort
    ", Some(Timeout)),
    ("a reset for both where the server is a socket", Socket, &["rst-inject after=5s"], "
        open
        +5s
        c< R. 1 ack 1
        k< abort
    ", Some(Reset)),
];

#[test]
fn faults() {
    check(FAULTS);
}

/// E16: the peer that is not told sees silence until it speaks, then a RST.
#[test]
fn an_injected_reset_for_one_side_answers_the_other_when_it_speaks() {
    let mut s = Script::new(Transparent, &["rst-inject to=client after=1s"]);
    s.run(
        "open
        +1s
        c< R. 1 ack 1
        +5s
        s> P. 1:11 ack 1
        s< R 1
        +60s",
    );
    assert_eq!(s.outcome(), Some(Reset));
    assert!(s.flow.is_done());
}
