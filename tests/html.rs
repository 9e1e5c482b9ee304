//! The report in HTML: a golden page, and that nothing from outside becomes markup. The flows are simulated.
#![allow(clippy::unwrap_used, reason = "a test may panic, and its helpers are not marked as tests")]

use std::sync::Arc;

use halfopen::fault::{Engine, Play, Rule, Rules};
use halfopen::measure::{Assertion, Judgement, Measure};
use halfopen::report::html::{self, Fact, Part};
use halfopen::report::matrix::{Outcome, Run};
use halfopen::report::{Comparison, LoggedRun, Matrix, Summary, Worst};
use halfopen::sim::scene;
use halfopen::time::Instant;
use halfopen::trace::{Event, FlowId, Record, Sink as _};

mod golden;

/// What no page may have as markup.
const HOSTILE: &str = "</style><script>alert(1)</script>\"'&";

/// The scenes of these rules, one flow each; the rules are called HOSTILE.
fn perform(faults: &[&str]) -> Vec<Record> {
    let mut records = Vec::new();
    for (flow, fault) in (1..).zip(faults) {
        let mut rules = Vec::new();
        if !fault.is_empty() {
            let mut rule = Rule::build(fault.parse().unwrap()).unwrap();
            rule.name = Arc::from(HOSTILE);
            rules.push(rule);
        }
        let scene = scene::perform(Rules::new(42, Engine::Tun, rules).unwrap(), Play::Talk).unwrap();
        records.extend(scene.into_iter().map(|record| Record { flow: FlowId(flow), ..record }));
    }
    records
}

fn observe(records: &[Record], most: usize) -> (Measure, Worst) {
    let (mut measure, mut worst) = (Measure::default(), Worst::new(most));
    for record in records {
        measure.record(record.clone());
        worst.record(record.clone());
    }
    measure.finish(Instant::from_millis(4000));
    (measure, worst)
}

fn page(measure: &Measure, worst: &Worst, assertions: &[Judgement]) -> String {
    let summary = Summary { assertions, ..Summary::new(measure, 42, Instant::from_millis(4000)) };
    let from = "c.toml:3".to_owned();
    let facts = [Fact::new("started", "2026-01-02T03:04:05Z"), Fact { from, ..Fact::new("rule", HOSTILE) }];
    html::run(&format!("halfopen exec: {HOSTILE}"), &facts, &summary, worst, "1.0")
}

/// Checks that all elements are closed in their order, and tells their names.
fn elements(page: &str) -> Vec<&str> {
    let (mut open, mut all) = (Vec::new(), Vec::new());
    // The style sheet is text; it has no markup.
    let body = page.strip_prefix("<!DOCTYPE html>\n").unwrap();
    for piece in body.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').unwrap_or_else(|| panic!("no end of a tag: {piece:.60}"));
        assert!(!text.contains('>'), "{piece:.80}");
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "before {text:.60}");
            continue;
        }
        all.push(name);
        if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert_eq!(open, [""; 0]);
    all
}

/// A page that asks for nothing: no script, no image, no frame, no address but its own places.
fn asks_for_nothing(page: &str) {
    let all = elements(page);
    for name in ["script", "img", "iframe", "link", "object", "embed", "base", "form", "image", "use"] {
        assert!(!all.contains(&name), "<{name}>");
    }
    for text in ["url(", "@import", "http:", "https:", "src="] {
        assert!(!page.contains(text), "{text}");
    }
    let is_handler = |(at, _): (usize, &str)| {
        let attribute = page[at..].trim_start();
        attribute.trim_start_matches(|c: char| c.is_ascii_lowercase()).starts_with("=\"")
    };
    assert!(!page.match_indices(" on").any(is_handler));
    assert!(page.contains("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline';"));
}

#[test]
fn a_page_shows_outcomes_curves_rules_and_the_ladders_of_the_worst_flows() {
    let records = perform(&["", "syn-ack-delay delay=1.2s", "refuse", "fin-drop direction=downstream"]);
    let (measure, worst) = observe(&records, 256);
    let text = "p99(connect) < 10s and flows == 4";
    let judged = [text.parse::<Assertion>().unwrap().judge(&measure)];
    let page = page(&measure, &worst, &judged);
    asks_for_nothing(&page);
    assert!(!page.contains("<script") && page.contains("&lt;/style&gt;&lt;script&gt;"));
    golden::check("html/run.html", &page);
}

