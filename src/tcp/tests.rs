//! Two connections on a wire with a delay and a dice, in virtual time.

use std::sync::Arc;

use bytes::Bytes;

use super::state::{self, OurFin, PeerFin};
use super::*;
use crate::cx::Cx;
use crate::rng::Rng;
use crate::time::{Duration, Instant, earliest};
use crate::trace::{NoSink, State};
use crate::wire::{IpMeta, Segment, Tuple, WindowScale};

#[path = "../../tests/golden/mod.rs"]
mod golden;

const OFFER: SynOptions = SynOptions {
    mss: Some(1460),
    window_scale: Some(WindowScale::new(7)),
    sack: true,
    timestamps: true,
    ecn: false,
};

struct Pair {
    now: Instant,
    ends: [Connection; 2],
    /// Segments under way: when they arrive, to which end.
    wire: Vec<(Instant, usize, Segment)>,
    delay: Duration,
    loss: f64,
    rng: Rng,
    got: [Vec<u8>; 2],
    events: [Vec<Event>; 2],
    /// Bytes each application leaves unread; then its window closes.
    capacity: [u32; 2],
    reading: [bool; 2],
    log: Vec<(Instant, usize, Segment)>,
}

fn tuple() -> Tuple {
    Tuple { src: ([10, 0, 0, 1], 40_000).into(), dst: ([10, 0, 0, 2], 80).into() }
}

impl Pair {
    fn connected(offer: SynOptions, loss: f64, seed: u64) -> Self {
        let config = Arc::new(Config::default());
        let mut sink = NoSink;
        let mut cx = Cx::new(Instant::ZERO, &mut sink);
        let mut client = Connection::connect(&mut cx, &config, tuple(), offer, IpMeta::default());
        let syn = client.poll_transmit(&mut cx, TxCaps { max_payload: 64_000 }).unwrap();
        let server = Connection::accept(
            &mut cx,
            &config,
            tuple().reverse(),
            &SynInfo::of(&syn),
            offer,
            IpMeta::default(),
        );
        Self {
            now: Instant::ZERO,
            ends: [client, server],
            wire: Vec::new(),
            delay: Duration::from_millis(5),
            loss,
            rng: Rng::new(seed, 0),
            got: Default::default(),
            events: Default::default(),
            capacity: [1 << 20; 2],
            reading: [true; 2],
            log: Vec::new(),
        }
    }

    fn flush(&mut self) {
        let mut sink = NoSink;
        let mut cx = Cx::new(self.now, &mut sink);
        for i in 0..2 {
            let end = &mut self.ends[i];
            while self.reading[i]
                && let Some(data) = end.recv(&mut cx)
            {
                self.got[i].extend_from_slice(&data);
            }
            if self.reading[i] {
                end.set_receive_space(self.capacity[i]);
            }
            while let Some(seg) = end.poll_transmit(&mut cx, TxCaps { max_payload: 64_000 }) {
                self.log.push((self.now, i, seg.clone()));
                if !self.rng.chance(self.loss) {
                    self.wire.push((self.now + self.delay, 1 - i, seg));
                }
            }
            while let Some(event) = end.poll_event() {
                self.events[i].push(event);
            }
        }
    }

    fn run(&mut self, until: Instant) {
        for _ in 0..2_000_000 {
            self.flush();
            let arrival = self.wire.iter().map(|(at, ..)| *at).min();
            let timers = self.ends.iter().filter_map(Connection::poll_timeout).min();
            let Some(next) = earliest(arrival, timers).filter(|next| *next <= until) else {
                self.now = until;
                return;
            };
            self.now = self.now.max(next);
            let mut sink = NoSink;
            let mut cx = Cx::new(self.now, &mut sink);
            let (due, later) =
                std::mem::take(&mut self.wire).into_iter().partition(|(at, ..)| *at <= self.now);
            self.wire = later;
            for (_, to, seg) in due {
                self.ends[to].on_segment(&mut cx, seg);
            }
            for end in &mut self.ends {
                if end.poll_timeout().is_some_and(|at| at <= self.now) {
                    end.on_timeout(&mut cx);
                }
            }
        }
        panic!("no end: {:?} {:?}", self.ends, self.now);
    }

    fn send(&mut self, from: usize, data: &[u8]) {
        self.ends[from].send(Bytes::copy_from_slice(data));
    }

    fn shutdown(&mut self, from: usize) {
        let mut sink = NoSink;
        self.ends[from].shutdown(&mut Cx::new(self.now, &mut sink));
    }

