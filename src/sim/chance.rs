//! Worlds by chance: every choice of a run comes from its seed.

use super::host::{App, Close, End, Host};
use super::link::Weather;
use super::trio::Trio;
use super::world::{Setup, World};
use crate::fault::{Engine, Harm, KINDS, Kind, Rule, Rules};
use crate::rng::Rng;
use crate::tcp::{Config, Congestion, SynOptions};
use crate::time::Duration;
use crate::trace::NoSink;
use crate::wire::WindowScale;

/// How long a world may take: a day. Two hosts whose RTO has grown to minutes in bad weather need hours.
pub const LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Runs the world of this seed to its end, two hosts with nothing between them. Gives the number of segments.
///
/// # Errors
/// A rule of [`super::watch`] that was broken, bytes that were lost, or an end that never came.
pub fn check_two_hosts(seed: u64) -> Result<u64, String> {
    let setup = two_hosts(seed);
    let mut world = World::new(setup.clone(), NoSink);
    world.run(LIMIT)?;
    let lost = world.upstream.lost + world.downstream.lost;
    check(&setup, &world.client, &world.server, lost)?;
    Ok(world.upstream.sent() + world.downstream.sent())
}

/// The same with halfopen between the hosts, and other weather beyond it. Nothing of the flow may remain in the end.
///
/// # Errors
/// As [`check_two_hosts`].
pub fn check_three_parties(seed: u64) -> Result<u64, String> {
    let setup = two_hosts(seed);
    let mut rng = Rng::new(seed, 101);
    let mut trio = Trio::new(setup.clone(), Rules::default(), NoSink);
    trio.server.from.set_weather(weather(&mut rng));
    trio.server.to.set_weather(weather(&mut rng));
    trio.run_for(LIMIT)?;
    let sides = [&trio.client, &trio.server];
    let lost = sides.iter().map(|side| side.from.lost + side.to.lost).sum();
    check(&setup, &trio.client.host, &trio.server.host, lost)?;
    let half_open = sides.iter().any(|side| side.host.end.is_none());
    if !trio.is_forgotten() && !half_open {
        return Err("the flow is not forgotten".into());
    }
    Ok(sides.iter().map(|side| side.from.sent() + side.to.sent()).sum())
}

/// The same with up to three rules of the catalogue on the flow.
///
/// # Errors
/// As [`check_rules`].
pub fn check_faults(seed: u64) -> Result<u64, String> {
    check_rules(seed, faults(seed))
}

/// The same with these rules. The bytes are right unless a fault corrupts them, everything ends, and where no fault does more
/// than take time, all bytes arrive.
///
/// # Errors
/// As [`check_two_hosts`].
pub fn check_rules(seed: u64, rules: Rules) -> Result<u64, String> {
    let setup = two_hosts(seed);
    let harm = rules.rules().iter().map(|rule| rule.fault.harm()).max().unwrap_or(Harm::Nothing);
    let mut trio = Trio::new(setup.clone(), rules, NoSink);
    trio.run_for(LIMIT)?;
    trio.check_rest()?;
    let sides = [&trio.client, &trio.server];
    if harm == Harm::Nothing {
        let lost = sides.iter().map(|side| side.from.lost + side.to.lost).sum();
        check(&setup, &trio.client.host, &trio.server.host, lost)?;
    }
    for (side, peer) in [(0, 1), (1, 0)] {
        let (received, written) = (sides[side].host.received, sides[peer].host.written);
        if received > written && harm != Harm::Bytes {
            return Err(format!("{received} bytes arrive of {written} that were sent"));
        }
    }
    // A host that hears nothing and has nothing to say stays for ever, and so does what stands for its peer.
    let half_open = sides.iter().any(|side| side.host.end.is_none());
    if !trio.is_forgotten() && !half_open {
        return Err("the flow is not forgotten".into());
    }
    Ok(sides.iter().map(|side| side.from.sent() + side.to.sent()).sum())
}

/// The rules that the catalogue has written out: names, examples, scenes and other entries.
#[must_use]
pub fn catalogue() -> Vec<&'static str> {
    let texts = |kind: &'static Kind| {
        [kind.name, kind.example, kind.scene.rule].into_iter().chain(kind.also.iter().map(|alias| alias.rule))
    };
    KINDS.iter().flat_map(texts).collect()
}

/// These rules of the catalogue. One that a gateway cannot do is left out.
///
/// # Panics
/// A rule that cannot be built, which `tests/catalog.rs` finds.
#[must_use]
pub fn rules(seed: u64, texts: &[&str]) -> Rules {
    let build = |text: &&str| text.parse().and_then(Rule::build).expect("the catalogue has rules that build");
    let can = |rule: &Rule| Rules::new(seed, Engine::Tun, vec![rule.clone()]).is_ok();
    let able = texts.iter().map(build).filter(can).collect();
    Rules::new(seed, Engine::Tun, able).expect("each of them can be done")
}

