mod outside;

use super::*;
use crate::relay::{Limits, SourcePorts};
use crate::trace::Record;
use crate::wire::{RawWindow, SeqNum};

struct Bench {
    table: Table,
    now: Instant,
    log: Vec<Record>,
    sent: Vec<(Tuple, Segment)>,
}

impl Bench {
    fn new(limits: Limits) -> Self {
        let settings = Arc::new(Settings { limits, ..Settings::default() });
        let table = Table::new(settings, Arc::default(), FlowIds::default(), 7);
        Self { table, now: Instant::from_millis(1), log: Vec::new(), sent: Vec::new() }
    }

    /// With these rules, each of which a flow of its name tells; none of them acts.
    fn ruled(conditions: &[&str]) -> Self {
        let mut bench = Self::new(Limits::default());
        bench.table.set_rules(Arc::new(rules(conditions)));
        bench
    }

    /// The rules of each flow that was opened since the last call.
    fn opened(&mut self) -> Vec<String> {
        let rules = |record: Record| match record.event {
            Event::FlowOpened { rules, .. } => Some(rules.join(" ")),
            _ => None,
        };
        self.log.drain(..).filter_map(rules).collect()
    }

    fn arrive(&mut self, tuple: Tuple, segment: Segment) -> Route {
        let cx = &mut Cx::new(self.now, &mut self.log);
        let route = self.table.route(cx, tuple, &segment, segment.payload.len() as usize);
        if let Route::To(key, leg) = route {
            self.table.on_segment(cx, key, leg, segment);
        }
        self.serve();
        route
    }

    fn serve(&mut self) {
        let cx = &mut Cx::new(self.now, &mut self.log);
        self.sent.clear();
        while let Some(key) = self.table.next_touched() {
            while let Some(output) = self.table.poll_output(cx, key, TxCaps { max_payload: 65_000 }) {
                if let Output::Segment { tuple, segment } = output {
                    self.sent.push((tuple, segment));
                }
            }
            self.table.settle(cx, key);
        }
    }

    /// The last segment that was sent with this tuple.
    fn sent(&self, tuple: Tuple) -> Segment {
        self.sent.iter().rev().find(|(to, _)| *to == tuple).expect("a segment was sent").1.clone()
    }

    fn limits_hit(&self) -> Vec<&'static str> {
        let hit = |record: &Record| match record.event {
            Event::LimitHit { limit } => Some(limit),
            _ => None,
        };
        self.log.iter().filter_map(hit).collect()
    }

    fn closed(&self) -> Vec<(u64, Outcome)> {
        let closed = |record: &Record| match record.event {
            Event::FlowClosed { outcome, .. } => Some((record.flow.0, outcome)),
            _ => None,
        };
        self.log.iter().filter_map(closed).collect()
    }

    /// Opens a flow with the client's ISN 100 and the server's 900; returns our numbers towards client and server.
    fn open(&mut self, tuple: Tuple) -> (SeqNum, SeqNum) {
        self.arrive(tuple, segment(Flags::SYN, 100, 0));
        let up = self.sent(tuple).seq + 1;
        self.arrive(tuple.reverse(), segment(Flags::SYN | Flags::ACK, 900, up.0));
        let down = self.sent(tuple.reverse()).seq + 1;
        self.arrive(tuple, segment(Flags::ACK, 101, down.0));
        (down, up)
    }

    /// Closes it from the server's side, so that the leg towards the client waits in TIME-WAIT.
    fn close(&mut self, tuple: Tuple, (down, up): (SeqNum, SeqNum)) {
        self.arrive(tuple.reverse(), segment(Flags::FIN | Flags::ACK, 901, up.0));
        self.arrive(tuple, segment(Flags::FIN | Flags::ACK, 101, down.0 + 1));
        self.arrive(tuple.reverse(), segment(Flags::ACK, 902, up.0 + 1));
    }
}

