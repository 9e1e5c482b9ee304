//! `halfopen ladder`: flows that are drawn from the files of an earlier run. The runs are simulated.
#![allow(clippy::unwrap_used, reason = "a test may panic, and its helpers are not marked as tests")]

use std::path::PathBuf;
use std::process::Command;

use halfopen::capture::{Capture, Reader};
use halfopen::fault::{Engine, KINDS, Play, Rule, Rules};
use halfopen::report::{Ladder, Style};
use halfopen::sim::scene;
use halfopen::trace::{Did, Event, FlowId, Record, SegmentNote};

/// The events of a scene.
fn perform(rule: &str, play: Play) -> Vec<Record> {
    let rules = (!rule.is_empty()).then(|| Rule::build(rule.parse().unwrap()).unwrap());
    scene::perform(Rules::new(42, Engine::Tun, rules.into_iter().collect()).unwrap(), play).unwrap()
}

/// As `--events` writes them.
fn lines(records: &[Record]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records {
        serde_json::to_writer(&mut bytes, record).unwrap();
        bytes.push(b'\n');
    }
    bytes
}

struct File {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

/// Exit code, stdout and stderr.
type Said = (i32, String, String);

impl File {
    fn of(bytes: &[u8]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("FILE");
        std::fs::write(&path, bytes).unwrap();
        Self { _directory: directory, path }
    }

    /// What the command says; the file is called FILE.
    fn says(&self, args: &[&str]) -> Said {
        let output = Command::new(env!("CARGO_BIN_EXE_halfopen"))
            .args(["ladder", "FILE"])
            .args(args)
            .current_dir(self.path.parent().unwrap())
            .env_clear()
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }
}

/// Three flows: the first and the last are like the one of the scene.
fn three_flows() -> Vec<Record> {
    let records = perform("fin-drop direction=downstream", Play::Talk);
    let other = perform("", Play::Talk);
    let with = |flow, records: &[Record]| {
        let number = move |record: &Record| Record { flow: FlowId(flow), ..record.clone() };
        records.iter().map(number).collect::<Vec<_>>()
    };
    [with(1, &records), with(2, &other), with(3, &records)].concat()
}

#[test]
fn flows_are_drawn_from_events_as_the_run_itself_draws_them() {
    let records = perform("syn-ack-delay delay=1.2s", Play::Talk);
    let expected = Ladder::of(&records).draw(&Style::default()).to_string();
    let (code, stdout, stderr) = File::of(&lines(&records)).says(&[]);
    assert_eq!((code, stdout.trim_end(), &*stderr), (0, expected.trim_end(), ""));
}

#[test]
fn one_flow_can_be_chosen_and_one_that_is_not_there_is_told() {
    let file = File::of(&lines(&three_flows()));
    let (_, all, _) = file.says(&[]);
    let count = |text: &str| text.matches("time client").count();
    assert_eq!(count(&all), 3);
    let (code, second, _) = file.says(&["--flow", "2"]);
    assert_eq!((code, count(&second), second.contains("fin-drop")), (0, 1, false));
    assert!(second.starts_with("flow 2: "), "{second}");
    for format in ["mermaid", "svg"] {
        let (code, drawn, stderr) = file.says(&["--flow", "3", "--format", format]);
        assert!(code == 0 && stderr.is_empty() && drawn.contains("fin-drop drops it"), "{drawn}{stderr}");
        assert!(drawn.contains("flow 3: ") && !drawn.contains("flow 2: "), "{drawn}");
    }
    let expected = "halfopen: --flow 4: FILE has no such flow\n  hint: it has the flows 1-3\n";
    assert_eq!(file.says(&["--flow", "4"]), (2, String::new(), expected.to_owned()));
}

#[test]
fn a_file_without_a_flow_or_without_sense_is_told() {
    let other = br#"{"at":0.5,"flow":0,"event":"limit-hit","limit":"limits.flows"}"#;
    let hint = "\n  hint: a file that --events has written has one event in each line, as JSON";
    for (bytes, expected) in [
        (&b""[..], "FILE: is empty".to_owned()),
        (other, "FILE: there is no flow in it".to_owned()),
        (b"{\"at\":0.5,", "FILE: there is no flow in it; line 1 is cut off".to_owned()),
        (b"[intercept]\n", format!("FILE:1: no event: invalid type: sequence, expected struct Record{hint}")),
        (b"{\"flows\":12}\n", format!("FILE:1: no event: missing field `at`{hint}")),
    ] {
        assert_eq!(File::of(bytes).says(&[]), (1, String::new(), format!("halfopen: {expected}\n")));
    }
}

#[test]
fn a_file_that_is_not_there_is_told() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_halfopen")).args(["ladder", "/nowhere/events"]).output().unwrap();
    let expected = "halfopen: /nowhere/events: cannot be read: No such file or directory (os error 2)\n";
    assert_eq!(String::from_utf8(output.stderr).unwrap(), expected);
}

