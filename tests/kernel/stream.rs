//! What happens to the bytes in between.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use halfopen::setup::netlink::{Family, Netlink, Route, RouteKind};
use nix::poll::PollFlags;
use nix::sys::socket::{MsgFlags, send, sockopt};
use sha2::{Digest, Sha256};
use socket2::{SockRef, TcpKeepalive};

use crate::lab::lossy::{Lossy, Quality};
use crate::lab::{Lab, PATIENCE, Way, accept, address, chosen, drain, errno, outcome, wait};
use crate::{Row, Seen, Single};

pub(crate) const ROWS: &[Row] = &[
    ("a server that speaks first is heard", server_first),
    ("a slow reader stops the writer, and loses nothing", slow_reader),
    ("a window that stays closed for long opens again", long_stall),
    ("one byte at a time arrives as such", byte_by_byte),
    ("the urgent mark stays between the same bytes", urgent),
    ("a keepalive of the client finds that the server is dead", client_keepalive),
    ("a keepalive of the server finds that the client is dead", server_keepalive),
    ("a keepalive does not hurt an idle connection", harmless_keepalive),
    ("both directions at full speed carry equal bytes", full_duplex),
    ("a smaller MTU on the way is found out", small_mtu),
];

/// Rows that say something new where a kernel socket stands on one side.
pub(crate) fn of_kernel_sockets() -> Vec<Row> {
    let names = [
        "a server that speaks first is heard",
        "a slow reader stops the writer, and loses nothing",
        "one byte at a time arrives as such",
        "the urgent mark stays between the same bytes",
        "a keepalive does not hurt an idle connection",
        "both directions at full speed carry equal bytes",
    ];
    chosen(ROWS, &names)
}

pub(crate) const SINGLES: &[Single] = &[
    ("more than 4 GiB upstream arrive with an equal SHA-256", || {
        more_than_4_gib(Way::Proxied, Family::V4, false)
    }),
    ("more than 4 GiB downstream arrive with an equal SHA-256", || {
        more_than_4_gib(Way::Proxied, Family::V6, true)
    }),
    ("5,000 connections are open at once and each is its own", many),
    ("loss and reordering change no byte (IPv4)", || bad_cable(Way::Proxied, Family::V4)),
    ("loss and reordering change no byte (IPv6)", || bad_cable(Way::Proxied, Family::V6)),
];

fn is_long() -> bool {
    std::env::var_os("HALFOPEN_LONG").is_some()
}

fn server_first(lab: &Lab, family: Family) -> Seen {
    let (mut client, mut server) = lab.pair(family);
    server.write_all(b"220 hello\r\n").expect("an open connection");
    let mut greeting = [0; 11];
    let read = client.read_exact(&mut greeting);
    vec![format!("client: {} {:?}", outcome(&read), String::from_utf8_lossy(&greeting))]
}

