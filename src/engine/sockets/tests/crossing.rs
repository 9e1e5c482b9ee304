//! Bytes that cross from one leg's socket to the other's, with what a flow does about them.

use std::collections::HashSet;
use std::thread;

use super::*;

/// What a flow of this buffer lets a leg read ahead of the other.
const BUFFER: usize = 1 << 20;
const BULK: usize = 8 << 20;
const LEGS: [Leg; 2] = [Leg::Client, Leg::Server];

/// Bytes that show their place.
fn pattern(len: usize) -> Vec<u8> {
    let mut all = (0..251).collect::<Vec<u8>>().repeat(len / 251 + 1);
    all.truncate(len);
    all
}

/// Two sockets, and a flow between them that wants to see nothing.
struct Joined {
    bench: Bench,
    /// By the leg that read them: bytes that have crossed, and bytes that were handed over.
    crossed: [usize; 2],
    handed: [usize; 2],
    /// Bytes that the kernel of a leg has not taken, and credit that is not used.
    queued: [usize; 2],
    credit: [usize; 2],
    most_queued: usize,
    eof: [bool; 2],
    reset: HashSet<Leg>,
}

impl Joined {
    /// With the far ends of the client and of the server.
    fn new() -> (Self, TcpStream, TcpStream) {
        let (mut bench, server) = Bench::connected();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        accepted.set_nonblocking(true).unwrap();
        bench.sockets.settle(Some(mio::net::TcpStream::from_std(accepted)), Some(AT.0));
        let mut joined = Self {
            bench,
            crossed: [0; 2],
            handed: [0; 2],
            queued: [0; 2],
            credit: [0; 2],
            most_queued: 0,
            eof: [false; 2],
            reset: HashSet::new(),
        };
        joined.command(Leg::Client, SocketCommand::Join);
        LEGS.into_iter().for_each(|leg| joined.offer(leg));
        (joined, client, server)
    }

    fn command(&mut self, leg: Leg, command: SocketCommand) {
        self.bench.sockets.command((AT.0, leg), command);
    }

    fn offer(&mut self, leg: Leg) {
        let (own, other) = (leg as usize, leg.other() as usize);
        let more = BUFFER.saturating_sub(self.queued[other] + self.credit[own]);
        self.credit[own] += more;
        self.command(leg, SocketCommand::Read { credit: more as u32 });
    }

    /// What a flow does.
    fn serve(&mut self, leg: Leg, event: SocketEvent) {
        let (own, other) = (leg as usize, leg.other() as usize);
        match event {
            SocketEvent::Data { data, urgent } => {
                self.credit[own] -= data.len();
                self.handed[own] += data.len();
                self.queued[other] += data.len();
                self.command(leg.other(), SocketCommand::Write { data, urgent });
            }
            SocketEvent::Crossed { bytes, waiting } => {
                self.credit[own] -= bytes as usize;
                self.crossed[own] += bytes as usize;
                self.queued[other] += waiting as usize;
            }
            SocketEvent::Sent(bytes) => self.queued[own] -= bytes as usize,
            SocketEvent::Eof => {
                self.eof[own] = true;
                self.command(leg.other(), SocketCommand::Shutdown);
            }
            SocketEvent::Reset => {
                self.reset.insert(leg);
                self.command(leg.other(), SocketCommand::Abort);
            }
            other => panic!("{other:?}"),
        }
        self.most_queued = self.most_queued.max(self.queued[0]).max(self.queued[1]);
        LEGS.into_iter().for_each(|leg| self.offer(leg));
    }

    /// Serves what happens until nothing does for now.
    fn turn(&mut self) {
        loop {
            match self.bench.sockets.poll_event() {
                Some((_, leg, event)) => self.serve(leg, event),
                None if self.bench.sockets.is_busy() => {}
                None => return,
            }
        }
    }

    /// Waits for readiness; false if nothing was ready for so long.
    fn wait(&mut self, time: Duration) -> bool {
        let mut events = Events::with_capacity(64);
        self.bench.poll.poll(&mut events, Some(time)).unwrap();
        for event in &events {
            self.bench.sockets.on_ready((event.token().0 - FIRST) / 2, event);
        }
        !events.is_empty()
    }

    /// Goes on until this is so; the tests' own limit keeps it from waiting for ever.
    fn until(&mut self, done: impl Fn(&Self) -> bool) {
        loop {
            self.turn();
            if done(self) {
                return;
            }
            assert!(self.wait(Duration::from_secs(5)), "nothing happens any more");
        }
    }
}

