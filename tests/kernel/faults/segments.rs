//! Single segments against Linux: lost, doubled, overtaken, spoiled, shifted, forged.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use halfopen::setup::netlink::Family;
use nix::poll::PollFlags;
use socket2::SockRef;

use super::bench::{Bench, Proof, SLACK, is_ready, near};
use crate::lab::events::since_first;
use crate::lab::ns::Ns;
use crate::lab::{drain, errno};

pub(super) const PROOFS: &[Proof] = &[
    Proof {
        fault: "loss",
        entry: "E19",
        expected: "a request that is lost three times comes at 0.21, 0.42, 0.84 s (15 % + 60 ms), the first by tail loss probe",
        run: loss_of_a_request,
    },
    Proof {
        fault: "loss",
        entry: "E19",
        expected: "with 2 % lost in bursts of 3, 1 MiB in each direction arrives to the byte",
        run: loss_in_bursts,
    },
    Proof {
        fault: "duplicate",
        entry: "E20",
        expected: "two copies of every segment: each byte is read once, the client's kernel answers copies by D-SACK",
        run: duplicate,
    },
    Proof {
        fault: "reorder",
        entry: "E21",
        expected: "segments that 3 later ones overtake: the client's kernel queues those (TCPOFOQueue), bytes in order",
        run: reorder_by_count,
    },
    Proof {
        fault: "reorder",
        entry: "E21",
        expected: "one of the client's segments 150 ms late: its kernel repeats it before that, bytes in order",
        run: reorder_by_time,
    },
    Proof {
        fault: "corrupt",
        entry: "E22",
        expected: "mode=checksum: InCsumErrors of the client's kernel counts each of 2 segments, every byte arrives",
        run: corrupt_checksum,
    },
    Proof {
        fault: "corrupt",
        entry: "E22",
        expected: "mode=payload: the application reads one flipped bit and no error, InCsumErrors stays 0",
        run: corrupt_payload,
    },
    Proof {
        fault: "sequence-shift",
        entry: "E23",
        expected: "with loss, sack=untranslated: the client's kernel discards SACK blocks (TCPSACKDiscard), translated: none; every byte arrives",
        run: sequence_shift,
    },
    Proof {
        fault: "sequence-shift",
        entry: "E25",
        expected: "seq-wrap: the SYN-ACK has 4294967040, 1 MiB in each direction arrives to the byte",
        run: seq_wrap,
    },
    Proof {
        fault: "timestamp-mangle",
        entry: "E24",
        expected: "mode=rewind by=1500ms: the client reads nothing for 1.4 to 4 s while its kernel drops at least 3 segments (PAWSEstab), then all",
        run: timestamp_rewind,
    },
    Proof {
        fault: "timestamp-mangle",
        entry: "E24",
        expected: "of at least 4 pure ACKs that look old, one per 500 ms is answered, the rest is not (TCPACKSkippedPAWS)",
        run: timestamp_ratelimit,
    },
    Proof {
        fault: "timestamp-mangle",
        entry: "E24",
        expected: "mode=freeze: 1 MiB in each direction arrives to the byte, nothing looks old",
        run: timestamp_freeze,
    },
    Proof {
        fault: "timestamp-mangle",
        entry: "E24",
        expected: "mode=zero: nothing arrives (PAWSEstab counts) if the sender's clock is below 2^31, everything if it is not; 8 connections",
        run: timestamp_zero,
    },
    Proof {
        fault: "rst-blind",
        entry: "E17",
        expected: "in the window: one challenge ACK; outside: none; the connection goes on",
        run: rst_blind,
    },
    Proof {
        fault: "late-segment-rst",
        entry: "E18",
        expected: "hold=700ms: the server's write fails with ECONNRESET after 0.7 s (at most 400 ms more), the client reads ECONNRESET in the middle",
        run: late_segment_rst,
    },
    Proof {
        fault: "odd-flags",
        entry: "E29",
        expected: "urg: the first byte is missing in recv() and waits for recv(MSG_OOB), with a pointer of 0 as well; other bits: nothing",
        run: odd_flags,
    },
];

