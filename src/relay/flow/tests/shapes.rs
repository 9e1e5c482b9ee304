//! Faults that shape the bytes between the legs.

use super::*;

#[rustfmt::skip]
const FAULTS: &[Row] = &[
    ("latency holds what came by a socket", Socket, &["latency latency=500ms"], "
        open
        k> data 10
        +499ms
        +1ms
        c< P. 1:11 ack 1
        c> P. 1:11 ack 11
        c< . 11 ack 11
        k< write 10
    ", None),
    ("a rate stops the reading from a socket when the queue is full", Socket, &["bandwidth rate=0 buffer=4KiB"], "
        c> S 0
        k< dial 10.0.0.2:80
        k> connected
        c< S. 0 ack 1
        c> . 1 ack 1
        k< read 4096
        k> data 4096
        +1h
    ", None),
    ("a rate closes the writer's window when the queue is full", Transparent, &["bandwidth direction=upstream rate=0 buffer=4KiB"], "
        open
        c> P. 1:8001 ack 1
        c< . 1 ack 8001
        c> P. 8001:64193 ack 1
        c< . 1 ack 64193 win 0
    ", None),
    ("a limit ends a flow with a socket after the bytes", Socket, &["limit-data bytes=10 style=rst"], "
        open
        k> data 25
        c< P. 1:11 ack 1
        c> . 1 ack 11
        c< R. 11 ack 1
        k< abort
    ", Some(Reset)),
    ("or by FINs on both sides", Socket, &["limit-data bytes=10 direction=upstream"], "
        open
        c> P. 1:26 ack 1
        c< F. 1 ack 26
        k< write 10
        k< shutdown
        k> sent 10
        c> F. 26 ack 2
        c< . 2 ack 27
        k> eof
        k< close
    ", Some(Fine)),
    ("slices of a socket's bytes come one by one", Socket, &["slicer average_size=5 delay=10ms"], "
        open
        k> data 12
        c< P. 1:6 ack 1
        +10ms
        c< P. 6:11 ack 1
        +10ms
        c< P. 11:13 ack 1
    ", None),
    ("the end of a socket's bytes waits", Socket, &["slow-close delay=2s"], "
        open
        k> data 5
        c< P. 1:6 ack 1
        c> . 1 ack 6
        k> eof
        +1999ms
        +1ms
        c< F. 6 ack 1
        c> . 1 ack 7
    ", None),
    ("what a socket sends is lost, and each piece of it puts the end off", Socket, &["timeout timeout=500ms"], "
        open
        k> data 5
        +499ms
        k> data 5
        +499ms
        +1ms
        c< F. 1 ack 1
        k< shutdown
    ", None),
    ("what a client sends is acknowledged and lost until the reset", Socket, &["acked-but-lost hold=1s"], "
        open
        c> FP. 1:11 ack 1
        c< . 1 ack 12
        +999ms
        +1ms
        c< R. 1 ack 12
        k< abort
    ", Some(Reset)),
    ("bytes that wait to be shaped when the flow ends are lost, and wake nobody", Transparent, &["latency direction=downstream latency=1s"], "
        open
        s> P. 1:11 ack 1
        s< . 1 ack 11
        c> R 1
        s< R. 1 ack 11
        +2s
    ", Some(Reset)),
];

#[test]
fn faults() {
    check(FAULTS);
}