/// A rule `a`, `b`, … for each condition that does nothing within a day.
fn rules(conditions: &[&str]) -> Rules {
    let build = |(name, condition): (char, &&str)| {
        let text = format!("ack-delay after=1day name={name} {condition}");
        text.parse().and_then(crate::fault::Rule::build).unwrap()
    };
    let rules = ('a'..).zip(conditions).map(build).collect();
    Rules::new(1, crate::fault::Engine::Tun, rules).unwrap()
}

fn tuple(port: u16) -> Tuple {
    Tuple { src: ([10, 0, 0, 1], port).into(), dst: ([10, 0, 0, 2], 80).into() }
}

fn segment(flags: Flags, seq: u32, ack: u32) -> Segment {
    Segment { seq: SeqNum(seq), ack: SeqNum(ack), flags, window: RawWindow(60_000), ..Segment::default() }
}

fn syn() -> Segment {
    segment(Flags::SYN, 100, 0)
}

#[test]
fn each_leg_is_found_by_what_arrives_on_it() {
    let mut bench = Bench::new(Limits::default());
    let Route::To(first, Leg::Client) = bench.arrive(tuple(1), syn()) else { panic!() };
    let Route::To(second, Leg::Client) = bench.arrive(tuple(2), syn()) else { panic!() };
    assert_ne!(first, second);
    let answer = segment(Flags::RST, 0, 0);
    assert_eq!(bench.arrive(tuple(1).reverse(), answer), Route::To(first, Leg::Server));
    assert_eq!((bench.table.open_flows(), bench.closed()), (2, vec![]), "a blind RST refuses nothing");
}

#[test]
fn what_belongs_to_nobody_is_foreign_or_dropped() {
    let mut bench = Bench::new(Limits::default());
    let odd = [Flags::ACK, Flags::SYN | Flags::ACK, Flags::SYN | Flags::FIN, Flags::RST, Flags::default()];
    for flags in odd {
        assert_eq!(bench.arrive(tuple(1), segment(flags, 5, 5)), Route::Foreign, "{flags}");
    }
    let land = Tuple { src: tuple(1).dst, dst: tuple(1).dst };
    assert_eq!(bench.arrive(land, syn()), Route::Dropped);
    assert!(bench.table.is_empty());
}

#[test]
fn a_syn_beyond_a_limit_is_dropped_and_counted() {
    for (limits, key) in [
        (Limits { half_open: 2, ..Limits::default() }, "limits.half_open"),
        (Limits { flows: 2, ..Limits::default() }, "limits.flows"),
    ] {
        let mut bench = Bench::new(limits);
        bench.arrive(tuple(1), syn());
        bench.arrive(tuple(2), syn());
        assert_eq!((bench.arrive(tuple(3), syn()), bench.limits_hit()), (Route::Dropped, vec![key]));
        assert!(matches!(bench.arrive(tuple(1), syn()), Route::To(..)), "those that are there go on");
        // A refusal makes room.
        let up = bench.sent(tuple(1)).seq + 1;
        bench.arrive(tuple(1).reverse(), segment(Flags::RST | Flags::ACK, 0, up.0));
        assert!(matches!(bench.arrive(tuple(3), syn()), Route::To(..)));
    }
}

#[test]
fn data_beyond_the_memory_are_dropped_and_acknowledgements_are_not() {
    let mut bench = Bench::new(Limits { bytes: 1000, ..Limits::default() });
    let (down, up) = bench.open(tuple(1));
    let data = |seq| Segment {
        payload: bytes::Bytes::from(vec![0; 1200]).into(),
        ..segment(Flags::ACK, seq, down.0)
    };
    bench.arrive(tuple(1), data(101));
    assert_eq!(bench.table.queued(), 1200);
    assert_eq!(bench.arrive(tuple(1), data(1301)), Route::Dropped);
    assert_eq!(bench.limits_hit(), ["limits.bytes"]);
    bench.arrive(tuple(1).reverse(), segment(Flags::ACK, 901, up.0 + 1200));
    assert_eq!(bench.table.queued(), 0);
    assert!(matches!(bench.arrive(tuple(1), data(1301)), Route::To(..)));
}

