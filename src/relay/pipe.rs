//! The bytes of one direction between the legs, where faults shape them ([`Shape`]).

use std::collections::VecDeque;

use bytes::Bytes;

use crate::fault::Shape;
use crate::rng::Rng;
use crate::time::{Duration, Instant};

/// How long the bytes of one piece take at most, where there is a rate: the finer, the smoother.
const PIECE: Duration = Duration::from_millis(10);
/// The largest piece at a rate.
const MOST_OF_A_PIECE: u64 = 16 << 10;

/// Bytes that wait for their time, and the end of the stream behind them.
#[derive(Debug)]
pub(super) struct Pipe {
    shape: Shape,
    dice: Rng,
    waiting: VecDeque<(Instant, Bytes)>,
    bytes: u32,
    /// Bytes that entered so far, lost ones too.
    entered: u64,
    /// When the last piece is ready; the next one not before.
    ready: Instant,
    /// When the pause after the last slice is over.
    paused: Instant,
    /// When the last piece had passed at the rate; the next one takes its time from then on.
    free: Instant,
    /// When the last byte left.
    left: Instant,
    end: End,
    limit_reached: bool,
}

/// How far the end of the stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    /// The writer has finished; its FIN has had the latency at this time.
    Closed(Instant),
    /// It is passed on, or lost.
    Over,
}

/// What leaves a pipe.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flowing {
    /// Bytes.
    Data(Bytes),
    /// The end of the stream.
    Fin,
    /// [`Shape::limit`] is reached; `reset` ends the connection with RST instead of FIN.
    Limit {
        /// With RST.
        reset: bool,
    },
}

impl Pipe {
    pub(super) fn new(dice: Rng) -> Self {
        Self {
            shape: Shape::default(),
            dice,
            waiting: VecDeque::new(),
            bytes: 0,
            entered: 0,
            ready: Instant::ZERO,
            paused: Instant::ZERO,
            free: Instant::ZERO,
            left: Instant::ZERO,
            end: End::Open,
            limit_reached: false,
        }
    }

    /// How it shapes from now on. What waits keeps its latency; rate and stall are those of the moment, so that they end at
    /// once for all that waits.
    pub(super) fn set_shape(&mut self, now: Instant, shape: Shape) {
        if (shape.rate, shape.stalled) != (self.shape.rate, self.shape.stalled) {
            // The time before counts for nothing: a burst would make up for it.
            self.free = self.free.max(now);
        }
        self.shape = shape;
    }

    /// Bytes that the writer may send beyond those that wait; `None` is any number.
    pub(super) fn room(&self) -> Option<u32> {
        self.shape.buffer.map(|buffer| buffer.saturating_sub(self.bytes))
    }

    /// Bytes that wait.
    pub(super) const fn bytes(&self) -> u32 {
        self.bytes
    }

    /// True if nothing is left that will still leave.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !matches!(self.end, End::Closed(_))
    }

    /// True if nothing leaves until the shape changes.
    pub(super) const fn is_stalled(&self) -> bool {
        self.shape.stalled
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.bytes = 0;
        self.end = End::Over;
    }

    /// Bytes from the writer.
    pub(super) fn push(&mut self, now: Instant, mut data: Bytes) {
        let before = self.entered;
        self.entered += data.len() as u64;
        if let Some(limit) = self.shape.limit {
            let left = limit.bytes.saturating_sub(before);
            self.limit_reached |= self.entered >= limit.bytes;
            data.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        }
        if self.shape.lose || self.end == End::Over {
            return;
        }
        let at = now + self.wait();
        while !data.is_empty() {
            let piece = data.split_to(self.slice(data.len()));
            self.ready = self.ready.max(at).max(self.paused);
            self.bytes += piece.len() as u32;
            self.waiting.push_back((self.ready, piece));
            self.paused = self.ready + self.shape.slice.map_or(Duration::ZERO, |slice| slice.delay);
        }
    }

    /// How long what enters now waits.
    fn wait(&mut self) -> Duration {
        self.shape.latency.map_or(Duration::ZERO, |latency| latency.draw(&mut self.dice))
    }

    /// The size of the next slice of `len` bytes.
    fn slice(&mut self, len: usize) -> usize {
        let Some(slice) = self.shape.slice else { return len };
        let spread = 2 * u64::from(slice.variation) + 1;
        let size = u64::from(slice.size) + self.dice.below(spread);
        size.saturating_sub(u64::from(slice.variation)).clamp(1, len as u64) as usize
    }

    /// How many bytes leave next, and when.
    fn next(&self) -> Option<(usize, Instant)> {
        let (ready, data) = self.waiting.front()?;
        let Some(rate) = self.shape.rate else { return Some((data.len(), *ready)) };
        let rate = rate.max(1);
        let most = (rate.saturating_mul(PIECE.as_millis() as u64) / 1000).clamp(1, MOST_OF_A_PIECE);
        let len = most.min(data.len() as u64);
        let takes = Duration::from_nanos((u128::from(len) * 1_000_000_000 / u128::from(rate)) as u64);
        Some((len as usize, self.free.max(*ready) + takes))
    }

    /// The writer has finished.
    pub(super) fn close(&mut self, now: Instant) {
        if self.end == End::Open {
            let latency = self.wait();
            self.end = End::Closed(now + latency);
        }
    }

    /// What leaves now. `other_ended`: the other direction has come to its end. `delivered`: the reader has all that left
    /// before, so that a RST takes nothing from it.
    pub(super) fn pop(&mut self, now: Instant, other_ended: bool, delivered: bool) -> Option<Flowing> {
        if self.shape.stalled {
            return None;
        }
        if let Some((len, at)) = self.next() {
            if at > now {
                return None;
            }
            let (_, data) = self.waiting.front_mut()?;
            let piece = data.split_to(len);
            if data.is_empty() {
                self.waiting.pop_front();
            }
            self.bytes -= len as u32;
            // Not `now`: a late timer costs no bytes.
            self.free = at;
            self.left = now;
            return Some(Flowing::Data(piece));
        }
        if let Some(limit) = self.shape.limit.filter(|_| self.limit_reached && self.end != End::Over) {
            if limit.reset && !delivered {
                return None;
            }
            self.end = End::Over;
            return Some(Flowing::Limit { reset: limit.reset });
        }
        if self.fin_at()? > now || (self.shape.fin_last && !other_ended) {
            return None;
        }
        self.end = End::Over;
        (!self.shape.lose_fin).then_some(Flowing::Fin)
    }

    fn fin_at(&self) -> Option<Instant> {
        let End::Closed(at) = self.end else { return None };
        Some(at.max(self.ready).max(self.left) + self.shape.fin_delay)
    }

    /// When something leaves by time alone.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if self.shape.stalled {
            return None;
        }
        match self.next() {
            Some((_, at)) => Some(at),
            None if self.shape.fin_last => None,
            None => self.fin_at(),
        }
    }
}

#[cfg(test)]
mod tests;