/// Writes all, then the FIN.
fn writer(far: &TcpStream, data: &[u8]) -> thread::JoinHandle<()> {
    let (mut far, data) = (far.try_clone().unwrap(), data.to_vec());
    thread::spawn(move || {
        far.write_all(&data).unwrap();
        far.shutdown(Shutdown::Write).unwrap();
    })
}

/// Reads to the end.
fn reader(far: &TcpStream) -> thread::JoinHandle<Vec<u8>> {
    let mut far = far.try_clone().unwrap();
    thread::spawn(move || {
        let mut all = Vec::new();
        far.read_to_end(&mut all).unwrap();
        all
    })
}

#[test]
fn much_crosses_both_ways_at_once_with_each_end_behind_its_bytes() {
    let (mut joined, client, server) = Joined::new();
    let data = pattern(BULK);
    let threads = [&client, &server].map(|far| (writer(far, &data), reader(far)));
    joined.until(|joined| joined.eof == [true; 2] && joined.queued == [0; 2]);
    for (writer, reader) in threads {
        writer.join().unwrap();
        assert!(reader.join().unwrap() == data);
    }
    for leg in [0, 1] {
        assert_eq!(joined.crossed[leg] + joined.handed[leg], BULK);
        assert!(joined.crossed[leg] > 0, "{:?} handed", joined.handed);
    }
}

#[test]
fn one_way_goes_on_crossing_after_the_other_has_ended() {
    let (mut joined, client, server) = Joined::new();
    client.shutdown(Shutdown::Write).unwrap();
    joined.until(|joined| joined.eof[0]);
    let data = pattern(BULK);
    let (writer, reader) = (writer(&server, &data), reader(&client));
    joined.until(|joined| joined.eof[1] && joined.queued == [0; 2]);
    writer.join().unwrap();
    assert!(reader.join().unwrap() == data);
    assert!(joined.crossed[1] > 0);
}

#[test]
fn a_reader_that_stops_stops_the_writer_and_loses_nothing() {
    let (mut joined, client, server) = Joined::new();
    client.set_nonblocking(true).unwrap();
    let (data, mut written) = (pattern(64 << 20), 0);
    // Full is what takes nothing though nothing has happened for a while.
    loop {
        match (&client).write(&data[written..]) {
            Ok(n) => written += n,
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => panic!("{e}"),
            Err(_) if !joined.wait(Duration::from_millis(100)) => break,
            Err(_) => {}
        }
        joined.turn();
    }
    assert!(written < data.len(), "all went into a connection that nobody reads");
    assert!(joined.crossed[0] > 0);
    assert!(joined.most_queued <= BUFFER, "{}", joined.most_queued);
    client.shutdown(Shutdown::Write).unwrap();
    let reader = reader(&server);
    joined.until(|joined| joined.eof[0] && joined.queued == [0; 2]);
    assert!(reader.join().is_ok_and(|read| read == data[..written]));
}

#[test]
fn a_reset_comes_after_what_has_crossed_before_it() {
    for resets in LEGS {
        let (mut joined, client, server) = Joined::new();
        let (far, mut other) = if resets == Leg::Client { (client, server) } else { (server, client) };
        let data = pattern(BULK);
        let writer = thread::spawn({
            let data = data.clone();
            move || {
                (&far).write_all(&data).unwrap();
                SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
            }
        });
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            let error = other.read_to_end(&mut all).unwrap_err();
            (all, error.kind())
        });
        joined.until(|joined| !joined.reset.is_empty());
        writer.join().unwrap();
        let (read, error) = reader.join().unwrap();
        assert_eq!((joined.reset, error), (HashSet::from([resets]), io::ErrorKind::ConnectionReset));
        assert!(joined.crossed[resets as usize] > 0);
        assert!(read == data[..read.len()]);
        assert!(joined.bench.sockets.sockets.is_empty());
    }
}

#[test]
fn who_is_reset_while_bytes_cross_to_him_resets_the_other() {
    let (mut joined, mut client, mut server) = Joined::new();
    let data = pattern(64 << 20);
    let writer = thread::spawn(move || client.write_all(&data).unwrap_err().kind());
    let mut some = vec![0; BULK];
    let reader = thread::spawn(move || {
        server.read_exact(&mut some).unwrap();
        SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
        some
    });
    joined.until(|joined| !joined.reset.is_empty());
    assert_eq!(joined.reset, HashSet::from([Leg::Server]));
    assert!(reader.join().unwrap() == pattern(BULK));
    let error = writer.join().unwrap();
    assert!(matches!(error, io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe), "{error:?}");
    assert!(joined.bench.sockets.sockets.is_empty());
}