/// Else a table full of data out of order would stay full for ever.
#[test]
fn bytes_out_of_order_count_and_what_they_wait_for_is_taken() {
    let mut bench = Bench::new(Limits { bytes: 1000, ..Limits::default() });
    let (down, up) = bench.open(tuple(1));
    let data = |seq, len| Segment {
        payload: bytes::Bytes::from(vec![0; len]).into(),
        ..segment(Flags::ACK, seq, down.0)
    };
    bench.arrive(tuple(1), data(201, 1000));
    assert_eq!(bench.table.queued(), 1000);
    assert_eq!(bench.arrive(tuple(1), data(1201, 100)), Route::Dropped);
    assert_eq!(bench.limits_hit(), ["limits.bytes"]);
    assert!(matches!(bench.arrive(tuple(1), data(101, 100)), Route::To(..)));
    bench.arrive(tuple(1).reverse(), segment(Flags::ACK, 901, up.0 + 1100));
    assert_eq!(bench.table.queued(), 0, "all of it has reached the server");
}

#[test]
fn a_port_that_is_used_again_starts_a_new_flow() {
    let mut bench = Bench::new(Limits::default());
    let Route::To(first, _) = bench.arrive(tuple(1), syn()) else { panic!() };
    let Route::To(second, _) = bench.arrive(tuple(1), segment(Flags::SYN, 5000, 0)) else { panic!() };
    assert_ne!(first, second);
    assert_eq!((bench.table.open_flows(), bench.closed()), (1, vec![(1, Outcome::Aborted)]));
}

/// RFC 9293 MAY-2, RFC 6191.
#[test]
fn a_newer_syn_replaces_a_flow_in_time_wait_and_an_older_one_does_not() {
    let mut bench = Bench::new(Limits::default());
    let numbers = bench.open(tuple(1));
    bench.close(tuple(1), numbers);
    assert_eq!((bench.table.open_flows(), bench.closed()), (0, vec![(1, Outcome::Ok)]));
    assert!(!bench.table.is_empty(), "TIME-WAIT is remembered");
    bench.arrive(tuple(1), segment(Flags::SYN, 50, 0));
    assert_eq!(bench.table.open_flows(), 0, "an old duplicate");
    assert_eq!(bench.sent(tuple(1).reverse()).flags, Flags::ACK);
    bench.arrive(tuple(1), segment(Flags::SYN, 5000, 0));
    assert_eq!((bench.table.open_flows(), bench.sent(tuple(1)).flags), (1, Flags::SYN));
}

#[test]
fn of_too_many_closed_flows_the_oldest_is_forgotten() {
    let mut bench = Bench::new(Limits { lingering: 2, ..Limits::default() });
    for port in 1..=3 {
        let numbers = bench.open(tuple(port));
        bench.close(tuple(port), numbers);
    }
    assert_eq!(bench.limits_hit(), ["limits.lingering"]);
    let stray = || segment(Flags::FIN | Flags::ACK, 101, 0);
    assert_eq!(bench.arrive(tuple(1), stray()), Route::Foreign);
    assert!(matches!(bench.arrive(tuple(2), stray()), Route::To(..)));
}

#[test]
fn a_key_of_a_flow_that_is_gone_reaches_nothing() {
    let mut bench = Bench::new(Limits::default());
    let Route::To(old, _) = bench.arrive(tuple(1), syn()) else { panic!() };
    bench.arrive(tuple(1), segment(Flags::SYN, 5000, 0));
    let cx = &mut Cx::new(bench.now, &mut bench.log);
    bench.table.on_timeout(cx, old);
    bench.table.on_socket(cx, old, Leg::Server, SocketEvent::Eof);
    assert_eq!(bench.table.next_touched(), None);
}

#[test]
fn a_table_that_takes_no_more_lets_syns_pass() {
    let mut bench = Bench::new(Limits::default());
    bench.arrive(tuple(1), syn());
    bench.table.stop_opening();
    assert_eq!(bench.arrive(tuple(2), syn()), Route::Foreign);
    bench.table.close_all(&mut Cx::new(bench.now, &mut bench.log));
    assert_eq!(bench.closed(), [(1, Outcome::Open)]);
    assert!(bench.table.is_empty());
}

