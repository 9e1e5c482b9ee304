//! Options, segment sizes and the MTU of the path against Linux.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use halfopen::setup::netlink::Family;
use nix::poll::PollFlags;
use socket2::SockRef;

use super::bench::{Bench, Proof, is_ready, near, took};
use crate::lab;
use crate::lab::events::{Entry, since_first};
use crate::lab::sniff::{Seen, Sniffer};

pub(super) const PROOFS: &[Proof] = &[
    Proof {
        fault: "option-strip",
        entry: "H8",
        expected: "the SYN-ACK has the MSS only, no segment has options, no window is scaled, and 1 MiB arrives each way",
        run: syn_cookie_options,
    },
    Proof {
        fault: "option-strip",
        entry: "H26",
        expected: "a SYN-ACK with timestamps of length 0: the client sends none and no scaled window, 10 kB arrive at the server and 64 KiB at the client",
        run: corrupt_length,
    },
    Proof {
        fault: "wscale-strip",
        entry: "H9",
        expected: "the client obeys the window field unscaled: after the first flight no segment is longer than it says, and 16.5 kB take more than 0.5 s",
        run: wscale_strip,
    },
    Proof {
        fault: "wscale-strip",
        entry: "H10",
        expected: "data beyond the unscaled window are lost: the upload of 100 kB takes more than 1 s, and all of it arrives",
        run: drop_beyond,
    },
    Proof {
        fault: "mss-rewrite",
        entry: "H11",
        expected: "both hosts send segments of 524 bytes with mss=536 and of 36 bytes with mss=1 (timestamps take 12 of 48), and 10 kB arrive each way",
        run: mss_rewrite,
    },
    Proof {
        fault: "pmtu-blackhole",
        entry: "H12",
        expected: "10 bytes arrive, a full segment does not: it is sent again after 0.2, 0.65, 1.5, 3.2 s (15 % + 60 ms); with tcp_mtu_probing = 1 it gets through by 7.5 s",
        run: pmtu_blackhole,
    },
    Proof {
        fault: "pmtu-blackhole",
        entry: "H12",
        expected: "frag-needed: 100 kB each way at once, at most 400 ms, and both hosts then send segments that fit 1400 bytes",
        run: frag_needed,
    },
];

/// Sends `bytes` from one end to the other and checks them there.
fn carry(from: &mut TcpStream, to: &mut TcpStream, bytes: usize) {
    let data: Vec<u8> = (0..bytes).map(|i| (i / 7) as u8).collect();
    let got = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut got = vec![0; bytes];
            to.read_exact(&mut got).expect("it arrives");
            got
        });
        from.write_all(&data).expect("it is taken");
        reader.join().expect("it only reads")
    });
    assert!(got == data, "the bytes have changed");
}

/// What the client's device saw of a connection that carries so many bytes up and down.
fn watched(rule: &str, up: usize, down: usize) -> Vec<Seen> {
    let bench = Bench::new(Family::V4, &[rule]);
    let sniffer = Sniffer::start(&bench.lab.client, "c0");
    let (mut client, mut server) = bench.pair();
    carry(&mut client, &mut server, up);
    carry(&mut server, &mut client, down);
    let mut seen = sniffer.stop();
    seen.retain(|s| s.from.port() == lab::PORT || s.to.port() == lab::PORT);
    seen
}

fn syn_ack(seen: &[Seen]) -> &Seen {
    seen.iter().find(|s| s.flags() == "S.").expect("a SYN-ACK was seen")
}

/// H8: like after a SYN cookie.
fn syn_cookie_options() -> String {
    let seen = watched("option-strip kinds=wscale,sack,timestamps direction=upstream", 1 << 20, 1 << 20);
    assert_eq!(syn_ack(&seen).tcp.options.as_slice(), [2, 4, 0x05, 0xb4], "MSS 1460");
    let later: Vec<&Seen> = seen.iter().filter(|s| !s.tcp.syn).collect();
    assert!(later.iter().all(|s| s.tcp.options.as_slice().is_empty()), "a segment has options");
    let largest = later.iter().filter(|s| s.to.port() == lab::PORT).map(|s| s.tcp.window_size).max();
    let largest = largest.expect("the client has acknowledged");
    assert!(largest > 32_768, "the client's window is in bytes, not {largest}");
    format!("SYN-ACK <mss 1460>, 1 MiB each way, the client's window up to {largest}")
}

/// H26: a reader stops at a length of 0. Behind the timestamps stands the window scale, so that an upload beyond the first
/// flight would crawl.
fn corrupt_length() -> String {
    let seen =
        watched("option-strip kinds=timestamps mode=corrupt-length direction=downstream", 10_000, 64 << 10);
    let options = syn_ack(&seen).tcp.options.as_slice();
    assert!(options.len() == 20 && options[..8] == [2, 4, 0x05, 0xb4, 4, 2, 8, 0], "{options:?}");
    let of_client: Vec<&Seen> = seen.iter().filter(|s| s.to.port() == lab::PORT && !s.tcp.syn).collect();
    let has_stamp = |s: &&Seen| s.tcp.options.as_slice().starts_with(&[1, 1, 8]);
    assert!(!of_client.iter().any(has_stamp), "the client has agreed on timestamps");
    let smallest = of_client.iter().map(|s| s.tcp.window_size).min().expect("the client has spoken");
    assert!(smallest > 2000, "the client's window {smallest} looks scaled");
    "no timestamps and no scale from the client; 10 kB up, 64 KiB down".to_owned()
}

