//! From the first SYN to both handshakes, without a fault.

use super::*;

#[rustfmt::skip]
const OPENING: &[Row] = &[
    ("the SYN-ACK waits for the server's, and the server's ACK for the client's", Transparent, &[], "open", None),
    ("a SYN that comes again makes one dial, and sends the server's SYN again", Transparent, &[], "
        c> S 0
        s< S 0
        +1s
        c> S 0
        s< S 0
        +1s
        c> S 0
        s< S 0
    ", None),
    ("the first bytes can complete the handshake, when the bare ACK got lost", Transparent, &[], "
        c> S 0
        s< S 0
        s> S. 0 ack 1
        c< S. 0 ack 1
        c> P. 1:11 ack 1
        c< . 1 ack 11
        s< P. 1:11 ack 1
    ", None),
    ("and so can the last ones", Transparent, &[], "
        c> S 0
        s< S 0
        s> S. 0 ack 1
        c< S. 0 ack 1
        c> FP. 1:11 ack 1
        c< . 1 ack 12
        s< FP. 1:11 ack 1
    ", None),
    ("a silent server stays silent, and a client that stops is forgotten", Transparent, &[], "
        c> S 0
        s< S 0
        +6s
        +2s
    ", Some(Timeout)),
    ("a client with long intervals is not forgotten in between", Transparent, &[], "
        c> S 0
        s< S 0
        +3s
        c> S 0
        s< S 0
        +6s
        c> S 0
        s< S 0
        +12s
        c> S 0
        s< S 0
    ", None),
    ("refused by RST", Transparent, &[], "
        c> S 0
        s< S 0
        s> R. 0 ack 1
        c< R. 0 ack 1
    ", Some(RefusedRst)),
    ("refused by ICMP: kind, reporter and the quoted number are kept", Transparent, &[], "
        c> S 0
        s< S 0
        i> 3/1
        i< 3/1 from 10.9.9.9 seq 0
    ", Some(RefusedIcmp)),
    ("a client that resets its attempt: the server sees it gone", Transparent, &[], "
        c> S 0
        s< S 0
        c> R 1
        s< R 1
    ", Some(Aborted)),
    ("a RST with another number is blind", Transparent, &[], "
        c> S 0
        s< S 0
        c> R 2
    ", None),
    ("a client that is gone when its SYN-ACK comes: the server gets the RST", Transparent, &[], "
        c> S 0
        s< S 0
        s> S. 0 ack 1
        c< S. 0 ack 1
        c> R 1
        s< R. 1 ack 1
    ", Some(Aborted)),
    ("a server that dies before the client's ACK", Transparent, &[], "
        c> S 0
        s< S 0
        s> S. 0 ack 1
        c< S. 0 ack 1
        s> R 1
        c< R. 1 ack 1
    ", Some(Reset)),
    ("a lost SYN-ACK is sent again at 1, 3, 7 s, and again for a repeated SYN", Transparent, &[], "
        c> S 0
        s< S 0
        s> S. 0 ack 1
        c< S. 0 ack 1
        +900ms
        c> S 0
        c< S. 0 ack 1
    ", None),
    ("a client that never acknowledges the SYN-ACK: the server hears nothing", Transparent, &[], "
        c> S 0
        s< S 0
        s> S. 0 ack 1
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
    ", Some(Aborted)),
    ("a server that sends its SYN-ACK again meanwhile waits as well", Transparent, &[], "
        c> S 0
        s< S 0
        s> S. 0 ack 1
        c< S. 0 ack 1
        s> S. 0 ack 1
        c> . 1 ack 1
        s< . 1 ack 1
    ", None),
    ("data with the SYN are not taken, data with the ACK are", Transparent, &[], "
        c> S 0:10
        s< S 0
        s> S. 0 ack 1
        c< S. 0 ack 1
        c> P. 1:11 ack 1
        c< . 1 ack 11
        s< P. 1:11 ack 1
    ", None),
    ("both ends open at once: the server is answered, and the client sees an ordinary server", Transparent, &[], "
        c> S 0
        s< S 0
        s> S 0
        s< S. 0 ack 1
        s> S. 0 ack 1
        c< S. 0 ack 1
        c> . 1 ack 1
        s< . 1 ack 1
    ", None),
];

#[test]
fn opening() {
    check(OPENING);
}

#[rustfmt::skip]
const OPENING_THROUGH_A_SOCKET: &[Row] = &[
    ("dial, answer, bytes", Socket, &[], "open", None),
    ("a SYN that comes again makes one dial", Socket, &[], "
        c> S 0
        k< dial 10.0.0.2:80
        c> S 0
    ", None),
    ("refused", Socket, &[], "
        c> S 0
        k< dial 10.0.0.2:80
        k> refused
        c< R. 0 ack 1
    ", Some(RefusedRst)),
    ("unreachable", Socket, &[], "
        c> S 0
        k< dial 10.0.0.2:80
        k> unreachable
        i< 3/1 from 10.0.0.2 seq 0
    ", Some(RefusedIcmp)),
    ("a dial that ends in silence is not repeated", Socket, &[], "
        c> S 0
        k< dial 10.0.0.2:80
        k> silence
        c> S 0
        +8s
    ", Some(Timeout)),
    ("a client that resets its attempt cancels the dial", Socket, &[], "
        c> S 0
        k< dial 10.0.0.2:80
        c> R 1
        k< abort
    ", Some(Aborted)),
    ("a client that stops sending SYNs cancels the dial", Socket, &[], "
        c> S 0
        k< dial 10.0.0.2:80
        +1499ms
        +1ms
        k< abort
    ", Some(Timeout)),
    ("a client that is gone when the dial succeeds", Socket, &[], "
        c> S 0
        k< dial 10.0.0.2:80
        k> connected
        c< S. 0 ack 1
        c> R 1
        k< abort
    ", Some(Aborted)),
];

#[test]
fn opening_through_a_socket() {
    check(OPENING_THROUGH_A_SOCKET);
}

/// RFC 9293 MUST-48, MUST-49, SHLD-22: as a router would, but the ECN bits belong to each leg alone.
#[test]
fn ttl_and_dscp_cross_and_ecn_does_not() {
    let (ef, marked) = (0b1011_1000, 0b11);
    let arrived = IpMeta { ttl: 60, tos: ef | marked };
    assert_eq!(carried(arrived, 1), IpMeta { ttl: 61, tos: ef });
    assert_eq!(carried(IpMeta { ttl: 255, tos: 0 }, 1).ttl, 255);
}

#[test]
fn a_flow_that_only_waits_for_its_server_is_small() {
    assert!(size_of::<Flow>() <= 240, "{}", size_of::<Flow>());
}

/// The client's host has sent its first SYN twice, and one copy comes when the flow is over.
#[test]
fn a_late_copy_of_the_syn_opens_nothing_and_another_one_does() {
    let mut s = Script::new(Transparent, &["rst-inject to=server after=1s"]);
    s.run(
        "open
        +1s
        s< R. 1 ack 1",
    );
    let superseded = |syn| s.flow.is_superseded_by(&segment(syn, CLIENT_ISN, s.ours[0]));
    assert!(!superseded("S 0"));
    assert!(superseded("S 5"));
}
