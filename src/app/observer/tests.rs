use super::*;
use crate::trace::{FlowId, Outcome, SegmentNote};

fn opened(flow: u64) -> Record {
    let (client, server) = ("10.0.0.1:4000".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
    let event = Event::FlowOpened { client, server, rules: vec![Arc::from("r")] };
    Record { at: Instant::from_millis(flow), flow: FlowId(flow), leg: None, event }
}

#[test]
fn every_event_is_a_line_of_json_and_flows_have_ladders() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events");
    let watch = Watch { events: Some(File::create(&path).unwrap()), ladders: true, ..Watch::default() };
    let observer = Observer::start(Measure::default(), watch).unwrap();
    let mut tap = observer.tap();
    assert!(tap.wants_segments());
    tap.record(opened(1));
    let event = Event::FlowClosed { outcome: Outcome::Ok, upstream_bytes: 1, downstream_bytes: 2 };
    tap.record(Record { event, ..opened(1) });
    assert_eq!(observer.counters().flows, 1);
    let report = observer.finish(Instant::from_millis(9));
    assert_eq!((report.measure.limits(), report.ladders.iter().count()), (&[][..], 1));
    assert!(report.events_error.is_none());
    let text = std::fs::read_to_string(path).unwrap();
    let expected = [
        r#"{"at":0.001,"flow":1,"event":"flow-opened","client":"10.0.0.1:4000","server":"10.0.0.2:80","rules":["r"]}"#,
        r#"{"at":0.001,"flow":1,"event":"flow-closed","outcome":"ok","upstream_bytes":1,"downstream_bytes":2}"#,
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn without_a_reader_only_totals_are_kept_and_open_flows_are_counted_at_the_end() {
    let observer = Observer::start(Measure::default(), Watch::default()).unwrap();
    let mut tap = observer.tap();
    assert!(!tap.wants_segments());
    tap.record(opened(1));
    assert_eq!(observer.finish(Instant::from_millis(9)).measure.counters().outcomes.open, 1);
}

#[test]
fn a_full_mailbox_loses_events_and_counts_them_but_measures_all() {
    let mailbox = Mailbox::new(1000, 1000);
    for flow in 0..1005 {
        mailbox.push(opened(flow));
    }
    assert_eq!(mailbox.close(Instant::ZERO).lost, 5);
    let mut seen = 0;
    mailbox.read(|records| seen += records.len());
    assert_eq!(seen, 1000);
}

#[test]
fn lost_events_are_told_as_a_limit_that_was_hit() {
    let watch = Watch { ladders: true, waiting: 0, ..Watch::default() };
    let observer = Observer::start(Measure::default(), watch).unwrap();
    observer.tap().record(opened(1));
    let measure = observer.finish(Instant::from_millis(9)).measure;
    assert_eq!(measure.limits(), [NameCount { name: "limits.events", count: 1 }]);
    assert_eq!(measure.counters().flows, 1);
}

#[test]
fn a_disk_that_is_full_ends_the_event_file_and_nothing_else() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let watch = Watch { events: Some(full), ladders: true, ..Watch::default() };
    let observer = Observer::start(Measure::default(), watch).unwrap();
    let mut tap = observer.tap();
    tap.record(opened(1));
    let report = observer.finish(Instant::from_millis(9));
    assert_eq!(report.events_error.unwrap().raw_os_error(), Some(28));
    assert_eq!(report.ladders.iter().count(), 1);
}

fn segment(bytes: usize) -> Record {
    let segment = SegmentNote { data: vec![7; bytes].into(), len: bytes as u32, ..SegmentNote::default() };
    let leg = Some(crate::trace::Leg::Client);
    Record { leg, event: Event::SegmentIn { segment }, ..opened(1) }
}

/// A pipe that is full: whoever writes to it waits until somebody reads.
fn slow_disk() -> (io::PipeReader, File) {
    let (reader, mut writer) = io::pipe().unwrap();
    writer.write_all(&[b'\n'; 65_536]).unwrap();
    (reader, File::from(std::os::fd::OwnedFd::from(writer)))
}

/// Flows are recorded while nobody reads; then all is read, so that the observer can end.
fn goes_on_beside(mut reader: io::PipeReader, watch: Watch) -> Report {
    const FLOWS: u64 = 5000;
    let observer = Observer::start(Measure::default(), Watch { waiting: 1024, ..watch }).unwrap();
    let mut tap = observer.tap();
    (1..=FLOWS).for_each(|flow| tap.record(opened(flow)));
    assert_eq!(observer.counters().flows, FLOWS);
    let drain = std::thread::spawn(move || io::copy(&mut reader, &mut io::sink()));
    let report = observer.finish(Instant::from_millis(9));
    drain.join().unwrap().unwrap();
    report
}

#[test]
fn a_disk_that_is_slow_holds_up_the_event_file_and_not_the_data_path() {
    let (reader, file) = slow_disk();
    let report = goes_on_beside(reader, Watch { events: Some(file), ..Watch::default() });
    assert!(report.events_error.is_none());
    let [NameCount { name: "limits.events", count }] = report.measure.limits() else {
        panic!("{:?}", report.measure.limits())
    };
    assert!(*count > 0);
}

#[test]
fn a_disk_that_is_slow_holds_up_the_capture_and_not_the_data_path() {
    let (reader, file) = slow_disk();
    let report = goes_on_beside(reader, capture("slow".as_ref(), file, 0));
    assert!(report.pcap_error.is_none());
    assert!(report.measure.limits().iter().any(|limit| limit.name == "limits.events"));
}

#[test]
fn flows_that_are_not_followed_are_told_as_a_limit_that_was_hit() {
    let watch = Watch { worst: Some(2), ..Watch::default() };
    let observer = Observer::start(Measure::default(), watch).unwrap();
    let mut tap = observer.tap();
    assert!(tap.wants_segments());
    (1..=5).for_each(|flow| tap.record(opened(flow)));
    let report = observer.finish(Instant::from_millis(9));
    assert_eq!(report.measure.limits(), [NameCount { name: "limits.ladders", count: 3 }]);
}

fn capture(path: &std::path::Path, file: File, rotate: u64) -> Watch {
    let pcap = Pcap { file, path: path.to_owned(), snaplen: 65_536, rotate };
    Watch { pcap: Some(pcap), waiting_bytes: 10_000, ..Watch::default() }
}

#[test]
fn a_disk_that_is_full_ends_the_capture_and_nothing_else() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let observer = Observer::start(Measure::default(), capture("full".as_ref(), full, 0)).unwrap();
    let mut tap = observer.tap();
    assert_eq!((tap.wants_segments(), tap.snaplen()), (true, 65_536));
    tap.record(opened(1));
    let report = observer.finish(Instant::from_millis(9));
    assert_eq!(report.pcap_error.unwrap().raw_os_error(), Some(28));
    assert_eq!(report.measure.counters().flows, 1);
}

