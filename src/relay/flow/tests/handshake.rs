//! Faults of the handshake: SYNs that are lost or late, refusals.

use super::*;

#[rustfmt::skip]
const FAULTS: &[Row] = &[
    ("a swallowed SYN dials nothing; the next one does", Transparent, &["syn-drop first=1"], "
        c> S 0
        +1s
        c> S 0
        s< S 0
    ", None),
    ("a client whose SYNs are swallowed for a minute is one flow all the time", Transparent, &["syn-drop for=63s"], "
        c> S 0
        +4s
        c> S 0
        +8s
        c> S 0
        +16s
        c> S 0
        +33s
        c> S 0
        +8s
        c> S 0
        s< S 0
    ", None),
    ("so it is before a socket", Socket, &["syn-drop for=63s"], "
        c> S 0
        +4s
        c> S 0
        +8s
        c> S 0
        +16s
        c> S 0
        +33s
        c> S 0
        +8s
        c> S 0
        k< dial 10.0.0.2:80
        +16499ms
        +1ms
        k< abort
    ", Some(Timeout)),
    ("a SYN-ACK that is held comes later", Transparent, &["syn-ack-delay delay=200ms"], "
        c> S 0
        s< S 0
        s> S. 0 ack 1
        +199ms
        +1ms
        c< S. 0 ack 1
    ", None),
    ("a SYN that comes again while the SYN-ACK is held has an answer of its own", Transparent, &["syn-ack-delay delay=1.5s"], "
        c> S 0
        s< S 0
        s> S. 0 ack 1
        +1020ms
        c> S 0
        +479ms
        +1ms
        c< S. 0 ack 1
        c> . 1 ack 1
        s< . 1 ack 1
    ", None),
];

#[test]
fn faults() {
    check(FAULTS);
}

#[rustfmt::skip]
const REFUSED_BY_A_FAULT: &[Row] = &[
    ("by RST, and nobody is dialled", Transparent, &["refuse"], "
        c> S 0
        c< R. 0 ack 1
    ", Some(RefusedRst)),
    ("by ICMP, later; the SYN that comes meanwhile changes nothing", Transparent, &["refuse style=icmp-host delay=1500ms"], "
        c> S 0
        +1s
        c> S 0
        +500ms
        i< 3/1 from 10.0.0.2 seq 0
        +10s
    ", Some(RefusedIcmp)),
    ("a server that was dialled already hears that the client is gone", Transparent, &["refuse nth=2"], "
        c> S 0
        s< S 0
        +1s
        c> S 0
        s< R 1
        c< R. 0 ack 1
    ", Some(RefusedRst)),
    ("and a socket is closed", Socket, &["refuse nth=2"], "
        c> S 0
        k< dial 10.0.0.2:80
        +1s
        c> S 0
        c< R. 0 ack 1
        k< abort
    ", Some(RefusedRst)),
    ("too late once the client has its SYN-ACK", Transparent, &["refuse delay=1s first=1"], "
        c> S 0
        +500ms
        c> S 0
        s< S 0
        s> S. 0 ack 1
        c< S. 0 ack 1
        +500ms
        c> . 1 ack 1
        s< . 1 ack 1
    ", None),
    ("a client that nobody answers is forgotten", Transparent, &["refuse style=silence"], "
        c> S 0
        +8s
    ", Some(Timeout)),
];

#[test]
fn refused_by_a_fault() {
    check(REFUSED_BY_A_FAULT);
}
