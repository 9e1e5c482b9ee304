use proptest::prelude::*;

use super::super::Capture;
use super::*;
use crate::time::Instant;
use crate::trace::{Did, Direction, Event, FlowId, Leg, Record, State};

/// What is read of a file in one piece, and whether it was whole.
fn read(bytes: &[u8]) -> Result<(Vec<Record>, bool), Foreign> {
    let (mut reader, mut records) = (Reader::default(), Vec::new());
    reader.feed(bytes, &mut records)?;
    let whole = reader.finish(&mut records);
    Ok((records, whole))
}

fn record(millis: u64, flow: u64, leg: Option<Leg>, event: Event) -> Record {
    Record { at: Instant::from_millis(millis), flow: FlowId(flow), leg, event }
}

fn opened(flow: u64) -> Record {
    let (client, server) = ("[fd00::1]:4000".parse().unwrap(), "[fd00::2]:80".parse().unwrap());
    record(0, flow, None, Event::FlowOpened { client, server, rules: Vec::new() })
}

fn came(millis: u64, flow: u64, leg: Leg, text: &str) -> Record {
    record(millis, flow, Some(leg), Event::SegmentIn { segment: text.parse().unwrap() })
}

fn left(millis: u64, flow: u64, leg: Leg, text: &str) -> Record {
    record(millis, flow, Some(leg), Event::SegmentOut { segment: text.parse().unwrap() })
}

fn fired(millis: u64, leg: Leg, direction: Direction, did: Did, text: &str) -> Record {
    let segment = Some(text.parse().unwrap());
    record(
        millis,
        1,
        Some(leg),
        Event::Fired { rule: "my rule".into(), fault: "loss", did, direction, segment },
    )
}

fn captured(records: &[Record], snaplen: u32) -> Vec<u8> {
    let mut capture = Capture::new(1_700_000_000_000_000_000, snaplen, "halfopen test");
    records.iter().for_each(|record| capture.record(record));
    capture.end(Instant::from_millis(9000), 0);
    capture.take()
}

/// Events in short: milliseconds since the first, flow, and what happened.
fn told(records: &[Record]) -> Vec<String> {
    let start = records.first().map_or(Instant::ZERO, |record| record.at);
    let tell = |Record { at, flow, leg, event }: &Record| {
        let leg = leg.map_or("", Leg::name);
        let what = match event {
            Event::FlowOpened { client, server, .. } => format!("{client} {server}"),
            Event::SegmentIn { segment } => format!("{leg} < {segment}"),
            Event::SegmentOut { segment } => format!("{leg} > {segment}"),
            Event::StateChanged { from, to } => format!("{leg} {from} {to}"),
            Event::Fired { did, segment, .. } => format!("{leg} {did:?} {}", segment.is_some()),
            other => format!("{other:?}"),
        };
        format!("{} {flow} {what}", at.since(start).as_millis())
    };
    records.iter().map(tell).collect()
}

const CLIENT: Leg = Leg::Client;
const SERVER: Leg = Leg::Server;
const SYN: &str = "S 100:100(0) win 64240 <mss 1460,sackOK,TS val 7 ecr 0,nop,wscale 7>";
const SYN_ACK: &str = "S. 500:500(0) ack 101 win 65160 <mss 1460>";

/// A handshake, a lost segment, data of which the capture keeps little, and the end.
fn flow() -> Vec<Record> {
    vec![
        opened(1),
        came(0, 1, CLIENT, SYN),
        left(1, 1, SERVER, "S 300:300(0) win 64240"),
        came(2, 1, SERVER, "S. 900:900(0) ack 301 win 65160"),
        fired(3, CLIENT, Direction::Downstream, Did::Hold(std::time::Duration::from_millis(50)), SYN_ACK),
        came(20, 1, SERVER, ". 901:901(0) ack 301 win 65160"),
        left(53, 1, CLIENT, SYN_ACK),
        came(54, 1, CLIENT, ". 101:101(0) ack 501 win 502"),
        left(54, 1, SERVER, ". 301:301(0) ack 901 win 502"),
        came(60, 1, CLIENT, "P. 101:30101(30000) ack 501 win 502"),
        fired(60, CLIENT, Direction::Upstream, Did::Drop, "P. 101:30101(30000) ack 501 win 502"),
        came(70, 1, CLIENT, "FP. 101:30101(30000) ack 501 win 502 cksum bad"),
        left(80, 1, CLIENT, "R. 501:501(0) ack 30102 win 0"),
    ]
}

