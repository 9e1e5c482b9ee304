//! `halfopen demo` from end to end: a kernel client, a kernel server, both legs of ours, and the picture of it. Times and ports
//! differ from run to run; the order of segments and states does not.

#![allow(clippy::unwrap_used, reason = "a test may panic, and its helpers are not marked as tests")]

use std::process::Command;

struct Shown {
    text: String,
}

/// One arrow: leg, direction, flags; and one state row, as its words.
#[derive(Debug, PartialEq, Eq)]
enum Row {
    Arrow(String),
    States(Vec<String>),
}

fn demo(args: &[&str]) -> Shown {
    let run = Command::new(env!("CARGO_BIN_EXE_halfopen"))
        .arg("demo")
        .args(args)
        .env("COLUMNS", "100")
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    let (text, complaint) = (String::from_utf8(run.stdout).unwrap(), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "demo {args:?}: {complaint}\n{text}");
    Shown { text }
}

impl Shown {
    /// The lines of the ladder that are between lifelines, cut at these.
    fn cells(&self) -> impl Iterator<Item = (&str, Vec<&str>)> {
        self.text.lines().filter_map(|line| {
            let mut cells = line.split('│');
            let time = cells.next()?.trim();
            let cells: Vec<&str> = cells.collect();
            (cells.len() == 3).then_some((time, cells))
        })
    }

    /// Arrows such as `client > S.` and `server < F. x` (lost), and rows of states.
    fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for (time, cells) in self.cells() {
            let words = |cell: &str| cell.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            if time.is_empty() {
                let states = [words(cells[0]), words(cells[1])].concat();
                if !states.is_empty() {
                    rows.push(Row::States(states));
                }
                continue;
            }
            for (leg, cell) in [("client", cells[0]), ("server", cells[1])] {
                let Some(flags) = words(cell).into_iter().nth(1).filter(|_| cell.contains(['─', '═']))
                else {
                    continue;
                };
                let to_the_right = cell.trim_end().ends_with(['▶', '✗', '…']);
                let lost = if cell.contains('✗') { " lost" } else { "" };
                let made = if cell.contains('═') { " made" } else { "" };
                rows.push(Row::Arrow(format!(
                    "{leg} {} {flags}{lost}{made}",
                    if to_the_right { '>' } else { '<' }
                )));
            }
        }
        rows
    }

    /// The rows as text, without pure ACKs of data, which the kernel delays or not.
    fn story(&self) -> Vec<String> {
        let rows = self.rows().into_iter().map(|row| match row {
            Row::Arrow(arrow) => arrow,
            Row::States(states) => states.join(" "),
        });
        rows.filter(|row| !row.ends_with(" .")).collect()
    }

    /// The seconds of the arrows that carry this text.
    fn times(&self, text: &str) -> Vec<f64> {
        let rows =
            self.cells().filter(|(time, cells)| !time.is_empty() && cells.iter().any(|c| c.contains(text)));
        rows.map(|(time, _)| time.parse().unwrap()).collect()
    }

    #[track_caller]
    fn has(&self, text: &str) {
        assert!(self.text.contains(text), "no {text:?} in\n{}", self.text);
    }
}

#[test]
fn a_healthy_connection_opens_in_three_steps_and_closes_in_four() {
    let shown = demo(&[]);
    let expected = [
        "client > S",
        "SYN-SENT",
        "server > S",
        "SYN-SENT",
        "server < S.",
        "ESTABLISHED SYN-RECEIVED",
        "client < S.",
        "SYN-RECEIVED",
        "ESTABLISHED ESTABLISHED",
        "ESTABLISHED",
        "client > P.",
        "server > P.",
        "server < P.",
        "client < P.",
        "client > F.",
        "FIN-WAIT-1 CLOSE-WAIT",
        "FIN-WAIT-2",
        "server > F.",
        "FIN-WAIT-1",
        "FIN-WAIT-2 CLOSE-WAIT",
        "server < P.",
        "client < P.",
        "server < F.",
        "TIME-WAIT LAST-ACK",
        "client < F.",
        "LAST-ACK",
        "CLOSED",
        "TIME-WAIT CLOSED",
    ];
    // The two last ACKs are made in one step of the engine; which of them is drawn first is not the point.
    let sorted = |mut story: Vec<String>| {
        let tail = story.len().saturating_sub(4);
        story[tail..].sort();
        story
    };
    assert_eq!(sorted(shown.story()), sorted(expected.map(str::to_owned).to_vec()), "{}", shown.text);
    shown.has("this is a half-close");
    shown.has("TIME-WAIT (60 s");
    shown.has("client  read: 500 bytes, then end of file");
    shown.has("closed: ok; 100 bytes upstream, 2,500 bytes downstream");
}

