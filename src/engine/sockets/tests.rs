//! Against real sockets on this machine's loopback.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use mio::{Events, Poll};
use socket2::SockRef;

use super::*;
use crate::relay::Refusal;

mod crossing;

const AT: At = (FlowKey { slot: 7, generation: 1 }, Leg::Server);
const FIRST: usize = 10;

/// A loop around the sockets.
struct Bench {
    poll: Poll,
    sockets: Sockets,
}

impl Bench {
    fn new() -> Self {
        let poll = Poll::new().unwrap();
        let mut sockets = Sockets::default();
        sockets.start(poll.registry().try_clone().unwrap(), FIRST).unwrap();
        Self { poll, sockets }
    }

    /// Waits for readiness until `found` finds something; the tests' own limit keeps it from waiting for ever.
    fn until<T>(&mut self, mut found: impl FnMut(&mut Sockets) -> Option<T>) -> T {
        let mut events = Events::with_capacity(64);
        for _ in 0..1000 {
            if let Some(it) = found(&mut self.sockets) {
                return it;
            }
            self.poll.poll(&mut events, Some(Duration::from_secs(5))).unwrap();
            assert!(!events.is_empty(), "nothing happens any more");
            for event in &events {
                self.sockets.on_ready((event.token().0 - FIRST) / 2, event);
            }
        }
        panic!("not found");
    }

    fn event(&mut self) -> SocketEvent {
        self.until(|sockets| {
            let (flow, leg, event) = sockets.poll_event()?;
            assert_eq!((flow, leg), AT);
            Some(event)
        })
    }

    fn command(&mut self, command: SocketCommand) {
        self.sockets.command(AT, command);
    }

    fn dial(&mut self, addresses: &[SocketAddr]) {
        self.sockets.dial(AT, Addresses::new(addresses.iter().copied(), false));
    }

    /// A connection: its far end, and this end as [`AT`].
    fn connected() -> (Self, TcpStream) {
        let mut bench = Self::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        bench.dial(&[listener.local_addr().unwrap()]);
        let (stream, _) = listener.accept().unwrap();
        assert_eq!(bench.event(), SocketEvent::Connected);
        (bench, stream)
    }

    /// Reads data events until the stream is this long.
    fn data(&mut self, len: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < len {
            match self.event() {
                SocketEvent::Data { data, .. } => all.extend(data),
                other => panic!("{other:?} after {} bytes", all.len()),
            }
        }
        all
    }
}

#[test]
fn a_refused_dial_is_a_reset() {
    let mut bench = Bench::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    bench.dial(&[server]);
    let refused = SocketEvent::Failed { errno: "ECONNREFUSED", refusal: Refusal::Reset };
    assert_eq!(bench.event(), refused);
    assert!(bench.sockets.sockets.is_empty());

    bench.dial(&[]);
    assert_eq!(bench.event(), refused, "there is no address at all");
}

#[test]
fn no_byte_is_read_without_credit() {
    let (mut bench, mut far) = Bench::connected();
    far.write_all(&[7; 5000]).unwrap();
    far.shutdown(Shutdown::Write).unwrap();
    assert!(bench.sockets.poll_event().is_none());
    bench.command(SocketCommand::Read { credit: 1000 });
    assert_eq!(bench.data(1000).len(), 1000);
    assert!(bench.sockets.poll_event().is_none());
    bench.command(SocketCommand::Read { credit: 100_000 });
    assert_eq!(bench.data(4000).len(), 4000);
    assert_eq!(bench.event(), SocketEvent::Eof);
    assert!(bench.sockets.poll_event().is_none(), "the end is told once");
}

#[test]
fn what_the_kernel_does_not_take_waits_and_the_fin_follows_it() {
    let (mut bench, mut far) = Bench::connected();
    let total = 32 << 20;
    bench.command(SocketCommand::Write { data: Bytes::from(vec![9; total]), urgent: false });
    bench.command(SocketCommand::Shutdown);
    let mut sent = 0;
    while let Some((_, _, event)) = bench.sockets.poll_event() {
        let SocketEvent::Sent(n) = event else { panic!("{event:?}") };
        sent += n as usize;
    }
    assert!((1..total).contains(&sent), "{sent} of {total} went into a socket that nobody reads");
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        far.read_to_end(&mut all).unwrap();
        all.len()
    });
    while sent < total {
        let SocketEvent::Sent(n) = bench.event() else { panic!("not sent") };
        sent += n as usize;
    }
    assert_eq!((reader.join().unwrap(), sent), (total, total));
}