#[test]
fn an_open_socket_of_a_dropped_flow_is_an_orphan() {
    let mut bench = Bench::new(Limits::default());
    let settings = Settings { uplink: Uplink::Socket, ..Settings::default() };
    bench.table = Table::new(Arc::new(settings), Arc::default(), FlowIds::default(), 7);
    let Route::To(old, _) = bench.arrive(tuple(1), syn()) else { panic!() };
    bench.arrive(tuple(1), segment(Flags::SYN, 5000, 0));
    assert_eq!((bench.table.next_orphan(), bench.table.next_orphan()), (Some((old, Leg::Server)), None));
    assert_eq!(
        bench.arrive(tuple(1).reverse(), segment(Flags::ACK, 1, 1)),
        Route::Foreign,
        "no leg arrives there"
    );
}

#[test]
fn flows_that_end_or_are_replaced_leave_the_crowd_and_free_their_port() {
    let mut bench = Bench::ruled(&["match.crowd=2..", "match.reused=10s"]);
    let first = bench.open(tuple(1));
    bench.open(tuple(2));
    assert_eq!(bench.opened(), ["", "a"]);
    bench.close(tuple(1), first);
    bench.now = Instant::from_millis(5_000);
    bench.arrive(tuple(1), segment(Flags::SYN, 5000, 0));
    assert_eq!(bench.opened(), ["a b"], "its TIME-WAIT is replaced, 5 s after its end");
    bench.now = Instant::from_millis(12_000);
    bench.arrive(tuple(1), segment(Flags::SYN, 6000, 0));
    assert_eq!(bench.opened(), ["a b"], "a half-open flow is replaced, which is an end");
    bench.now = Instant::from_millis(12_001);
    bench.arrive(tuple(3), syn());
    let up = bench.sent(tuple(3)).seq + 1;
    bench.arrive(tuple(3).reverse(), segment(Flags::RST | Flags::ACK, 0, up.0));
    bench.arrive(tuple(4), syn());
    assert_eq!(bench.opened(), ["a", "a"]);
    bench.table.close_all(&mut Cx::new(bench.now, &mut bench.log));
    bench.arrive(tuple(1), syn());
    assert_eq!(bench.opened(), [""], "alone again");
}

#[test]
fn the_crowd_counts_each_open_flow_once() {
    let mut bench = Bench::ruled(&["match.crowd=3"]);
    for round in 0..5 {
        bench.now = Instant::from_millis(1 + 100_000 * round);
        let numbers = [1, 2].map(|port| bench.open(tuple(port)));
        bench.arrive(tuple(3), segment(Flags::SYN, 7000 + round as u32, 0));
        let up = bench.sent(tuple(3)).seq + 1;
        bench.arrive(tuple(3).reverse(), segment(Flags::RST | Flags::ACK, 0, up.0));
        for (port, numbers) in [1, 2].into_iter().zip(numbers) {
            bench.close(tuple(port), numbers);
        }
        let mut later = Cx::new(Instant::from_millis(99_000 + 100_000 * round), &mut bench.log);
        for key in bench.table.entries.iter().map(|(slot, entry)| key(slot, entry)).collect::<Vec<_>>() {
            bench.table.on_timeout(&mut later, key);
        }
        bench.serve();
        assert!(bench.table.is_empty(), "TIME-WAIT is over");
        assert_eq!(bench.opened(), ["", "", "a"], "round {round}");
    }
}

fn key(slot: usize, entry: &Entry) -> FlowKey {
    FlowKey { slot: slot as u32, generation: entry.flow.id().0 as u32 }
}

#[test]
fn siblings_and_timestamps_are_seen_across_flows() {
    let mut bench = Bench::ruled(&["match.sibling=1ms", "match.stamp_behind=60s"]);
    let stamped = |val| {
        let mut syn = syn();
        syn.options.timestamps = Some(crate::wire::Timestamps { val, ecr: 0 });
        syn
    };
    bench.arrive(tuple(1), stamped(1000));
    bench.arrive(tuple(2), stamped(2000));
    bench.now = Instant::from_millis(100);
    bench.arrive(tuple(3), stamped(1500));
    bench.arrive(tuple(3), stamped(1500));
    assert_eq!(bench.opened(), ["", "a", "b"], "a repeated SYN opens nothing");
}

