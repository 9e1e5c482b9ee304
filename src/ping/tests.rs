//! The pinger in virtual time: what it says is compared with what is known to have happened.

use super::*;
use crate::measure::{By, Kind, Measure, syn_loss};
use crate::tcp::reset_for;
use crate::trace::{Leg, Record, Sink};
use crate::wire::{Flags, IcmpNote, RawWindow, Segment, SeqNum, Tuple};

const MSS: u16 = 1460;

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn address(last: u8, port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(10, 0, 0, last).into(), port)
}

fn settings(interval: u64, count: u64) -> Settings {
    Settings {
        targets: vec![address(2, 80)],
        interval: millis(interval),
        count: Some(count),
        duration: None,
        timeout: millis(5000),
        in_flight: 100,
    }
}

/// Counts and keeps all that is told.
#[derive(Default)]
struct Book {
    measure: Measure,
    records: Vec<Record>,
}

impl Sink for Book {
    fn record(&mut self, record: Record) {
        self.records.push(record.clone());
        self.measure.record(record);
    }
}

impl Book {
    /// Count, unfinished and the largest value in microseconds.
    fn shape(&self, kind: Kind) -> (u64, u64, u128) {
        let latency = self.measure.latencies().get(kind);
        let max = latency.max().map_or(0, |bound| bound.value.as_micros());
        (latency.count(), latency.unfinished_count(), max)
    }

    fn outcomes(&self) -> Vec<(&'static str, u64)> {
        self.measure.counters().outcomes.iter().collect()
    }
}

/// What the target does with the nth SYN that reaches it, from 0.
#[derive(Clone, Copy)]
enum Answer {
    SynAck,
    Rst,
    Icmp(u8, u8),
    Nothing,
}

/// A pinger by our own TCP, a network of `delay` each way, and a target.
struct World {
    pinger: Pinger,
    own: Own,
    book: Book,
    now: Instant,
    delay: Duration,
    answer: fn(usize) -> Answer,
    syns: usize,
    /// What is on the way to us, in order.
    coming: VecDeque<(Instant, Coming)>,
    /// All that we have sent.
    sent: Vec<(Instant, Tuple, Segment)>,
    next_port: u16,
    ended: Vec<Ended>,
}

enum Coming {
    Segment(Tuple, Segment),
    Icmp(IcmpNote),
}

impl World {
    fn new(settings: Settings, handshake: Handshake, delay: u64, answer: fn(usize) -> Answer) -> Self {
        Self {
            pinger: Pinger::new(settings, Instant::ZERO),
            own: Own::new(handshake, [1, 2]),
            book: Book::default(),
            now: Instant::ZERO,
            delay: millis(delay),
            answer,
            syns: 0,
            coming: VecDeque::new(),
            sent: Vec::new(),
            next_port: 65_000,
            ended: Vec::new(),
        }
    }

    /// Runs until all attempts have ended, and closes the books.
    fn run(mut self) -> Self {
        while !self.pinger.has_ended() {
            self.turn();
        }
        self.book.measure.finish(self.now);
        self
    }

    fn turn(&mut self) {
        let cx = &mut Cx::new(self.now, &mut self.book);
        while let Some(start) = self.pinger.poll_start(cx) {
            let source = address(1, self.next_port);
            self.next_port += 1;
            self.own.dial(cx, &mut self.pinger, start, source, MSS);
        }
        while let Some((_, coming)) = self.coming.pop_front_if(|(at, _)| *at <= cx.now) {
            match coming {
                Coming::Segment(tuple, segment) => self.own.on_segment(cx, &mut self.pinger, tuple, segment),
                Coming::Icmp(note) => self.own.on_icmp(cx, &mut self.pinger, &note),
            }
        }
        while let Some(attempt) = self.pinger.overdue(cx.now) {
            self.own.give_up(cx, &mut self.pinger, attempt);
        }
        self.own.on_timeout(cx, &mut self.pinger);
        while let Some((tuple, segment)) = self.own.poll_transmit() {
            self.reaches_target(tuple, segment);
        }
        while let Some(ended) = self.pinger.poll_ended() {
            self.ended.push(ended);
        }
        let network = self.coming.front().map(|(at, _)| *at);
        let next = earliest(network, earliest(self.pinger.poll_timeout(), self.own.poll_timeout()));
        assert!(next.is_some() || self.pinger.has_ended(), "something is always to come before the end");
        self.now = next.unwrap_or(self.now).max(self.now);
    }