/// A counter of a host's kernel, by its name in /proc/net/snmp or /proc/net/netstat.
fn counter(ns: &Ns, name: &str) -> u64 {
    let read =
        |file: &str| fs::read_to_string(format!("/proc/thread-self/net/{file}")).expect("/proc is there");
    let text = ns.run(|| read("snmp") + &read("netstat"));
    let lines: Vec<&str> = text.lines().collect();
    let find = |pair: &[&str]| {
        let (group, names) = pair[0].split_once(':')?;
        let values = pair[1].strip_prefix(group)?.strip_prefix(':')?;
        let at = names.split_whitespace().position(|other| other == name)?;
        values.split_whitespace().nth(at)?.parse().ok()
    };
    // Tcp has InCsumErrors, and so have Udp and Icmp, which come before and after.
    let tcp = lines.chunks_exact(2).filter(|pair| pair[0].starts_with("Tcp"));
    tcp.filter_map(find).next().unwrap_or_else(|| panic!("this kernel does not count {name}"))
}

/// Bytes in which no two places look alike.
fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Sends `up` and `down` bytes at the same time, each to its end, and gives what the server and the client have read.
fn exchange(bench: &Bench, up: usize, down: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut client, mut server) = bench.pair();
    let both = |stream: &mut TcpStream, len: usize| {
        let mut writer = stream.try_clone().expect("a live socket");
        let writing = thread::spawn(move || {
            writer.write_all(&pattern(len)).expect("sent");
            writer.shutdown(Shutdown::Write).expect("a live socket");
        });
        let (bytes, end) = drain(stream);
        assert_eq!(end, "EOF");
        writing.join().expect("it only writes");
        bytes
    };
    let serving = thread::spawn(move || both(&mut server, down));
    let read = both(&mut client, up);
    (serving.join().expect("it only serves"), read)
}

/// The same, to the byte.
fn exchange_whole(bench: &Bench, up: usize, down: usize) {
    let (server_read, client_read) = exchange(bench, up, down);
    assert!(server_read == pattern(up), "{} of {up} bytes upstream, or wrong ones", server_read.len());
    assert!(client_read == pattern(down), "{} of {down} bytes downstream, or wrong ones", client_read.len());
}

const MIB: usize = 1 << 20;

/// E19: the client's own schedule; the first repetition is a tail loss probe.
fn loss_of_a_request() -> String {
    let mut bench = Bench::new(Family::V4, &["loss p=1 first=3 kinds=data direction=upstream"]);
    let (mut client, mut server) = bench.pair();
    client.write_all(b"request").expect("sent");
    let mut request = [0; 7];
    server.read_exact(&mut request).expect("the fourth arrives");
    assert_eq!(&request, b"request");
    let log = bench.log();
    let sent: Vec<_> = log.0.iter().filter(|e| e.is("segment-in", "client") && e.len() == 7).collect();
    assert_eq!(log.fired(), vec!["loss client upstream drop P."; 3]);
    format!("sent at {}", near(&since_first(&sent), &[0.0, 0.21, 0.42, 0.84]))
}

/// E19: SYN, data, ACK and FIN are lost in both directions, and TCP repairs all of it.
fn loss_in_bursts() -> String {
    let mut bench = Bench::new(Family::V6, &["loss p=0.02 burst=3"]);
    exchange_whole(&bench, MIB, MIB);
    let lost = bench.log().fired().len();
    assert!(lost > 10, "{lost} segments lost");
    format!("every byte arrived; {lost} segments lost")
}

/// E20: no byte is read twice.
fn duplicate() -> String {
    let mut bench = Bench::new(Family::V4, &["duplicate first=all copies=2"]);
    exchange_whole(&bench, MIB / 4, MIB / 4);
    let dsacks = counter(&bench.lab.client, "TCPDSACKOldSent");
    assert!(dsacks > 0, "the client's kernel has seen copies");
    let copied = bench.log().fired().len();
    format!("every byte arrived once; {copied} segments came three times, {dsacks} D-SACKs of the client")
}

/// E21: what overtakes waits in the receiver's kernel.
fn reorder_by_count() -> String {
    let mut bench = Bench::new(Family::V6, &["reorder share=0.1 segments=3 direction=downstream"]);
    exchange_whole(&bench, 1000, MIB);
    let queued = counter(&bench.lab.client, "TCPOFOQueue");
    assert!(queued > 0, "later segments came first");
    let held = bench.log().fired().len();
    format!("every byte in order; {held} segments were overtaken, {queued} waited in the client's kernel")
}

