//! A client that is accepted before its server is dialled.

use super::*;

#[rustfmt::skip]
const ACCEPTED_FIRST: &[Row] = &[
    ("the client is accepted at once, and its bytes wait for the server", Transparent, &["accept-first"], "
        c> S 0
        c< S. 0 ack 1
        s< S 0
        c> . 1 ack 1
        c> P. 1:11 ack 1
        c< . 1 ack 11
        s> S. 0 ack 1
        s< P. 1:11 ack 1
        s> P. 1:6 ack 11
        c< P. 1:6 ack 11
        s< . 11 ack 6
    ", None),
    ("its FIN waits behind them", Transparent, &["accept-first"], "
        c> S 0
        c< S. 0 ack 1
        s< S 0
        c> FP. 1:11 ack 1
        c< . 1 ack 12
        s> S. 0 ack 1
        s< FP. 1:11 ack 1
        s> FP. 1:6 ack 12
        c< FP. 1:6 ack 12
        s< . 12 ack 7
        c> . 12 ack 7
    ", Some(Fine)),
    ("a server that is dialled later; its SYN has a timer of its own", Transparent, &["accept-first delay=500ms"], "
        c> S 0
        c< S. 0 ack 1
        c> . 1 ack 1
        +500ms
        s< S 0
        +1s
        s< S 0
        +2s
        s< S 0
        +3s
        s> S. 0 ack 1
        s< . 1 ack 1
        +10s
    ", None),
    ("a server that is faster than the client waits for it", Transparent, &["accept-first"], "
        c> S 0
        c< S. 0 ack 1
        s< S 0
        s> S. 0 ack 1
        c> . 1 ack 1
        s< . 1 ack 1
    ", None),
    ("a lost SYN-ACK is sent again, and nobody is dialled twice for it", Transparent, &["accept-first"], "
        c> S 0
        c< S. 0 ack 1
        s< S 0
        +900ms
        c> S 0
        c< S. 0 ack 1
    ", None),
    ("the server refuses: FIN, and what comes after it is lost", Transparent, &["accept-first"], "
        c> S 0
        c< S. 0 ack 1
        s< S 0
        c> P. 1:11 ack 1
        c< . 1 ack 11
        s> R. 0 ack 1
        c< F. 1 ack 11
        c> P. 11:21 ack 2
        c< . 2 ack 21
        c> F. 21 ack 2
        c< . 2 ack 22
    ", Some(RefusedRst)),
    ("but not before the client is connected", Transparent, &["accept-first"], "
        c> S 0
        c< S. 0 ack 1
        s< S 0
        s> R. 0 ack 1
        c> . 1 ack 1
        c< F. 1 ack 1
    ", None),
    ("the server refuses: RST", Transparent, &["accept-first on_fail=rst"], "
        c> S 0
        c< S. 0 ack 1
        s< S 0
        c> P. 1:11 ack 1
        c< . 1 ack 11
        s> R. 0 ack 1
        c< R. 1 ack 11
    ", Some(RefusedRst)),
    ("the server is unreachable", Transparent, &["accept-first on_fail=rst"], "
        c> S 0
        c< S. 0 ack 1
        s< S 0
        c> . 1 ack 1
        i> 3/1
        c< R. 1 ack 1
    ", Some(RefusedIcmp)),
    ("the server refuses: the connection stays, and answers keepalive, until the client closes it", Transparent, &["accept-first on_fail=hang"], "
        c> S 0
        c< S. 0 ack 1
        s< S 0
        c> P. 1:11 ack 1
        c< . 1 ack 11
        s> R. 0 ack 1
        +100s
        c> . 10 ack 1
        c< . 1 ack 11
        c> P. 11:21 ack 1
        c< . 1 ack 21
        c> F. 21 ack 1
        c< F. 1 ack 22
        c> . 22 ack 2
    ", Some(RefusedRst)),
    ("a client that has closed before its server refuses", Transparent, &["accept-first on_fail=hang"], "
        c> S 0
        c< S. 0 ack 1
        s< S 0
        c> FP. 1:11 ack 1
        c< . 1 ack 12
        s> R. 0 ack 1
        c< F. 1 ack 12
        c> . 12 ack 2
    ", Some(RefusedRst)),
    ("a silent server is given up after 127 s", Transparent, &["accept-first on_fail=rst"], "
        c> S 0
        c< S. 0 ack 1
        s< S 0
        c> . 1 ack 1
        +1s
        s< S 0
        +2s
        s< S 0
        +4s
        s< S 0
        +8s
        s< S 0
        +16s
        s< S 0
        +32s
        s< S 0
        +63s
        +1s
        c< R. 1 ack 1
    ", Some(Timeout)),
    ("a client that resets its attempt, and the server that is being dialled hears of it", Transparent, &["accept-first"], "
        c> S 0
        c< S. 0 ack 1
        s< S 0
        c> R 1
        s< R 1
    ", Some(Aborted)),
    ("a client that resets its connection before the server has answered", Transparent, &["accept-first"], "
        c> S 0
        c< S. 0 ack 1
        s< S 0
        c> . 1 ack 1
        c> R 1
        s< R 1
    ", Some(Reset)),
    ("and before it is dialled", Transparent, &["accept-first delay=10s"], "
        c> S 0
        c< S. 0 ack 1
        c> . 1 ack 1
        c> R 1
        +20s
    ", Some(Reset)),
    ("a client that never acknowledges its SYN-ACK", Transparent, &["accept-first delay=100s"], "
        c> S 0
        c< S. 0 ack 1
        +1s
        c< S. 0 ack 1
        +2s
        c< S. 0 ack 1
        +4s
        c< S. 0 ack 1
        +8s
        c< S. 0 ack 1
        +16s
        c< S. 0 ack 1
        +33s
        +60s
    ", Some(Aborted)),
    ("with a socket", Socket, &["accept-first"], "
        c> S 0
        c< S. 0 ack 1
        k< dial 10.0.0.2:80
        c> P. 1:11 ack 1
        c< . 1 ack 11
        +10s
        k> connected
        k< write 10
        k< read 65536
        k> data 5
        c< P. 1:6 ack 11
    ", None),
    ("a socket that is refused before the client is connected", Socket, &["accept-first"], "
        c> S 0
        c< S. 0 ack 1
        k< dial 10.0.0.2:80
        k> refused
        c> . 1 ack 1
        c< F. 1 ack 1
        c> F. 1 ack 2
        c< . 2 ack 2
    ", Some(RefusedRst)),
    ("a socket that is unreachable, or silent", Socket, &["accept-first on_fail=rst"], "
        c> S 0
        c< S. 0 ack 1
        k< dial 10.0.0.2:80
        c> . 1 ack 1
        k> silence
        c< R. 1 ack 1
    ", Some(Timeout)),
    ("a client that resets before its socket is connected", Socket, &["accept-first"], "
        c> S 0
        c< S. 0 ack 1
        k< dial 10.0.0.2:80
        c> . 1 ack 1
        c> R 1
        k< abort
    ", Some(Reset)),
    ("bytes that waited are shaped like those that did not", Transparent, &["accept-first", "latency direction=upstream latency=1s"], "
        c> S 0
        c< S. 0 ack 1
        s< S 0
        c> FP. 1:11 ack 1
        c< . 1 ack 12
        s> S. 0 ack 1
        s< . 1 ack 1
        +1s
        s< FP. 1:11 ack 1
    ", None),
];

#[test]
fn accepted_first() {
    check(ACCEPTED_FIRST);
}

/// A load balancer's client port may be used again like any other.
#[test]
fn a_client_that_was_accepted_first_is_superseded_only_by_a_new_connection() {
    let mut s = Script::new(Transparent, &["accept-first"]);
    s.run("c> S 0\n c< S. 0 ack 1\n s< S 0\n c> . 1 ack 1");
    assert!(s.flow.is_half_open(), "nothing is relayed yet");
    let superseded = |syn| s.flow.is_superseded_by(&segment(syn, CLIENT_ISN, s.ours[0]));
    assert!(!superseded("S 0") && !superseded("S 5"));
}
