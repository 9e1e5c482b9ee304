//! Faults of ends between two kernel sockets.

use super::*;

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("a half-close ends both directions; the reply is lost", HeldSyn, &["half-close-broken"], "
        open
        a> data 10
        k< write 10
        k> sent 10
        a> eof
        a< shutdown
        a< close
        k< shutdown
        k> data 5
        k> eof
        k< close
    ", Some(Fine)),
    ("the bytes before it still arrive", HeldSyn, &["half-close-broken direction=downstream"], "
        open
        k> data 10
        a< write 10
        k> eof
        a< shutdown
        k< shutdown
        k< close
        a> eof
        a> sent 10
        a< close
    ", Some(Fine)),
    ("a client that never finishes is not waited for", HeldSyn, &["half-close-broken direction=downstream"], "
        open
        k> eof
        a< shutdown
        k< shutdown
        k< close
        +59s
        +1s
        a< abort
    ", Some(Timeout)),
    ("the other direction is not meant", HeldSyn, &["half-close-broken direction=downstream"], "
        open
        a> eof
        k< shutdown
        k> data 5
        a< write 5
        a> sent 5
        k> eof
        a< shutdown
        a< close
        k< close
    ", Some(Fine)),
    ("a half-close resets both", HeldSyn, &["half-close-broken style=rst"], "
        open
        a> eof
        a< abort
        k< shutdown
        k< abort
    ", Some(Reset)),
    ("a FIN becomes a RST when the last byte has left, and who sent it is closed in peace", HeldSyn, &["rst-instead-of-fin"], "
        open
        k> data 10
        a< write 10
        k> eof
        a< watch
        k< shutdown
        k< close
        a> data 3
        a> sent 10
        +61s
        a> left
        a< abort
    ", Some(Reset)),
    ("the same upstream", HeldSyn, &["rst-instead-of-fin direction=upstream"], "
        open
        a> data 10
        k< write 10
        k> sent 10
        a> eof
        a< shutdown
        a< close
        k< watch
        k> left
        k< abort
    ", Some(Reset)),
    ("it may be delayed", HeldSyn, &["rst-instead-of-fin delay=1s"], "
        open
        k> data 10
        a< write 10
        a> sent 10
        k> eof
        +999ms
        +1ms
        a< watch
        k< shutdown
        k< close
        a> left
        a< abort
    ", Some(Reset)),
    ("its bounds hold: too few bytes", HeldSyn, &["rst-instead-of-fin after_bytes=11"], "
        open
        k> data 10
        a< write 10
        a> sent 10
        k> eof
        a< shutdown
        a> eof
        a< close
        k< shutdown
        k< close
    ", Some(Fine)),
    ("a client that resets does not wait for the RST", HeldSyn, &["rst-instead-of-fin"], "
        open
        k> data 10
        a< write 10
        k> eof
        a< watch
        k< shutdown
        k< close
        a> reset
    ", Some(Reset)),
    ("a kill is no more than the RST that waits", HeldSyn, &["rst-instead-of-fin"], "
        open
        k> data 10
        a< write 10
        kill fin
        a< watch
        k< shutdown
        a> left
        a< abort
        k> eof
        k< close
    ", Some(Outcome::Killed)),
    ("who is killed without a word before its RST hears none", HeldSyn, &["rst-instead-of-fin"], "
        open
        k> data 10
        a< write 10
        k> eof
        a< watch
        k< shutdown
        k< close
        kill vanish
        a< silent
        a> left
    ", Some(Outcome::Killed)),
    ("a half-closed flow is ended after its time", HeldSyn, &["half-closed-timeout timeout=1s style=fin"], "
        open
        k> eof
        a< shutdown
        +500ms
        a> data 5
        k< write 5
        k> sent 5
        +499ms
        +1ms
        k< shutdown
        k< close
        a> data 5
        a> eof
        a< close
    ", Some(Fine)),
    ("or reset", HeldSyn, &["half-closed-timeout timeout=1s style=rst"], "
        open
        a> eof
        k< shutdown
        +999ms
        +1ms
        a< abort
        k< abort
    ", Some(Reset)),
    ("or cut off", HeldSyn, &["half-closed-timeout timeout=1s"], "
        open
        a> eof
        k< shutdown
        +999ms
        +1ms
        a< silent
        k< silent
        k> eof
        k< close
        +3h
        a< abort
    ", Some(Timeout)),
    ("the server's FIN waits for the client's", HeldSyn, &["client-closes-first"], "
        open
        k> data 10
        a< write 10
        a> sent 10
        k> eof
        +1h
        a> eof
        a< shutdown
        a< close
        k< shutdown
        k< close
    ", Some(Fine)),
    ("and may be a RST then", HeldSyn, &["client-closes-first relieve=rst"], "
        open
        k> data 10
        a< write 10
        a> sent 10
        k> eof
        a> eof
        a< watch
        k< shutdown
        k< close
        a> left
        a< abort
    ", Some(Reset)),
    ("an end is no segment that keeps a flow from being idle", HeldSyn, &["idle-timeout idle=1s"], "
        open
        +900ms
        a> eof
        k< shutdown
        +99ms
        +1ms
        a< silent
        k< silent
    ", None),
    ("nor one that a hole swallows: it was heard before", HeldSyn, &["blackhole after=1s for=1s"], "
        open
        +1s
        a< silent
        k< silent
        a> eof
        k< shutdown
        +1s
        a< heard
        k< heard
    ", None),
];

#[test]
fn ends() {
    check(ROWS);
}

/// Leg, direction and deed.
type Told = (Leg, Direction, Did);

#[test]
fn what_a_fault_does_to_an_end_is_told_without_a_segment() {
    let from_client = "open\n a> eof";
    let from_server = "open\n k> eof";
    let table: [(&str, &str, &[Told]); 5] = [
        (
            "rst-instead-of-fin",
            from_server,
            &[
                (Leg::Client, Direction::Downstream, Did::Rewrite),
                (Leg::Server, Direction::Upstream, Did::Inject),
            ],
        ),
        (
            "rst-instead-of-fin direction=upstream",
            from_client,
            &[
                (Leg::Server, Direction::Upstream, Did::Rewrite),
                (Leg::Client, Direction::Downstream, Did::Inject),
            ],
        ),
        ("rst-instead-of-fin direction=upstream", from_server, &[]),
        (
            "half-close-broken",
            from_client,
            &[
                (Leg::Client, Direction::Downstream, Did::Inject),
                (Leg::Server, Direction::Upstream, Did::Inject),
            ],
        ),
        ("half-close-broken share=0", from_client, &[]),
    ];
    for (rule, script, expected) in table {
        let mut s = Script::new(HeldSyn, &[rule]);
        s.lines(script);
        let told = |record: &Record| match &record.event {
            Event::Fired { did, direction, segment, .. } => {
                assert_eq!(*segment, None, "{rule}");
                Some((record.leg.expect("it has a leg"), *direction, *did))
            }
            _ => None,
        };
        assert_eq!(s.log.iter().filter_map(told).collect::<Vec<_>>(), expected, "{rule}, {script}");
    }
}