/// E21: the sender takes a hole below three segments for a loss.
fn reorder_by_time() -> String {
    let mut bench = Bench::new(Family::V4, &["reorder nth=2 segments=0 delay=150ms direction=upstream"]);
    exchange_whole(&bench, MIB / 8, 1000);
    let again = counter(&bench.lab.client, "RetransSegs");
    assert!(again > 0, "the client's kernel repeats it");
    let log = bench.log();
    let held = log.0.iter().find(|e| e.text("event") == "fired").expect("one is held");
    let first =
        held.text("segment").split(' ').nth(1).and_then(|range| range.split(':').next()).expect("a number");
    let copies = log.0.iter().filter(|e| e.is("segment-in", "client") && e.len() > 0);
    let copies = copies
        .filter(|e| e.text("segment").split(' ').nth(1).is_some_and(|r| r.starts_with(&format!("{first}:"))));
    let times: Vec<f64> = copies.map(|e| e.at().as_secs_f64() - held.at().as_secs_f64()).collect();
    let repeated = times.get(1).copied().unwrap_or(9.0);
    assert!(repeated < 0.15, "repeated after {repeated:.3} s");
    format!("repeated after {:.1} ms", repeated * 1000.0)
}

/// E22: the kernel counts what has a wrong checksum, and TCP sends it again.
fn corrupt_checksum() -> String {
    let mut told = Vec::new();
    for family in [Family::V4, Family::V6] {
        let mut bench = Bench::new(family, &["corrupt nth=3,5"]);
        exchange_whole(&bench, 1000, MIB / 8);
        let errors = counter(&bench.lab.client, "InCsumErrors");
        assert_eq!(errors, 2, "{family:?}");
        assert_eq!(bench.log().fired(), vec!["corrupt client downstream rewrite ."; 2]);
        told.push(errors.to_string());
    }
    format!("InCsumErrors {} (IPv4, IPv6), every byte arrived", told.join(" and "))
}

/// E22: nobody but the application can find it.
fn corrupt_payload() -> String {
    let bench = Bench::new(Family::V4, &["corrupt nth=3 mode=payload"]);
    let (server_read, client_read) = exchange(&bench, 1000, MIB / 8);
    assert_eq!(server_read, pattern(1000));
    let sent = pattern(MIB / 8);
    assert_eq!(client_read.len(), sent.len());
    let bits: u32 = client_read.iter().zip(&sent).map(|(a, b)| (a ^ b).count_ones()).sum();
    assert_eq!((bits, counter(&bench.lab.client, "InCsumErrors")), (1, 0));
    "one bit of 131072 bytes differs, end-of-file as usual, InCsumErrors 0".to_owned()
}

/// E23: SACK blocks in the numbers of the wrong side are of no use.
fn sequence_shift() -> String {
    let run = |sack: &str| {
        let shift = format!("sequence-shift sack={sack}");
        let bench = Bench::new(Family::V4, &[&shift, "loss p=1 nth=5,30,60 kinds=data direction=upstream"]);
        let begin = Instant::now();
        exchange_whole(&bench, MIB / 4, MIB / 4);
        (counter(&bench.lab.client, "TCPSACKDiscard"), begin.elapsed())
    };
    let (discarded, slow) = run("untranslated");
    let (none, quick) = run("translated");
    assert!(discarded > 0 && none == 0, "{discarded} SACK blocks discarded, translated {none}");
    format!(
        "{discarded} discarded in {:.2} s, translated {none} in {:.2} s",
        slow.as_secs_f64(),
        quick.as_secs_f64()
    )
}

/// E25: the numbers that halfopen sends wrap within the first 256 bytes.
fn seq_wrap() -> String {
    let mut bench = Bench::new(Family::V4, &["sequence-shift mode=iss direction=downstream sack=translated"]);
    exchange_whole(&bench, MIB, MIB);
    let log = bench.log();
    let syn_ack = log.segments("segment-out", "client", "S.")[0].text("segment").to_owned();
    assert!(syn_ack.starts_with("S. 4294967040:4294967040(0)"), "{syn_ack}");
    "SYN-ACK 4294967040, every byte arrived".to_owned()
}

