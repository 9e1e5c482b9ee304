//! Packets that mean harm. A live connection does not notice them, and memory stays bounded.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Instant;

use halfopen::rng::Rng;
use halfopen::setup::netlink::{Family, Netlink, Route, RouteKind};

use serde_json::Value;

use crate::Single;
use crate::lab::forge::{Forged, Forger, checksum, ip};
use crate::lab::process::Halfopen;
use crate::lab::sniff::Sniffer;
use crate::lab::{Lab, Listener, PATIENCE, PORT, Way, client_ip, drain, server_at};

pub(crate) const SINGLES: &[Single] = &[
    ("100,000 SYNs from forged addresses cost little, and connections go on", syn_flood),
    ("random, truncated and contradictory packets change nothing (IPv4)", || garbage(Family::V4)),
    ("random, truncated and contradictory packets change nothing (IPv6)", || garbage(Family::V6)),
    ("blind resets, SYNs, data and ACKs do not hurt a connection (IPv4)", || blind(Family::V4)),
    ("blind resets, SYNs, data and ACKs do not hurt a connection (IPv6)", || blind(Family::V6)),
];

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
/// The most that an attack may add to our memory, in KiB. The half-open limit times what a half-open flow costs is less.
const MEMORY: u64 = 64 << 10;

/// A connection in use while the attack goes on.
struct Live {
    /// Others may connect, too.
    listener: Listener,
    client: TcpStream,
    server: TcpStream,
    turn: u32,
}

impl Live {
    fn new(lab: &Lab, family: Family) -> Self {
        let listener = lab.listen(family);
        let (client, server) = lab.pair_by(&listener);
        let mut live = Self { listener, client, server, turn: 0 };
        live.works();
        live
    }

    /// A word there and a word back.
    fn works(&mut self) {
        self.turn += 1;
        let word = self.turn.to_be_bytes();
        let mut got = [0; 4];
        let Self { client, server, .. } = self;
        for up in [true, false] {
            let (from, to) = if up { (&mut *client, &mut *server) } else { (&mut *server, &mut *client) };
            from.write_all(&word).expect("the connection lives");
            to.read_exact(&mut got).expect("the connection lives");
            assert_eq!(got, word);
        }
    }

    /// It ends as connections do.
    fn ends(self) {
        let Self { listener, client, mut server, .. } = self;
        drop((listener, client));
        assert_eq!(drain(&mut server), (Vec::new(), "EOF".to_owned()));
    }
}

/// Runs an attack against a proxied lab. Returns halfopen's summary.
fn attack(family: Family, attack: impl FnOnce(&Lab, &mut Forger, &mut Live)) -> Option<Value> {
    let mut lab = Lab::with(Way::Proxied, &["--json", "--grace", "0"]);
    let mut forger = Forger::new(&lab);
    let mut live = Live::new(&lab, family);
    let before = lab.halfopen.as_ref().map_or(0, Halfopen::memory);
    attack(&lab, &mut forger, &mut live);
    live.works();
    live.ends();
    // The listener of the live connection is gone: the port is free again.
    Live::new(&lab, family).ends();
    let mut halfopen = lab.halfopen.take()?;
    assert!(halfopen.is_alive());
    let grown = halfopen.memory().saturating_sub(before);
    assert!(grown < MEMORY, "it grew by {grown} KiB");
    Some(halfopen.finish())
}

fn syn_flood() {
    let summary = attack(Family::V4, |lab, forger, live| {
        // Answers to 11.0.0.0/8 find their way to the client, which drops them.
        let route = Route {
            to: Some((Ipv4Addr::new(11, 0, 0, 0).into(), 8)),
            family: Family::V4,
            device: None,
            via: Some(client_ip(Family::V4)),
            source: None,
            mss: None,
            table: Route::MAIN,
            kind: RouteKind::Unicast,
        };
        lab.gateway.run(|| Netlink::open().expect("netlink").add_route(&route).expect("a route"));
        let to = server_at(Family::V4);
        let mut dice = Rng::new(81, 0);
        for i in 0..100_000 {
            let random = dice.next_u64().to_be_bytes();
            let from = SocketAddr::new(
                Ipv4Addr::new(11, random[0], random[1], random[2]).into(),
                1024 + u16::from(random[3]),
            );
            let mss = vec![2, 4, 5, 180];
            forger
                .send(&Forged { seq: dice.next_u32(), options: mss, ..Forged::new(from, to, SYN) }.packet());
            if i % 5_000 == 0 {
                live.works();
            }
        }
        let (start, halfopen) = (Instant::now(), lab.halfopen.as_ref().expect("proxied"));
        while !halfopen.said().contains("limits.half_open") {
            assert!(start.elapsed() < PATIENCE, "the operator is not told");
            live.works();
        }
    });
    // The server answers each of them, so that only our own limit ends it.
    let limits = summary.map(|s| s["limits"].to_string());
    assert!(limits.as_ref().is_none_or(|l| l.contains("limits.half_open")), "{limits:?}");
}

/// Options that contradict themselves: no length, too long, cut, repeated, in the wrong place.
fn option_bomb(dice: &mut Rng) -> Vec<u8> {
    const BOMBS: &[&[u8]] = &[
        &[2, 0, 5, 180],
        &[2, 4, 0, 0, 2, 4, 0, 1],
        &[3, 3, 255, 3, 3, 99, 0, 0],
        &[5, 255, 1, 1],
        &[5, 3, 1, 1, 5, 11, 0, 0, 0, 0, 0, 0],
        &[8, 10, 255, 255, 255, 255, 255, 255, 255, 255, 8, 2],
        &[8, 11, 0, 0],
        &[1; 40],
        &[254; 40],
        &[30, 40, 0, 0],
        &[4, 1, 4, 2],
    ];
    let mut options = BOMBS[dice.below(BOMBS.len() as u64) as usize].to_vec();
    options.resize(options.len().next_multiple_of(4), 0);
    options
}