#[test]
fn new_rules_count_the_flows_that_are_already_open() {
    let mut bench = Bench::ruled(&[]);
    let numbers = bench.open(tuple(1));
    bench.open(tuple(2));
    bench.close(tuple(1), numbers);
    bench.table.set_rules(Arc::new(rules(&["match.crowd=2", "match.crowd=3"])));
    bench.arrive(tuple(3), syn());
    bench.arrive(tuple(4), syn());
    assert_eq!(bench.opened(), ["", "", "a", "b"]);
}

/// H27: nobody but the server knows of connections that a fault begins, and they go with the flow.
#[test]
fn answers_to_connections_that_a_fault_has_begun_are_swallowed_while_the_flow_lasts() {
    let mut bench = Bench::new(Limits { half_open: 6, ..Limits::default() });
    let rule = crate::fault::Rule::build("half-open-flood n=8".parse().unwrap()).unwrap();
    let rules = Rules::new(1, crate::fault::Engine::Tun, vec![rule]).unwrap();
    bench.table.set_rules(Arc::new(rules));
    let flow = tuple(1);
    bench.arrive(flow, segment(Flags::SYN, 100, 0));
    let up = bench.sent(flow).seq + 1;
    bench.arrive(flow.reverse(), segment(Flags::SYN | Flags::ACK, 900, up.0));
    let begun: Vec<(Tuple, Segment)> =
        bench.sent.iter().filter(|(to, _)| ![flow, flow.reverse()].contains(to)).cloned().collect();
    assert_eq!(begun.len(), 8);
    assert!(
        begun
            .iter()
            .all(|(to, syn)| to.dst == flow.dst && to.src.ip() == flow.src.ip() && syn.flags == Flags::SYN)
    );
    // One of the six is the flow itself.
    assert_eq!(bench.limits_hit(), ["limits.half_open"]);
    let mut answers = || {
        let answer = |(to, syn): &(Tuple, Segment)| {
            bench.arrive(to.reverse(), segment(Flags::SYN | Flags::ACK, 500, syn.seq.0 + 1))
        };
        let routes: Vec<Route> = begun.iter().map(answer).collect();
        [Route::Dropped, Route::Foreign].map(|route| routes.iter().filter(|found| **found == route).count())
    };
    assert_eq!(answers(), [5, 3], "beyond the limit the client's host ends them");
    bench.arrive(flow, segment(Flags::RST, 101, 0));
    let ended = |(to, syn): &(Tuple, Segment)| {
        let rst = bench.sent.iter().find(|(tuple, _)| tuple == to).map(|(_, rst)| (rst.flags, rst.seq));
        rst == Some((Flags::RST, syn.seq + 1))
    };
    assert!(begun.iter().all(ended), "{:?}", bench.sent);
    assert!(bench.table.is_empty() && bench.table.strays.is_empty());
}

/// A table whose server legs come from these ports.
fn with_ports(first: u16, last: u16) -> Bench {
    let mut bench = Bench::new(Limits::default());
    let uplink = Uplink::OtherPort(SourcePorts { first, last });
    let settings = Settings { uplink, ..Settings::default() };
    bench.table = Table::new(Arc::new(settings), Arc::default(), FlowIds::default(), 7);
    bench
}

/// What leaves by the server leg when it comes from `port`.
fn from_port(port: u16) -> Tuple {
    Tuple { src: ([10, 0, 0, 1], port).into(), ..tuple(0) }
}

/// Opens a flow of this client whose server leg comes from `port`; returns our numbers towards client and server.
fn open_from(bench: &mut Bench, client: u16, port: u16) -> (SeqNum, SeqNum) {
    bench.arrive(tuple(client), syn());
    let up = bench.sent(from_port(port)).seq + 1;
    bench.arrive(from_port(port).reverse(), segment(Flags::SYN | Flags::ACK, 900, up.0));
    let down = bench.sent(tuple(client).reverse()).seq + 1;
    bench.arrive(tuple(client), segment(Flags::ACK, 101, down.0));
    (down, up)
}

