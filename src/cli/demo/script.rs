//! What the two applications do, with ordinary blocking sockets of the kernel, and what they see.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};

use crate::engine::Clock;
use crate::fault::Play;
use crate::report::text::duration;
use crate::setup::namespace;
use crate::time::{Duration, Instant};

/// Something that an application noticed.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) at: Instant,
    /// `client` or `server`.
    pub(super) who: &'static str,
    pub(super) text: String,
}

const REQUEST: usize = 100;
const REPLY: usize = 2000;
const REST: usize = 500;
const UPLOAD: usize = 128 << 10;
/// What an application thinks between two steps, so that these do not run into each other in the picture: longer than the
/// kernel delays an ACK (40 ms).
const THOUGHT: Duration = Duration::from_millis(60);
/// The pause of [`Play::Pause`].
const PAUSE: Duration = Duration::from_millis(1200);
const GREETING: usize = 50;
/// How long an application waits for anything. Past the third retransmission of a segment (1.5 s).
const PATIENCE: Duration = Duration::from_millis(2000);

/// The diary of one application.
pub(super) struct Diary<F> {
    pub(super) who: &'static str,
    pub(super) clock: Clock,
    pub(super) write: F,
}

impl<F: FnMut(Line)> Diary<F> {
    fn say(&mut self, text: impl Into<String>) {
        let line = Line { at: self.clock.now(), who: self.who, text: text.into() };
        (self.write)(line);
    }

    /// Tells how a call ended: `did` of its value, or its error.
    fn tell<T>(&mut self, call: &str, result: io::Result<T>, did: impl FnOnce(&T) -> String) -> Option<T> {
        match result {
            Ok(value) => {
                let text = did(&value);
                self.say(format!("{call}: {text}"));
                Some(value)
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                self.say(format!("{call}: nothing for {} s", PATIENCE.as_secs_f64()));
                None
            }
            Err(e) => {
                self.say(format!("{call}: {e}"));
                None
            }
        }
    }

    fn read(&mut self, stream: &mut TcpStream, bytes: usize) -> Option<()> {
        let mut buffer = vec![0; bytes];
        let result = stream.read_exact(&mut buffer);
        self.tell("read", result, |()| format!("{bytes} bytes"))
    }

    fn read_to_end(&mut self, stream: &mut TcpStream) -> Option<()> {
        let mut rest = Vec::new();
        let result = stream.read_to_end(&mut rest);
        self.tell("read", result, |bytes| match bytes {
            0 => "end of file".to_owned(),
            bytes => format!("{bytes} bytes, then end of file"),
        })?;
        Some(())
    }

    fn write(&mut self, stream: &mut TcpStream, bytes: usize) -> Option<()> {
        let result = stream.write_all(&vec![b'x'; bytes]);
        self.tell("write", result, |()| format!("{bytes} bytes taken"))
    }

    fn think(&mut self) -> Option<()> {
        self.wait(THOUGHT)
    }

    /// Nobody unparks these threads, so that it is a pause.
    fn wait(&mut self, time: Duration) -> Option<()> {
        std::thread::park_timeout(time);
        Some(())
    }

    fn close_sending(&mut self, stream: &TcpStream) -> Option<()> {
        let result = stream.shutdown(Shutdown::Write);
        self.tell("shutdown(WR)", result, |()| "done".to_owned())
    }
}

/// The client's part. `from` is its own address. Gives back what must stay open until the scene is over.
pub(super) fn client(
    play: Play,
    from: SocketAddr,
    to: SocketAddr,
    diary: &mut Diary<impl FnMut(Line)>,
) -> Option<TcpStream> {
    let socket = Socket::new(Domain::for_address(from), Type::STREAM, None);
    let connect = |socket: Socket| {
        socket.bind(&from.into())?;
        if play == Play::Extensions {
            namespace::ask_for_extensions(&socket)?;
        }
        socket.connect(&to.into())?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    };
    let start = diary.clock.now();
    let stream = socket.and_then(connect);
    let end = diary.clock.now();
    let mut stream =
        diary.tell("connect", stream, |_| format!("done after {}", duration(end.since(start))))?;
    diary.think();
    let done = client_speaks(play, &mut stream, diary);
    // A client that gave up does not close: its FIN would only confuse the picture.
    match done {
        Some(()) => None,
        None => Some(stream),
    }
}

