//! The loop of one shard: read a bounded batch, run what is due, serve each touched flow once, wait.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::buffers::Buffers;
use super::clock::Clock;
use super::outside::{Accepted, Answer, Outside};
use super::tun::{Device, MAX_PACKET};
use super::wheel::Wheel;
use super::{Command, Gauges, Passed};
use crate::cx::Cx;
use crate::relay::{FlowKey, Output, Route, SocketOffer, Table};
use crate::tcp::{TxCaps, reset_for};
use crate::time::{Instant, earliest};
use crate::trace::{Event, Sink};
use crate::wire::{ChecksumMode, Flags, Packet, Segment, TcpPacket, Tuple, VnetHdr, icmp};

pub(super) const WAKE: Token = Token(0);
const DEVICE: Token = Token(1);
const FIRST_FREE_TOKEN: usize = 2;
/// Packets read in a row before flows are served. More would only let super-segments fall out of the cache.
const BATCH: usize = 16;
/// Rounds of the caller's sockets between two reads of the device.
const OUTSIDE_ROUNDS: usize = 4;
/// A smaller payload is copied out of the read buffer, so that what waits pins at most four times its size.
const SHARE_FROM: usize = 16 << 10;
/// How often a shard that stops looks whether the others have flows.
const LOOK: Duration = Duration::from_millis(50);
/// What a packet holds besides the longest headers.
const MAX_PAYLOAD: u32 = (MAX_PACKET - 40 - 60) as u32;

/// One thread's share of the work.
pub(super) struct Shard<S> {
    poll: Poll,
    /// `None`: there are kernel sockets only.
    device: Option<Device>,
    table: Table,
    wheel: Wheel,
    outside: Option<Box<dyn Outside>>,
    clock: Clock,
    sink: S,
    buf: BytesMut,
    buffers: Buffers,
    /// The device may have more packets: readiness is edge-triggered.
    readable: bool,
    /// The same for the caller's sockets.
    outside_busy: bool,
    /// When to end, once stopping.
    ends: Option<Instant>,
    passed: Passed,
}

impl<S: Sink> Shard<S> {
    pub(super) fn new(
        poll: Poll,
        device: Option<Device>,
        table: Table,
        clock: Clock,
        sink: S,
    ) -> io::Result<Self> {
        if let Some(device) = &device {
            poll.registry().register(&mut SourceFd(&device.as_raw_fd()), DEVICE, Interest::READABLE)?;
        }
        Ok(Self {
            poll,
            device,
            table,
            wheel: Wheel::default(),
            outside: None,
            clock,
            sink,
            buf: BytesMut::new(),
            buffers: Buffers::default(),
            readable: true,
            outside_busy: false,
            ends: None,
            passed: Passed::default(),
        })
    }

    pub(super) fn set_outside(&mut self, mut outside: Box<dyn Outside>) -> io::Result<()> {
        outside.start(self.poll.registry().try_clone()?, FIRST_FREE_TOKEN)?;
        self.outside = Some(outside);
        Ok(())
    }

