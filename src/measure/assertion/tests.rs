use std::sync::Arc;

use super::*;
use crate::time::{Duration, Instant};
use crate::trace::{Did, Direction, Event, FlowId, Leg, Outcome, Record, Sink as _};

/// Nine connects of 1 ms and one that was given up after 3 s; one refusal; a rule that fired twice.
fn run() -> Measure {
    let mut measure =
        Measure::new([(Arc::from("lost (first)"), "syn-drop"), (Arc::from("idle"), "fin-drop")]);
    let mut tell = |at, flow, leg, event| {
        measure.record(Record { at: Instant::from_millis(at), flow: FlowId(flow), leg, event })
    };
    for flow in 1..=11 {
        let (client, server) = ("10.0.0.1:4000".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
        tell(0, flow, None, Event::FlowOpened { client, server, rules: vec![Arc::from("lost (first)")] });
        let outcome = match flow {
            10 => Outcome::Aborted,
            11 => Outcome::RefusedRst,
            _ => Outcome::Ok,
        };
        if outcome == Outcome::Ok {
            tell(1, flow, Some(Leg::Client), Event::Established);
        }
        tell(3000, flow, None, Event::FlowClosed { outcome, upstream_bytes: 0, downstream_bytes: 0 });
    }
    for flow in 1..=2 {
        let (did, direction) = (Did::Drop, Direction::Upstream);
        let event = Event::Fired {
            rule: Arc::from("lost (first)"),
            fault: "syn-drop",
            did,
            direction,
            segment: None,
        };
        tell(0, flow, Some(Leg::Client), event);
    }
    measure
}

#[test]
fn an_assertion_holds_or_not() {
    let measure = run();
    for (text, holds) in [
        ("flows == 11", true),
        ("flows != 11", false),
        ("flows > 10 and flows >= 11 and flows <= 11 and flows < 12", true),
        ("flows == 1 or flows == 11", true),
        ("flows == 11 or flows == 1 and flows == 2", true),
        ("(flows == 11 or flows == 1) and flows == 2", false),
        ("count(ok) == 9 and count(refused-rst) == 1 and count(timeout) == 0", true),
        ("count(connect) == 10 and unfinished(connect) == 1", true),
        ("retransmissions == 0", true),
        ("fired == 2 and fired(syn-drop) == 2 and fired('lost (first)') == 2", true),
        ("matched(syn-drop) == 11 and matched(idle) == 0 and fired( fin-drop ) == 0", true),
        ("p50(connect) <= 2ms", true),
        ("p50(connect)<1us", false),
        ("max(connect) >= 3s", true),
    ] {
        let assertion: Assertion = text.parse().unwrap_or_else(|e: Mistake| panic!("{text}: {e}"));
        assert_eq!(assertion.judge(&measure).holds, holds, "{text}");
    }
}

#[test]
fn a_lower_bound_is_compared_so_that_every_possible_value_agrees() {
    let measure = run();
    for (text, holds) in [
        ("p99(connect) < 1h", false),
        ("p99(connect) <= 3s", false),
        ("p99(connect) > 2s", true),
        ("p99(connect) >= 3s", true),
        ("p99(connect) > 4s", false),
        ("p99(connect) == 3s", false),
        ("p99(connect) != 2s", true),
        ("p99(connect) != 4s", false),
        // Nothing was measured: neither is proven.
        ("max(server_net) < 1s", false),
        ("max(server_net) >= 1s", false),
    ] {
        assert_eq!(text.parse::<Assertion>().unwrap().judge(&measure).holds, holds, "{text}");
    }
}

#[test]
fn what_was_observed_is_told_once_per_quantity() {
    let assertion: Assertion =
        " flows == 1 or max(connect) < 1s or p0(server_net) < 1s or flows > 20".parse().unwrap();
    let Judgement { assertion: text, holds, observed } = assertion.judge(&run());
    assert_eq!((&*text, holds), (&*assertion.text().to_owned(), false));
    assert_eq!(text, "flows == 1 or max(connect) < 1s or p0(server_net) < 1s or flows > 20");
    let json = serde_json::to_value(&observed).unwrap();
    let expected = serde_json::json!([
        { "what": "flows", "count": 11 },
        { "what": "max(connect)", "micros": 3_000_000, "at_least": true },
        { "what": "p0(server_net)" },
    ]);
    assert_eq!(json, expected);
}

#[test]
fn the_rules_that_it_names_are_known_before_the_run() {
    let assertion: Assertion = "fired(a) == 1 or (matched(\"b c\") > 0 and fired > 0)".parse().unwrap();
    assert_eq!(assertion.rules(), ["a", "b c"]);
}

#[test]
fn a_mistake_names_its_column_and_what_is_allowed_there() {
    let quantities = "allowed here: a quantity: flows, retransmissions, fired, count(OUTCOME), p99(LATENCY), max(LATENCY), \
                      unfinished(LATENCY), fired(RULE), matched(RULE)";
    let latencies = format!("of {}", Kind::NAMES.join(", "));
    for (text, column, what, hint) in [
        ("", 1, "it ends too early", quantities),
        ("flows == 1 and", 15, "it ends too early", quantities),
        ("== 1", 1, "no quantity", quantities),
        ("flow == 1", 1, "\"flow\" is no quantity", quantities),
        ("flows = 1", 7, "flows is compared with nothing", "allowed here: <, <=, >, >=, ==, !="),
        ("flows == x", 10, "flows is a count", "write a whole number, such as 0"),
        ("flows == 250ms", 10, "flows is a count", "write a whole number, such as 0"),
        (
            "p99(connect) < 250",
            16,
            "p99(connect) is a time",
            "write a number and a unit, such as 250ms or 1.5s",
        ),
        ("p99 < 250ms", 1, "p99 of what?", &format!("write p99(LATENCY), {latencies}")),
        ("p99(conect) < 1s", 5, "no latency \"conect\"", &format!("write p99(LATENCY), {latencies}")),
        ("p101(connect) < 1s", 1, "p101 is no percentile", "p0 to p100, such as p99.9"),
        ("count == 1", 1, "count of what?", "write count(NAME)"),
        (
            "count(é) == 1",
            7,
            "\"é\" is nothing that is counted",
            &format!(
                "allowed here, outcomes: ok, refused-rst, refused-icmp, timeout, reset, aborted, open, killed; latencies: {}",
                Kind::NAMES.join(", ")
            ),
        ),
        ("fired() == 1", 7, "the name of a rule or fault is missing", "write fired(NAME)"),
        ("fired(a == 1", 7, "a ) is missing", "such as p99(connect)"),
        ("fired('a) == 1", 7, "a ' is missing", "such as p99(connect)"),
        ("(flows == 1", 12, "a ) is missing", "allowed here: and, or, )"),
        ("flows == 1 flows == 1", 12, "this is one word too many", "allowed here: and, or, the end"),
        ("é", 1, "\"é\" is no quantity", quantities),
    ] {
        let mistake = text.parse::<Assertion>().unwrap_err();
        assert_eq!((mistake.column, &*mistake.what, &*mistake.hint), (column, what, hint), "{text}");
    }
    let deep = format!("{}flows == 1{}", "(".repeat(65), ")".repeat(65));
    assert_eq!(deep.parse::<Assertion>().unwrap_err().what, "too many parentheses");
}

proptest::proptest! {
    /// Whatever is typed is judged or refused.
    #[test]
    fn any_text_is_read_or_refused(text in "[()<>=!'\" a-z0-9é.]{0,30}") {
        if let Ok(assertion) = text.parse::<Assertion>() {
            let _ = assertion.judge(&Measure::default());
        }
    }
}

#[test]
fn durations_of_any_length_are_compared() {
    let limit = Limit::Time(Duration::from_secs(86_400));
    let expression = Expression::Compare(Quantity::Max("connect"), Relation::Less, limit);
    assert!(!expression.holds(&run()));
}