    /// The target sends a SYN-ACK, and answers a FIN by its own.
    fn reaches_target(&mut self, tuple: Tuple, segment: Segment) {
        let at = self.now + self.delay + self.delay;
        let answer = if segment.has(Flags::SYN) {
            self.syns += 1;
            match (self.answer)(self.syns - 1) {
                Answer::SynAck => Some(Coming::Segment(tuple.reverse(), syn_ack(&segment))),
                Answer::Rst => Some(Coming::Segment(tuple.reverse(), reset_for(&segment))),
                Answer::Icmp(kind, code) => {
                    let from = tuple.dst.ip();
                    Some(Coming::Icmp(IcmpNote { from, quoted: tuple, seq: segment.seq, kind, code, mtu: 0 }))
                }
                Answer::Nothing => None,
            }
        } else {
            segment.has(Flags::FIN).then(|| Coming::Segment(tuple.reverse(), fin_for(&segment)))
        };
        self.sent.push((self.now, tuple, segment));
        self.coming.extend(answer.map(|answer| (at, answer)));
    }

    /// The flags of what was sent, in order.
    fn flags(&self) -> Vec<String> {
        self.sent.iter().map(|(_, _, segment)| segment.flags.to_string()).collect()
    }
}

fn syn_ack(syn: &Segment) -> Segment {
    let flags = Flags::SYN | Flags::ACK;
    Segment { seq: SeqNum(9000), ack: syn.seq + 1, flags, window: RawWindow(64_240), ..Segment::default() }
}

fn fin_for(fin: &Segment) -> Segment {
    let flags = Flags::FIN | Flags::ACK;
    Segment { seq: fin.ack, ack: fin.seq + 1, flags, window: RawWindow(64_240), ..Segment::default() }
}

#[test]
fn latencies_are_exactly_those_of_the_network() {
    let world = World::new(settings(100, 5), Handshake::Full, 10, |_| Answer::SynAck).run();
    assert_eq!(world.book.shape(Kind::Connect), (5, 0, 20_000));
    assert_eq!(world.book.shape(Kind::ServerConnect), (5, 0, 20_000));
    assert_eq!(world.book.shape(Kind::ServerNet), (5, 0, 20_000));
    assert_eq!(world.book.shape(Kind::ServerFinFin), (5, 0, 20_000));
    assert_eq!(world.book.outcomes(), [("ok", 5)]);
    let starts: Vec<_> =
        world.sent.iter().filter(|(_, _, s)| s.has(Flags::SYN)).map(|(at, ..)| *at).collect();
    assert_eq!(starts, [0, 100, 200, 300, 400].map(at));
}

#[test]
fn a_full_handshake_ends_by_fin_and_a_half_one_by_an_exact_reset() {
    let full = World::new(settings(100, 1), Handshake::Full, 10, |_| Answer::SynAck).run();
    assert_eq!(full.flags(), ["S", ".", "F.", "."]);
    let half = World::new(settings(100, 1), Handshake::Half, 10, |_| Answer::SynAck).run();
    assert_eq!(half.flags(), ["S", "R."]);
    let (syn, rst) = (&half.sent[0].2, &half.sent[1].2);
    assert_eq!((rst.seq, rst.ack), (syn.seq + 1, SeqNum(9001)), "the target must believe it");
    assert_eq!(half.book.outcomes(), [("ok", 1)]);
    assert_eq!(half.book.shape(Kind::Connect), (1, 0, 20_000));
}

#[test]
fn a_syn_ack_that_comes_again_after_the_reset_is_reset_again() {
    let mut world = World::new(settings(100, 1), Handshake::Half, 10, |_| Answer::SynAck).run();
    let (_, tuple, syn) = world.sent[0].clone();
    let cx = &mut Cx::new(at(1000), &mut world.book);
    world.own.on_segment(cx, &mut world.pinger, tuple.reverse(), syn_ack(&syn));
    let (_, again) = world.own.poll_transmit().expect("an answer");
    assert_eq!((again.flags, again.seq), (Flags::RST, syn.seq + 1));
}

#[test]
fn lost_syns_are_sent_again_as_linux_does_and_sit_at_their_step() {
    let lost_twice = |n| if n < 2 { Answer::Nothing } else { Answer::SynAck };
    let world = World::new(settings(100, 1), Handshake::Half, 10, lost_twice).run();
    assert_eq!(world.book.shape(Kind::Connect), (1, 0, 2_020_000));
    assert_eq!(world.book.shape(Kind::ServerNet), (1, 0, 20_000), "from the last SYN");
    let loss = syn_loss(world.book.measure.latencies());
    assert_eq!((loss[0].latency, loss[0].steps[0].seconds, loss[0].steps[0].count), ("connect", 2, 1));
    assert_eq!(world.ended[0].retransmits, 2);
    let by_retransmits = world.book.measure.latencies().groups().find(|g| g.by == By::Retransmits);
    assert_eq!(&*by_retransmits.expect("a group").name, "2");

    let long = Settings { timeout: millis(40_000), ..settings(100, 1) };
    let world = World::new(long, Handshake::Half, 10, |_| Answer::Nothing).run();
    let syns: Vec<_> = world.sent.iter().map(|(at, ..)| at.as_millis()).collect();
    assert_eq!(syns, [0, 1000, 2000, 3000, 4000, 5000, 7000, 11_000, 19_000, 35_000]);
}