    fn states(&self) -> [State; 2] {
        [self.ends[0].state(), self.ends[1].state()]
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

fn ms(n: u64) -> Instant {
    Instant::from_millis(n)
}

#[test]
fn a_connection_opens_carries_and_closes() {
    let mut p = Pair::connected(OFFER, 0.0, 1);
    // The client's SYN was taken by hand; its answer completes both ends.
    p.run(ms(100));
    assert_eq!(p.states(), [State::Established; 2]);
    p.send(0, b"ping");
    p.send(1, b"pong");
    p.run(ms(200));
    assert_eq!((p.got[1].as_slice(), p.got[0].as_slice()), (&b"ping"[..], &b"pong"[..]));
    p.shutdown(0);
    p.run(ms(300));
    assert_eq!(p.states(), [State::FinWait2, State::CloseWait]);
    p.send(1, b"still here");
    p.shutdown(1);
    p.run(ms(400));
    assert_eq!(p.states(), [State::TimeWait, State::Closed]);
    assert_eq!(p.got[0], b"pongstill here");
    p.run(ms(70_000));
    assert_eq!(p.states(), [State::Closed; 2]);
}

#[test]
fn bulk_data_survives_loss_in_both_directions() {
    for (sack, loss, seed) in
        [(true, 0.0, 1), (true, 0.02, 2), (true, 0.2, 3), (false, 0.02, 4), (false, 0.1, 5)]
    {
        let mut p = Pair::connected(SynOptions { sack, ..OFFER }, 0.0, seed);
        p.run(ms(100));
        p.loss = loss;
        let (up, down) = (pattern(3_000_000), pattern(1_000_000));
        for chunk in up.chunks(10_000) {
            p.send(0, chunk);
        }
        p.send(1, &down);
        p.shutdown(0);
        p.shutdown(1);
        p.run(ms(20_000_000));
        assert!(
            p.got[1] == up && p.got[0] == down,
            "sack {sack} loss {loss}: {} {}",
            p.got[1].len(),
            p.got[0].len()
        );
        assert_eq!(p.states(), [State::Closed; 2], "sack {sack} loss {loss}");
        let last = p.log.last().unwrap().0;
        assert!(last < ms(3_000_000), "sack {sack} loss {loss}: took {last}");
    }
}

#[test]
fn a_reader_that_stops_stops_the_writer_and_probes_go_on() {
    let mut p = Pair::connected(OFFER, 0.0, 1);
    p.run(ms(100));
    p.reading[1] = false;
    let data = pattern(3_000_000);
    p.send(0, &data);
    p.run(ms(60_000));
    assert!(p.ends[0].queued() > 1_800_000, "the writer holds the rest: {}", p.ends[0].queued());
    let probes: Vec<_> = p
        .log
        .iter()
        .filter(|(at, end, s)| *end == 0 && *at > ms(300) && s.payload.is_empty())
        .map(|l| l.0)
        .collect();
    assert!((5..12).contains(&probes.len()), "{probes:?}");
    p.reading[1] = true;
    p.run(ms(120_000));
    assert!(p.got[1] == data);
}

/// RFC 9293 §3.10.2, §3.10.4: what is sent and closed in SYN-RECEIVED follows the handshake.
#[test]
fn data_and_close_before_the_handshake_are_kept() {
    let mut p = Pair::connected(OFFER, 0.0, 1);
    p.send(1, b"220 ready");
    p.shutdown(1);
    assert_eq!((p.states()[1], p.ends[1].queued()), (State::SynReceived, 9));
    p.run(ms(100));
    assert_eq!(p.got[0], b"220 ready");
    assert_eq!(p.states(), [State::CloseWait, State::FinWait2]);
}

/// RFC 6298, Linux: the last segment of a dead path is sent again with doubling distance, then the connection is given up.
#[test]
fn retransmissions_double_until_retries_are_used_up() {
    let mut p = Pair::connected(OFFER, 0.0, 1);
    p.run(ms(100));
    p.loss = 1.0;
    p.send(0, b"lost");
    p.run(ms(2_000_000));
    let sent: Vec<f64> =
        p.log.iter().filter(|l| l.1 == 0 && !l.2.payload.is_empty()).map(|l| l.0.as_secs_f64()).collect();
    assert_eq!(sent.len(), 16, "the first and tcp_retries2 = 15 more: {sent:?}");
    let gaps: Vec<f64> = sent.windows(2).map(|w| w[1] - w[0]).collect();
    assert!((0.2..0.24).contains(&gaps[0]) && (0.2..0.45).contains(&gaps[1]), "{gaps:?}");
    assert!(gaps[2..9].windows(2).all(|w| (w[1] / w[0] - 2.0).abs() < 0.01), "{gaps:?}");
    assert!((gaps[14] - 120.0).abs() < 1e-6, "{gaps:?}");
    assert!(p.events[0].contains(&Event::TimedOut));
}

/// Linux: SYN-ACKs at 0, 1, 3, 7, 15, 31 s; gone at 63 s.
#[test]
fn a_syn_ack_is_repeated_on_linuxs_schedule() {
    let mut p = Pair::connected(OFFER, 1.0, 1);
    p.run(ms(200_000));
    let sent: Vec<u64> = p.log.iter().filter(|l| l.1 == 1).map(|l| l.0.as_millis() / 1000).collect();
    assert_eq!(sent, [0, 1, 3, 7, 15, 31]);
    assert_eq!((p.states()[1], p.events[1][0]), (State::Closed, Event::TimedOut));
}

#[test]
fn the_state_follows_from_both_fins() {
    let peers = [("none", PeerFin::None), ("before ours", PeerFin::First), ("after ours", PeerFin::Second)];
    let ours = [
        ("none", OurFin::None),
        ("queued", OurFin::Queued),
        ("sent", OurFin::Sent),
        ("acknowledged", OurFin::Acked),
    ];
    let row = |first: &str, cells: [&str; 3]| {
        let line = format!("{first:<20} {:<12} {:<12} {:<12}", cells[0], cells[1], cells[2]);
        format!("{}\n", line.trim_end())
    };
    let mut matrix = row("our FIN, the peer's:", peers.map(|(name, _)| name));
    for (name, our) in ours {
        matrix += &row(name, peers.map(|(_, peer)| state::name(our, peer).name()));
    }
    golden::check("states.txt", &matrix);
}
