//! From the last bytes to the end, without a fault.

use super::*;

#[rustfmt::skip]
const CLOSING: &[Row] = &[
    ("the client closes first: FIN becomes FIN, and TIME-WAIT is on the leg whose peer closed second", Transparent, &[], "
        half-closed
        s> F. 1 ack 2
        c< F. 1 ack 2
        s< . 2 ack 2
        c> . 2 ack 2
    ", Some(Fine)),
    ("a reply after the client's FIN is delivered, however late", Transparent, &[], "
        half-closed
        +900s
        s> P. 1:101 ack 2
        c< P. 1:101 ack 2
        s< . 2 ack 101
        c> . 2 ack 101
    ", None),
    ("both close at once", Transparent, &[], "
        open
        c> F. 1 ack 1
        c< . 1 ack 2
        s< F. 1 ack 1
        s> F. 1 ack 1
        c< F. 1 ack 2
        s< . 2 ack 2
        s> . 2 ack 2
        c> . 2 ack 2
    ", Some(Fine)),
    ("RST by the client", Transparent, &[], "
        open
        c> R. 1 ack 1
        s< R. 1 ack 1
    ", Some(Reset)),
    ("RST by the server", Transparent, &[], "
        open
        s> R 1
        c< R. 1 ack 1
    ", Some(Reset)),
    ("data and then RST, as a close with unread data sends it: the data arrive first", Transparent, &[], "
        open
        s> P. 1:101 ack 1
        c< P. 1:101 ack 1
        s< . 1 ack 101
        s> R. 101 ack 1
        c< R. 101 ack 1
    ", Some(Reset)),
    ("a RST follows the bytes before it that wait for the congestion window", Transparent, &[], "
        open
        c> P. 1:20001 ack 1
        c< . 1 ack 20001
        s< . 1:14601 ack 1
        c> R. 20001 ack 1
        s> . 1 ack 14601
        s< P. 14601:20001 ack 1
        s< R. 20001 ack 1
    ", Some(Reset)),
    ("a RST does not wait for a reader that has closed its window", Transparent, &[], "
        open
        window 0
        s> . 1 ack 1
        c> P. 1:101 ack 1
        c< . 1 ack 101
        c> R. 101 ack 1
        s< R. 1 ack 1
    ", Some(Reset)),
    ("an answer that comes for a client that is gone", Transparent, &[], "
        open
        c> R. 1 ack 1
        s< R. 1 ack 1
        s> P. 1:11 ack 1
        s< R 1
    ", Some(Reset)),
    ("a keepalive is answered when the far peer has answered", Transparent, &[], "
        open
        +60s
        c> . 0 ack 1
        s< . 0 ack 1
        s> . 1 ack 1
        c< . 1 ack 1
    ", None),
    ("the urgent mark crosses", Transparent, &[], "
        open
        c> UP. 1:11 ack 1 urg 5
        c< . 1 ack 11
        s< P.U 1:11 ack 1 urg 5
    ", None),
];

#[test]
fn closing() {
    check(CLOSING);
}

#[rustfmt::skip]
const CLOSING_THROUGH_A_SOCKET: &[Row] = &[
    ("the client closes first", Socket, &[], "
        open
        c> F. 1 ack 1
        c< . 1 ack 2
        k< shutdown
        k> data 10
        c< P. 1:11 ack 2
        c> . 2 ack 11
        k> eof
        c< F. 11 ack 2
        k< close
        c> . 2 ack 12
    ", Some(Fine)),
    ("the server closes first, and waits until the kernel has all bytes", Socket, &[], "
        open
        k> eof
        c< F. 1 ack 1
        c> . 1 ack 2
        c> FP. 1:5 ack 2
        c< . 2 ack 6
        k< write 4
        k< shutdown
        k> sent 4
        k< close
    ", Some(Fine)),
    ("RST by the client", Socket, &[], "
        open
        c> R. 1 ack 1
        k< abort
    ", Some(Reset)),
    ("RST by the server", Socket, &[], "
        open
        k> reset
        c< R. 1 ack 1
    ", Some(Reset)),
    ("a keepalive is answered when the socket has found the server alive", Socket, &[], "
        open
        c> . 0 ack 1
        k< probe
        k> alive
        c< . 1 ack 1
    ", None),
];

#[test]
fn closing_through_a_socket() {
    check(CLOSING_THROUGH_A_SOCKET);
}

#[test]
fn the_end_tells_the_bytes_that_arrived() {
    let mut s = Script::new(Transparent, &[]);
    s.run(
        "open
        c> P. 1:11 ack 1
        c< . 1 ack 11
        s< P. 1:11 ack 1
        s> P. 1:6 ack 11
        c< P. 1:6 ack 11
        s< . 11 ack 6
        c> . 11 ack 6
        c> R. 11 ack 6
        s< R. 11 ack 6",
    );
    assert_eq!(s.closed_with_bytes(), Some((10, 5)));
    assert!(s.flow.is_done());
}

#[test]
fn a_reader_that_stops_stops_the_writer() {
    let mut s = Script::new(Transparent, &[]);
    s.run("open");
    let mut offered = 0;
    // The server acknowledges nothing; the client fills what it is offered.
    for round in 0..100 {
        let window = u32::from(s.last[0].window.0) << 7;
        let from = 1 + offered;
        let more = window.min(1460);
        if more == 0 {
            assert!(round > 40, "at least 64 KiB are offered");
            assert!(offered <= 66_000, "{offered}");
            return;
        }
        s.input(Leg::Client, &format!("P. {from}:{} ack 1", from + more));
        offered += more;
        s.pass(Duration::from_millis(50));
        s.output.clear();
    }
    panic!("the window never closed");
}

#[test]
fn a_server_that_is_gone_for_good_resets_the_client() {
    let mut s = Script::new(Transparent, &[]);
    s.run(
        "open
        c> P. 1:11 ack 1
        c< . 1 ack 11
        s< P. 1:11 ack 1",
    );
    s.pass(Duration::from_secs(1200));
    assert_eq!(s.output.back().map(String::as_str), Some("c< R. 1 ack 11"), "{:?}", s.output);
    assert_eq!(s.outcome(), Some(Timeout));
    assert!(s.flow.is_done());
}
