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
    /// When the last piece has passed at the rate.
    free: Instant,
    end: End,
    limit_reached: bool,
}

/// How far the end of the stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    /// The writer has finished; its FIN has waited enough at this time.
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
            free: Instant::ZERO,
            end: End::Open,
            limit_reached: false,
        }
    }

    /// How it shapes from now on. What waits keeps its time.
    pub(super) fn set_shape(&mut self, shape: Shape) {
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
        let mut at = now + self.wait();
        while !data.is_empty() {
            let piece = data.split_to(self.piece(data.len()));
            self.ready = self.ready.max(at);
            let mut leaves = self.ready;
            if let Some(rate) = self.shape.rate {
                let nanos = piece.len() as u128 * 1_000_000_000 / u128::from(rate.max(1));
                self.free = self.free.max(leaves) + Duration::from_nanos(nanos as u64);
                leaves = self.free;
            }
            self.bytes += piece.len() as u32;
            self.waiting.push_back((leaves, piece));
            at = self.ready + self.shape.slice.map_or(Duration::ZERO, |slice| slice.delay);
        }
    }

    /// How long what enters now waits.
    fn wait(&mut self) -> Duration {
        self.shape.latency.map_or(Duration::ZERO, |latency| latency.draw(&mut self.dice))
    }

    /// The size of the next piece of `len` bytes.
    fn piece(&mut self, len: usize) -> usize {
        let mut most = len as u64;
        if let Some(slice) = self.shape.slice {
            let spread = 2 * u64::from(slice.variation) + 1;
            let size = u64::from(slice.size) + self.dice.below(spread);
            most = most.min(size.saturating_sub(u64::from(slice.variation)).max(1));
        }
        if let Some(rate) = self.shape.rate {
            let per_piece = rate.saturating_mul(PIECE.as_millis() as u64) / 1000;
            most = most.min(per_piece.clamp(1, MOST_OF_A_PIECE));
        }
        most as usize
    }

    /// The writer has finished.
    pub(super) fn close(&mut self, now: Instant) {
        if self.end == End::Open {
            let latency = self.wait();
            self.end = End::Closed(now + latency);
        }
    }

    /// What leaves now. `other_ended`: the other direction has come to its end.
    pub(super) fn pop(&mut self, now: Instant, other_ended: bool) -> Option<Flowing> {
        if self.shape.stalled {
            return None;
        }
        if let Some((ready, _)) = self.waiting.front() {
            if *ready > now {
                return None;
            }
            let (_, data) = self.waiting.pop_front()?;
            self.bytes -= data.len() as u32;
            return Some(Flowing::Data(data));
        }
        if let Some(limit) = self.shape.limit.filter(|_| self.limit_reached && self.end != End::Over) {
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
        Some(at.max(self.ready).max(self.free) + self.shape.fin_delay)
    }

    /// When something leaves by time alone.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if self.shape.stalled {
            return None;
        }
        match self.waiting.front() {
            Some((ready, _)) => Some(*ready),
            None if self.shape.fin_last => None,
            None => self.fin_at(),
        }
    }
}

#[cfg(test)]
mod tests;
