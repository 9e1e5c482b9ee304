use super::*;
use crate::fault::testing::{CLIENT, Flow, SERVER, error, rules, seg};
use crate::fault::{Point, Turn, Verdict, Way};
use crate::time::{Duration, Instant};
use crate::trace::Leg;
use crate::wire::Flags;

fn names(rules: &Rules) -> Vec<String> {
    rules.rules().iter().map(|rule| rule.name.to_string()).collect()
}

/// Names of the rules that match flow `number` from CLIENT to SERVER.
fn matching(rules: &Rules, number: u64) -> String {
    let (alone, turns) = (Circumstances::default(), &mut Turns::default());
    let plan = rules.plan(FlowId(number), CLIENT.parse().unwrap(), SERVER.parse().unwrap(), &alone, turns);
    plan.rules().join(" ")
}

#[test]
fn a_rule_without_a_name_has_the_fault_s_name_and_a_number_from_the_second_on() {
    let text = "fin-drop\nsyn-drop\nfin-drop first=1\nfin-drop name=last\nsyn-drop name=fin-drop#3\nfin-drop";
    let named = rules(42, Engine::Tun, text).unwrap();
    assert_eq!(names(&named), ["fin-drop", "syn-drop", "fin-drop#2", "last", "fin-drop#3", "fin-drop#4"]);
    let twice = error("syn-drop name=a\nfin-drop name=a");
    assert_eq!(twice, "name = \"a\": two rules have this name\nhint: give each rule a name of its own");
}

#[test]
fn a_flow_gets_the_rules_that_match_it() {
    for (condition, flows) in [
        ("", "12345"),
        ("match.client=any match.server=any", "12345"),
        ("match.client=10.0.0.0/24", "12345"),
        ("match.client=10.0.0.0/24:1-1023", ""),
        ("match.server=10.0.0.2:80", "12345"),
        ("match.server=10.0.0.2:81", ""),
        ("match.server=:80", "12345"),
        ("match.server=[fd00::/8]:80", ""),
        ("match.flows=3..", "345"),
        ("match.flows=1,4-5", "145"),
        ("match.server=:80 match.flows=2", "2"),
        ("match.share=0", ""),
        ("match.share=1", "12345"),
    ] {
        let rules = rules(42, Engine::Tun, &format!("syn-drop {condition}")).unwrap();
        let seen: String =
            (1..=5).filter(|n| matching(&rules, *n) == "syn-drop").map(|n: u64| n.to_string()).collect();
        assert_eq!(seen, flows, "{condition}");
    }
}

#[test]
fn a_rule_may_ask_about_neighbours_and_counts_the_flows_that_it_matches() {
    let rules = rules(
        42,
        Engine::Tun,
        "syn-drop match.crowd=3..\nfin-drop match.sibling=1ms match.share=0.5\nack-delay",
    )
    .unwrap();
    let window = Some(Duration::from_millis(1));
    assert_eq!(rules.asked(), Asked { sibling: window, crowd: true, ..Asked::default() });

    let mut turns = Turns::default();
    let mut siblings = 0;
    for number in 1..=20 {
        let now = Instant::from_millis(100 * number);
        let sibling = (number % 2 == 0).then_some(Duration::from_micros(900));
        let here = Circumstances { crowd: number, sibling, ..Circumstances::alone(now) };
        let plan =
            rules.plan(FlowId(number), CLIENT.parse().unwrap(), SERVER.parse().unwrap(), &here, &mut turns);
        for (name, turn) in plan.rules().iter().zip(plan.turns()) {
            let (nth, first) = match &**name {
                "syn-drop" => (number - 2, 3),
                "ack-delay" => (number, 1),
                _ => {
                    siblings += 1;
                    assert!(sibling.is_some());
                    assert_eq!(turn.nth, siblings, "flows that its dice leave out do not count");
                    continue;
                }
            };
            let since_first = Duration::from_millis(100 * (number - first));
            let since_last = Duration::from_millis(if nth == 1 { 0 } else { 100 });
            assert_eq!(turn, Turn { nth, since_first, since_last, served: Duration::ZERO });
        }
    }
    assert!((1..10).contains(&siblings), "{siblings}");
}

#[test]
fn share_takes_its_share_of_the_flows_and_the_same_ones_for_the_same_seed() {
    let chosen = |seed, text: &str| {
        let rules = rules(seed, Engine::Tun, text).unwrap();
        (1..=1000).filter(|n| matching(&rules, *n).contains("syn-drop")).collect::<Vec<u64>>()
    };
    let fifth = chosen(42, "syn-drop match.share=0.2");
    assert!((150..250).contains(&fifth.len()), "{} of 1000", fifth.len());
    assert_eq!(chosen(42, "syn-drop match.share=0.2"), fifth, "the same seed chooses the same flows");
    assert_ne!(chosen(43, "syn-drop match.share=0.2"), fifth, "another seed chooses others");
    assert_eq!(
        chosen(42, "syn-drop match.share=0.2\nfin-drop match.share=0.5"),
        fifth,
        "another rule changes nothing"
    );
    let bounded = chosen(42, "syn-drop match.share=0.2 first=3 share=0.5");
    assert_eq!(bounded, fifth, "the bounds change nothing");
}