#[test]
fn a_reset_comes_after_what_was_received_before_it() {
    let (mut bench, mut far) = Bench::connected();
    far.write_all(b"last words").unwrap();
    SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
    drop(far);
    bench.command(SocketCommand::Read { credit: 100 });
    assert_eq!(bench.data(10), b"last words");
    assert_eq!(bench.event(), SocketEvent::Reset);
    assert!(bench.sockets.sockets.is_empty());
}

#[test]
fn a_reset_is_told_even_when_nothing_may_be_read() {
    let (mut bench, mut far) = Bench::connected();
    far.write_all(b"unread").unwrap();
    SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
    drop(far);
    assert_eq!(bench.event(), SocketEvent::Reset);
}

#[test]
fn an_abort_resets_the_server() {
    let (mut bench, mut far) = Bench::connected();
    bench.command(SocketCommand::Abort);
    assert_eq!(far.read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert!(bench.sockets.by_leg.is_empty());
}

#[test]
fn an_abort_leaves_what_was_flushed_before_it() {
    for (flush, expected) in [(true, &b"last words"[..]), (false, b"")] {
        let (mut bench, mut far) = Bench::connected();
        bench.command(SocketCommand::Write { data: Bytes::from_static(b"last words"), urgent: false });
        if flush {
            bench.command(SocketCommand::Flush);
        }
        bench.command(SocketCommand::Abort);
        let mut all = Vec::new();
        assert_eq!(far.read_to_end(&mut all).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(all, expected);
    }
}

/// The kernel has taken all of it, and may not send it.
#[test]
fn a_reset_takes_no_byte_where_it_is_watched_that_all_have_left() {
    const TOTAL: usize = 200_000;
    for watched in [true, false] {
        let (mut bench, mut far) = Bench::connected();
        SockRef::from(&bench.sockets.sockets[0].stream).set_send_buffer_size(2 * TOTAL).unwrap();
        bench.command(SocketCommand::Write { data: Bytes::from(vec![9; TOTAL]), urgent: false });
        let mut sent = 0;
        while let Some((_, _, event)) = bench.sockets.poll_event() {
            let SocketEvent::Sent(n) = event else { panic!("{event:?}") };
            sent += n as usize;
        }
        assert_eq!(sent, TOTAL);
        let mut now = Instant::ZERO;
        if watched {
            bench.command(SocketCommand::Watch);
            for _ in 0..5 {
                now = now.max(bench.sockets.poll_timeout().unwrap());
                bench.sockets.on_timeout(now);
                assert_eq!(bench.sockets.poll_event(), None, "nobody reads");
            }
        } else {
            bench.command(SocketCommand::Abort);
        }
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            let end = far.read_to_end(&mut all).unwrap_err();
            (all.len(), end.kind())
        });
        if watched {
            let told = std::iter::repeat_with(|| {
                bench.poll.poll(&mut Events::with_capacity(1), Some(Duration::from_millis(1))).unwrap();
                // No faster than the reader's: it has a minute before it is given up.
                now += Duration::from_millis(1);
                bench.sockets.on_timeout(now);
                bench.sockets.poll_event()
            });
            let (flow, leg, event) = told.take(10_000).flatten().next().expect("it has left");
            assert_eq!(((flow, leg), event), (AT, SocketEvent::Left));
            assert_eq!(bench.sockets.poll_timeout(), None, "it is told once");
            bench.command(SocketCommand::Abort);
        }
        let (read, end) = reader.join().unwrap();
        assert_eq!((read == TOTAL, end), (watched, io::ErrorKind::ConnectionReset), "{read} bytes");
    }
}

