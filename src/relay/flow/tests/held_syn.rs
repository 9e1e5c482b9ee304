//! Two kernel sockets, where the kernel holds the client's SYN until the flow answers it.

use super::*;
use crate::trace::Outcome::Killed;

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("the client is answered when the server has answered", HeldSyn, &[], "
        open
        a> data 10
        k< write 10
        k> sent 10
        a> eof
        k< shutdown
        k> eof
        a< shutdown
        a< close
        k< close
    ", Some(Fine)),
    ("a SYN that comes again is answered again", HeldSyn, &[], "
        c> S 0
        k< dial 10.0.0.2:80
        +1s
        c> S 0
        k> connected
        c< S. 0 ack 1
        +1s
        c> S 0
        c< S. 0 ack 1
        a> accepted
        a< join
        a< read 65536
        k< read 65536
    ", None),
    ("a refusal stays a refusal", HeldSyn, &[], "
        c> S 0
        k< dial 10.0.0.2:80
        k> refused
        c< R. 0 ack 1
    ", Some(RefusedRst)),
    ("an ICMP error stays one", HeldSyn, &[], "
        c> S 0
        k< dial 10.0.0.2:80
        k> unreachable
        i< 3/1 from 10.0.0.2 seq 0
    ", Some(RefusedIcmp)),
    ("silence stays silence", HeldSyn, &[], "
        c> S 0
        k< dial 10.0.0.2:80
        k> silence
        c> S 0
        +7s
    ", Some(Timeout)),
    ("a client that stops to send its SYN ends the dial", HeldSyn, &[], "
        c> S 0
        k< dial 10.0.0.2:80
        +3500ms
        k< abort
    ", Some(Timeout)),
    ("a client that does not complete its handshake ends the connection to the server", HeldSyn, &[], "
        c> S 0
        k< dial 10.0.0.2:80
        k> connected
        c< S. 0 ack 1
        +63s
        +1s
        a< abort
        k< abort
    ", Some(Timeout)),
    ("a server that resets before the client is there resets the client", HeldSyn, &[], "
        c> S 0
        k< dial 10.0.0.2:80
        k> connected
        c< S. 0 ack 1
        k> reset
        a< abort
    ", Some(Reset)),
    ("a SYN on an open connection is the kernel's to answer", HeldSyn, &[], "
        open
        c> S 100
        c< S. 0 ack 1
    ", None),
    ("a lost SYN dials nobody", HeldSyn, &["syn-drop"], "
        c> S 0
        +1s
        c> S 0
        k< dial 10.0.0.2:80
    ", None),
    ("a SYN-ACK may come late, or not at all", HeldSyn, &["syn-ack-drop", "syn-ack-delay delay=300ms"], "
        c> S 0
        k< dial 10.0.0.2:80
        k> connected
        +1s
        c> S 0
        +300ms
        c< S. 0 ack 1
    ", None),
    ("SYN and SYN-ACK announce a smaller MSS", HeldSyn, &["mss-rewrite"], "
        c> S 0
        k< dial 10.0.0.2:80 mss 536
        k> connected
        c< S. 0 ack 1 mss 536
        a> accepted
        a< window
        a< read 65536
        k< read 65536
    ", None),
    ("of one side only", HeldSyn, &["mss-rewrite direction=upstream"], "
        c> S 0
        k< dial 10.0.0.2:80 mss 536
        k> connected
        c< S. 0 ack 1
        a> accepted
        a< read 65536
        k< read 65536
    ", None),
    ("the client is offered little from its SYN-ACK on, for a time", HeldSyn, &["tiny-window window=2kB for=1s"], "
        c> S 0
        k< dial 10.0.0.2:80
        k> connected
        c< S. 0 ack 1 win 2000
        a> accepted
        a< window 2000
        a< read 65536
        k< read 65536
        +1s
        a< window
    ", None),
    ("the server is offered little from the SYN on", HeldSyn, &["tiny-window window=2kB direction=downstream"], "
        c> S 0
        k< dial 10.0.0.2:80 win 2000
        k> connected
        c< S. 0 ack 1
        a> accepted
        a< read 65536
        k< read 65536
    ", None),
    ("a window becomes small later", HeldSyn, &["tiny-window window=2kB after=1s"], "
        c> S 0
        k< dial 10.0.0.2:80
        k> connected
        c< S. 0 ack 1
        a> accepted
        a< read 65536
        k< read 65536
        +1s
        a< window 2000
    ", None),
    ("a reader that stops does not offer more", HeldSyn, &["tiny-window window=2kB", "zero-window-stall after_bytes=10 hold=1s"], "
        c> S 0
        k< dial 10.0.0.2:80
        k> connected
        c< S. 0 ack 1 win 2000
        a> accepted
        a< window 2000
        a< read 65536
        k< read 65536
        a> data 10
        a< stall
        k< write 10
        +1s
        a< read on
    ", None),
    ("a reader that stops reads on", HeldSyn, &["zero-window-stall after_bytes=10 hold=1s"], "
        c> S 0
        k< dial 10.0.0.2:80
        k> connected
        c< S. 0 ack 1
        a> accepted
        a< read 65536
        k< read 65536
        a> data 10
        a< stall
        k< write 10
        +1s
        a< read on
    ", None),
    ("a fault may refuse", HeldSyn, &["refuse style=icmp-net"], "
        c> S 0
        i< 3/0 from 10.0.0.2 seq 0
    ", Some(RefusedIcmp)),
    ("a fault may accept first", HeldSyn, &["accept-first on_fail=rst"], "
        c> S 0
        c< S. 0 ack 1
        k< dial 10.0.0.2:80
        a> accepted
        k> refused
        a< abort
    ", Some(RefusedRst)),
    ("who is accepted first and never comes is forgotten, and so is its server", HeldSyn, &["accept-first on_fail=rst"], "
        c> S 0
        c< S. 0 ack 1
        k< dial 10.0.0.2:80
        k> connected
        +64s
        a< abort
        k< abort
    ", Some(Timeout)),
    ("the same where there is no server", HeldSyn, &["accept-first on_fail=rst"], "
        c> S 0
        c< S. 0 ack 1
        k< dial 10.0.0.2:80
        k> refused
        +64s
        a< abort
    ", Some(Timeout)),
    ("a client has its time from a late SYN-ACK on", HeldSyn, &["syn-ack-delay delay=100s"], "
        c> S 0
        k< dial 10.0.0.2:80
        k> connected
        +100s
        c< S. 0 ack 1
        +63s
        a> accepted
        a< read 65536
        k< read 65536
    ", None),
    ("a client that is killed without a word before it is there is reset when it comes", HeldSyn, &[], "
        c> S 0
        k< dial 10.0.0.2:80
        k> connected
        c< S. 0 ack 1
        kill vanish
        a< abort
        k< silent
    ", Some(Killed)),
    ("the same where it comes at that moment: its server is not kept for ever", HeldSyn, &[], "
        c> S 0
        k< dial 10.0.0.2:80
        k> connected
        c< S. 0 ack 1
        kill vanish
        a< abort
        k< silent
        a> accepted
        +3h
        k< abort
    ", Some(Killed)),
    ("a black hole cuts both sides off, and ends", HeldSyn, &["blackhole after=1s for=1s"], "
        open
        +1s
        a< silent
        k< silent
        +1s
        a< heard
        k< heard
    ", None),
    ("a forgotten connection is cut off for ever", HeldSyn, &["idle-timeout idle=1s"], "
        open
        +500ms
        a> data 10
        k< write 10
        k> sent 10
        +999ms
        +1ms
        a< silent
        k< silent
    ", None),
    ("who is killed without a word is cut off", HeldSyn, &[], "
        open
        kill vanish
        a< part
        a< silent
        k< part
        k< silent
    ", Some(Killed)),
];

#[test]
fn held_syns() {
    check(ROWS);
}
