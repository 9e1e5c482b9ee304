//! The end report of a run, from events written by hand.
#![allow(clippy::unwrap_used, reason = "a test may panic, and its helpers are not marked as tests")]

use std::sync::Arc;

use halfopen::measure::{Assertion, Measure};
use halfopen::report::summary::{ScaledTime, TimeScale};
use halfopen::report::{Style, Summary};
use halfopen::time::Instant;
use halfopen::trace::{Did, Direction, Event, FlowId, Leg, Outcome, Record, Sink as _, State};

mod golden;

fn run() -> Measure {
    let mut measure =
        Measure::new([(Arc::from("eine von fünf 遅延"), "fin-drop"), (Arc::from("idle"), "syn-drop")]);
    let mut at = |micros: u64, flow, leg, event| {
        measure.record(Record { at: Instant::from_nanos(micros * 1000), flow: FlowId(flow), leg, event });
    };
    for flow in 1..=200 {
        let start = flow * 10_000;
        let (client, server) = ("10.0.0.1:4000".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
        at(
            start,
            flow,
            None,
            Event::FlowOpened { client, server, rules: vec![Arc::from("eine von fünf 遅延")] },
        );
        let dial = Event::StateChanged { from: State::Closed, to: State::SynSent };
        at(start, flow, Some(Leg::Server), dial);
        if flow % 50 == 0 {
            let event =
                Event::FlowClosed { outcome: Outcome::Aborted, upstream_bytes: 0, downstream_bytes: 0 };
            at(start + 3_000_000, flow, None, event);
            continue;
        }
        at(start + 100 + flow, flow, Some(Leg::Server), Event::Established);
        let segment = "S. 1:1(0) ack 2 win 3".parse().unwrap();
        at(start + 110 + flow, flow, Some(Leg::Client), Event::SegmentOut { segment });
        at(start + 130 + flow, flow, Some(Leg::Client), Event::Established);
        let outcome = if flow % 70 == 0 { Outcome::Reset } else { Outcome::Ok };
        let closed = Event::FlowClosed { outcome, upstream_bytes: 100, downstream_bytes: 1 << 20 };
        at(start + 9000, flow, None, closed);
    }
    let rule = Arc::from("eine von fünf 遅延");
    let (did, direction) = (Did::Drop, Direction::Downstream);
    at(1, 1, Some(Leg::Server), Event::Fired { rule, fault: "fin-drop", did, direction, segment: None });
    at(2, 0, None, Event::LimitHit { limit: "limits.flows" });
    at(3, 0, None, Event::Discarded { reason: "bad checksum" });
    measure.finish(Instant::from_millis(9000));
    measure
}

#[test]
fn the_text_tells_outcomes_rules_latencies_and_limits() {
    let measure = run();
    let summary = Summary::new(&measure, 42, Instant::from_millis(9000));
    golden::check("summary.txt", &summary.draw(&Style::default()).to_string());
    let ascii = summary.draw(&Style { ascii: true, width: 80, ..Style::default() }).to_string();
    assert!(ascii.contains(">=3.00 s") && ascii.contains("us"), "{ascii}");
}

#[test]
fn a_time_scale_and_assertions_are_told_only_if_there_are_some() {
    let measure = run();
    let texts = ["p99(connect) < 10s and flows == 200", "p50(server_net) <= 1ms"];
    let judged: Vec<_> =
        texts.iter().map(|text| text.parse::<Assertion>().unwrap().judge(&measure)).collect();
    let scaled = ScaledTime { rule: Arc::from("nlb"), attribute: "idle", from_seconds: 350.0, seconds: 3.5 };
    let time_scale = TimeScale { factor: 0.01, scaled: vec![scaled], unscaled: vec![Arc::from("idle")] };
    let summary = Summary {
        time_scale: Some(time_scale),
        assertions: &judged,
        ..Summary::new(&measure, 42, Instant::from_millis(9000))
    };
    let text = summary.draw(&Style::default()).to_string();
    let last: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("time scale")).collect();
    assert_eq!(
        last,
        [
            "time scale 0.01",
            "  nlb: idle 350 s is 3.5 s",
            "  not scaled: idle",
            "assert p99(connect) < 10s and flows == 200: fails; p99(connect) ≥3.00 s, flows 200",
            "assert p50(server_net) <= 1ms: holds; p50(server_net) 202 µs",
        ]
    );
    let json = serde_json::to_value(&summary).unwrap();
    assert_eq!(json["time_scale"]["scaled"][0]["seconds"], 3.5);
    assert_eq!(json["assertions"][0]["observed"][0]["at_least"], true);
    let plain = serde_json::to_value(Summary::new(&measure, 42, Instant::ZERO)).unwrap();
    assert!(plain.get("time_scale").is_none() && plain.get("assertions").is_none());
}

#[test]
fn the_json_says_the_same() {
    let measure = run();
    let summary = Summary::new(&measure, 42, Instant::from_millis(9000));
    let json = serde_json::to_string_pretty(&summary).unwrap();
    golden::check("summary.json", &(json + "\n"));
}

#[test]
fn an_empty_run_is_one_honest_line() {
    let measure = Measure::default();
    let text = Summary::new(&measure, 7, Instant::ZERO).draw(&Style::default()).to_string();
    assert_eq!(text, "0 flows\n0 bytes upstream, 0 bytes downstream, 0 retransmissions; 0.000 s, seed 7\n");
}
