use super::*;
use crate::time::Duration;
use crate::wire::{SegmentNote, SeqNum};

/// Feeds events by the millisecond.
struct Run(Measure);

impl Run {
    fn new() -> Self {
        Self(Measure::new([(Arc::from("slow"), "syn-drop"), (Arc::from("idle"), "fin-drop")]))
    }

    fn at(&mut self, millis: u64, flow: u64, leg: Option<Leg>, event: Event) -> &mut Self {
        let at = Instant::from_millis(millis);
        self.0.record(Record { at, flow: FlowId(flow), leg, event });
        self
    }

    fn open(&mut self, millis: u64, flow: u64, rules: &[&str]) -> &mut Self {
        let (client, server) = ("10.0.0.1:4000".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
        let rules = rules.iter().map(|r| Arc::from(*r)).collect();
        self.at(millis, flow, None, Event::FlowOpened { client, server, rules })
    }

    fn dial(&mut self, millis: u64, flow: u64) -> &mut Self {
        let event = Event::StateChanged { from: State::Closed, to: State::SynSent };
        self.at(millis, flow, Some(Leg::Server), event)
    }

    fn syn_ack_out(&mut self, millis: u64, flow: u64) -> &mut Self {
        let segment = SegmentNote {
            seq: SeqNum(7),
            ack: SeqNum(8),
            flags: Flags::SYN | Flags::ACK,
            window: 100,
            segs: 1,
            ..SegmentNote::default()
        };
        self.at(millis, flow, Some(Leg::Client), Event::SegmentOut { segment })
    }

    fn close(&mut self, millis: u64, flow: u64, outcome: Outcome) -> &mut Self {
        let event = Event::FlowClosed { outcome, upstream_bytes: 10, downstream_bytes: 20 };
        self.at(millis, flow, None, event)
    }

    /// (count, unfinished, max in whole milliseconds) of a latency.
    fn shape(&self, kind: Kind) -> (u64, u64, u128) {
        let latency = self.0.latencies().get(kind);
        let max = latency.max().map_or(0, |b| b.value.as_millis());
        (latency.count(), latency.unfinished_count(), max)
    }
}

#[test]
fn a_handshake_is_timed_between_its_instants() {
    let mut run = Run::new();
    run.open(1000, 1, &[])
        .dial(1001, 1)
        .at(1011, 1, Some(Leg::Server), Event::Established)
        .syn_ack_out(1012, 1)
        .at(1032, 1, Some(Leg::Client), Event::Established);
    assert_eq!(run.shape(Kind::Connect), (1, 0, 32));
    assert_eq!(run.shape(Kind::ClientRtt), (1, 0, 20));
    assert_eq!(run.shape(Kind::ServerConnect), (1, 0, 10));
    assert_eq!(run.shape(Kind::ServerNet), (1, 0, 10));
    assert_eq!((run.0.counters().open, run.0.counters().opening), (1, 0));
}

#[test]
fn retransmitted_syns_do_not_make_a_connect_look_fast() {
    let mut run = Run::new();
    run.open(0, 1, &["slow"]).dial(0, 1);
    for (millis, count) in [(1000, 1), (2000, 2)] {
        run.at(millis, 1, Some(Leg::Server), Event::Resent { why: Resend::Syn, count });
    }
    run.at(2010, 1, Some(Leg::Server), Event::Established).syn_ack_out(2010, 1).syn_ack_out(3010, 1).at(
        3015,
        1,
        Some(Leg::Client),
        Event::Established,
    );
    assert_eq!(run.shape(Kind::Connect), (1, 0, 3015));
    assert_eq!(run.shape(Kind::ServerConnect), (1, 0, 2010));
    assert_eq!(run.shape(Kind::ServerNet), (1, 0, 10));
    assert_eq!(run.shape(Kind::ClientRtt), (1, 0, 1005));
}

#[test]
fn the_kernels_connect_counts_as_server_connect() {
    let mut run = Run::new();
    run.open(0, 1, &[]).dial(1, 1).at(6, 1, Some(Leg::Server), Event::Dialled { error: None });
    assert_eq!(run.shape(Kind::ServerConnect), (1, 0, 5));
}

#[test]
fn the_connect_of_a_client_that_the_kernel_has_accepted_is_not_known() {
    let accepted = Event::StateChanged { from: State::Closed, to: State::Established };
    let mut run = Run::new();
    run.open(0, 1, &[]).at(0, 1, Some(Leg::Client), accepted).dial(1, 1);
    run.at(5, 1, Some(Leg::Server), Event::Established);
    assert_eq!((run.0.counters().open, run.0.counters().opening), (1, 0));
    run.close(3000, 1, Outcome::Ok);
    assert_eq!(run.shape(Kind::Connect), (0, 0, 0));
    assert_eq!(run.shape(Kind::ServerConnect), (1, 0, 4));
    assert_eq!((run.0.counters().open, run.0.counters().opening), (0, 0));
}

#[test]
fn handshakes_that_never_finish_count_and_refusals_do_not() {
    let mut run = Run::new();
    run.open(0, 1, &[]).dial(0, 1).close(3000, 1, Outcome::Aborted);
    run.open(0, 2, &[]).dial(0, 2).close(5, 2, Outcome::RefusedRst);
    run.open(0, 3, &[]).dial(0, 3).at(4, 3, Some(Leg::Server), Event::Established).syn_ack_out(4, 3);
    run.0.finish(Instant::from_millis(9000));
    assert_eq!(run.shape(Kind::Connect), (2, 2, 9000));
    assert_eq!(run.shape(Kind::ServerConnect), (2, 1, 3000));
    assert_eq!(run.shape(Kind::ClientRtt), (1, 1, 8996));
    let outcomes: Vec<_> = run.0.counters().outcomes.iter().collect();
    assert_eq!(outcomes, [("refused-rst", 1), ("aborted", 1), ("open", 1)]);
    assert_eq!((run.0.counters().open, run.0.counters().opening), (0, 0));
}

#[test]
fn rules_count_what_they_match_and_fire_and_a_release_is_not_a_firing() {
    let mut run = Run::new();
    let fired = |did| Event::Fired {
        rule: Arc::from("slow"),
        fault: "syn-drop",
        did,
        direction: Direction::Upstream,
        segment: None,
    };
    run.open(0, 1, &["slow"]).open(0, 2, &["slow"]);
    for did in [Did::Drop, Did::Knob, Did::Release, Did::Hold(Duration::from_millis(1))] {
        run.at(1, 1, Some(Leg::Client), fired(did));
    }
    let counts: Vec<_> = run.0.rules().iter().map(|r| (&*r.rule, r.fault, r.matched, r.fired)).collect();
    assert_eq!(counts, [("slow", "syn-drop", 2, 3), ("idle", "fin-drop", 0, 0)]);
    assert_eq!(run.0.counters().fired, 3);
}

#[test]
fn limits_discards_retransmissions_and_bytes_add_up() {
    let mut run = Run::new();
    run.open(0, 1, &[]);
    for _ in 0..2 {
        run.at(1, 1, None, Event::LimitHit { limit: "limits.flows" });
    }
    run.at(1, 0, None, Event::LimitHit { limit: "limits.half_open" });
    run.at(1, 1, Some(Leg::Client), Event::Discarded { reason: "checksum" });
    for why in [Resend::Rto, Resend::Rack, Resend::Tlp, Resend::Keepalive, Resend::WindowProbe] {
        run.at(1, 1, Some(Leg::Server), Event::Resent { why, count: 1 });
    }
    run.close(2, 1, Outcome::Ok);
    assert_eq!(run.0.limits()[0], NameCount { name: "limits.flows", count: 2 });
    assert_eq!(run.0.limits()[1], NameCount { name: "limits.half_open", count: 1 });
    assert_eq!(run.0.discarded(), [NameCount { name: "checksum", count: 1 }]);
    let counters = run.0.counters();
    assert_eq!((counters.retransmissions, counters.upstream_bytes, counters.downstream_bytes), (3, 10, 20));
}

/// A FIN on the client leg, ours or the client's, and the states that our end goes through.
fn ends(ours_first: bool, states: &[(State, State)], outcome: Outcome) -> TimeWait {
    let mut run = Run::new();
    run.open(0, 1, &[]);
    let fin = || SegmentNote { flags: Flags::FIN, segs: 1, ..SegmentNote::default() };
    let mut events = vec![Event::SegmentIn { segment: fin() }, Event::SegmentOut { segment: fin() }];
    if ours_first {
        events.reverse();
    }
    for (millis, event) in (1..).zip(events) {
        run.at(millis, 1, Some(Leg::Client), event);
    }
    for (from, to) in states {
        run.at(5, 1, Some(Leg::Client), Event::StateChanged { from: *from, to: *to });
    }
    run.close(if outcome == Outcome::Ok { 9 } else { 5 }, 1, outcome);
    run.0.counters().time_wait
}

#[test]
fn who_closes_first_keeps_the_leg_in_time_wait() {
    use State::{CloseWait, Closed, Closing, Established, FinWait1, FinWait2, LastAck, TimeWait as Waits};
    let (active, passive) = (
        [(Established, FinWait1), (FinWait1, FinWait2), (FinWait2, Waits)],
        [(Established, CloseWait), (CloseWait, LastAck), (LastAck, Closed)],
    );
    let crossed = [(Established, FinWait1), (FinWait1, Closing), (Closing, Waits)];
    for (sentence, told, expected) in [
        ("the client", ends(false, &passive, Outcome::Ok), Owners { peer: 1, ..Owners::default() }),
        ("halfopen", ends(true, &active, Outcome::Ok), Owners { halfopen: 1, ..Owners::default() }),
        ("both", ends(true, &crossed, Outcome::Ok), Owners { both: 1, ..Owners::default() }),
        ("nobody, because it was reset", ends(false, &passive, Outcome::Reset), Owners::default()),
    ] {
        assert_eq!(told, TimeWait { client: expected, server: Owners::default() }, "{sentence}");
    }
}