#[test]
fn a_flow_comes_back_with_its_states() {
    let expected = [
        "0 1 [fd00::1]:4000 [fd00::2]:80",
        &format!("0 1 client < {SYN}"),
        "1 1 server CLOSED SYN-SENT",
        "1 1 server > S 300:300(0) win 64240",
        "2 1 server < S. 900:900(0) ack 301 win 65160",
        "2 1 server SYN-SENT ESTABLISHED",
        "3 1 client CLOSED SYN-RECEIVED",
        "3 1 client Hold(50ms) true",
        "20 1 server < . 901:901(0) ack 301 win 65160",
        &format!("53 1 client > {SYN_ACK}"),
        "54 1 client < . 101:101(0) ack 501 win 502",
        "54 1 client SYN-RECEIVED ESTABLISHED",
        "54 1 server > . 301:301(0) ack 901 win 502",
        "60 1 client < P. 101:30101(30000) ack 501 win 502",
        "60 1 client Drop true",
        "70 1 client < FP. 101:30101(30000) ack 501 win 502",
        "70 1 client ESTABLISHED CLOSE-WAIT",
        "80 1 client CLOSE-WAIT CLOSED",
        "80 1 client > R. 501:501(0) ack 30102 win 0",
    ];
    for snaplen in [128, 262_144] {
        let (records, whole) = read(&captured(&flow(), snaplen)).unwrap();
        assert_eq!(told(&records), expected, "{snaplen}");
        assert!(whole);
    }
    let rule = read(&captured(&flow(), 128)).unwrap().0.into_iter().find_map(|record| match record.event {
        Event::Fired { rule, fault, direction, .. } => Some((rule.to_string(), fault, direction)),
        _ => None,
    });
    assert_eq!(rule, Some(("my rule".to_owned(), "loss", Direction::Downstream)));
}

#[test]
fn a_wrong_checksum_is_seen_where_the_whole_packet_was_kept() {
    let bad = "F. 101:101(0) ack 501 win 502 cksum bad";
    let (records, _) = read(&captured(&[opened(1), came(0, 1, CLIENT, bad)], 64)).unwrap();
    assert_eq!(told(&records)[1], format!("0 1 client < {bad}"));
}

#[test]
fn a_client_port_that_is_used_again_is_another_flow() {
    let syn = |number: u32| format!("S {number}:{number}(0) win 1");
    let mut records =
        vec![opened(1), came(0, 1, CLIENT, &syn(100)), left(1, 1, CLIENT, "R. 0:0(0) ack 101 win 0")];
    records.extend([opened(2), came(5, 2, CLIENT, &syn(7000)), came(9, 2, CLIENT, &syn(7000))]);
    records.extend([left(10, 2, CLIENT, "S. 1:1(0) ack 7001 win 1"), came(11, 2, CLIENT, &syn(8000))]);
    let (records, _) = read(&captured(&records, 64)).unwrap();
    let flows: Vec<u64> = records.iter().map(|record| record.flow.0).collect();
    assert_eq!(flows, [1, 1, 1, 2, 2, 2, 2, 2, 2], "{:?}", told(&records));
}

#[test]
fn a_capture_that_begins_in_the_middle_of_a_flow_has_that_flow() {
    let late = [opened(1), came(0, 1, SERVER, "P. 901:911(10) ack 301 win 502")];
    let (records, _) = read(&captured(&late, 64)).unwrap();
    let expected = ["0 1 [fd00::1]:4000 [fd00::2]:80", "0 1 server < P. 901:911(10) ack 301 win 502"];
    assert_eq!(told(&records), expected);
}

#[test]
fn files_behind_each_other_are_one() {
    let bytes = captured(&flow(), 128);
    let (once, _) = read(&bytes).unwrap();
    let (twice, whole) = read(&[&bytes[..], &bytes[..]].concat()).unwrap();
    assert!(whole && twice.len() > once.len());
}

#[test]
fn a_file_that_ends_anywhere_gives_what_was_there() {
    let bytes = captured(&flow(), 128);
    let all = told(&read(&bytes).unwrap().0);
    let mut most = 0;
    for end in 0..bytes.len() {
        let (records, whole) = read(&bytes[..end]).unwrap();
        assert!(!whole || end % 4 == 0, "{end}");
        // What was stopped is only known when it leaves.
        assert!(records.len() >= most && told(&records).iter().all(|told| all.contains(told)), "{end}");
        most = records.len();
    }
    assert!(most > 10);
}