#[test]
fn captured_bytes_that_wait_have_a_limit_and_lose_only_their_payload() {
    let mailbox = Mailbox::new(1000, 100);
    for _ in 0..3 {
        mailbox.push(segment(60));
    }
    let end = mailbox.close(Instant::ZERO);
    let mut kept = Vec::new();
    mailbox.read(|records| {
        kept.extend(
            records.iter().cloned().map(|mut record| {
                record.event.segment_mut().map(|segment| (segment.len, segment.data.len()))
            }),
        );
    });
    assert_eq!((end.lost, end.cut), (0, 2));
    assert_eq!(kept, [Some((60, 60)), Some((60, 0)), Some((60, 0))]);
}

#[test]
fn a_capture_goes_on_in_the_next_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.pcapng");
    let watch = Watch { waiting_bytes: 1 << 20, ..capture(&path, File::create(&path).unwrap(), 5000) };
    let observer = Observer::start(Measure::default(), watch).unwrap();
    let mut tap = observer.tap();
    tap.record(opened(1));
    for _ in 0..200 {
        tap.record(segment(1000));
    }
    let report = observer.finish(Instant::from_millis(9));
    assert!(report.pcap_error.is_none());
    for name in ["c.pcapng", "c.pcapng.1"] {
        let bytes = std::fs::read(directory.path().join(name)).unwrap();
        assert_eq!(bytes[..4], [0x0a, 0x0d, 0x0d, 0x0a], "{name} begins with a section header");
    }
}