/// E24: packets flow and nothing arrives, until the clock has caught up.
fn timestamp_rewind() -> String {
    let mut bench = Bench::new(Family::V4, &["timestamp-mangle mode=rewind by=1500ms after_bytes=5"]);
    let (mut client, mut server) = bench.pair();
    server.write_all(b"good").expect("sent");
    client.read_exact(&mut [0; 4]).expect("before the fault");
    let begin = Instant::now();
    server.write_all(b"late").expect("sent");
    let mut late = [0; 4];
    client.read_exact(&mut late).expect("the clock catches up");
    let time = begin.elapsed();
    assert_eq!(&late, b"late");
    assert!(time > Duration::from_millis(1400) && time < Duration::from_secs(4), "{time:?}");
    let dropped = counter(&bench.lab.client, "PAWSEstab");
    assert!(dropped >= 3, "{dropped}");
    let log = bench.log();
    let out: Vec<_> =
        log.0.iter().filter(|e| e.is("segment-out", "client") && e.len() == 4).skip(1).collect();
    let acks = log.0.iter().filter(|e| e.is("segment-in", "client") && e.at() > out[0].at()).count();
    let times: Vec<String> = since_first(&out).iter().map(|at| format!("{at:.2}")).collect();
    format!(
        "read after {:.2} s; sent at {} s, {dropped} dropped, {acks} ACKs",
        time.as_secs_f64(),
        times.join(", ")
    )
}

/// E24: an ACK that looks old is answered at most once per `tcp_invalid_ratelimit`, 500 ms.
fn timestamp_ratelimit() -> String {
    let bench = Bench::new(Family::V4, &["timestamp-mangle mode=rewind by=1h first=all"]);
    let (mut client, _server) = bench.pair();
    let begin = Instant::now();
    for _ in 0..10 {
        // Full segments, apart from each other, so that their ACKs are; what is sent again has one at once.
        client.write_all(&[7; 1448]).expect("sent");
        nix::poll::poll(&mut [], 15u8).expect("a pause");
    }
    nix::poll::poll(&mut [], 450u16).expect("a pause");
    let (dropped, skipped) =
        (counter(&bench.lab.client, "PAWSEstab"), counter(&bench.lab.client, "TCPACKSkippedPAWS"));
    let time = begin.elapsed();
    let most = 2 + time.as_millis() as u64 / 500;
    assert!(dropped >= 4 && dropped <= skipped + most, "{dropped} dropped, {skipped} unanswered in {time:?}");
    format!("{dropped} dropped in {:.2} s, {skipped} of them without an answer", time.as_secs_f64())
}

/// E24: a clock that stands still makes nothing old.
fn timestamp_freeze() -> String {
    let bench = Bench::new(Family::V6, &["timestamp-mangle mode=freeze direction=both after_bytes=1"]);
    exchange_whole(&bench, MIB, MIB);
    let dropped = counter(&bench.lab.client, "PAWSEstab");
    assert_eq!(dropped, 0);
    "every byte arrived, PAWSEstab 0".to_owned()
}

/// E24: zero is old for one half of the clocks and new for the other one.
fn timestamp_zero() -> String {
    let mut bench = Bench::new(Family::V4, &["timestamp-mangle mode=zero"]);
    let arrives = |_| {
        let (client, mut server) = bench.pair();
        let before = counter(&bench.lab.client, "PAWSEstab");
        server.write_all(b"data").expect("sent");
        let arrived = is_ready(&client, PollFlags::POLLIN, Duration::from_millis(400));
        let dropped = counter(&bench.lab.client, "PAWSEstab") > before;
        crate::lab::reset(client);
        assert!(arrived != dropped, "arrived: {arrived}, dropped: {dropped}");
        arrived
    };
    let seen: Vec<bool> = (0..8).map(arrives).collect();
    let log = bench.log();
    let clock = |e: &&crate::lab::events::Entry| {
        let after = e.text("segment").split("TS val ").nth(1).expect("timestamps").to_owned();
        after.split(' ').next().and_then(|val| val.parse::<u32>().ok()).expect("a number")
    };
    let mut syn_acks = log.segments("segment-out", "client", "S.");
    syn_acks.dedup_by_key(|e| e.flow());
    let clocks: Vec<u32> = syn_acks.iter().map(clock).collect();
    let expected: Vec<bool> = clocks.iter().map(|clock| *clock >= 1 << 31).collect();
    assert_eq!(seen, expected, "{clocks:?}");
    format!("arrived on {} of 8, by the clock", seen.iter().filter(|arrived| **arrived).count())
}