/// The dice of a flow do not depend on what other flows do, in what order, or on the rules after its own.
#[test]
fn another_flow_and_another_rule_do_not_change_the_dice() {
    let at = Point { leg: Leg::Client, way: Way::In };
    let letters = |flow: &mut Flow| -> String {
        (0..32).map(|_| flow.letter(at.leg, at.way, &seg(Flags::SYN))).collect()
    };
    let alone = rules(42, Engine::Tun, "syn-drop share=0.5").unwrap();
    let first = letters(&mut Flow::numbered(&alone, 7));
    assert!(first.contains('D') && first.contains('P'), "{first}");

    let (mut seven, mut eight) = (Flow::numbered(&alone, 7), Flow::numbered(&alone, 8));
    let mut woven = [String::new(), String::new()];
    for _ in 0..32 {
        woven[1].push(eight.letter(at.leg, at.way, &seg(Flags::SYN)));
        woven[0].push(seven.letter(at.leg, at.way, &seg(Flags::SYN)));
    }
    assert_eq!(woven[0], first, "woven with another flow");
    assert_ne!(woven[1], first, "and that one has dice of its own");

    let more =
        rules(42, Engine::Tun, "syn-drop share=0.5\nfin-drop share=0.5\nsyn-ack-delay jitter=10ms").unwrap();
    assert_eq!(letters(&mut Flow::numbered(&more, 7)), first, "with rules after it");
}

#[test]
fn the_first_fault_that_does_not_let_a_segment_pass_decides() {
    let at = Point { leg: Leg::Client, way: Way::Out };
    let syn_ack = || seg(Flags::SYN | Flags::ACK);
    let hold = |millis| Verdict::Hold(Duration::from_millis(millis));
    let mut flow = Flow::of("syn-ack-delay delay=10ms first=1\nsyn-ack-delay delay=20ms first=1");
    let verdicts = [(); 3].map(|()| flow.judge(at, &mut syn_ack()));
    assert_eq!(
        verdicts,
        [hold(10), hold(20), Verdict::Pass],
        "the second rule has not seen the first segment"
    );
}

#[test]
fn an_empty_plan_lets_everything_be() {
    let mut flow = Flow::numbered(&Rules::default(), 1);
    assert!(flow.plan.is_empty() && flow.plan.rules().is_empty());
    assert_eq!(flow.letter(Leg::Client, Way::In, &seg(Flags::SYN)), 'P');
    assert_eq!(flow.knobs(Leg::Client), Knobs::default());
    assert_eq!((flow.action(), flow.timeout()), (None, None));
}

#[test]
fn mistakes_are_told_with_their_key_path() {
    for (rule, expected) in [
        (
            "syn-drp",
            "fault: unknown fault \"syn-drp\"; `halfopen faults` lists them\nhint: did you mean \"syn-drop\"?",
        ),
        (
            "syn-drop frist=2",
            "fault.syn-drop: unknown attribute \"frist\"; known: first, nth, after, for, at, every, share\nhint: did you mean \"first\"?",
        ),
        (
            "syn-drop match.sever=:80",
            "match: unknown key \"sever\"; known: client, server, flows, share, sibling, reused, stamp_behind, crowd\nhint: did you mean \"server\"?",
        ),
        (
            "syn-drop match.server=:http",
            "match.server = \":http\": \"http\" is not a port; allowed: \"any\", an address or a network, such as \"10.0.0.0/8:5432\", \":80-89\" or \"[fd00::/8]:443\"",
        ),
        (
            "syn-drop first=2 for=3",
            "fault.syn-drop.for = \"3\": missing unit; allowed: 0 to 1day, with a unit such as \"200ms\" or \"1.5s\"\nhint: write \"3ms\" or \"3s\"",
        ),
        (
            "rst-inject first=2",
            "fault.rst-inject.first: rst-inject does not take this bound; it takes after_bytes, after, for, at, every",
        ),
        (
            "ack-delay share=0.5",
            "fault.ack-delay.share: ack-delay does not take this bound; it takes after_bytes, after, for, at, every\nhint: `match.share` is the share of the flows",
        ),
        (
            "zero-window-stall every=20s",
            "fault.zero-window-stall.every = \"20s\": no pause: each time it lasts 30s; allowed: 0 to 1day, with a unit such as \"200ms\" or \"1.5s\"",
        ),
        (
            "fin-drop direction=down",
            "fault.fin-drop.direction = \"down\": not one of the known words; allowed: upstream, downstream",
        ),
    ] {
        assert_eq!(error(rule), expected);
    }
}

#[test]
fn the_seed_is_kept_for_the_report() {
    assert_eq!(rules(7, Engine::Exec, "syn-drop").unwrap().seed(), 7);
}
