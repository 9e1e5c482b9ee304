use std::sync::Arc;

use super::*;
use crate::time::Duration;
use crate::trace::Direction;
use crate::wire::{Packet as Parsed, SeqNum, VnetHdr};

fn record(millis: u64, leg: Option<Leg>, event: Event) -> Record {
    Record { at: Instant::from_millis(millis), flow: FlowId(1), leg, event }
}

fn opened() -> Record {
    let (client, server) = ("10.0.0.1:4000".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
    record(0, None, Event::FlowOpened { client, server, rules: Vec::new() })
}

fn note(seq: u32, data: &'static [u8], len: u32) -> SegmentNote {
    SegmentNote {
        seq: SeqNum(seq),
        flags: Flags::ACK,
        len,
        data: Bytes::from_static(data),
        segs: 1,
        ..SegmentNote::default()
    }
}

fn fired(did: Did, direction: Direction, segment: Option<SegmentNote>) -> Event {
    Event::Fired { rule: Arc::from("my rule"), fault: "loss", did, direction, segment }
}

/// Type and body of each block; every length is checked at both ends.
fn blocks(bytes: &[u8]) -> Vec<(u32, &[u8])> {
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let (mut at, mut out) = (0, Vec::new());
    while at < bytes.len() {
        let len = number(at + 4) as usize;
        assert_eq!((len % 4, number(at + len - 4) as usize), (0, len));
        out.push((number(at), &bytes[at + 8..at + len - 4]));
        at += len;
    }
    out
}

/// Interface, milliseconds, packet, length on the wire and comments of a packet.
type Told = (u32, u64, Vec<u8>, u32, Vec<String>);

fn packets(bytes: &[u8]) -> Vec<Told> {
    let of = |body: &[u8]| {
        let number = |at: usize| u32::from_le_bytes(body[at..at + 4].try_into().unwrap());
        let nanos = u64::from(number(4)) << 32 | u64::from(number(8));
        let kept = number(12) as usize;
        let mut at = 20 + kept.next_multiple_of(4);
        let mut comments = Vec::new();
        loop {
            let (code, len) = (number(at) & 0xffff, (number(at) >> 16) as usize);
            let value = &body[at + 4..at + 4 + len];
            match code {
                0 => break,
                1 => comments.push(String::from_utf8(value.to_vec()).unwrap()),
                code => assert_eq!(code, 2, "epb_flags"),
            }
            at += 4 + len.next_multiple_of(4);
        }
        (number(0), nanos / 1_000_000, body[20..20 + kept].to_vec(), number(16), comments)
    };
    blocks(bytes).into_iter().filter(|(kind, _)| *kind == 6).map(|(_, body)| of(body)).collect()
}

#[test]
fn packets_of_both_legs_are_whole_and_have_good_checksums() {
    let mut capture = Capture::new(5_000_000, 65_536, "test");
    capture.record(&opened());
    capture.record(&record(1, Some(Leg::Client), Event::SegmentIn { segment: note(1, b"hello", 5) }));
    capture.record(&record(2, Some(Leg::Server), Event::SegmentOut { segment: note(9, b"hello", 5) }));
    capture.record(&record(3, Some(Leg::Server), Event::SegmentIn { segment: note(7, b"", 0) }));
    capture.end(Instant::from_millis(9), 2);
    let bytes = capture.take();
    let kinds: Vec<u32> = blocks(&bytes).iter().map(|(kind, _)| *kind).collect();
    assert_eq!(
        kinds,
        [0x0a0d_0d0a, 1, 1, 4, 4, 6, 6, 6, 5, 5],
        "section, interfaces, names, packets, statistics"
    );
    let seen: Vec<String> = packets(&bytes)
        .into_iter()
        .map(|(interface, millis, packet, len, _)| {
            assert_eq!(packet.len(), len as usize);
            let Ok(Parsed::Tcp(tcp)) = crate::wire::parse(&packet, &VnetHdr::default()) else {
                panic!("a bad packet")
            };
            let (tuple, segment) = tcp.with_payload(&packet);
            format!("{interface} {millis} {tuple} {} {:?}", segment.seq, segment.payload.to_vec().len())
        })
        .collect();
    assert_eq!(
        seen,
        [
            "0 6 10.0.0.1:4000 > 10.0.0.2:80 1 5",
            "1 7 10.0.0.1:4000 > 10.0.0.2:80 9 5",
            "1 8 10.0.0.2:80 > 10.0.0.1:4000 7 0",
        ]
    );
}

#[test]
fn what_faults_did_is_a_comment_of_the_segment_that_they_met() {
    let (upstream, downstream) = (Direction::Upstream, Direction::Downstream);
    let second = Duration::from_secs(1);
    let (client, segment) = (Some(Leg::Client), |seq| note(seq, b"", 0));
    let hold = Did::Hold(second);
    let mut capture = Capture::new(0, 65_536, "test");
    for event in [
        opened(),
        record(1, client, Event::SegmentIn { segment: segment(1) }),
        record(1, client, fired(Did::Drop, upstream, Some(segment(1)))),
        record(2, client, fired(Did::Drop, downstream, Some(segment(2)))),
        record(3, client, fired(hold, downstream, Some(segment(3)))),
        record(4, client, Event::SegmentOut { segment: segment(4) }),
        record(5, client, fired(Did::Rewrite, downstream, Some(segment(5)))),
        record(5, client, Event::SegmentOut { segment: segment(50) }),
        record(1003, client, Event::SegmentOut { segment: segment(3) }),
    ] {
        capture.record(&event);
    }
    capture.end(Instant::from_millis(2000), 0);
    let bytes = capture.take();
    let told: Vec<(u64, String)> = packets(&bytes)
        .into_iter()
        .map(|(_, millis, _, _, comments)| (millis, comments.join("; ")))
        .collect();
    let told: Vec<(u64, &str)> = told.iter().map(|(millis, text)| (*millis, text.as_str())).collect();
    assert_eq!(
        told,
        [
            (1, "loss: drops it (rule my rule)"),
            (2, "loss: drops it (rule my rule)"),
            (4, ""),
            (5, "loss: rewrites it (rule my rule)"),
            (1003, "loss: holds it for 1.000 s (rule my rule)"),
        ]
    );
}

/// The milliseconds of the packets that are commented.
fn commented(events: impl IntoIterator<Item = Record>) -> Vec<u64> {
    let mut capture = Capture::new(0, 65_536, "test");
    capture.record(&opened());
    events.into_iter().for_each(|event| capture.record(&event));
    capture.end(Instant::from_millis(2000), 0);
    let packets = packets(&capture.take());
    packets.into_iter().filter(|(.., told)| !told.is_empty()).map(|(_, millis, ..)| millis).collect()
}

#[test]
fn what_our_own_tcp_sends_for_a_fault_has_the_comment_of_the_fault() {
    let client = Some(Leg::Client);
    let inject = |millis| record(millis, client, fired(Did::Inject, Direction::Downstream, None));
    let sends = |millis, flags, len| {
        let segment = SegmentNote { flags: flags | Flags::ACK, ..note(6, b"", len) };
        record(millis, client, Event::SegmentOut { segment })
    };
    let (none, data) = (Flags::default(), 100);
    for (sentence, events, expected) in [
        ("an ACK leaves at once", vec![inject(6), sends(6, none, 0), sends(9, Flags::FIN, 0)], &[6][..]),
        (
            "a FIN waits for data",
            vec![inject(6), sends(6, none, data), sends(7, none, 0), sends(9, Flags::FIN, 0)],
            &[9],
        ),
        ("a RST does not", vec![inject(6), sends(6, Flags::RST, 0), sends(7, Flags::RST, 0)], &[6]),
        ("nor does a SYN-ACK", vec![inject(6), sends(6, Flags::SYN, 0), sends(7, none, 0)], &[6]),
        (
            "an ICMP error is no segment",
            vec![
                inject(6),
                record(6, client, Event::Icmp { kind: 3, code: 1, sent: true }),
                sends(6, none, 0),
                sends(7, Flags::RST, 0),
            ],
            &[],
        ),
    ] {
        assert_eq!(commented(events), expected, "{sentence}");
    }
}

#[test]
fn what_is_not_kept_is_known_by_its_length() {
    let mut capture = Capture::new(0, 44, "test");
    capture.record(&opened());
    capture.record(&record(
        1,
        Some(Leg::Client),
        Event::SegmentIn { segment: note(1, b"12345678", 100_000 % 65_000) },
    ));
    capture.end(Instant::ZERO, 0);
    let bytes = capture.take();
    let (_, _, packet, len, _) = packets(&bytes).remove(0);
    assert_eq!((packet.len(), len), (44, 40 + 35_000));
    assert_eq!(u16::from_be_bytes([packet[2], packet[3]]), 35_040, "the IP header tells the whole length");
}