#[test]
fn events_that_end_too_early_are_drawn_and_told() {
    let mut bytes = lines(&three_flows());
    bytes.truncate(bytes.len() - 40);
    let number = bytes.iter().filter(|b| **b == b'\n').count() + 1;
    let (code, stdout, stderr) = File::of(&bytes).says(&["--flow", "3"]);
    assert_eq!(code, 1);
    assert!(stdout.contains("resent 3"), "{stdout}");
    assert!(stderr.starts_with(&format!("halfopen: FILE: line {number} is cut off\n")), "{stderr}");
}

#[test]
fn colour_is_for_terminals_and_the_width_that_is_asked_for_is_kept() {
    let file = File::of(&lines(&three_flows()));
    assert!(!file.says(&[]).1.contains('\u{1b}'));
    let run = |name, value| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_halfopen"));
        command.args(["ladder"]).arg(&file.path).env_clear().env(name, value);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    assert!(run("CLICOLOR_FORCE", "1").contains('\u{1b}'));
    assert!(run("COLUMNS", "80").lines().all(|line| line.chars().count() <= 80));
}

/// The capture of these events, and what is read of it.
fn captured(records: &[Record]) -> (Vec<u8>, Vec<Record>) {
    let mut capture = Capture::new(1_700_000_000_000_000_000, 256 << 10, "halfopen test");
    records.iter().for_each(|record| capture.record(record));
    capture.end(records.last().unwrap().at, 0);
    let bytes = capture.take();
    let (mut reader, mut read) = (Reader::default(), Vec::new());
    reader.feed(&bytes, &mut read).unwrap();
    assert!(reader.finish(&mut read));
    (bytes, read)
}

/// What of these events a capture carries, as far as a ladder shows it: segments, and what faults did to them.
fn carried(records: &[Record]) -> Vec<Record> {
    let as_one = |segment: &SegmentNote| SegmentNote { segs: 1, ..segment.clone() };
    let carry = |event: &Event| {
        Some(match event {
            Event::FlowOpened { client, server, .. } => {
                Event::FlowOpened { client: *client, server: *server, rules: Vec::new() }
            }
            Event::SegmentIn { segment } => Event::SegmentIn { segment: as_one(segment) },
            Event::SegmentOut { segment } => Event::SegmentOut { segment: as_one(segment) },
            Event::StateChanged { from, to } => Event::StateChanged { from: *from, to: *to },
            Event::Fired { did: Did::Knob | Did::Release, .. } => return None,
            Event::Fired { rule, fault, did, direction, segment } => Event::Fired {
                rule: rule.clone(),
                fault,
                did: *did,
                direction: *direction,
                segment: segment.as_ref().map(as_one),
            },
            _ => return None,
        })
    };
    records
        .iter()
        .filter_map(|record| Some(Record { event: carry(&record.event)?, ..record.clone() }))
        .collect()
}

