//! Golden ladders, from events written by hand.
#![allow(clippy::unwrap_used, reason = "a test may panic, and its helpers are not marked as tests")]

use std::sync::Arc;

use halfopen::fault::{Engine, Play, Rule, Rules};
use halfopen::report::{Ladder, Ladders, Style};
use halfopen::sim::scene;
use halfopen::time::{Duration, Instant};
use halfopen::trace::{Did, Direction, Event, FlowId, Leg, Outcome, Record, Resend, Sink as _, State};
use unicode_width::UnicodeWidthStr as _;

mod golden;

/// Writes records: the clock moves by what each step says.
#[derive(Default)]
struct Script {
    micros: u64,
    records: Vec<Record>,
}

impl Script {
    fn open(rules: &[&str]) -> Self {
        let mut script = Self::default();
        let (client, server) = ("10.81.1.2:40000".parse().unwrap(), "10.81.2.2:8080".parse().unwrap());
        let rules = rules.iter().map(|r| Arc::from(*r)).collect();
        script.event(None, Event::FlowOpened { client, server, rules });
        script
    }

    fn wait(&mut self, micros: u64) -> &mut Self {
        self.micros += micros;
        self
    }

    fn event(&mut self, leg: Option<Leg>, event: Event) -> &mut Self {
        let at = Instant::from_nanos(self.micros * 1000);
        self.records.push(Record { at, flow: FlowId(1), leg, event });
        self
    }

    fn from(&mut self, leg: Leg, text: &str) -> &mut Self {
        let segment = text.parse().unwrap();
        self.wait(100).event(Some(leg), Event::SegmentIn { segment })
    }

    fn to(&mut self, leg: Leg, text: &str) -> &mut Self {
        let segment = text.parse().unwrap();
        self.event(Some(leg), Event::SegmentOut { segment })
    }

    fn state(&mut self, leg: Leg, from: State, to: State) -> &mut Self {
        self.event(Some(leg), Event::StateChanged { from, to })
    }

    fn fired(&mut self, leg: Leg, direction: Direction, rule: &str, did: Did, text: &str) -> &mut Self {
        let segment = (!text.is_empty()).then(|| text.parse().unwrap());
        self.event(Some(leg), Event::Fired { rule: Arc::from(rule), fault: "fault", did, direction, segment })
    }

    fn closed(&mut self, outcome: Outcome) -> &mut Self {
        self.event(None, Event::FlowClosed { outcome, upstream_bytes: 100, downstream_bytes: 4500 })
    }

    /// The handshake of both legs.
    fn handshake(&mut self) -> &mut Self {
        self.from(CLIENT, &format!("S 1000:1000(0) win 64240 <{SYN}>"))
            .state(SERVER, State::Closed, State::SynSent)
            .to(SERVER, &format!("S 5000:5000(0) win 64240 <{SYN}>"))
            .from(SERVER, &format!("S. 9000:9000(0) ack 5001 win 65160 <{SYN}>"))
            .state(SERVER, State::SynSent, State::Established)
            .state(CLIENT, State::Closed, State::SynReceived)
            .to(CLIENT, &format!("S. 7000:7000(0) ack 1001 win 65160 <{SYN}>"))
            .from(CLIENT, ". 1001:1001(0) ack 7001 win 502")
            .state(CLIENT, State::SynReceived, State::Established)
            .to(SERVER, ". 5001:5001(0) ack 9001 win 502")
    }

    fn exchange(&mut self) -> &mut Self {
        self.from(CLIENT, "P. 1001:1101(100) ack 7001 win 502")
            .to(SERVER, "P. 5001:5101(100) ack 9001 win 502")
            .to(CLIENT, ". 7001:7001(0) ack 1101 win 509")
            .from(SERVER, ". 9001:9001(0) ack 5101 win 509")
            .from(SERVER, "P. 9001:13501(4500) ack 5101 win 509 segs 4")
            .to(SERVER, ". 5101:5101(0) ack 13501 win 480")
            .to(CLIENT, "P. 7001:11501(4500) ack 1101 win 509 segs 4")
            .from(CLIENT, ". 1101:1101(0) ack 11501 win 480")
    }

    fn draw(&self, style: Style) -> String {
        Ladder::of(&self.records).draw(&style).to_string()
    }
}