#[test]
fn other_files_are_refused_with_the_place_and_the_reason() {
    let good = captured(&flow(), 128);
    let section = 4 + u32::from_le_bytes([good[4], good[5], good[6], good[7]]) as usize - 4;
    let change = |at: usize, to: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + to.len()].copy_from_slice(to);
        bytes
    };
    let name = good.windows(6).position(|w| w == b"client").unwrap();
    for (bytes, expected) in [
        (
            vec![7; 40],
            "byte 0: a block of 117901063 bytes; halfopen writes multiples of 4 from 12 to 1048576",
        ),
        (good[section..].to_vec(), "byte 0: no pcapng file: it does not begin with a section"),
        (
            change(8, &[0x1a, 0x2b, 0x3c, 0x4d]),
            "byte 0: numbers are big-endian, which halfopen does not write",
        ),
        (change(8, &[1; 4]), "byte 0: no pcapng file: the byte-order magic is missing"),
        (
            change(name, b"eth0\0\0"),
            &format!(
                "byte {section}: an interface \"eth0\"; a capture of halfopen has \"client\" and \"server\""
            ),
        ),
        (
            change(section + 8, &[1, 0]),
            &format!("byte {section}: packets do not begin with their IP header, as halfopen's do"),
        ),
    ] {
        assert_eq!(read(&bytes).unwrap_err().to_string(), expected);
    }
}

#[test]
fn a_flow_takes_bounded_memory_however_many_there_are() {
    let mut flows = Flows::default();
    let mut records = crate::trace::NoSink;
    for n in 0..80_000u32 {
        let client = std::net::SocketAddr::from((n.to_be_bytes(), 1));
        let (src, dst) = (client, "10.0.0.2:80".parse().unwrap());
        let packet = Packet {
            leg: CLIENT,
            nanos: u64::from(n),
            bytes: &[],
            len: 0,
            inbound: true,
            comments: Vec::new(),
        };
        flows.take(&packet, Tuple { src, dst }, SYN.parse().unwrap(), Vec::new(), &mut records);
    }
    assert_eq!(flows.sizes(), [1 << 16, 1 << 16, 1 << 10]);
}

#[test]
fn our_end_passes_through_the_states_of_the_rfc() {
    for (sentence, script, expected) in [
        (
            "both close at once",
            &[
                "> S 1:1(0) win 1",
                "< S. 5:5(0) ack 2 win 1",
                "> F. 2:2(0) ack 6 win 1",
                "< F. 6:6(0) ack 2 win 1",
                "< . 7:7(0) ack 3 win 1",
            ][..],
            "SYN-SENT ESTABLISHED FIN-WAIT-1 CLOSING TIME-WAIT",
        ),
        (
            "both open at once",
            &["> S 1:1(0) win 1", "< S 5:5(0) win 1", "> S. 1:1(0) ack 6 win 1", "< . 6:6(0) ack 2 win 1"],
            "SYN-SENT SYN-RECEIVED ESTABLISHED",
        ),
        (
            "a FIN before its data counts when they are there",
            &[
                "> S. 5:5(0) ack 2 win 1",
                "< . 2:2(0) ack 6 win 1",
                "< F. 12:12(0) ack 6 win 1",
                "< P. 2:12(10) ack 6 win 1",
                "> F. 6:6(0) ack 13 win 1",
                "< . 13:13(0) ack 7 win 1",
            ],
            "SYN-RECEIVED ESTABLISHED CLOSE-WAIT LAST-ACK CLOSED",
        ),
        (
            "an RST beside the number does nothing, an exact one closes",
            &["> S. 5:5(0) ack 2 win 1", "< R 9:9(0) win 0", "< R 2:2(0) win 0"],
            "SYN-RECEIVED CLOSED",
        ),
    ] {
        let (mut end, mut states) = (own::Own::default(), Vec::new());
        for line in script {
            let (mark, text) = line.split_once(' ').unwrap();
            let note: SegmentNote = text.parse().unwrap();
            let changes = if mark == "<" { end.receive(&note) } else { end.send(&note) };
            states.extend(changes.into_iter().map(|(_, to): (State, State)| to.name()));
        }
        assert_eq!(states.join(" "), expected, "{sentence}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&bytes);
    }

    #[test]
    fn any_damage_is_read_or_refused(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = captured(&flow(), 128);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = read(&bytes);
    }

    #[test]
    fn the_pieces_of_a_file_do_not_matter(size in 1usize..200) {
        let bytes = captured(&flow(), 128);
        let (mut reader, mut records) = (Reader::default(), Vec::new());
        for piece in bytes.chunks(size) {
            reader.feed(piece, &mut records).unwrap();
        }
        prop_assert!(reader.finish(&mut records));
        prop_assert_eq!(records, read(&bytes).unwrap().0);
    }
}