/// None to three rules from one seed.
#[must_use]
pub fn faults(seed: u64) -> Rules {
    let mut rng = Rng::new(seed, 102);
    let all = catalogue();
    let drawn = (0..rng.below(4)).map(|_| pick(&mut rng, &all)).collect::<Vec<_>>();
    rules(seed, &drawn)
}

/// What must be true in the end, if so many packets were lost.
fn check(setup: &Setup, client: &Host, server: &Host, lost: u64) -> Result<(), String> {
    let ends = (client.end, server.end);
    let aborts = |app: &App| matches!(app.close, Close::AbortAt(_));
    if aborts(&setup.client) || aborts(&setup.server) {
        // A RST that is lost leaves the other side half-open, if it has nothing to say (RFC 9293 §3.5.1).
        let told = ends.0.is_some() && ends.1.is_some();
        return if told || lost > 0 { Ok(()) } else { Err(format!("an abort leaves {ends:?}")) };
    }
    let (moved, whole) = ((server.received, client.received), (setup.client.send, setup.server.send));
    if moved != whole {
        return Err(format!("{moved:?} bytes arrived, not {whole:?}; the ends are {ends:?}"));
    }
    // A LAST-ACK whose RTO has grown beyond the peer's TIME-WAIT meets a closed host in the end.
    let fine = |end| matches!(end, Some(End::Closed | End::Reset));
    if fine(ends.0) && fine(ends.1) { Ok(()) } else { Err(format!("the connection ended as {ends:?}")) }
}

/// A pair of hosts, options, applications and weather from one seed.
#[must_use]
pub fn two_hosts(seed: u64) -> Setup {
    let mut rng = Rng::new(seed, 100);
    let rng = &mut rng;
    let (mut client, mut server) = (app(rng), app(rng));
    // Nobody waits for ever: not for a peer that waits as well, not for bytes that never come.
    if client.close == Close::AfterPeer {
        server.close = Close::WhenSent;
    }
    let sends = [server.send, client.send];
    for (app, peer) in [&mut client, &mut server].into_iter().zip(sends) {
        if let Close::AbortAt(bytes) = &mut app.close {
            *bytes = (*bytes).min(peer);
        }
    }
    let (upstream, downstream) = (weather(rng), weather(rng));
    Setup {
        seed,
        ipv6: rng.chance(0.3),
        config: Config {
            buffer: pick(rng, &[3_000, 20_000, 65_535, 1 << 20]),
            out_of_order_ranges: pick(rng, &[2, 16, 256]),
            congestion: pick(rng, &[Congestion::Cubic, Congestion::NewReno]),
            // Enough that no weather below ends a connection.
            retries: 40,
            syn_ack_retries: 20,
            ..Config::default()
        },
        client_syn: syn(rng),
        server_syn: syn(rng),
        client,
        server,
        upstream,
        downstream,
        max_payload: pick(rng, &[1, 1460, 65_160]).max(400),
    }
}

fn app(rng: &mut Rng) -> App {
    let send = pick(rng, &[0, 1, 1_000, 70_000, 300_000]);
    App {
        keepalive: None,
        send,
        chunk: pick(rng, &[1 + send as u32 / 50, 100_000, 1460]),
        wait: Duration::ZERO,
        pause: Duration::from_micros(pick(rng, &[0, 0, 500, 60_000])),
        send_buffer: pick(rng, &[5_000, 100_000]),
        read_rate: rng.chance(0.25).then(|| 20_000 + rng.below(1_000_000)),
        close: match rng.below(10) {
            0 => Close::AbortAt(rng.below(50_000)),
            1..=5 => Close::AfterPeer,
            _ => Close::WhenSent,
        },
    }
}

fn syn(rng: &mut Rng) -> SynOptions {
    SynOptions {
        mss: pick(rng, &[Some(1460), Some(1460), Some(536), None]),
        window_scale: rng.chance(0.8).then(|| WindowScale::new(rng.below(10) as u8)),
        sack: rng.chance(0.7),
        timestamps: rng.chance(0.6),
        ecn: rng.chance(0.3),
    }
}

fn weather(rng: &mut Rng) -> Weather {
    let storm = pick(rng, &[0.0, 0.0, 0.01, 0.05, 0.15]);
    Weather {
        delay: Duration::from_micros(pick(rng, &[50, 1_000, 40_000, 300_000])),
        reorder: storm * rng.below(3) as f64,
        jitter: Duration::from_micros(rng.below(60_000)),
        loss: storm,
        duplicate: storm * 0.5,
        mtu: pick(rng, &[1500, 1500, 1500, 1300]),
        rate: rng.chance(0.3).then(|| 50_000 + rng.below(10_000_000)),
        queue: Duration::from_millis(20 + rng.below(300)),
        mark: pick(rng, &[0.0, 0.02]),
    }
}

fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.below(from.len() as u64) as usize]
}