const CLIENT: Leg = Leg::Client;
const SERVER: Leg = Leg::Server;
const SYN: &str = "mss 1460,sackOK,TS val 7 ecr 0,nop,wscale 7";

/// Half-close by the client, the rest of the reply, close by the server.
fn healthy() -> Script {
    let mut script = Script::open(&[]);
    script
        .handshake()
        .exchange()
        .wait(5000)
        .from(CLIENT, "F. 1101:1101(0) ack 11501 win 502")
        .state(CLIENT, State::Established, State::CloseWait)
        .state(SERVER, State::Established, State::FinWait1)
        .to(CLIENT, ". 11501:11501(0) ack 1102 win 509")
        .to(SERVER, "F. 5101:5101(0) ack 13501 win 502")
        .from(SERVER, ". 13501:13501(0) ack 5102 win 509")
        .state(SERVER, State::FinWait1, State::FinWait2)
        .wait(20_000)
        .from(SERVER, "F. 13501:13501(0) ack 5102 win 509")
        .state(SERVER, State::FinWait2, State::TimeWait)
        .to(SERVER, ". 5102:5102(0) ack 13502 win 502")
        .state(CLIENT, State::CloseWait, State::LastAck)
        .to(CLIENT, "F. 11501:11501(0) ack 1102 win 509")
        .from(CLIENT, ". 1102:1102(0) ack 11502 win 502")
        .state(CLIENT, State::LastAck, State::Closed)
        .closed(Outcome::Ok);
    script
}

#[test]
fn a_healthy_flow_reads_like_a_textbook() {
    let script = healthy();
    golden::check("ladder/healthy.txt", &script.draw(Style::default()));
    golden::check("ladder/healthy-explained.txt", &script.draw(Style { explain: true, ..Style::default() }));
}

#[test]
fn eighty_columns_and_ascii_lose_no_row() {
    let script = healthy();
    let narrow = script.draw(Style { width: 80, ascii: true, explain: true });
    assert!(narrow.is_ascii());
    assert!(narrow.lines().all(|line| line.len() <= 80), "{narrow}");
    golden::check("ladder/healthy-80-ascii.txt", &narrow);
}

#[test]
fn a_swallowed_fin_shows_the_closer_retransmitting() {
    let mut script = Script::open(&["fin-drop"]);
    script.handshake().exchange().wait(1000);
    let fin = "F. 13501:13501(0) ack 5101 win 509";
    for wait in [0, 205_000, 420_000, 870_000] {
        script.wait(wait).from(SERVER, fin);
        script.fired(SERVER, Direction::Downstream, "fin-drop", Did::Drop, fin);
    }
    script.wait(1_000_000).closed(Outcome::Open);
    golden::check("ladder/fin-drop.txt", &script.draw(Style::default()));
    golden::check("ladder/fin-drop-explained.txt", &script.draw(Style { explain: true, ..Style::default() }));
}

#[test]
fn dropped_syns_and_a_held_syn_ack_carry_the_names_of_their_rules() {
    let mut script = Script::open(&["syn-drop", "langsames Netz 遅延"]);
    let syn = format!("S 1000:1000(0) win 64240 <{SYN}>");
    script.fired(CLIENT, Direction::Upstream, "syn-drop", Did::Drop, &syn);
    script.wait(1_000_000).from(CLIENT, &syn);
    let syn_ack = format!("S. 7000:7000(0) ack 1001 win 65160 <{SYN}>");
    let hold = Did::Hold(Duration::from_millis(200));
    script
        .state(SERVER, State::Closed, State::SynSent)
        .to(SERVER, &format!("S 5000:5000(0) win 64240 <{SYN}>"))
        .from(SERVER, &format!("S. 9000:9000(0) ack 5001 win 65160 <{SYN}>"))
        .state(SERVER, State::SynSent, State::Established)
        .state(CLIENT, State::Closed, State::SynReceived)
        .fired(CLIENT, Direction::Downstream, "langsames Netz 遅延", hold, &syn_ack)
        .wait(200_000)
        .to(CLIENT, &syn_ack)
        .from(CLIENT, ". 1001:1001(0) ack 7001 win 502")
        .state(CLIENT, State::SynReceived, State::Established)
        .to(SERVER, ". 5001:5001(0) ack 9001 win 502");
    golden::check("ladder/handshake-faults.txt", &script.draw(Style { width: 90, ..Style::default() }));
}