fn client_speaks(play: Play, stream: &mut TcpStream, diary: &mut Diary<impl FnMut(Line)>) -> Option<()> {
    match play {
        Play::Talk | Play::Extensions => {
            diary.write(stream, REQUEST)?;
            diary.read(stream, REPLY)?;
            diary.think()?;
            diary.close_sending(stream)?;
            diary.read_to_end(stream)
        }
        Play::ServerCloses => {
            diary.write(stream, REQUEST)?;
            diary.read(stream, REPLY)?;
            diary.read_to_end(stream)
        }
        Play::TwoWrites => {
            diary.write(stream, REQUEST / 2)?;
            diary.write(stream, REQUEST / 2)?;
            diary.read(stream, REPLY)
        }
        Play::EachCloses => {
            diary.write(stream, REQUEST)?;
            diary.read(stream, REPLY)?;
            // The server closes after one thought.
            diary.think()?;
            diary.think()
        }
        Play::Upload => {
            diary.write(stream, UPLOAD)?;
            diary.close_sending(stream)?;
            diary.read_to_end(stream)
        }
        Play::Download => {
            diary.write(stream, REQUEST)?;
            diary.read_to_end(stream)
        }
        Play::Pause => {
            diary.write(stream, REQUEST)?;
            diary.read(stream, REPLY)?;
            diary.wait(PAUSE)?;
            diary.write(stream, REQUEST)?;
            diary.read(stream, REPLY)
        }
        Play::Greeting => {
            diary.read(stream, GREETING)?;
            diary.write(stream, REQUEST)?;
            diary.read(stream, REPLY)
        }
        Play::Idle => {
            diary.write(stream, REQUEST)?;
            diary.read(stream, REPLY)?;
            let second = Duration::from_secs(1);
            let probes = TcpKeepalive::new().with_time(second).with_interval(second).with_retries(2);
            let set = SockRef::from(&*stream).set_tcp_keepalive(&probes);
            diary.tell("keepalive", set, |()| "a probe each second, 2 tries".to_owned())?;
            stream.set_read_timeout(Some(2 * PATIENCE)).ok()?;
            diary.read_to_end(stream)
        }
    }
}

/// The server's part.
pub(super) fn server(play: Play, listener: &TcpListener, diary: &mut Diary<impl FnMut(Line)>) {
    let accepted = listener.accept().and_then(|(stream, from)| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok((stream, from))
    });
    let accepted = diary.tell("accept", accepted, |(_, from)| format!("a connection from {from}"));
    let Some((mut stream, _)) = accepted else { return };
    server_speaks(play, &mut stream, diary);
    drop(stream);
    diary.say("close");
}

fn server_speaks(play: Play, stream: &mut TcpStream, diary: &mut Diary<impl FnMut(Line)>) -> Option<()> {
    match play {
        Play::Talk | Play::Extensions => {
            diary.read(stream, REQUEST)?;
            diary.write(stream, REPLY)?;
            diary.read_to_end(stream)?;
            diary.think()?;
            diary.write(stream, REST)?;
        }
        Play::Idle => {
            diary.read(stream, REQUEST)?;
            diary.write(stream, REPLY)?;
            stream.set_read_timeout(Some(2 * PATIENCE)).ok()?;
            diary.read_to_end(stream)?;
        }
        Play::ServerCloses | Play::TwoWrites | Play::EachCloses => {
            diary.read(stream, REQUEST)?;
            diary.write(stream, REPLY)?;
        }
        Play::Upload => {
            diary.read_to_end(stream)?;
            diary.write(stream, REST)?;
        }
        Play::Download => {
            diary.read(stream, REQUEST)?;
            diary.write(stream, UPLOAD)?;
        }
        Play::Pause => {
            for _ in 0..2 {
                diary.read(stream, REQUEST)?;
                diary.write(stream, REPLY)?;
            }
            diary.read_to_end(stream)?;
        }
        Play::Greeting => {
            diary.write(stream, GREETING)?;
            diary.read(stream, REQUEST)?;
            diary.write(stream, REPLY)?;
            diary.read_to_end(stream)?;
        }
    }
    diary.think()
}