fn garbage(family: Family) {
    attack(family, |_, forger, live| {
        let (client, server) = (client_ip(family), server_at(family));
        let known = live.client.local_addr().expect("connected");
        let mut dice = Rng::new(82, 0);
        for i in 0..20_000 {
            let from =
                if dice.chance(0.5) { known } else { SocketAddr::new(client, 2000 + dice.below(99) as u16) };
            let random: Vec<u8> = (0..dice.below(80)).map(|_| dice.next_u32() as u8).collect();
            let mut forged = Forged::new(from, server, dice.next_u32() as u8 & !RST);
            (forged.seq, forged.ack) = (dice.next_u32(), dice.next_u32());
            match i % 6 {
                0 => forged.options = option_bomb(&mut dice),
                1 => forged.offset = Some(dice.below(16) as u8),
                2 => forged.payload = random,
                3 => forged.flags = SYN | FIN | RST,
                4 => (forged.options, forged.flags) = (option_bomb(&mut dice), SYN),
                _ => forged.options = random[..random.len().min(40) / 4 * 4].to_vec(),
            }
            let mut tcp = forged.tcp();
            if i % 7 == 0 {
                // Cut, but with the ports that make it ours.
                tcp.truncate(4 + dice.below(17) as usize);
            }
            forger.send(&ip(client, server.ip(), tcp));
            if i % 1_000 == 0 {
                // LAND: from the server to itself.
                forger.send(&Forged::new(server, server, SYN).packet());
                live.works();
            }
        }
        if family == Family::V4 {
            fragments(forger, client, server.ip())
        } else {
            extensions(forger, client, &mut dice)
        }
    });
}

/// Fragments that overlap, and one that begins beyond the longest packet.
fn fragments(forger: &mut Forger, client: IpAddr, server: IpAddr) {
    let from = SocketAddr::new(client, 3000);
    let whole =
        Forged { payload: vec![9; 64], ..Forged::new(from, SocketAddr::new(server, PORT), ACK) }.packet();
    for offset in [0x2000_u16, 0x2001, 0x2002, 0x0001, 0x1fff] {
        let mut fragment = whole.clone();
        fragment[6..8].copy_from_slice(&offset.to_be_bytes());
        fragment[10..12].copy_from_slice(&[0, 0]);
        let sum = checksum(&fragment[..20]);
        fragment[10..12].copy_from_slice(&sum.to_be_bytes());
        forger.send(&fragment);
    }
}

/// Chains of IPv6 extension headers in front of a SYN: hop-by-hop, routing, fragment, destination; with odd lengths.
fn extensions(forger: &mut Forger, client: IpAddr, dice: &mut Rng) {
    const KINDS: [u8; 4] = [0, 43, 44, 60];
    let from = SocketAddr::new(client, 3001);
    for _ in 0..2_000 {
        let syn = Forged::new(from, server_at(Family::V6), SYN).packet();
        let (header, tcp) = syn.split_at(40);
        let mut packet = header.to_vec();
        let chain: Vec<u8> = (0..=dice.below(5)).map(|_| KINDS[dice.below(4) as usize]).collect();
        packet[6] = chain[0];
        for next in chain.iter().skip(1).chain(&[6]) {
            let len = if dice.chance(0.2) { dice.next_u32() as u8 } else { 0 };
            packet.extend([*next, len, 1, 4, 0, 0, 0, 0]);
        }
        packet.extend(tcp);
        let len = (packet.len() - 40) as u16;
        packet[4..6].copy_from_slice(&len.to_be_bytes());
        forger.send(&packet);
    }
}

fn blind(family: Family) {
    attack(family, |lab, forger, live| {
        let (from, to) = (live.client.local_addr().expect("connected"), server_at(family));
        let sniffer = Sniffer::start(&lab.client, "c0");
        live.works();
        let seen = sniffer.stop();
        // What an attacker on the path may know; the next byte of the client is `next`.
        let last = seen.iter().rfind(|s| s.from == from).expect("the client has spoken");
        let (next, ack) =
            (last.tcp.sequence_number.wrapping_add(last.len as u32), last.tcp.acknowledgment_number);
        let at = |seq: u32, ack, flags| Forged { seq, ack, ..Forged::new(from, to, flags) };
        for distance in [1, 100, 20_000, 1 << 20, 1 << 30, u32::MAX, u32::MAX - 5_000] {
            let seq = next.wrapping_add(distance);
            // RFC 5961 §3.2: only the exact number resets; §4.2: a SYN is challenged; §5.2: an ACK must be in range.
            forger.send(&at(seq, 0, RST).packet());
            forger.send(&at(seq, ack, RST | ACK).packet());
            forger.send(&at(seq, 0, SYN).packet());
            forger.send(&at(seq, ack, SYN | ACK).packet());
            forger.send(&at(seq, ack.wrapping_add(1 << 30), ACK).packet());
            forger.send(&at(seq, ack.wrapping_sub(1 << 30), FIN | ACK).packet());
            let data = Forged { payload: vec![66; 100], ..at(next, ack.wrapping_add(1 << 30), ACK) };
            forger.send(&data.packet());
            live.works();
        }
        forger.send(&at(next, 0, SYN).packet());
    });
}