#[test]
fn silence_is_a_timeout_and_a_lower_bound() {
    let quiet = Settings { timeout: millis(1500), ..settings(100, 3) };
    let world = World::new(quiet, Handshake::Full, 10, |n| match n {
        1 => Answer::SynAck,
        _ => Answer::Nothing,
    })
    .run();
    assert_eq!(world.book.outcomes(), [("ok", 1), ("timeout", 2)]);
    assert_eq!(world.book.shape(Kind::Connect), (3, 2, 1_500_000));
    assert_eq!(world.book.shape(Kind::ServerConnect), (3, 2, 1_500_000));
    let connect = world.book.measure.latencies().get(Kind::Connect);
    assert!(connect.percentile(99.0).expect("values").at_least);
    assert!(!connect.percentile(30.0).expect("values").at_least);
}

#[test]
fn refusals_are_told_apart_and_are_no_connects() {
    let answers = |n| match n {
        0 => Answer::Rst,
        1 => Answer::Icmp(3, 1),
        2 => Answer::Icmp(3, 13),
        _ => Answer::Icmp(11, 0),
    };
    let world = World::new(settings(100, 5), Handshake::Half, 10, answers).run();
    assert_eq!(world.book.outcomes(), [("refused-rst", 1), ("refused-icmp", 4)]);
    assert_eq!(world.book.shape(Kind::Connect), (0, 0, 0));
    let kinds: Vec<_> = world.book.measure.refused_icmp().iter().map(|n| (n.name, n.count)).collect();
    let expected = [("host unreachable", 1), ("administratively prohibited", 1), ("time exceeded", 2)];
    assert_eq!(kinds, expected);
    assert!(world.ended.iter().all(|ended| ended.took == millis(20)));
}

#[test]
fn a_sender_that_lags_makes_no_latency_look_shorter() {
    let mut book = Book::default();
    let mut pinger = Pinger::new(settings(100, 4), Instant::ZERO);
    let mut own = Own::new(Handshake::Half, [1, 2]);
    // It wakes up at 350 ms only: four attempts are due, of which the first is 350 ms late.
    let cx = &mut Cx::new(at(350), &mut book);
    let mut starts = Vec::new();
    while let Some(start) = pinger.poll_start(cx) {
        let source = address(1, 65_000 + starts.len() as u16);
        own.dial(cx, &mut pinger, start, source, MSS);
        starts.push(start.intended);
    }
    assert_eq!(starts, [0, 100, 200, 300].map(at));
    let cx = &mut Cx::new(at(370), &mut book);
    for (tuple, syn) in std::iter::from_fn(|| own.poll_transmit()).collect::<Vec<_>>() {
        own.on_segment(cx, &mut pinger, tuple.reverse(), syn_ack(&syn));
    }
    assert!(pinger.has_ended());
    assert_eq!(book.shape(Kind::Connect), (4, 0, 370_000), "the first was to start at 0");
    let connect = book.measure.latencies().get(Kind::Connect);
    for (percent, expected) in [(25.0, 70), (50.0, 170), (75.0, 270)] {
        let value = connect.percentile(percent).expect("values").value.as_secs_f64() * 1000.0;
        assert!((value - f64::from(expected)).abs() < 1.0, "{percent}: {value}");
    }
    assert_eq!(book.shape(Kind::ServerConnect), (4, 0, 20_000), "the network had no part in it");
    assert_eq!(book.shape(Kind::AddedByProxy), (4, 0, 350_000), "it was us");
}

#[test]
fn a_target_that_stalls_makes_the_later_starts_wait_and_their_latency_shows_it() {
    // One at a time, every 100 ms, and each takes 250 ms: the nth waits for all before it.
    let narrow = Settings { in_flight: 1, ..settings(100, 5) };
    let world = World::new(narrow, Handshake::Half, 125, |_| Answer::SynAck).run();
    let took: Vec<_> = world.ended.iter().map(|ended| ended.took.as_millis()).collect();
    assert_eq!(took, [250, 400, 550, 700, 850]);
    assert_eq!(world.book.shape(Kind::Connect), (5, 0, 850_000));
    assert_eq!(world.book.shape(Kind::ServerConnect), (5, 0, 250_000));
    let limits = world.book.measure.limits();
    assert_eq!((limits[0].name, limits[0].count), ("--in-flight", 4), "each that had to wait");
}

