//! `halfopen ladder`: flows that are drawn from the files of an earlier run. The runs are simulated.
#![allow(clippy::unwrap_used, reason = "a test may panic, and its helpers are not marked as tests")]

use std::path::PathBuf;
use std::process::Command;

use halfopen::fault::{Engine, Play, Rule, Rules};
use halfopen::report::{Ladder, Style};
use halfopen::sim::scene;
use halfopen::trace::{FlowId, Record};

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