#[test]
fn a_swallowed_fin_leaves_the_server_in_fin_wait_1_and_the_client_waiting() {
    let shown = demo(&["fin-drop"]);
    let story = shown.story();
    let first =
        story.iter().position(|row| row == "server < F. lost").unwrap_or_else(|| panic!("{}", shown.text));
    assert_eq!(story[first + 1], "FIN-WAIT-1");
    let rest = &story[first + 2..];
    assert!(rest[..rest.len() - 1].iter().all(|row| row == "server < F. lost"), "{}", shown.text);
    assert_eq!(rest[rest.len() - 1], "ESTABLISHED ESTABLISHED ESTABLISHED FIN-WAIT-1");
    // Linux: a tail loss probe or the first timeout after 0.2 s, then each wait is twice the last.
    let times = shown.times("F. 2001:2001(0)");
    assert!((3..=5).contains(&times.len()), "{times:?}");
    let since: Vec<f64> = times.iter().map(|time| time - times[0]).collect();
    assert!((0.19..0.35).contains(&since[1]) && since[since.len() - 1] > 1.0, "{since:?}");
    shown.has("client  read: nothing for 2 s");
    shown.has("fin-drop         1");
}

#[test]
fn dropped_syns_cost_what_the_client_waits_for_its_own_timer() {
    let shown = demo(&["syn-drop"]);
    assert_eq!(
        shown.story()[..5],
        ["client > S lost", "SYN-SENT", "client > S lost", "client > S", "server > S"]
    );
    let times = shown.times("S 0:0(0)");
    assert!((0.9..1.3).contains(&(times[1] - times[0])), "{times:?}");
    shown.has("resent 1");
    shown.has("closed: ok");
}

#[test]
fn a_held_syn_ack_is_drawn_when_it_is_held_and_when_it_leaves() {
    let shown = demo(&["syn-ack-delay delay=300ms"]);
    shown.has("syn-ack-delay holds it for 0.300 s");
    shown.has("held for 0.30");
    let times = shown.times("S. 0:0(0)");
    assert!((0.29..0.5).contains(&(times[2] - times[1])), "{times:?}");
}

#[test]
fn a_closed_window_draws_probes_and_opens_again() {
    let shown = demo(&["zero-window-stall"]);
    assert!(shown.times("win 0 ").len() >= 3, "{}", shown.text);
    shown.has("zero-window-stall begins");
    shown.has("window probe");
    shown.has("zero-window-stall ends");
    shown.has("server  read: 131072 bytes, then end of file");
}

#[test]
fn an_injected_reset_hits_both_applications() {
    let shown = demo(&["rst-inject"]);
    let story = shown.story();
    for arrow in ["client < R. made", "server > R. made"] {
        assert!(story.iter().any(|row| row == arrow), "{story:?}");
    }
    shown.has("client  read: Connection reset by peer");
    shown.has("server  read: Connection reset by peer");
    shown.has("closed: reset");
}

#[test]
fn events_come_as_json_lines() {
    let shown = demo(&["--json"]);
    let events: Vec<serde_json::Value> =
        shown.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events[0]["event"], "flow-opened");
    assert_eq!(events[events.len() - 1]["event"], "flow-closed");
}

#[test]
fn an_unknown_fault_is_answered_with_the_nearest_one() {
    let run = Command::new(env!("CARGO_BIN_EXE_halfopen")).args(["demo", "fin-drp"]).output().unwrap();
    assert_eq!(run.status.code(), Some(2));
    let text = String::from_utf8(run.stderr).unwrap();
    assert!(text.contains("no fault \"fin-drp\"") && text.contains("did you mean \"fin-drop\"?"), "{text}");
}
