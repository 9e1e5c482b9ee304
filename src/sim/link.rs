//! One direction of a cable, with weather.

use std::collections::BTreeMap;

use crate::rng::Rng;
use crate::tcp::IcmpError;
use crate::time::{Duration, Instant};
use crate::wire::{Flags, Segment};

/// What a link does to packets. The default is a perfect cable with an Ethernet MTU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weather {
    /// Time from one end to the other.
    pub delay: Duration,
    /// Share of the packets that are held up by up to `jitter`, so that later ones overtake them.
    pub reorder: f64,
    /// See `reorder`.
    pub jitter: Duration,
    /// Share of the packets that are lost.
    pub loss: f64,
    /// Share of the packets that arrive twice.
    pub duplicate: f64,
    /// Largest IP packet in bytes; a larger one is dropped and reported by ICMP.
    pub mtu: u32,
    /// Bytes per second, without limit if absent.
    pub rate: Option<u64>,
    /// How much may wait for a link with a rate; what comes on top is dropped.
    pub queue: Duration,
    /// Share of the ECN-capable packets that get a congestion mark.
    pub mark: f64,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(1),
            reorder: 0.0,
            jitter: Duration::ZERO,
            loss: 0.0,
            duplicate: 0.0,
            mtu: 1500,
            rate: None,
            queue: Duration::from_millis(100),
            mark: 0.0,
        }
    }
}

/// One direction of a cable.
#[derive(Debug)]
pub struct Link {
    weather: Weather,
    rng: Rng,
    /// When the last packet has left a link with a rate.
    busy_until: Instant,
    flying: BTreeMap<(Instant, u64), Segment>,
    sent: u64,
    /// Packets lost, by chance or by a full queue.
    pub lost: u64,
}

impl Link {
    /// Packets that were sent so far.
    #[must_use]
    pub const fn sent(&self) -> u64 {
        self.sent
    }

    /// A link whose chance comes from stream `stream` of `seed`.
    #[must_use]
    pub fn new(weather: Weather, seed: u64, stream: u64) -> Self {
        let rng = Rng::new(seed, stream);
        Self { weather, rng, busy_until: Instant::ZERO, flying: BTreeMap::new(), sent: 0, lost: 0 }
    }

    /// The weather changes; what is on its way is not touched.
    pub fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    /// What the weather is.
    #[must_use]
    pub const fn weather(&self) -> Weather {
        self.weather
    }

    /// Takes a segment, cut as the hardware would. Returns the router's answer to one that is too large.
    pub fn send(&mut self, now: Instant, segment: &Segment, ipv6: bool) -> Option<IcmpError> {
        let mut answer = None;
        for one in split(segment) {
            if packet_len(&one, ipv6) > self.weather.mtu {
                let (kind, code) = if ipv6 { (2, 0) } else { (3, 4) };
                answer = answer.or(Some(IcmpError { kind, code, mtu: self.weather.mtu, seq: one.seq }));
            } else {
                self.send_one(now, one, ipv6);
            }
        }
        answer
    }

    fn send_one(&mut self, now: Instant, mut segment: Segment, ipv6: bool) {
        if segment.bad_checksum {
            // The receiver's kernel throws it away before its TCP sees it.
            self.lost += 1;
            return;
        }
        let w = self.weather;
        // All dice are thrown for every packet, so that one property does not change the luck of another.
        let (lost, twice) = (self.rng.chance(w.loss), self.rng.chance(w.duplicate));
        let (late, marked) = (self.rng.chance(w.reorder), self.rng.chance(w.mark));
        let jitter = Duration::from_nanos(self.rng.below(w.jitter.as_nanos() as u64 + 1));
        let mut leaves = now;
        if let Some(rate) = w.rate {
            leaves = now.max(self.busy_until);
            if leaves - now > w.queue {
                self.lost += 1;
                return;
            }
            leaves +=
                Duration::from_nanos(u64::from(packet_len(&segment, ipv6)) * 1_000_000_000 / rate.max(1));
            self.busy_until = leaves;
        }
        if lost {
            self.lost += 1;
            return;
        }
        if marked && segment.ip.ecn() != 0 {
            segment.ip.tos |= 3;
        }
        let arrives = leaves + w.delay + if late { jitter } else { Duration::ZERO };
        if twice {
            self.fly(arrives + jitter, segment.clone());
        }
        self.fly(arrives, segment);
    }

    fn fly(&mut self, arrives: Instant, segment: Segment) {
        self.flying.insert((arrives, self.sent), segment);
        self.sent += 1;
    }

