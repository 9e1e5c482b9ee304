//! The loop of `ping`: starts attempts when their time has come, carries them out by one of two ways, and ends those whose
//! time is over. One thread.

mod kernel;
mod own;
mod sys;

use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use mio::event::Event as Ready;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

pub use own::{OpenError, PORTS, Raw};

use super::Clock;
use crate::cx::Cx;
use crate::ping::{Ended, Handshake, Pinger, Settings, Start, dialling, on_server_leg};
use crate::time::{Instant, earliest};
use crate::trace::{FlowId, Sink};
use sys::Timer;

const WAKE: Token = Token(0);
const TIMER: Token = Token(1);
const FIRST_FREE_TOKEN: usize = 2;
/// The limits of this machine, as they are told. An attempt that meets one is aborted.
const OPEN_FILES: &str = "open files";
const SOURCE_PORTS: &str = "source ports";
/// Attempts that are started in a row before answers are looked for.
const BATCH: usize = 16;

/// How connections are opened.
#[derive(Debug)]
pub enum Via {
    /// By our own TCP, through sockets that see and send whole packets.
    Own(Raw, Handshake),
    /// By the kernel's sockets.
    Kernel,
}

/// One of the two ways.
trait Way: Send {
    /// Makes an attempt.
    fn start(&mut self, cx: &mut Cx<'_>, pinger: &mut Pinger, start: Start);
    /// Something that was registered is ready.
    fn on_ready(&mut self, cx: &mut Cx<'_>, pinger: &mut Pinger, ready: &Ready) -> io::Result<()>;
    /// Ends an attempt whose time is over.
    fn give_up(&mut self, cx: &mut Cx<'_>, pinger: &mut Pinger, attempt: FlowId);
    /// Runs what is due, and sends what waits.
    fn on_timeout(&mut self, cx: &mut Cx<'_>, pinger: &mut Pinger);
    /// When [`Self::on_timeout`] wants to be called.
    fn poll_timeout(&self) -> Option<Instant>;
}

/// A running pinger. Dropping it ends it.
#[derive(Debug)]
pub struct Handle {
    stop: Arc<AtomicBool>,
    waker: Waker,
    thread: Option<JoinHandle<io::Result<()>>>,
}

/// Starts to ping. `secret` keys the numbers of our own TCP. `ended` is told what became of each attempt.
///
/// # Errors
/// If the system gives no thread or no descriptor.
pub fn start(
    settings: Settings,
    via: Via,
    secret: [u64; 2],
    clock: Clock,
    sink: impl Sink + Send + 'static,
    ended: impl Fn(&Ended) + Send + 'static,
) -> io::Result<Handle> {
    // Hundreds of attempts in flight are more than the usual soft limit of 1024 descriptors may leave.
    super::sockets::allow_all_descriptors()?;
    let poll = Poll::new()?;
    let waker = Waker::new(poll.registry(), WAKE)?;
    let timer = Timer::new()?;
    poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
    let registry = poll.registry().try_clone()?;
    let way: Box<dyn Way> = match via {
        Via::Own(raw, handshake) => Box::new(own::Own::new(raw, handshake, secret, &registry)?),
        Via::Kernel => Box::new(kernel::Kernel::new(registry)),
    };
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let run = move || {
        let pinger = Pinger::new(settings, clock.now());
        Pinging { poll, timer, way, pinger, clock, sink, ended, stop: stopped }.run()
    };
    let thread = std::thread::Builder::new().name("pinger".to_owned()).spawn(run)?;
    Ok(Handle { stop, waker, thread: Some(thread) })
}

impl Handle {
    /// Ends it now: attempts whose handshake is not complete stay open.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        // It fails only if the thread has ended.
        let _ = self.waker.wake();
    }

    /// True once all attempts have ended, or after [`Self::stop`].
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// Why it ended by itself.
    pub fn join(mut self) -> io::Result<()> {
        self.wait()
    }

    fn wait(&mut self) -> io::Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop();
            let _ = self.wait();
        }
    }
}

struct Pinging<S, E> {
    poll: Poll,
    timer: Timer,
    way: Box<dyn Way>,
    pinger: Pinger,
    clock: Clock,
    sink: S,
    ended: E,
    stop: Arc<AtomicBool>,
}

impl<S: Sink, E: Fn(&Ended)> Pinging<S, E> {
    fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        loop {
            self.start_due();
            self.end_overdue();
            self.tell_ended();
            if self.stop.load(Ordering::Relaxed) {
                self.end_now();
                return Ok(());
            }
            if self.pinger.has_ended() {
                return Ok(());
            }
            let next = earliest(self.pinger.poll_timeout(), self.way.poll_timeout());
            self.timer.set(next.map(|at| at.since(self.clock.now())))?;
            match self.poll.poll(&mut events, None) {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => return Err(e),
                _ => {}
            }
            // One time for the batch: they have all been there when it began.
            let cx = &mut Cx::new(self.clock.now(), &mut self.sink);
            for event in &events {
                match event.token() {
                    WAKE => {}
                    TIMER => self.timer.clear(),
                    _ => self.way.on_ready(cx, &mut self.pinger, event)?,
                }
            }
        }
    }

    fn start_due(&mut self) {
        for _ in 0..BATCH {
            let cx = &mut Cx::new(self.clock.now(), &mut self.sink);
            let Some(start) = self.pinger.poll_start(cx) else { return };
            self.way.start(cx, &mut self.pinger, start);
        }
    }

    fn end_overdue(&mut self) {
        let cx = &mut Cx::new(self.clock.now(), &mut self.sink);
        while let Some(attempt) = self.pinger.overdue(cx.now) {
            self.way.give_up(cx, &mut self.pinger, attempt);
        }
        self.way.on_timeout(cx, &mut self.pinger);
    }

    /// What is connected is closed; the rest stays open, and is told as such by the end of the run.
    fn end_now(&mut self) {
        let cx = &mut Cx::new(self.clock.now(), &mut self.sink);
        self.pinger.stop(cx);
        let closing: Vec<_> = self.pinger.closing().collect();
        for attempt in closing {
            self.way.give_up(cx, &mut self.pinger, attempt);
        }
        self.way.on_timeout(cx, &mut self.pinger);
        self.tell_ended();
    }

    fn tell_ended(&mut self) {
        while let Some(ended) = self.pinger.poll_ended() {
            (self.ended)(&ended);
        }
    }
}
