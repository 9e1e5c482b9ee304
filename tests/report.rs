//! `halfopen report`: what it reads, merges and compares, and what it answers bad files with. Needs no root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use halfopen::measure::{Detail, Kind, Latency, Measure, hlog};
use halfopen::time::{Duration, Instant};
use halfopen::trace::{Event, FlowId, Leg, Record, Sink as _};
use serde_json::Value;

mod golden;

/// 240 connects through `halfopen exec --seed 42 --fault 'syn-ack-delay delay=200ms match.share=0.3'`, recorded on Linux, one of
/// them given up.
const RECORDED: &str = "hlog/recorded.hlog";

fn golden_files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn recorded() -> String {
    std::fs::read_to_string(golden_files().join(RECORDED)).unwrap()
}

fn report(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_halfopen"));
    command.arg("report").args(args).current_dir(golden_files()).output().unwrap()
}

fn stdout(args: &[&str]) -> String {
    let output = report(args);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&stdout(&[&["--json"], args].concat())).unwrap()
}

/// `tests/golden/hlog/expected.json` was made from the same log by the Python implementation (hdrhistogram 0.10.8 from PyPI), which
/// shares no code with ours: `tests/real/hdrhistogram.py` says how.
#[test]
fn another_implementation_of_hdr_histograms_finds_the_same_percentiles() {
    let expected = std::fs::read_to_string(golden_files().join("hlog/expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&expected).unwrap();
    let mut reader = hlog::Reader::default();
    recorded().lines().for_each(|line| reader.line(line).unwrap());
    let latencies = reader.finish();
    let mut compared = 0;
    for (kind, latency) in latencies.iter().filter(|(_, latency)| latency.count() > 0) {
        let theirs = &expected["tags"][kind.name()];
        assert_eq!(theirs["count"], latency.count(), "{}", kind.name());
        let histogram = latency.histogram().unwrap();
        for (percent, value) in theirs["percentiles"].as_object().unwrap() {
            let ours = histogram.value_at_percentile(percent.parse().unwrap());
            assert_eq!(*value, ours, "p{percent} of {}", kind.name());
            compared += 1;
        }
    }
    assert!(compared >= 50, "{compared} percentiles are compared");
    let unfinished = &expected["tags"]["unfinished/connect"]["count"];
    assert_eq!(*unfinished, latencies.get(Kind::Connect).unfinished_count());
    assert!(*unfinished == 1);
    let ours = halfopen::report::percentiles::hgrm(latencies.get(Kind::Connect));
    let written = std::fs::read_to_string(golden_files().join("hlog/recorded.hgrm")).unwrap();
    assert_eq!(ours, written, "the log says what the run itself has written");
    let rows = ours.lines().filter(|line| line.trim().starts_with(|c: char| c.is_ascii_digit()));
    let rows: Vec<Vec<&str>> = rows.map(|line| line.split_whitespace().collect()).collect();
    let levels = expected["levels"].as_array().unwrap();
    assert!(levels.len() > 20 && rows.len() == levels.len(), "{} levels", levels.len());
    for (row, level) in rows.iter().zip(levels) {
        let micros = (row[0].parse::<f64>().unwrap() * 1000.0).round() as u64;
        assert_eq!((row[1], micros), (level[0].as_str().unwrap(), level[1].as_u64().unwrap()));
    }
    let milliseconds = |what: &str| format!("{:.3}", expected[what].as_f64().unwrap() / 1000.0);
    assert!(ours.contains(&format!("{}, StdDeviation", milliseconds("mean"))), "{ours}");
    assert!(ours.contains(&format!("{}]", milliseconds("deviation"))), "{ours}");
}

#[test]
fn a_report_of_a_log() {
    golden::check("hlog/report.txt", &stdout(&[RECORDED]));
    golden::check("hlog/report.csv", &stdout(&["--csv", RECORDED]));
}

#[test]
fn several_logs_are_one_run() {
    let (one, two) = (json(&[RECORDED]), json(&[RECORDED, RECORDED]));
    let connect = |run: &Value, what: &str| run["latencies"]["connect"][what].as_u64().unwrap();
    assert_eq!(connect(&two, "count"), 2 * connect(&one, "count"));
    assert_eq!(connect(&two, "p90_us"), connect(&one, "p90_us"));
    assert_eq!(two["files"].as_array().unwrap().len(), 2);
}

#[test]
fn two_runs_side_by_side_and_the_same_run_has_no_difference() {
    golden::check("hlog/compare.txt", &stdout(&[RECORDED, "--against", RECORDED]));
    let csv = stdout(&["--csv", RECORDED, "--against", RECORDED]);
    assert!(csv.starts_with("latency,quantile,first_us,"), "{csv}");
    let both = json(&[RECORDED, "--against", RECORDED, "--seed", "7"]);
    assert_eq!(both["seed"], 7);
    for row in both["differences"].as_array().unwrap() {
        assert!(row["difference_us"] == 0 || row["difference_us"].is_null(), "{row}");
        let (low, high) = (row["low_us"].as_i64(), row["high_us"].as_i64());
        assert!(low.is_none_or(|low| low <= 0) && high.is_none_or(|high| high >= 0), "{row}");
    }
    let other = json(&[RECORDED, "--against", RECORDED, "--seed", "8"]);
    assert_ne!(both["differences"], other["differences"], "the seed is that of the dice");
}

#[test]
fn a_difference_is_how_much_larger_the_second_run_is() {
    let directory = tempfile::tempdir().unwrap();
    let log = |name: &str, micros: u64| {
        let mut measure = Measure::default();
        for flow in 1..=1000 {
            let (client, server) = ("10.0.0.1:4000".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
            let mut tell = |at, leg, event| {
                let at = Instant::from_nanos(at * 1000);
                measure.record(Record { at, flow: FlowId(flow), leg, event });
            };
            tell(0, None, Event::FlowOpened { client, server, rules: Vec::new() });
            tell(micros + flow, Some(Leg::Client), Event::Established);
        }
        let interval =
            hlog::interval(measure.latencies(), Instant::ZERO, Instant::from_millis(1000)).unwrap();
        let path = directory.path().join(name);
        std::fs::write(&path, hlog::head("0", 0) + &interval).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (before, after) = (log("before", 1000), log("after", 3000));
    let both = json(&[&after, "--against", &before]);
    let median = &both["differences"][0];
    assert_eq!((median["latency"].as_str(), median["quantile"].as_str()), (Some("connect"), Some("p50")));
    assert_eq!((&median["first_us"], &median["second_us"]), (&1500.into(), &3501.into()), "to 0.1 %");
    assert_eq!(median["difference_us"], 2001);
    assert!(
        median["low_us"].as_i64().unwrap() > 1900 && median["high_us"].as_i64().unwrap() < 2100,
        "{median}"
    );
    assert!(stdout(&[&after, "--against", &before]).contains("differs"));
}

#[test]
fn a_report_is_a_page_too() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("page");
    let path = file.to_str().unwrap();
    let text = stdout(&[RECORDED, "--html", path]);
    assert_eq!(text, stdout(&[RECORDED]), "it is printed all the same");
    let page = std::fs::read_to_string(&file).unwrap();
    assert!(page.contains("<figcaption>connect</figcaption>") && page.contains("curve c1 bound"), "{page}");
    stdout(&[RECORDED, "--against", RECORDED, "--html", path]);
    let page = std::fs::read_to_string(&file).unwrap();
    assert!(page.contains("second less first") && page.contains("curve c2"), "{page}");
    let output = report(&[RECORDED, "--html", "no/such/page.html"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("halfopen: --html no/such/page.html: cannot be written: "), "{said}");
}

#[test]
fn bad_files_are_refused_with_what_where_and_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let good = recorded();
    let head = good.lines().next().unwrap();
    let hint = "  hint: it must be a file that halfopen wrote with --hlog\n";
    let rows: [(&str, &[u8], &str); 5] = [
        ("empty", b"", ", line 1: the file is empty\n"),
        (
            "foreign",
            b"#[Histogram log format version 1.2]\n",
            ", line 1: not an interval log of halfopen: the unit of its values is unknown\n",
        ),
        ("binary", b"\x7fELF\xff\xff\n", ", line 1: not text\n"),
        (
            "wrong",
            &format!("{head}\nTag=connect,1,2\n").into_bytes(),
            ", line 2: not a line of an interval log\n",
        ),
        (
            "long",
            &[b'x'; 3 << 20],
            ", line 1: not an interval log of halfopen: the unit of its values is unknown\n",
        ),
    ];
    for (name, bytes, says) in rows {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let output = report(&[path.to_str().unwrap()]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said, format!("halfopen: {}{says}{hint}", path.display()));
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    }
    let missing = report(&["no/such.hlog"]);
    let said = String::from_utf8(missing.stderr).unwrap();
    assert_eq!(said, "halfopen: no/such.hlog: cannot be read: No such file or directory (os error 2)\n");
}

#[test]
fn a_log_that_a_full_disk_has_cut_off_is_read_up_to_there() {
    let directory = tempfile::tempdir().unwrap();
    let good = recorded();
    let path = directory.path().join("cut");
    let lines = good.lines().count();
    std::fs::write(&path, &good[..good.len() - 20]).unwrap();
    let output = report(&["--json", path.to_str().unwrap()]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, format!("halfopen: {}, line {lines}: cut off, left out\n", path.display()));
    let run: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(run["latencies"]["connect"], json(&[RECORDED])["latencies"]["connect"]);
}

#[test]
fn the_memory_of_a_latency_is_what_the_readme_says() {
    let mut fine = Latency::default();
    fine.record(Duration::from_secs(1));
    let mut coarse = Latency::new(Detail::Coarse);
    coarse.record(Duration::from_secs(1));
    let [fine, coarse] = [fine, coarse].map(|latency| latency.histogram().unwrap().distinct_values() * 8);
    assert!(fine <= 160 << 10 && coarse <= 23 << 10, "{fine} and {coarse} bytes");
}