#[test]
fn a_server_leg_from_another_port_is_found_by_that_port() {
    let mut bench = with_ports(61_000, 61_009);
    let Route::To(key, Leg::Client) = bench.arrive(tuple(1), syn()) else { panic!() };
    let up = bench.sent(from_port(61_000)).seq + 1;
    let told =
        bench.log.iter().any(|r| r.leg == Some(Leg::Server) && r.event == Event::SourcePort { port: 61_000 });
    assert!(told, "{:?}", bench.log);
    assert_eq!(
        bench.arrive(tuple(1).reverse(), segment(Flags::RST, 0, 0)),
        Route::Foreign,
        "not the client's port"
    );
    let answer = segment(Flags::RST | Flags::ACK, 0, up.0);
    assert_eq!(bench.arrive(from_port(61_000).reverse(), answer), Route::To(key, Leg::Server));
    assert!(bench.sent(tuple(1).reverse()).has(Flags::RST), "the client is refused at its own port");
    assert!(bench.table.is_empty());
}

#[test]
fn an_icmp_error_about_the_other_port_reaches_the_client_with_its_own() {
    let mut bench = with_ports(61_000, 61_009);
    bench.arrive(tuple(1), syn());
    let sent = bench.sent(from_port(61_000)).seq;
    let note = IcmpNote {
        from: [10, 0, 0, 9].into(),
        quoted: from_port(61_000),
        seq: sent,
        kind: 3,
        code: 13,
        mtu: 0,
    };
    let cx = &mut Cx::new(bench.now, &mut bench.log);
    assert!(bench.table.on_icmp(cx, &note));
    let key = bench.table.next_touched().unwrap();
    match bench.table.poll_output(cx, key, TxCaps { max_payload: 65_000 }) {
        Some(Output::Icmp { note, quoted }) => {
            assert_eq!((note.quoted, note.seq, quoted.seq), (tuple(1), SeqNum(100), SeqNum(100)));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn source_ports_go_around_and_the_last_one_is_the_limit() {
    let mut bench = with_ports(61_000, 61_002);
    open_from(&mut bench, 1, 61_000);
    let (_, up) = open_from(&mut bench, 2, 61_001);
    open_from(&mut bench, 3, 61_002);
    assert_eq!(bench.arrive(tuple(4), syn()), Route::Dropped);
    assert_eq!(bench.limits_hit(), ["intercept.source_ports"]);
    let other_server = Tuple { dst: ([10, 0, 0, 3], 80).into(), ..tuple(4) };
    assert!(matches!(bench.arrive(other_server, syn()), Route::To(..)), "each server has all ports");
    bench.arrive(from_port(61_001).reverse(), segment(Flags::RST | Flags::ACK, 901, up.0));
    open_from(&mut bench, 4, 61_001);
}

#[test]
fn the_port_of_a_client_is_not_taken_and_one_in_time_wait_gives_way() {
    let mut bench = with_ports(61_000, 61_001);
    let (down, up) = open_from(&mut bench, 61_000, 61_001);
    assert_eq!(bench.arrive(tuple(5), syn()), Route::Dropped, "61000 is a connection of this host already");
    // The client closes first, so that our end towards the server waits in TIME-WAIT.
    bench.arrive(tuple(61_000), segment(Flags::FIN | Flags::ACK, 101, down.0));
    bench.arrive(from_port(61_001).reverse(), segment(Flags::FIN | Flags::ACK, 901, up.0 + 1));
    bench.arrive(tuple(61_000), segment(Flags::ACK, 102, down.0 + 1));
    assert_eq!((bench.table.open_flows(), bench.table.is_empty()), (0, false));
    bench.arrive(tuple(5), syn());
    assert!(bench.sent(from_port(61_001)).has(Flags::SYN), "the one in TIME-WAIT gives way");
    bench.arrive(tuple(6), syn());
    assert!(bench.sent(from_port(61_000)).has(Flags::SYN), "and its client's port with it");
}
