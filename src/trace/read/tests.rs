use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::time::Instant;
use crate::trace::{Did, Direction, Event, FlowId, Kill, Leg, Outcome, Resend, SegmentNote};
use crate::wire::{Flags, Options, SeqNum};

prop_compose! {
    fn any_note()(
        (seq, ack, flags, window, urgent) in (any::<u32>(), any::<u32>(), 0u16..0x200, any::<u16>(), any::<u16>()),
        (len, segs, bad_checksum, reserved) in (any::<u32>(), 1u32..100, any::<bool>(), any::<bool>()),
        options in proptest::collection::vec(any::<u8>(), 0..=40),
    ) -> SegmentNote {
        SegmentNote {
            seq: SeqNum(seq),
            ack: SeqNum(ack),
            flags: if reserved { Flags(flags) | Flags::RESERVED } else { Flags(flags) },
            window,
            urgent,
            len,
            segs,
            bad_checksum,
            options: Options::parse(&options),
            ..SegmentNote::default()
        }
    }
}

fn any_did() -> impl Strategy<Value = Did> {
    prop_oneof![
        select(vec![Did::Drop, Did::Rewrite, Did::Inject, Did::Knob, Did::Release]),
        // Eleven days to the nanosecond are what a double holds.
        (0u64..1_000_000_000_000_000).prop_map(|nanos| Did::Hold(Duration::from_nanos(nanos))),
        any::<u8>().prop_map(Did::Behind),
        any::<u8>().prop_map(Did::Duplicate),
    ]
}

fn any_name() -> impl Strategy<Value = Name> {
    select(vec!["fin-drop", "ECONNREFUSED", "bad TCP checksum", "limits.flows", "日本語 \"\\\n"])
}

fn any_event() -> impl Strategy<Value = Event> {
    let address = || (any::<std::net::IpAddr>(), any::<u16>()).prop_map(std::net::SocketAddr::from);
    let rules = proptest::collection::vec("\\PC{0,20}", 0..4);
    let outcomes = select(vec![
        Outcome::Ok,
        Outcome::RefusedRst,
        Outcome::RefusedIcmp,
        Outcome::Timeout,
        Outcome::Reset,
        Outcome::Aborted,
        Outcome::Open,
        Outcome::Killed,
    ]);
    let kills = select(vec![Kill::Rst, Kill::Fin, Kill::Vanish]);
    let whys = select(vec![
        Resend::Rto,
        Resend::Rack,
        Resend::Tlp,
        Resend::WindowProbe,
        Resend::Syn,
        Resend::Keepalive,
    ]);
    let states = || select(State::ALL.to_vec());
    let directions = select(vec![Direction::Upstream, Direction::Downstream]);
    prop_oneof![
        (address(), address(), rules).prop_map(|(client, server, rules)| Event::FlowOpened {
            client,
            server,
            rules: rules.into_iter().map(Into::into).collect(),
        }),
        (outcomes, any::<u64>(), any::<u64>()).prop_map(|(outcome, upstream_bytes, downstream_bytes)| {
            Event::FlowClosed { outcome, upstream_bytes, downstream_bytes }
        }),
        kills.prop_map(|how| Event::Killed { how }),
        any_note().prop_map(|segment| Event::SegmentIn { segment }),
        any_note().prop_map(|segment| Event::SegmentOut { segment }),
        (states(), states()).prop_map(|(from, to)| Event::StateChanged { from, to }),
        Just(Event::Established),
        (whys, any::<u32>()).prop_map(|(why, count)| Event::Resent { why, count }),
        ("\\PC{0,20}", any_name(), any_did(), directions, proptest::option::of(any_note())).prop_map(
            |(rule, fault, did, direction, segment)| Event::Fired {
                rule: rule.into(),
                fault,
                did,
                direction,
                segment
            }
        ),
        (any::<u8>(), any::<u8>(), any::<bool>()).prop_map(|(kind, code, sent)| Event::Icmp {
            kind,
            code,
            sent
        }),
        proptest::option::of(any_name()).prop_map(|error| Event::Dialled { error }),
        Just(Event::ChallengeAck),
        any_name().prop_map(|reason| Event::Discarded { reason }),
        any_name().prop_map(|limit| Event::LimitHit { limit }),
    ]
}

proptest! {
    #[test]
    fn any_event_survives_its_line(
        event in any_event(),
        // A hundred years.
        micros in 0u64..3_155_760_000_000_000,
        flow: u64,
        leg in select(vec![None, Some(Leg::Client), Some(Leg::Server)]),
    ) {
        let record = Record { at: Instant::from_nanos(micros * 1000), flow: FlowId(flow), leg, event };
        let line = serde_json::to_vec(&record).unwrap();
        prop_assert_eq!(Record::from_json(&line), Ok(record));
        let cut = Record::from_json(&line[..line.len() - 1]).unwrap_err();
        prop_assert!(cut.is_cut(), "{}", cut);
    }

    #[test]
    fn any_line_is_read_or_refused(line in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = Record::from_json(&line);
    }
}

#[test]
fn what_is_no_event_is_told() {
    for (line, expected) in [
        ("", "EOF while parsing a value"),
        ("hello", "expected value at column 1"),
        ("[1]", "invalid type: sequence, expected struct Record"),
        (r#"{"at":0.1}"#, "missing field `flow`"),
        (r#"{"at":0.1,"flow":1}"#, "missing field `event`"),
        (r#"{"at":-1,"flow":1,"event":"established"}"#, "-1.0 s is no time since the start of a run"),
        (r#"{"at":1e300,"flow":1,"event":"established"}"#, "1e300 s is no time since the start of a run"),
        (
            r#"{"at":0,"flow":1,"event":"segment-in","segment":"hello"}"#,
            r#"not a segment: bad control bits: "hello""#,
        ),
        (
            r#"{"at":0,"flow":1,"event":"state-changed","from":"OPEN","to":"CLOSED"}"#,
            r#""OPEN" is no state of RFC 9293"#,
        ),
    ] {
        assert_eq!(Record::from_json(line.as_bytes()).unwrap_err().to_string(), expected, "{line}");
    }
    let unknown = Record::from_json(br#"{"at":0,"flow":1,"event":"rain"}"#).unwrap_err().to_string();
    assert!(unknown.starts_with("unknown variant `rain`, expected one of `flow-opened`"), "{unknown}");
}

#[test]
fn fields_of_later_versions_are_ignored() {
    let line = br#"{"at":1.5,"flow":1,"leg":"client","event":"established","mood":["good"]}"#;
    let record = Record::from_json(line).unwrap();
    assert_eq!((record.at, record.event), (Instant::from_millis(1500), Event::Established));
}

#[test]
fn names_are_bounded_in_number_and_length() {
    let mut names = Names { known: BTreeSet::new(), most: 2 };
    let first = names.intern("loss").unwrap();
    assert!(std::ptr::eq(names.intern("loss").unwrap(), first));
    names.intern("reorder").unwrap();
    let expected = "more than 2 different names of faults, errors, reasons and limits";
    assert_eq!(names.intern("stall").unwrap_err(), expected);
    assert_eq!(names.intern("loss"), Ok("loss"), "one that is known costs nothing");
    assert_eq!(names.intern(&"x".repeat(201)).unwrap_err(), "a name of 201 bytes, at most 200 are read");
}