    /// When the next packet arrives.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.flying.first_key_value().map(|((at, _), _)| *at)
    }

    /// The next packet that has arrived by `now`.
    pub fn receive(&mut self, now: Instant) -> Option<Segment> {
        let entry = self.flying.first_entry().filter(|e| e.key().0 <= now)?;
        Some(entry.remove())
    }
}

/// Length of the IP packet.
fn packet_len(segment: &Segment, ipv6: bool) -> u32 {
    let ip = if ipv6 { 40 } else { 20 };
    ip + 20 + segment.options.to_bytes().len() as u32 + segment.payload.len()
}

/// The wire segments of a super-segment: FIN and PSH travel on the last one, CWR on the first (as TSO does it).
pub fn split(segment: &Segment) -> impl Iterator<Item = Segment> {
    let (count, size) = (segment.segs(), u32::from(segment.gso_size));
    (0..count).map(move |n| {
        if count == 1 {
            return Segment { gso_size: 0, ..segment.clone() };
        }
        let mut flags = segment.flags;
        if n > 0 {
            flags = flags.without(Flags::CWR);
        }
        if n + 1 < count {
            flags = flags.without(Flags::FIN | Flags::PSH);
        }
        let payload = segment.payload.slice(n * size, (n + 1) * size);
        Segment { seq: segment.seq + n * size, flags, payload, gso_size: 0, ..segment.clone() }
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::wire::{Payload, SeqNum};

    fn data(seq: u32, len: usize) -> Segment {
        let payload = Payload::from(Bytes::from(vec![0; len]));
        Segment { seq: SeqNum(seq), flags: Flags::ACK | Flags::PSH, payload, ..Segment::default() }
    }

    fn arrivals(link: &mut Link) -> Vec<(u64, u32)> {
        let mut out = Vec::new();
        while let Some(at) = link.poll_timeout() {
            out.push((at.as_millis(), link.receive(at).unwrap().seq.0));
        }
        out
    }

    #[test]
    fn a_super_segment_arrives_as_wire_segments() {
        let mut segment = data(100, 2500);
        segment.flags = segment.flags | Flags::FIN | Flags::CWR;
        segment.gso_size = 1000;
        let parts: Vec<_> = split(&segment).map(|s| (s.seq.0, s.payload.len(), s.flags)).collect();
        let ends = Flags::ACK | Flags::PSH | Flags::FIN;
        assert_eq!(
            parts,
            [(100, 1000, Flags::ACK | Flags::CWR), (1100, 1000, Flags::ACK), (2100, 500, ends)]
        );
    }

    #[test]
    fn a_rate_spaces_packets_and_a_full_queue_drops() {
        let weather = Weather { rate: Some(100_000), queue: Duration::from_millis(25), ..Weather::default() };
        let mut link = Link::new(weather, 1, 0);
        for n in 0..5 {
            link.send(Instant::ZERO, &data(n, 960), false);
        }
        assert_eq!(arrivals(&mut link), [(11, 0), (21, 1), (31, 2)]);
        assert_eq!(link.lost, 2);
    }

    #[test]
    fn a_packet_above_the_mtu_draws_icmp_of_its_family() {
        let mut link = Link::new(Weather::default(), 1, 0);
        assert_eq!(link.send(Instant::ZERO, &data(7, 1460), false), None);
        let v4 = IcmpError { kind: 3, code: 4, mtu: 1500, seq: SeqNum(7) };
        assert_eq!(link.send(Instant::ZERO, &data(7, 1461), false), Some(v4));
        assert_eq!(
            link.send(Instant::ZERO, &data(7, 1460), true),
            Some(IcmpError { kind: 2, code: 0, ..v4 })
        );
    }

    #[test]
    fn the_weather_of_a_seed_is_always_the_same() {
        let weather = Weather {
            loss: 0.2,
            duplicate: 0.2,
            reorder: 0.3,
            jitter: Duration::from_millis(9),
            ..Weather::default()
        };
        let run = |seed| {
            let mut link = Link::new(weather, seed, 0);
            for n in 0..1000 {
                link.send(Instant::from_millis(u64::from(n)), &data(n, 1), false);
            }
            (link.lost, arrivals(&mut link))
        };
        let (lost, order) = run(1);
        assert_eq!(run(1), (lost, order.clone()));
        assert_ne!(run(2).1, order);
        assert!((150..250).contains(&lost), "{lost} lost");
        assert!((900..1050).contains(&order.len()), "{} arrived", order.len());
        assert!(order.windows(2).any(|w| w[0].1 > w[1].1), "something overtook");
    }
}