/// Block number `i` of a stream that does not repeat itself.
fn block(i: u64) -> Vec<u8> {
    let mut state = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(BLOCK);
    while bytes.len() < BLOCK {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

const BLOCK: usize = 64 << 10;

/// Writes `blocks` blocks and returns their hash.
fn write_blocks(stream: &mut TcpStream, blocks: u64) -> io::Result<String> {
    let mut hash = Sha256::new();
    for i in 0..blocks {
        let bytes = block(i);
        hash.update(&bytes);
        stream.write_all(&bytes)?;
    }
    Ok(hex(hash))
}

/// Reads to the end and returns the number of bytes and their hash.
fn read_blocks(stream: &mut TcpStream) -> io::Result<(u64, String)> {
    let (mut hash, mut total, mut buf) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        match stream.read(&mut buf)? {
            0 => return Ok((total, hex(hash))),
            n => {
                hash.update(&buf[..n]);
                total += n as u64;
            }
        }
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// Writes until nothing moves for `still`; returns the bytes that went in.
pub(crate) fn fill(stream: &mut TcpStream, still: Duration) -> u64 {
    stream.set_nonblocking(true).expect("an open socket");
    let mut written = 0;
    let bytes = block(0);
    while wait(stream.as_fd(), PollFlags::POLLOUT, still) {
        match stream.write(&bytes) {
            Ok(n) => written += n as u64,
            Err(e) => assert_eq!(e.kind(), io::ErrorKind::WouldBlock, "{e}"),
        }
        assert!(written < 256 << 20, "the writer is never stopped");
    }
    stream.set_nonblocking(false).expect("an open socket");
    written
}

/// Fills the connection, stalls, then reads all of it.
fn stall(lab: &Lab, family: Family, stall: Duration) -> Seen {
    let (mut client, mut server) = lab.pair(family);
    let before = lab.halfopen.as_ref().map(|h| h.memory());
    let written = fill(&mut client, Duration::from_millis(600));
    if let (Some(before), Some(halfopen)) = (before, &lab.halfopen) {
        let grown = halfopen.memory().saturating_sub(before);
        assert!(grown < 32 << 10, "one stopped flow costs {grown} KiB");
    }
    // Nothing happens meanwhile but window probes.
    assert!(
        !wait(client.as_fd(), PollFlags::POLLOUT | PollFlags::POLLHUP, stall),
        "it moved during the stall"
    );
    let reader = thread::spawn(move || read_blocks(&mut server));
    let more = outcome(&client.write_all(b"and more"));
    drop(client);
    let (total, _) = reader.join().expect("no panic").expect("the connection survives the stall");
    vec![
        format!("the writer was stopped: {}", written < 64 << 20),
        format!("writes after the stall: {more}"),
        format!("missing at the reader: {}", written + 8 - total),
    ]
}

fn slow_reader(lab: &Lab, family: Family) -> Seen {
    stall(lab, family, Duration::ZERO)
}

fn long_stall(lab: &Lab, family: Family) -> Seen {
    // What the kernel does alone is known after a few probes.
    let long = is_long() && lab.way != Way::Direct;
    stall(lab, family, Duration::from_secs(if long { 60 } else { 8 }))
}

fn byte_by_byte(lab: &Lab, family: Family) -> Seen {
    let (mut client, mut server) = lab.pair(family);
    client.set_nodelay(true).expect("an open socket");
    let bytes: Vec<u8> = (0..2_000u32).map(|i| i as u8).collect();
    let sent = bytes.clone();
    let writer = thread::spawn(move || sent.iter().try_for_each(|b| client.write_all(&[*b])));
    let (got, end) = drain(&mut server);
    let written = outcome(&writer.join().expect("no panic"));
    vec![format!("writes: {written}"), format!("equal: {} {end}", got == bytes)]
}

/// libc does not know it for Linux.
const SIOCATMARK: libc::c_int = 0x8905;
nix::ioctl_read_bad!(at_mark, SIOCATMARK, libc::c_int);

/// True if the next byte to be read is the urgent one.
fn is_at_mark(stream: &TcpStream) -> bool {
    let mut answer = 0;
    // SAFETY: the kernel writes one int.
    unsafe { at_mark(std::os::fd::AsRawFd::as_raw_fd(stream), &raw mut answer) }.expect("a TCP socket");
    answer != 0
}

fn urgent(lab: &Lab, family: Family) -> Seen {
    let mut seen = Vec::new();
    for inline in [true, false] {
        let (mut client, mut server) = lab.pair(family);
        nix::sys::socket::setsockopt(&server, sockopt::OobInline, &inline).expect("an option of TCP sockets");
        client.write_all(b"before").expect("an open connection");
        let oob = send(std::os::fd::AsRawFd::as_raw_fd(&client), b"!", MsgFlags::MSG_OOB);
        assert_eq!(oob, Ok(1));
        // POLLPRI: the urgent byte is known to the receiver.
        assert!(wait(server.as_fd(), PollFlags::POLLPRI, PATIENCE), "no urgent data");
        client.write_all(b"after").expect("an open connection");
        drop(client);
        // One read never crosses the mark; how many reads there are between marks is chance.
        let (mut buf, mut parts) = ([0; 64], vec![String::new()]);
        loop {
            if is_at_mark(&server) {
                parts.push("mark: ".to_owned());
            }
            match server.read(&mut buf).expect("an open connection") {
                0 => break,
                n => parts.last_mut().expect("one at least").push_str(&String::from_utf8_lossy(&buf[..n])),
            }
        }
        seen.push(format!("inline {inline}: {parts:?}"));
    }
    seen
}

/// Keepalive after 2 s of silence, one probe per second, dead after 3 unanswered.
fn keep_alive(stream: &TcpStream) {
    let settings = TcpKeepalive::new()
        .with_time(Duration::from_secs(2))
        .with_interval(Duration::from_secs(1))
        .with_retries(3);
    SockRef::from(stream).set_tcp_keepalive(&settings).expect("an open socket");
}

/// The error of `stream`, which has been silent since `begin` and is still until its keepalive ends it.
fn dies(stream: &TcpStream, begin: Instant) -> Seen {
    assert!(wait(stream.as_fd(), PollFlags::POLLERR, PATIENCE), "the keepalive finds nothing");
    let error = stream.take_error().expect("an open socket").expect("POLLERR was set");
    let lived = begin.elapsed().as_secs_f64();
    // An answer to the first probe would make it 7 s.
    assert!((4.9..6.9).contains(&lived), "2 s idle and 3 probes a second apart take about 5 s, not {lived}");
    vec![errno(&error)]
}

/// What this host says to the other network is lost from here on; it still hears.
fn mute(lab: &Lab, family: Family, server: bool) {
    let (ns, to) = if server { (&lab.server, (1, 2)) } else { (lab.client_host(), (2, 2)) };
    ns.route(family, Some(to), None, RouteKind::Blackhole);
}

fn client_keepalive(lab: &Lab, family: Family) -> Seen {
    let begin = Instant::now();
    let (client, _server) = lab.pair(family);
    keep_alive(&client);
    mute(lab, family, true);
    dies(&client, begin)
}

fn server_keepalive(lab: &Lab, family: Family) -> Seen {
    let begin = Instant::now();
    let (_client, server) = lab.pair(family);
    keep_alive(&server);
    mute(lab, family, false);
    dies(&server, begin)
}

fn harmless_keepalive(lab: &Lab, family: Family) -> Seen {
    let (mut client, mut server) = lab.pair(family);
    keep_alive(&client);
    let early = wait(client.as_fd(), PollFlags::POLLIN | PollFlags::POLLERR, Duration::from_secs(7));
    server.write_all(b"still here").expect("an open connection");
    let mut words = [0; 10];
    let read = client.read_exact(&mut words);
    vec![format!("anything while idle: {early}"), format!("client: {}", outcome(&read))]
}

/// Both ends write and read this many blocks at the same time.
fn duplex(client: TcpStream, server: TcpStream, blocks: u64) -> Seen {
    let work = |stream: TcpStream| {
        let mut write_half = stream.try_clone().expect("a descriptor");
        let writer = thread::spawn(move || {
            let hash = write_blocks(&mut write_half, blocks);
            write_half.shutdown(std::net::Shutdown::Write).expect("an open connection");
            hash
        });
        let mut stream = stream;
        let reader = thread::spawn(move || read_blocks(&mut stream));
        (writer, reader)
    };
    let ends = [("client", work(client)), ("server", work(server))];
    ends.map(|(name, (writer, reader))| {
        let sent = writer.join().expect("no panic");
        let got = reader.join().expect("no panic");
        let same = sent.as_ref().ok() == got.as_ref().ok().map(|(_, hash)| hash);
        let total = got.as_ref().map_or(0, |(total, _)| *total);
        format!("{name}: write {}, read {} of {total}, equal {same}", outcome(&sent), outcome(&got))
    })
    .into()
}

fn full_duplex(lab: &Lab, family: Family) -> Seen {
    let (client, server) = lab.pair(family);
    duplex(client, server, 1024)
}

/// All links take 1300 bytes, but the hosts offer each other segments as for 1500: the gateway's own kernel has to tell
/// halfopen.
fn small_mtu(lab: &Lab, family: Family) -> Seen {
    let (client, server) = ((lab.client_host(), "c0", 1), (&lab.server, "s0", 2));
    for (host, device) in [(client.0, "c0"), (&lab.gateway, "cli0"), (&lab.gateway, "srv0"), (server.0, "s0")]
    {
        host.run(|| {
            let mut netlink = Netlink::open().expect("netlink");
            let index = netlink.link(device).expect("the device").index;
            netlink.set_mtu(index, 1300).expect("a link setting");
        });
    }
    for (host, device, net) in [client, server] {
        host.run(|| {
            let mut netlink = Netlink::open().expect("netlink");
            let index = netlink.link(device).expect("the device").index;
            let (via, mss) = (Some(address(family, net, 1)), Some(1440));
            let default = Route { via, mss, ..Route::default_by(family, index, Route::MAIN) };
            netlink.add_route(&default).expect("it replaces the one without");
        });
    }
    let (client, server) = lab.pair(family);
    duplex(client, server, 16)
}

pub(crate) fn more_than_4_gib(way: Way, family: Family, downstream: bool) {
    const BLOCKS: u64 = (1 << 32) / BLOCK as u64 + 1_000;
    let lab = Lab::new(way);
    let (client, server) = lab.pair(family);
    let (mut from, mut to) = if downstream { (server, client) } else { (client, server) };
    let writer = thread::spawn(move || write_blocks(&mut from, BLOCKS));
    let (total, got) = read_blocks(&mut to).expect("the connection holds");
    let sent = writer.join().expect("no panic").expect("the connection holds");
    assert_eq!((total, got), (BLOCKS * BLOCK as u64, sent));
}

fn many() {
    const N: usize = 5_000;
    let limit = nix::sys::resource::Resource::RLIMIT_NOFILE;
    let (_, hard) = nix::sys::resource::getrlimit(limit).expect("a limit");
    nix::sys::resource::setrlimit(limit, hard, hard).expect("up to the hard limit");
    assert!(hard > 2 * N as u64 + 100, "needs 10,100 descriptors, the hard limit is {hard}");
    let lab = Lab::new(Way::Proxied);
    let listener = lab.listen(Family::V4);
    let to: SocketAddr = listener.local_addr().expect("bound");
    let (mut clients, mut servers) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let accepting =
            scope.spawn(|| (0..N).map(|_| accept(&listener).expect("a client")).collect::<Vec<_>>());
        let dialling =
            || (0..N).map(|_| TcpStream::connect_timeout(&to, PATIENCE).expect("the server listens"));
        clients = lab.client.run(|| dialling().collect());
        servers = accepting.join().expect("no panic");
    });
    // Each client says its own address; the server, which knows it as the peer's address, says it back.
    for client in &mut clients {
        let me = format!("{:>24}", client.local_addr().expect("connected"));
        client.write_all(me.as_bytes()).expect("an open connection");
    }
    for (server, peer) in &mut servers {
        server.set_read_timeout(Some(PATIENCE)).expect("an open socket");
        let mut words = [0; 24];
        server.read_exact(&mut words).expect("an open connection");
        assert_eq!(String::from_utf8_lossy(&words), format!("{peer:>24}"));
        server.write_all(&words).expect("an open connection");
    }
    for client in &mut clients {
        client.set_read_timeout(Some(PATIENCE)).expect("an open socket");
        let mut words = [0; 24];
        client.read_exact(&mut words).expect("an open connection");
        assert_eq!(
            String::from_utf8_lossy(&words).trim(),
            client.local_addr().expect("connected").to_string()
        );
    }
}

pub(crate) fn bad_cable(with: Way, family: Family) {
    for way in [Way::Direct, with] {
        let quality = Quality { loss: 0.05, reorder: 0.05, seed: 81 };
        let (lab, cable) = Lossy::lab(way, quality);
        let (client, server) = lab.pair(family);
        for line in duplex(client, server, 32) {
            assert!(line.ends_with("write ok, read ok of 2097152, equal true"), "{way:?}: {line}");
        }
        let (lost, late) = cable.harm();
        assert!(lost > 30 && late > 30, "the cable lost {lost} and delayed {late} segments");
    }
}