#[test]
fn a_close_after_both_fins_is_silent() {
    let (mut bench, mut far) = Bench::connected();
    far.shutdown(Shutdown::Write).unwrap();
    bench.command(SocketCommand::Read { credit: 1 });
    assert_eq!(bench.event(), SocketEvent::Eof);
    bench.command(SocketCommand::Shutdown);
    assert!(bench.sockets.poll_event().is_none());
    bench.command(SocketCommand::Close);
    assert_eq!(far.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn the_urgent_byte_keeps_its_place_both_ways() {
    let (mut bench, far) = Bench::connected();
    let far_ref = SockRef::from(&far);
    far_ref.set_out_of_band_inline(true).unwrap();
    far_ref.send(b"ab").unwrap();
    far_ref.send_out_of_band(b"!").unwrap();
    far_ref.send(b"cd").unwrap();
    bench.command(SocketCommand::Read { credit: 100 });
    let mut seen = Vec::new();
    while seen.len() < 5 {
        if let SocketEvent::Data { data, urgent } = bench.event() {
            seen.extend(data);
            assert_eq!(urgent, seen.len() == 3, "the mark is after byte 3 of {seen:?}");
        }
    }
    bench.command(SocketCommand::Write { data: Bytes::from_static(b"xy!"), urgent: true });
    bench.command(SocketCommand::Write { data: Bytes::from_static(b"z"), urgent: false });
    assert!(matches!(bench.event(), SocketEvent::Sent(_)));
    let mut bytes = [0; 9];
    assert_eq!((&far).read(&mut bytes).unwrap(), 2, "a read stops before the urgent byte");
    assert!(sys::at_urgent_byte(&far).unwrap());
    assert_eq!(((&far).read(&mut bytes).unwrap(), &bytes[..2]), (2, &b"!z"[..]));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the kernel's time is real")]
fn a_probe_is_answered_by_a_living_server() {
    let (mut bench, _far) = Bench::connected();
    let start = std::time::Instant::now();
    for _ in 0..2 {
        // The kernel does not probe before a second of silence.
        std::thread::sleep(Duration::from_millis(1100));
        bench.command(SocketCommand::Probe);
        while bench.sockets.poll_event().is_none() {
            assert!(start.elapsed() < Duration::from_secs(10), "no answer");
            let now = Instant::from_nanos(start.elapsed().as_nanos() as u64);
            std::thread::sleep(bench.sockets.poll_timeout().unwrap().since(now));
            bench.sockets.on_timeout(Instant::from_nanos(start.elapsed().as_nanos() as u64));
        }
        assert!(bench.sockets.probes.is_empty());
    }
}

#[test]
fn many_events_are_handed_out_in_bursts_and_none_is_lost() {
    let (mut bench, mut far) = Bench::connected();
    let writer = std::thread::spawn(move || far.write_all(&vec![7; 32 << 20]).unwrap());
    bench.command(SocketCommand::Read { credit: 32 << 20 });
    let (mut total, mut burst, mut longest) = (0, 0, 0);
    while total < 32 << 20 {
        match bench.sockets.poll_event() {
            Some((_, _, SocketEvent::Data { data, .. })) => {
                total += data.len();
                burst += 1;
                longest = longest.max(burst);
            }
            Some((_, _, other)) => panic!("{other:?}"),
            None if bench.sockets.is_busy() => burst = 0,
            None => {
                burst = 0;
                let mut events = Events::with_capacity(8);
                bench.poll.poll(&mut events, Some(Duration::from_secs(5))).unwrap();
                for event in &events {
                    bench.sockets.on_ready((event.token().0 - FIRST) / 2, event);
                }
            }
        }
    }
    writer.join().unwrap();
    assert!((2..=BURST).contains(&longest), "{longest}");
}

/// An address on which nobody listens.
fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn the_next_address_is_dialled_when_one_refuses() {
    let mut bench = Bench::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    bench.dial(&[closed(), closed(), listener.local_addr().unwrap(), closed()]);
    assert_eq!(bench.event(), SocketEvent::Connected);
    assert_eq!(bench.sockets.sockets.len(), 1);
    listener.accept().unwrap();
}

/// A listener whose queue is full, and what fills it: the kernel leaves further SYNs without an answer.
fn silent() -> (TcpListener, Vec<socket2::Socket>) {
    let listener = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    listener.listen(0).unwrap();
    let listener = TcpListener::from(listener);
    let to = listener.local_addr().unwrap();
    let fill = (0..4).map(|_| {
        let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _ = socket.connect(&to.into());
        socket
    });
    let filling = fill.collect();
    (listener, filling)
}

#[test]
fn an_address_that_stays_silent_gives_way_to_the_next() {
    let mut bench = Bench::new();
    let (full, _filling) = silent();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    bench.dial(&[full.local_addr().unwrap(), listener.local_addr().unwrap()]);
    let start = Instant::from_millis(1000);
    bench.sockets.on_timeout(start);
    assert_eq!(bench.sockets.poll_timeout(), Some(start + Duration::from_secs(2)));
    bench.sockets.on_timeout(start + Duration::from_millis(1999));
    assert_eq!(bench.sockets.poll_event(), None);
    bench.sockets.on_timeout(start + Duration::from_secs(2));
    assert_eq!(bench.event(), SocketEvent::Connected);
    assert_eq!((bench.sockets.sockets.len(), bench.sockets.patience.len()), (1, 0));
    listener.accept().unwrap();
}