/// E17: RFC 5961 is in every Linux since 3.6.
fn rst_blind() -> String {
    let mut told = Vec::new();
    for (family, offset, challenges) in
        [(Family::V4, 100, 1), (Family::V6, -100, 0), (Family::V4, 100_000_000, 0)]
    {
        let mut bench = Bench::new(family, &[&format!("rst-blind offset={offset}")]);
        let (mut client, mut server) = bench.pair();
        for _ in 0..2 {
            client.write_all(b"ping").expect("sent");
            server.read_exact(&mut [0; 4]).expect("delivered");
            server.write_all(b"pong").expect("sent");
            client.read_exact(&mut [0; 4]).expect("it goes on");
        }
        let seen = counter(&bench.lab.client, "TCPChallengeACK");
        assert_eq!(seen, challenges, "offset {offset}");
        assert_eq!(bench.log().fired(), ["rst-blind client downstream inject R"]);
        told.push(format!("offset {offset}: {seen}"));
    }
    format!("challenge ACKs: {}; the connection went on", told.join(", "))
}

/// E18: the sender is reset at once, the receiver when it acknowledges what was on its way.
fn late_segment_rst() -> String {
    let mut bench = Bench::new(Family::V4, &["late-segment-rst hold=700ms after_bytes=64KiB"]);
    let (mut client, mut server) = bench.pair();
    let writing = thread::spawn(move || {
        let begin = Instant::now();
        loop {
            if let Err(error) = server.write(&[7; 16 << 10]) {
                return (errno(&error), begin.elapsed());
            }
        }
    });
    client.set_read_timeout(Some(Duration::from_secs(2))).expect("a live socket");
    let (mut read, mut buffer) = (0, vec![0; 64 << 10]);
    let end = loop {
        match client.read(&mut buffer) {
            Ok(0) => break "EOF".to_owned(),
            Ok(n) => read += n,
            // Everything is acknowledged: it hears of the reset when it speaks.
            Err(error) if errno(&error) == "EAGAIN" => client.write_all(b"x").expect("taken by the kernel"),
            Err(error) => break errno(&error),
        }
        // A reader that takes its time: the transfer is in the middle when the segment comes again.
        nix::poll::poll(&mut [], 2u8).expect("a pause");
    };
    let (error, time) = writing.join().expect("it only writes");
    assert_eq!((error.as_str(), end.as_str()), ("ECONNRESET", "ECONNRESET"));
    let hold = Duration::from_millis(700);
    assert!(time >= hold && time < hold + SLACK, "{time:?}");
    let fired = bench.log().fired();
    assert!(fired.iter().any(|f| f.starts_with("late-segment-rst client downstream inject")), "{fired:?}");
    assert_eq!(fired.last().map(String::as_str), Some("late-segment-rst server upstream inject"));
    format!(
        "ECONNRESET on both sides; the server after {:.2} s, the client had read {read} bytes",
        time.as_secs_f64()
    )
}

/// E29: the urgent byte leaves the stream, whatever the sender meant; nobody looks at the other bits.
fn odd_flags() -> String {
    let run = |rule: &str| {
        let bench = Bench::new(Family::V4, &[rule]);
        let (mut client, mut server) = bench.pair();
        server.write_all(b"abc").expect("sent");
        server.shutdown(Shutdown::Write).expect("a live socket");
        let urgent = is_ready(&client, PollFlags::POLLPRI, Duration::from_millis(500));
        let mut oob = [std::mem::MaybeUninit::uninit(); 1];
        let taken = SockRef::from(&client).recv_out_of_band(&mut oob);
        let (bytes, end) = drain(&mut client);
        assert_eq!(end, "EOF");
        let text = String::from_utf8(bytes).expect("letters");
        (text, urgent, taken.ok())
    };
    for pointer in [1, 0] {
        assert_eq!(
            run(&format!("odd-flags pointer={pointer}")),
            ("bc".to_owned(), true, Some(1)),
            "{pointer}"
        );
    }
    assert_eq!(run("odd-flags flags=reserved,ece,cwr,ae"), ("abc".to_owned(), false, None));
    "of abc recv() gave bc and MSG_OOB one byte; with the other bits abc".to_owned()
}