    pub(super) fn run(&mut self, inbox: &Receiver<Command>, gauges: &Gauges) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        let (mut flows, mut queued) = (0, 0);
        loop {
            let result = self.turn(&mut events, inbox);
            Gauges::change(&gauges.flows, &mut flows, self.table.open_flows());
            let end = result.is_err() || self.has_ended(gauges);
            if end {
                self.table.close_all(&mut Cx::new(self.clock.now(), &mut self.sink));
                Gauges::change(&gauges.flows, &mut flows, self.table.open_flows());
            }
            gauges.add(&mut self.passed);
            Gauges::change(&gauges.queued, &mut queued, self.table.queued() as usize);
            if end {
                return result;
            }
        }
    }

    /// The device of a shard without flows stays until those of the others have ended: what is led to it passes untouched.
    fn has_ended(&self, gauges: &Gauges) -> bool {
        self.ends.is_some_and(|at| at <= self.clock.now() || gauges.flows() == 0)
    }

    /// Waits for something, and does all that it brings.
    fn turn(&mut self, events: &mut Events, inbox: &Receiver<Command>) -> io::Result<()> {
        let wait = self.wait();
        match self.poll.poll(events, wait) {
            Err(e) if e.kind() != io::ErrorKind::Interrupted => return Err(e),
            _ => {}
        }
        for event in &*events {
            match event.token() {
                WAKE => {
                    for command in inbox.try_iter() {
                        self.obey(command);
                    }
                }
                DEVICE => self.readable = true,
                _ => {
                    if let Some(outside) = &mut self.outside {
                        outside.on_ready(event);
                    }
                }
            }
        }
        self.receive()?;
        let now = self.clock.now();
        self.run_timers(now);
        self.serve(now);
        self.serve_outside(now);
        Ok(())
    }

    fn wait(&self) -> Option<Duration> {
        if self.readable || self.outside_busy {
            return Some(Duration::ZERO);
        }
        let outside = self.outside.as_ref().and_then(|outside| outside.poll_timeout());
        let next = earliest(earliest(self.wheel.next(), outside), self.ends)?;
        let wait = next.since(self.clock.now());
        // Nobody tells when the last flow of another shard has ended.
        Some(if self.ends.is_some() { wait.min(LOOK) } else { wait })
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Stop(grace) => {
                self.ends = Some(self.clock.now() + grace);
                self.table.stop_opening();
                if let Some(outside) = &mut self.outside {
                    outside.stop();
                }
            }
            Command::SetRules(rules) => self.table.set_rules(rules),
            Command::Tell(question) => {
                question.answer(&mut Cx::new(self.clock.now(), &mut self.sink), &mut self.table);
            }
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        // One time for the batch: they have all been there when it began.
        let now = self.clock.now();
        for _ in 0..BATCH {
            if !self.readable {
                break;
            }
            let Some(device) = &mut self.device else {
                self.readable = false;
                break;
            };
            match device.recv(&mut self.buf)? {
                Some(vnet) => {
                    self.passed.received += 1;
                    self.on_packet(now, vnet);
                }
                None => self.readable = false,
            }
        }
        Ok(())
    }

    /// The packet in `buf`.
    fn on_packet(&mut self, now: Instant, vnet: VnetHdr) {
        let cx = &mut Cx::new(now, &mut self.sink);
        match crate::wire::parse(&self.buf, &vnet) {
            Ok(Packet::Tcp(packet)) => {
                match self.table.route(cx, packet.tuple, &packet.segment, packet.payload.len()) {
                    Route::To(key, leg) => {
                        let segment = take_payload(&mut self.buf, &mut self.buffers, packet);
                        self.table.on_segment(cx, key, leg, segment);
                    }
                    Route::Dropped => {}
                    Route::Foreign => self.on_foreign(vnet, &packet),
                }
            }
            Ok(Packet::Icmp(note)) => {
                if !self.table.on_icmp(cx, &note) {
                    self.on_other(now, vnet);
                }
            }
            Ok(Packet::Other) => self.on_other(now, vnet),
            Err(error) => cx.emit(Event::Discarded { reason: error.reason() }),
        }
    }

    /// A packet of no flow.
    fn on_other(&mut self, now: Instant, vnet: VnetHdr) {
        let needs_csum = vnet.flags & VnetHdr::NEEDS_CSUM != 0;
        let taken =
            self.outside.as_mut().is_some_and(|outside| outside.on_packet(now, &self.buf, needs_csum));
        if !taken {
            self.write_back(vnet);
        }
    }

    /// A segment of no flow of ours: a gateway lets it pass as it is; where sockets are behind the flows, there is nobody else
    /// to answer it.
    fn on_foreign(&mut self, vnet: VnetHdr, packet: &TcpPacket) {
        if self.outside.is_none() {
            self.write_back(vnet);
        } else if !packet.segment.has(Flags::RST) {
            self.send_segment(packet.tuple.reverse(), &reset_for(&packet.segment));
        }
    }

    fn write_back(&mut self, vnet: VnetHdr) {
        let Some(device) = &mut self.device else { return };
        let sent = device.send(&vnet, &self.buf, &[]);
        self.note_sent(sent);
    }

    fn run_timers(&mut self, now: Instant) {
        while let Some(key) = self.wheel.poll(now) {
            self.table.on_timeout(&mut Cx::new(now, &mut self.sink), key);
        }
    }

    /// Serves all touched flows.
    fn serve(&mut self, now: Instant) {
        while let Some(key) = self.table.next_touched() {
            let caps = TxCaps { max_payload: MAX_PAYLOAD };
            while let Some(output) = self.table.poll_output(&mut Cx::new(now, &mut self.sink), key, caps) {
                self.carry_out(key, output);
            }
            let deadline = self.table.settle(&mut Cx::new(now, &mut self.sink), key);
            self.wheel.set(key, deadline);
        }
        while let Some((key, leg)) = self.table.next_orphan() {
            if let Some(outside) = &mut self.outside {
                outside.command(key, leg, crate::relay::SocketCommand::Abort);
            }
        }
    }

    fn carry_out(&mut self, key: FlowKey, output: Output) {
        match output {
            Output::Segment { tuple, segment } => self.send_segment(tuple, &segment),
            Output::Icmp { note, quoted } => {
                let Some(device) = &mut self.device else {
                    let code = Some(note.code).filter(|_| note.is_unreachable());
                    return self.answer(note.quoted, Answer::Unreachable(code));
                };
                let sent = device.send(&VnetHdr::default(), &icmp::emit(&note, &quoted), &[]);
                self.note_sent(sent);
            }
            Output::Socket { leg, command } => {
                if let Some(outside) = &mut self.outside {
                    outside.command(key, leg, command);
                }
            }
        }
    }

    fn send_segment(&mut self, tuple: Tuple, segment: &Segment) {
        if self.device.is_none() {
            let answer = match segment.has(Flags::RST) {
                true => Answer::Reset,
                false => Answer::Accept(SocketOffer::of(segment)),
            };
            return self.answer(tuple.reverse(), answer);
        }
        let (vnet, head) = crate::wire::emit(tuple, segment, ChecksumMode::Offload);
        let Some(device) = &mut self.device else { return };
        let sent = device.send(&vnet, &head, segment.payload.parts());
        self.note_sent(sent);
    }

    /// Where there is no device, all that is sent answers SYNs, which the kernel holds.
    fn answer(&mut self, syn: Tuple, answer: Answer) {
        if let Some(outside) = &mut self.outside {
            outside.answer(syn, answer);
        }
    }

    /// Counts a packet. One that the device does not take is lost, as on any link.
    fn note_sent(&mut self, sent: io::Result<()>) {
        self.passed.sent += u64::from(sent.is_ok());
        if let Err(error) = sent {
            let reason = match error.kind() {
                io::ErrorKind::WouldBlock => "the device is full",
                io::ErrorKind::InvalidInput => "the device refused the packet",
                _ => "the device failed",
            };
            Cx::new(self.clock.now(), &mut self.sink).emit(Event::Discarded { reason });
        }
    }

    /// The caller's sockets: what they report touches flows, which command them.
    fn serve_outside(&mut self, now: Instant) {
        let Some(mut outside) = self.outside.take() else { return };
        if outside.poll_timeout().is_some_and(|at| at <= now) {
            outside.on_timeout(now);
        }
        self.outside = Some(outside);
        for _ in 0..OUTSIDE_ROUNDS {
            let now = self.clock.now();
            self.outside_busy = self.take_outside_events(now);
            if !self.outside_busy {
                break;
            }
            self.serve(now);
        }
    }

    /// True if there were any.
    fn take_outside_events(&mut self, now: Instant) -> bool {
        let Some(outside) = &mut self.outside else { return false };
        let mut any = false;
        let cx = &mut Cx::new(now, &mut self.sink);
        while let Some((tuple, segment)) = outside.poll_syn(now) {
            match self.table.route(cx, tuple, &segment, 0) {
                Route::To(key, leg) => self.table.on_segment(cx, key, leg, segment),
                Route::Dropped => outside.answer(tuple, Answer::Drop),
                Route::Foreign => outside.answer(tuple, Answer::Pass),
            }
            any = true;
        }
        while let Some(Accepted { tuple, offer }) = outside.poll_accepted() {
            outside.settle(self.table.accept(cx, tuple, offer));
            any = true;
        }
        while let Some((key, leg, event)) = outside.poll_event() {
            self.table.on_socket(cx, key, leg, event);
            any = true;
        }
        while let Some(limit) = outside.poll_limit() {
            cx.emit(Event::LimitHit { limit });
        }
        while let Some(device) = &mut self.device
            && outside.poll_packet(&mut self.buf)
        {
            let sent = device.send(&VnetHdr::default(), &self.buf, &[]);
            self.passed.sent += u64::from(sent.is_ok());
            if sent.is_err() {
                cx.emit(Event::Discarded { reason: "the device is full" });
            }
        }
        any
    }
}

/// Completes a segment with its payload: large ones share the buffer that they were read into, small ones leave it.
fn take_payload(buf: &mut BytesMut, buffers: &mut Buffers, packet: TcpPacket) -> Segment {
    let TcpPacket { mut segment, payload, .. } = packet;
    if payload.len() >= SHARE_FROM {
        segment.payload = buffers.give(buf).slice(payload).into();
    } else if !payload.is_empty() {
        segment.payload = Bytes::copy_from_slice(&buf[payload]).into();
    }
    segment
}