#[test]
fn an_urgent_byte_keeps_its_place_among_bytes_that_cross() {
    let (mut joined, client, server) = Joined::new();
    SockRef::from(&server).set_out_of_band_inline(true).unwrap();
    let half = pattern(BULK);
    let writer = thread::spawn({
        let half = half.clone();
        move || {
            (&client).write_all(&half).unwrap();
            SockRef::from(&client).send_out_of_band(b"!").unwrap();
            (&client).write_all(&half).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        }
    });
    let reader = thread::spawn(move || {
        let (mut all, mut marks, mut buf) = (Vec::new(), Vec::new(), vec![0; 64 << 10]);
        // Once a byte is there, it is known whether it is urgent.
        while server.peek(&mut [0]).unwrap() > 0 {
            if sys::at_urgent_byte(&server).unwrap() {
                marks.push(all.len());
            }
            let n = (&server).read(&mut buf).unwrap();
            all.extend_from_slice(&buf[..n]);
        }
        (all, marks)
    });
    joined.until(|joined| joined.eof[0] && joined.queued == [0; 2]);
    writer.join().unwrap();
    let (all, marks) = reader.join().unwrap();
    assert!(all == [&half[..], b"!", &half].concat());
    assert_eq!(marks, [BULK]);
    assert!(joined.crossed[0] > 0);
}

#[test]
fn without_a_pipe_all_is_handed_over() {
    let (mut joined, client, server) = Joined::new();
    joined.bench.sockets.splice = Splice::absent();
    let data = pattern(BULK);
    let (writer, reader) = (writer(&client, &data), reader(&server));
    joined.until(|joined| joined.eof[0] && joined.queued == [0; 2]);
    writer.join().unwrap();
    assert!(reader.join().unwrap() == data);
    assert_eq!((joined.crossed, joined.handed), ([0; 2], [BULK, 0]));
}

/// The kinds of the next events of the server's bytes until this many have come, and these bytes.
fn take(joined: &mut Joined, len: usize) -> Vec<SocketEvent> {
    let (mut events, mut all) = (Vec::new(), 0);
    while all < len {
        let event = joined.bench.until(|sockets| sockets.poll_event().map(|(.., event)| event));
        all += match &event {
            SocketEvent::Data { data, .. } => data.len(),
            SocketEvent::Crossed { bytes, .. } => *bytes as usize,
            other => panic!("{other:?}"),
        };
        events.push(event);
    }
    events
}

#[test]
fn nothing_crosses_before_what_was_handed_over_or_after_a_part_or_an_end() {
    let crosses = |joined: &mut Joined, mut far: &TcpStream| {
        far.write_all(&[7; 100_000]).unwrap();
        let own = joined.bench.sockets.by_leg[&AT];
        while sys::readable(&joined.bench.sockets.sockets[own].stream).unwrap() < splice::BULK {
            thread::yield_now();
        }
        let events = take(joined, 100_000);
        events.iter().any(|event| matches!(event, SocketEvent::Crossed { .. }))
    };
    let (mut joined, client, server) = Joined::new();
    let drains = reader(&client);
    (&server).write_all(b"first").unwrap();
    let [SocketEvent::Data { data, .. }] = &take(&mut joined, 5)[..] else { panic!("one event") };
    assert!(!crosses(&mut joined, &server), "the first bytes are with the flow");
    let write = |data| SocketCommand::Write { data, urgent: false };
    joined.command(Leg::Client, write(data.clone()));
    joined.command(Leg::Client, write(vec![7; 100_000].into()));
    let mut sent = 0;
    while sent < 100_005 {
        let event = joined.bench.until(|sockets| sockets.poll_event().map(|(.., event)| event));
        let SocketEvent::Sent(n) = event else { panic!("{event:?}") };
        sent += n;
    }
    assert!(crosses(&mut joined, &server), "all has come back");
    joined.command(Leg::Client, SocketCommand::Part);
    assert!(!crosses(&mut joined, &server));
    drop((joined, server, client));
    drains.join().unwrap();

    let (mut joined, _client, server) = Joined::new();
    joined.command(Leg::Client, SocketCommand::Shutdown);
    assert!(!crosses(&mut joined, &server), "nothing follows a FIN");
}