/// H9: 64,256 bytes that are announced as 502 are obeyed as 502.
fn wscale_strip() -> String {
    let bench = Bench::new(Family::V4, &["wscale-strip"]);
    let sniffer = Sniffer::start(&bench.lab.client, "c0");
    let (mut client, mut server) = bench.pair();
    let start = Instant::now();
    carry(&mut client, &mut server, 16_500);
    let time = start.elapsed();
    assert!(time > Duration::from_millis(500), "16.5 kB took only {time:?}");
    let seen = sniffer.stop();
    let seen: Vec<&Seen> = seen.iter().skip_while(|s| s.flags() != "S.").collect();
    // The window of the SYN-ACK is not scaled and allows the first flight.
    let data_acked = seen.iter().position(|s| s.from.port() == lab::PORT && s.flags() == ".");
    let rest = &seen[data_acked.expect("the first flight is acknowledged")..];
    let field = rest.iter().filter(|s| s.from.port() == lab::PORT).map(|s| s.tcp.window_size).max();
    let field = field.expect("the ACK above");
    let longest = rest.iter().filter(|s| s.to.port() == lab::PORT).map(|s| s.len).max();
    let longest = longest.expect("more data came");
    assert!(field < 2000 && longest <= usize::from(field), "segments of {longest} in windows of {field}");
    format!("16.5 kB took {:.1} s; fields up to {field}, segments up to {longest} bytes", time.as_secs_f64())
}

/// H10: the hosts scale, the middlebox does not.
fn drop_beyond() -> String {
    let mut bench = Bench::new(Family::V4, &["wscale-strip drop_beyond=true"]);
    let (mut client, mut server) = bench.pair();
    let start = Instant::now();
    carry(&mut client, &mut server, 100_000);
    let time = start.elapsed();
    assert!(time > Duration::from_secs(1), "100 kB took only {time:?}");
    let fired = bench.log().fired();
    assert!(fired.iter().all(|f| f.starts_with("wscale-strip client upstream drop")), "{fired:?}");
    format!("100 kB took {:.1} s; {} segments were lost", time.as_secs_f64(), fired.len())
}

/// H11: what the kernels say of their own segment sizes.
fn mss_rewrite() -> String {
    let mut seen = Vec::new();
    for (family, mss, expected) in [(Family::V4, 536, 524), (Family::V6, 1, 36)] {
        let bench = Bench::new(family, &[&format!("mss-rewrite mss={mss}")]);
        let (mut client, mut server) = bench.pair();
        let sizes = [&client, &server].map(|stream| SockRef::from(stream).tcp_mss().expect("a live socket"));
        assert_eq!(sizes, [expected; 2], "mss={mss}");
        carry(&mut client, &mut server, 10_000);
        carry(&mut server, &mut client, 10_000);
        seen.push(format!("{expected} bytes with mss={mss}"));
    }
    seen.join(", ")
}

/// H12 without ICMP. Without its tail loss probe Linux doubles from the first repetition on. It probes once 3.0 s have passed
/// since then, at the repetition after 3.2 or 6.5 s (tcp_retries1).
fn pmtu_blackhole() -> String {
    let mut seen = Vec::new();
    for (family, full, probing) in [(Family::V6, 1428, "0"), (Family::V4, 1448, "1")] {
        let mut bench = Bench::new(family, &["pmtu-blackhole mtu=1400 direction=upstream"]);
        bench.lab.client.sysctl("net/ipv4/tcp_early_retrans", "0");
        bench.lab.client.sysctl("net/ipv4/tcp_mtu_probing", probing);
        let (mut client, mut server) = bench.pair();
        carry(&mut client, &mut server, 10);
        let start = Instant::now();
        client.write_all(&vec![7; full]).expect("taken by the kernel");
        // Before the next repetition, after 6.5 s.
        let patience = Duration::from_millis(if probing == "1" { 7500 } else { 5500 });
        let arrived = is_ready(&server, PollFlags::POLLIN, patience);
        let time = start.elapsed();
        assert_eq!(arrived, probing == "1", "after {time:?}");
        let log = bench.log();
        let lost: Vec<&Entry> = log.0.iter().filter(|e| e.text("event") == "fired").collect();
        let times = near(&since_first(&lost), &[0.0, 0.2, 0.65, 1.5, 3.2]);
        seen.push(match arrived {
            true => format!("with probing at {times}, through after {:.1} s", time.as_secs_f64()),
            false => format!("lost at {times}"),
        });
    }
    seen.join("; ")
}

/// H12 with ICMP.
fn frag_needed() -> String {
    let mut seen = Vec::new();
    for (family, fits) in [(Family::V4, 1348), (Family::V6, 1328)] {
        let mut bench = Bench::new(family, &["pmtu-blackhole mtu=1400 icmp=frag-needed"]);
        let (mut client, mut server) = bench.pair();
        let start = Instant::now();
        carry(&mut client, &mut server, 100_000);
        carry(&mut server, &mut client, 100_000);
        seen.push(took("100 kB each way", start.elapsed(), Duration::ZERO));
        let sizes = [&client, &server].map(|stream| SockRef::from(stream).tcp_mss().expect("a live socket"));
        assert_eq!(sizes, [fits; 2]);
        let fired = bench.log().fired();
        assert!(fired.iter().any(|f| f.starts_with("pmtu-blackhole client upstream drop")), "{fired:?}");
        assert!(fired.iter().any(|f| f.starts_with("pmtu-blackhole server downstream drop")), "{fired:?}");
    }
    seen.join(" and ")
}