#[test]
fn an_attempt_whose_turn_never_comes_counts_as_a_lower_bound_and_blames_nobody() {
    let narrow = Settings { in_flight: 1, timeout: millis(250), ..settings(100, 4) };
    let world = World::new(narrow, Handshake::Half, 10, |_| Answer::Nothing).run();
    // The first is over at 250 ms; the second, due at 100, gets its turn then, and so on.
    assert_eq!(world.book.outcomes(), [("timeout", 4)]);
    assert_eq!(world.book.shape(Kind::Connect), (4, 4, 250_000));

    let mut book = Book::default();
    let mut pinger = Pinger::new(Settings { timeout: millis(250), ..settings(100, 4) }, Instant::ZERO);
    assert_eq!(pinger.poll_start(&mut Cx::new(at(600), &mut book)), None, "all are over");
    assert!(pinger.has_ended());
    assert_eq!(book.outcomes(), [("aborted", 4)]);
    assert_eq!(book.shape(Kind::Connect), (4, 4, 250_000));
    assert_eq!(book.shape(Kind::ServerConnect), (0, 0, 0), "the target was never asked");
}

#[test]
fn several_targets_share_the_interval_evenly_and_are_told_apart() {
    let both = Settings { targets: vec![address(2, 80), address(3, 443)], ..settings(100, 3) };
    let world = World::new(both, Handshake::Half, 10, |_| Answer::SynAck).run();
    let sent = world.sent.iter().filter(|(_, _, s)| s.has(Flags::SYN));
    let starts: Vec<_> = sent.map(|(at, tuple, _)| (at.as_millis(), tuple.dst)).collect();
    let (a, b) = (address(2, 80), address(3, 443));
    assert_eq!(starts, [(0, a), (50, b), (100, a), (150, b), (200, a), (250, b)]);
    let targets = world.book.measure.latencies().groups();
    let targets = targets.filter(|g| g.by == By::Target && g.kind == Kind::Connect);
    let targets: Vec<_> = targets.map(|g| (g.name.to_string(), g.values.count())).collect();
    assert_eq!(targets, [("10.0.0.2:80".to_owned(), 3), ("10.0.0.3:443".to_owned(), 3)]);
}

#[test]
fn a_duration_ends_the_starts_and_waits_for_those_under_way() {
    let timed = Settings { count: None, duration: Some(millis(250)), ..settings(100, 1) };
    let world = World::new(timed, Handshake::Half, 100, |_| Answer::SynAck).run();
    assert_eq!(world.book.outcomes(), [("ok", 3)]);
    assert_eq!(world.now, at(400), "the last began at 200 ms");
}

#[test]
fn a_stop_tells_what_was_under_way_and_what_had_to_wait() {
    let mut book = Book::default();
    let narrow = Settings { in_flight: 1, count: None, ..settings(100, 1) };
    let mut pinger = Pinger::new(narrow, Instant::ZERO);
    let first = pinger.poll_start(&mut Cx::new(at(0), &mut book)).expect("its time has come");
    pinger.opened(&mut Cx::new(at(0), &mut book), first, None);
    let cx = &mut Cx::new(at(350), &mut book);
    assert_eq!(pinger.poll_timeout(), Some(at(100)), "that the limit is met is counted when it is");
    assert_eq!(pinger.poll_start(cx), None, "one at a time");
    assert_eq!(pinger.poll_timeout(), Some(at(5000)), "then nothing happens before a timeout");
    pinger.stop(cx);
    assert_eq!(pinger.poll_start(&mut Cx::new(at(1000), &mut book)), None);
    book.measure.finish(at(350));
    assert_eq!(book.outcomes(), [("open", 4)], "those of 0, 100, 200 and 300 ms");
    assert_eq!(book.shape(Kind::Connect), (4, 4, 350_000));
}

#[test]
fn every_flow_is_opened_at_its_intended_start_and_its_events_have_no_client_leg_but_one() {
    let world = World::new(settings(100, 1), Handshake::Full, 10, |_| Answer::SynAck).run();
    let first = &world.book.records[0];
    assert!(matches!(first.event, Event::FlowOpened { .. }) && first.at == Instant::ZERO, "{first:?}");
    let client: Vec<_> = world.book.records.iter().filter(|r| r.leg == Some(Leg::Client)).collect();
    assert!(matches!(client[..], [Record { event: Event::Established, .. }]), "{client:?}");
    let last = world.book.records.last().expect("many");
    assert!(matches!(last.event, Event::FlowClosed { outcome: Outcome::Ok, .. }), "{last:?}");
}
