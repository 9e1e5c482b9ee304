//! Faults of FINs and of what comes after them.

use super::*;

#[rustfmt::skip]
const FAULTS: &[Row] = &[
    ("a server's FIN that is swallowed never ends the client's input", Transparent, &["fin-drop direction=downstream first=all"], "
        open
        s> F. 1 ack 1
        s> P. 1:5 ack 1
        c< P. 1:5 ack 1
        s< . 1 ack 5
        s> FP. 1:5 ack 1
        s< . 1 ack 5
    ", None),
    ("a client's FIN that is swallowed never ends the server's input", Transparent, &["fin-drop direction=upstream"], "
        open
        c> FP. 1:5 ack 1
        c< . 1 ack 5
        s< P. 1:5 ack 1
        c> F. 5 ack 1
    ", None),
    ("where the server is a socket, the FIN to the client is swallowed", Socket, &["fin-drop direction=downstream first=3"], "
        open
        k> eof
        +200ms
        +400ms
        +799ms
        +1ms
        c< F. 1 ack 1
        c> . 1 ack 2
    ", None),
    ("a peer that never finishes is forgotten when nobody is left to hear it", Transparent, &["half-close-broken"], "
        open
        c> F. 1 ack 1
        c< F. 1 ack 2
        s< F. 1 ack 1
        s> . 1 ack 2
        c> . 2 ack 2
        +59s
        s> P. 1:11 ack 2
        s< . 2 ack 11
        +2s
    ", Some(Timeout)),
    ("a leg that a fault forgets says nothing more, and the other one ends in peace", Transparent, &["rst-instead-of-fin"], "
        open
        s> FP. 1:11 ack 1
        c< P. 1:11 ack 1
        c< R. 11 ack 1
        s< F. 1 ack 12
        s> . 12 ack 2
        c> . 1 ack 11
        c< R 11
    ", Some(Reset)),
    ("late segments of a flow that has ended still meet its faults", Transparent, &["last-ack-drop first=2"], "
        open
        c> F. 1 ack 1
        c< . 1 ack 2
        s< F. 1 ack 1
        s> F. 1 ack 2
        c< F. 1 ack 2
        c> . 2 ack 2
        s> F. 1 ack 2
        s> F. 1 ack 2
        s< . 2 ack 2
    ", Some(Outcome::Ok)),
];

#[test]
fn faults() {
    check(FAULTS);
}