#[test]
fn an_icmp_error_of_a_fault_has_its_name_and_the_next_segment_has_not() {
    let mut script = Script::open(&["pmtu-blackhole"]);
    script.handshake();
    script.fired(CLIENT, Direction::Downstream, "pmtu-blackhole", Did::Inject, "");
    script.event(Some(CLIENT), Event::Icmp { kind: 3, code: 4, sent: true });
    script.to(CLIENT, ". 7001:7001(0) ack 1001 win 509");
    let drawn = script.draw(Style::default());
    assert!(drawn.contains("pmtu-blackhole: ICMP 3/4 sent to the client"), "{drawn}");
    assert!(!drawn.contains("injects it"), "{drawn}");
}

#[test]
fn a_stalled_window_shows_probes_and_an_injected_reset_its_rule() {
    let mut script = Script::open(&["zero-window-stall", "rst-inject"]);
    script.handshake().wait(900);
    script.fired(CLIENT, Direction::Upstream, "zero-window-stall", Did::Knob, "");
    script.from(CLIENT, "P. 1001:1101(100) ack 7001 win 502").to(CLIENT, ". 7001:7001(0) ack 1101 win 0");
    for wait in [210_000, 420_000] {
        script.wait(wait).from(CLIENT, ". 1100:1100(0) ack 7001 win 502");
        script.to(CLIENT, ". 7001:7001(0) ack 1101 win 0");
    }
    script.wait(100_000);
    script.fired(CLIENT, Direction::Upstream, "zero-window-stall", Did::Release, "");
    script.to(CLIENT, ". 7001:7001(0) ack 1101 win 509");
    let reset = "R. 7001:7001(0) ack 1101 win 0";
    script.wait(50_000).fired(CLIENT, Direction::Downstream, "rst-inject", Did::Inject, "");
    script.state(CLIENT, State::Established, State::Closed).to(CLIENT, reset);
    script.event(Some(SERVER), Event::Resent { why: Resend::Tlp, count: 1 });
    script.to(SERVER, "P. 5001:5101(100) ack 9001 win 502");
    script.closed(Outcome::Reset);
    golden::check("ladder/window-and-reset.txt", &script.draw(Style::default()));
}

#[test]
fn long_transfers_are_folded_in_bounded_memory() {
    let mut script = Script::open(&[]);
    script.handshake();
    for n in 0..500 {
        let (at, end) = (9001 + n * 14480, 9001 + (n + 1) * 14480);
        script
            .from(SERVER, &format!(". {at}:{end}(14480) ack 5001 win 509 segs 10"))
            .to(SERVER, &format!(". 5001:5001(0) ack {end} win 480"))
            .to(CLIENT, &format!(". {}:{}(14480) ack 1001 win 509 segs 10", at - 2000, end - 2000))
            .from(CLIENT, &format!(". 1001:1001(0) ack {} win 480", end - 2000));
    }
    script.closed(Outcome::Ok);
    golden::check("ladder/folded.txt", &script.draw(Style::default()));
}

#[test]
fn refusals_say_how() {
    let mut script = Script::open(&[]);
    script
        .from(CLIENT, "S 1000:1000(0) win 64240 <mss 1460>")
        .state(SERVER, State::Closed, State::SynSent)
        .to(SERVER, "S 5000:5000(0) win 64240 <mss 1460>")
        .wait(300)
        .event(Some(SERVER), Event::Icmp { kind: 3, code: 1, sent: false })
        .state(SERVER, State::SynSent, State::Closed)
        .event(Some(CLIENT), Event::Icmp { kind: 3, code: 1, sent: true })
        .closed(Outcome::RefusedIcmp);
    golden::check("ladder/refused.txt", &script.draw(Style { width: 80, ..Style::default() }));
}

#[test]
fn only_the_first_flows_of_a_run_have_ladders_and_the_rest_is_counted() {
    let mut ladders = Ladders::default();
    let open = Script::open(&[]).records.remove(0);
    for flow in 1..=halfopen::report::ladder::FLOWS as u64 + 3 {
        ladders.record(Record { flow: FlowId(flow), ..open.clone() });
    }
    assert_eq!(ladders.iter().count(), halfopen::report::ladder::FLOWS);
    let text = ladders.draw(&Style::default()).to_string();
    assert!(text.ends_with("3 more flows have no ladder; only the first 16 are drawn\n"), "{text}");
}