/// Faults of which a capture tells less, and why; [`Reader`] has it all.
const TOLD_LESS: &[(&str, &str)] = &[
    ("accept-first", "a SYN-ACK that a fault has made does not move the state of our end"),
    ("simultaneous-open", "two things at one moment change places"),
    ("duplicate", "our FIN moves our state with its packet, and not with the first of its data"),
    ("fin-overtakes", "the same"),
    ("rst-instead-of-fin", "our TCP's FIN left as an RST"),
    ("rst-overtakes-tail", "the same"),
    ("fin-drop", "what a fault made of a segment on the way in is not there"),
    ("rst-blind", "an event between two segments has no packet"),
    ("idle-timeout", "the other leg's end has nothing to send when it closes"),
    ("keepalive-race", "the same"),
    ("late-segment-rst", "the same"),
    ("corrupt", "a checksum cannot be judged without the data"),
    ("odd-flags", "reserved bits are cut off"),
    ("reorder", "when a segment was put behind others is not there"),
];

#[test]
fn a_capture_gives_the_ladder_of_the_events_as_far_as_it_carries_them() {
    let mut wrong = String::new();
    for kind in KINDS {
        let records = perform(kind.scene.rule, kind.scene.play);
        let draw = |records: &[Record]| Ladder::of(records).draw(&Style::default()).to_string();
        let (expected, got) = (draw(&carried(&records)), draw(&captured(&records).1));
        let less = TOLD_LESS.iter().any(|(name, _)| *name == kind.name);
        if less == (expected == got) {
            wrong.push_str(&format!(
                "{}: {}\n{expected}{got}",
                kind.name,
                if less { "tells all" } else { "differs" }
            ));
        }
        // Not less than every segment that came and left.
        let segments = |records: &[Record]| {
            let segment = |record: &Record| match &record.event {
                Event::SegmentIn { segment } | Event::SegmentOut { segment } => {
                    Some((record.leg, segment.seq, segment.ack, segment.len, segment.window))
                }
                _ => None,
            };
            records.iter().filter_map(segment).collect::<Vec<_>>()
        };
        assert_eq!(segments(&captured(&records).1), segments(&records), "{}", kind.name);
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn flows_are_drawn_from_a_capture_and_one_that_ends_too_early_is_told() {
    let records = three_flows();
    let addresses = |record: &Record| {
        let mut record = record.clone();
        if let Event::FlowOpened { client, .. } = &mut record.event {
            client.set_port(40_000 + record.flow.0 as u16);
        }
        record
    };
    let records: Vec<Record> = records.iter().map(addresses).collect();
    let (bytes, _) = captured(&records);
    let file = File::of(&bytes);
    let (code, third, stderr) = file.says(&["--flow", "3"]);
    assert_eq!((code, &*stderr), (0, ""));
    assert!(third.starts_with("flow 3: 10.0.0.1:40003") && third.contains("fin-drop; resent 3"), "{third}");
    let (code, svg, _) = file.says(&["--format", "svg"]);
    assert!(code == 0 && svg.starts_with("<svg ") && svg.contains("fin-drop drops it"), "{svg}");

    let (code, stdout, stderr) = File::of(&bytes[..bytes.len() / 2]).says(&[]);
    assert!(code == 1 && stdout.contains("flow 1: "), "{stdout}");
    assert!(stderr.starts_with("halfopen: FILE: the last packet is cut off\n"), "{stderr}");
    let mut foreign = bytes;
    let name = foreign.windows(6).position(|w| w == b"client").unwrap();
    foreign[name..name + 6].copy_from_slice(b"eth0\0\0");
    let (code, stdout, stderr) = File::of(&foreign).says(&[]);
    assert_eq!((code, &*stdout), (1, ""));
    assert!(
        stderr.contains("FILE: is no capture of halfopen: byte ") && stderr.contains("an interface"),
        "{stderr}"
    );
}