#[test]
fn only_the_worst_flows_have_ladders_and_the_others_are_counted() {
    let faults: Vec<&str> = [["refuse"; 6], [""; 6]].concat();
    let (measure, worst) = observe(&perform(&faults), 256);
    let page = page(&measure, &worst, &[]);
    assert_eq!(page.matches("<svg class=\"ladder\"").count(), 8);
    assert!(page.contains("<h3>refused-rst: the first 4 of 6 flows</h3>"), "{page}");
    assert!(page.contains("<h3>ok: the slowest 4 of 6 flows</h3>"), "{page}");
}

#[test]
fn the_slowest_flow_comes_first() {
    let (_, worst) = observe(&perform(&["", "syn-ack-delay delay=500ms", "syn-ack-delay delay=1.2s"]), 256);
    let (slowest, ok) = worst.slowest();
    let order: Vec<u64> = slowest.iter().map(|slow| slow.ladder.flow().0).collect();
    assert_eq!((order, ok), (vec![3, 2, 1], 3));
    assert!(slowest[0].waited > slowest[1].waited && slowest[1].waited.as_millis() >= 500);
}

#[test]
fn flows_that_are_not_followed_are_told() {
    let records = perform(&["", ""]);
    let opened = |flow| Record {
        flow: FlowId(flow),
        ..records.iter().find(|record| matches!(record.event, Event::FlowOpened { .. })).unwrap().clone()
    };
    let both = [vec![opened(7), opened(8)], records.clone()].concat();
    let (_, worst) = observe(&both, 3);
    assert_eq!(worst.unfollowed(), 0, "one ended before the next began");
    let (measure, worst) = observe(&both, 2);
    assert_eq!((worst.unfollowed(), worst.slowest().1), (2, 0));
    assert!(page(&measure, &worst, &[]).contains("2 flows could not be followed"));
}

#[test]
fn a_run_without_flows_has_a_page_too() {
    let page = page(&Measure::default(), &Worst::default(), &[]);
    asks_for_nothing(&page);
    assert!(!page.contains("class=\"chart\"") && !page.contains("<h2 id=\"flows\">"));
}

fn run(name: &str, outcome: Outcome) -> Run {
    Run {
        name: name.to_owned(),
        outcome,
        why: (outcome == Outcome::Fail).then(|| HOSTILE.to_owned()),
        exit_code: Some(0),
        seconds: (outcome != Outcome::Impossible).then_some(1.5),
        flows: Some(1),
        fired: Some(2),
        time_scaled: false,
        directory: None,
    }
}

#[test]
fn a_matrix_has_a_part_for_each_run() {
    let (measure, _) = observe(&perform(&["", "syn-ack-delay delay=1.2s"]), 2);
    let part =
        || Part { latencies: measure.latencies().clone(), report: Some("out/1/report.html".to_owned()) };
    let runs =
        vec![run("stuck-reader", Outcome::Pass), run(HOSTILE, Outcome::Fail), run("no", Outcome::Impossible)];
    let clean = run("clean", Outcome::Pass);
    let matrix = Matrix { seed: 42, time_scale: 1.0, output: "out".to_owned(), clean, runs };
    let facts = [Fact::new("output", "out")];
    let page = html::matrix(
        "halfopen matrix: suite",
        &facts,
        &matrix,
        &part(),
        &[part(), part(), Part::default()],
        "1.0",
    );
    asks_for_nothing(&page);
    for (index, name) in ["clean", "stuck-reader", "&lt;/style&gt;"].into_iter().enumerate() {
        assert!(page.contains(&format!("<a href=\"#run-{index}\">{name}")), "{name}");
        assert!(page.contains(&format!("<h2 id=\"run-{index}\">{name}")), "{name}");
    }
    assert_eq!(page.matches("href=\"out/1/report.html\"").count(), 3);
    assert_eq!(page.matches("<figcaption>connect</figcaption>").count(), 3);
}

#[test]
fn two_logs_are_drawn_in_one_picture() {
    let (first, _) = observe(&perform(&["", ""]), 2);
    let (second, _) = observe(&perform(&["syn-ack-delay delay=1.2s", ""]), 2);
    let files = || vec![HOSTILE.to_owned()];
    let one = html::log(&LoggedRun::new(files(), second.latencies()), "1.0");
    asks_for_nothing(&one);
    assert!(one.contains("<li class=\"c2\">connect_without_fault: 2 values"), "{one}");
    let logged = |measure| LoggedRun::new(files(), Measure::latencies(measure));
    let two = html::comparison(&Comparison::new(logged(&first), logged(&second), 1), "1.0");
    asks_for_nothing(&two);
    assert!(
        two.contains("<li class=\"c1\">first: 2 values") && two.contains("<li class=\"c2\">second: 2 values"),
        "{two}"
    );
}