#[test]
fn every_line_has_eighty_columns_whatever_rules_are_called() {
    // Wide characters, a picture of two columns, combining marks, a terminal's orders, and far too much of all.
    for name in
        ["遅延".repeat(60), "☺\u{fe0f}".repeat(60), "e\u{301}".repeat(300), "\u{1b}[31m\n\u{202e}".repeat(90)]
    {
        let mut script = Script::open(&[&name, "fin-drop"]);
        script.handshake();
        let fin = "F. 9001:9001(0) ack 5001 win 509";
        script.from(SERVER, fin).fired(SERVER, Direction::Downstream, &name, Did::Drop, fin);
        script.fired(CLIENT, Direction::Upstream, &name, Did::Knob, "");
        for width in [Style::NARROWEST, 80, 100] {
            let drawn = script.draw(Style { width, explain: true, ..Style::default() });
            for line in drawn.lines() {
                assert!(line.width() <= width && !line.contains(char::is_control), "{width}: {line:?}");
            }
        }
    }
}

#[test]
fn a_ladder_stays_small_whatever_the_events_are() {
    let mut script = Script::open(&[]);
    script.handshake();
    for _ in 0..20_000 {
        script.fired(CLIENT, Direction::Downstream, "rule", Did::Inject, "");
        script.fired(SERVER, Direction::Upstream, "rule", Did::Rewrite, ". 1:1(0) ack 1 win 1");
        script.fired(SERVER, Direction::Upstream, "rule", Did::Duplicate(3), ". 1:1(0) ack 1 win 1");
    }
    script.to(CLIENT, ". 7001:7001(0) ack 1001 win 1").to(SERVER, "F. 5001:5000(4294967295) ack 1 win 1");
    let drawn = script.draw(Style::default());
    assert!(drawn.len() < 20_000, "{} bytes", drawn.len());
}

/// The flow of each fault below, in both formats that others draw.
#[test]
fn flows_are_drawn_for_other_programs_too() {
    for (name, rule) in [
        ("none", ""),
        ("fin-drop", "fin-drop direction=downstream"),
        ("syn-ack-delay", "syn-ack-delay delay=1.2s"),
    ] {
        let rules = (!rule.is_empty()).then(|| Rule::build(rule.parse().unwrap()).unwrap());
        let rules = Rules::new(42, Engine::Tun, rules.into_iter().collect()).unwrap();
        let mut ladders = Ladders::default();
        let records = scene::perform(rules, Play::Talk).unwrap();
        records.into_iter().for_each(|record| ladders.record(record));
        golden::check(&format!("ladder/mermaid/{name}.mmd"), &ladders.mermaid());
        golden::check(&format!("ladder/svg/{name}.svg"), &ladders.svg());
    }
}

#[test]
fn folds_limits_and_foreign_names_are_drawn_for_other_programs() {
    let mut ladders = Ladders::default();
    let mut script = Script::open(&["<b>&amp;", "a;b %%{init}%%"]);
    script.handshake();
    for n in 0..100 {
        let (at, end) = (9001 + n * 1000, 9001 + (n + 1) * 1000);
        script.from(SERVER, &format!(". {at}:{end}(1000) ack 5001 win 509"));
    }
    script.fired(CLIENT, Direction::Upstream, "<b>&amp;", Did::Knob, "");
    let reset = "R. 7001:7001(0) ack 1001 win 0";
    script.fired(CLIENT, Direction::Downstream, "a;b %%{init}%%", Did::Inject, "").to(CLIENT, reset);
    script.closed(Outcome::Reset);
    let open = script.records[0].clone();
    script.records.iter().for_each(|record| ladders.record(record.clone()));
    for flow in 2..=halfopen::report::ladder::FLOWS as u64 + 3 {
        ladders.record(Record { flow: FlowId(flow), ..open.clone() });
    }
    let (mermaid, svg) = (ladders.mermaid(), ladders.svg());
    for drawn in [&mermaid, &svg] {
        assert!(drawn.contains("…") && drawn.contains("91 segments"), "{drawn}");
        assert!(drawn.contains("3 more flows have no ladder") && !drawn.contains("<b>"), "{drawn}");
    }
    assert!(!mermaid.contains("%%") && !mermaid.contains(';'.to_string().repeat(2).as_str()));
    golden::check("ladder/mermaid/folded.mmd", &mermaid);
    golden::check("ladder/svg/folded.svg", &svg);
}
