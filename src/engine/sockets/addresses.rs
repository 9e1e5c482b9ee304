//! A dial that may have more than one address to try: each in turn, until one answers.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::Socket;

use crate::relay::{Refusal, SocketEvent};
use crate::time::Instant;

use super::transparent::Source;
use super::{At, connect, errors, fresh};

/// An address that stays silent for so long is given up while there are others: two SYNs of a Linux of today are lost then.
const ATTEMPT: Duration = Duration::from_secs(2);

/// The addresses that are left, and what those before them have answered.
#[derive(Debug)]
pub(in crate::engine) struct Addresses {
    left: VecDeque<SocketAddr>,
    ipv6: bool,
    told: Option<(&'static str, Refusal)>,
    /// Where the dial comes from, if that is not this host's own choice.
    source: Option<Source>,
}

impl Addresses {
    /// To these addresses, for a client that came by IPv6 or not.
    pub(in crate::engine) fn new(addresses: impl IntoIterator<Item = SocketAddr>, ipv6: bool) -> Self {
        Self { left: addresses.into_iter().collect(), ipv6, told: None, source: None }
    }

    /// The same from there.
    pub(super) const fn from(mut self, source: Source) -> Self {
        self.source = Some(source);
        self
    }

    /// Dials one of them.
    pub(super) fn connect(&self, server: SocketAddr) -> io::Result<Socket> {
        if let Some(source) = self.source {
            return source.connect(server);
        }
        let socket = fresh(server)?;
        connect(&socket, server)?;
        Ok(socket)
    }

    /// The next address.
    pub(super) fn pop(&mut self) -> Option<SocketAddr> {
        self.left.pop_front()
    }

    pub(super) fn has_more(&self) -> bool {
        !self.left.is_empty()
    }

    /// An address has failed. What tells most is kept: an answer of the server before one of the network, that before
    /// silence; of equals the last.
    pub(super) fn failed(&mut self, error: &io::Error) {
        let now = (errors::name(error), errors::refusal(error, self.ipv6));
        if self.told.is_none_or(|(_, before)| weight(now.1) >= weight(before)) {
            self.told = Some(now);
        }
    }

    /// All addresses have failed. Where there was none at all, nobody listens.
    pub(super) fn end(self) -> SocketEvent {
        let (errno, refusal) = self.told.unwrap_or(("ECONNREFUSED", Refusal::Reset));
        SocketEvent::Failed { errno, refusal }
    }
}

const fn weight(refusal: Refusal) -> u8 {
    match refusal {
        Refusal::Silence => 0,
        Refusal::Icmp { .. } => 1,
        Refusal::Reset => 2,
    }
}

/// How long a socket may dial before the next address has its turn.
#[derive(Debug)]
pub(super) struct Patience {
    pub(super) at: At,
    pub(super) socket: usize,
    /// `None` until the clock has been seen.
    until: Option<Instant>,
}

impl Patience {
    pub(super) const fn new(at: At, socket: usize) -> Self {
        Self { at, socket, until: None }
    }

    /// When to ask whether it ends.
    pub(super) fn next(&self) -> Instant {
        self.until.unwrap_or(Instant::ZERO)
    }

    pub(super) fn ends(&mut self, now: Instant) -> bool {
        *self.until.get_or_insert(now + ATTEMPT) <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;

    #[test]
    fn of_several_failures_the_one_that_tells_most_is_passed_on() {
        let icmp = Refusal::Icmp { kind: 3, code: 1 };
        let table = [
            (&[][..], ("ECONNREFUSED", Refusal::Reset)),
            (&[Errno::ETIMEDOUT], ("ETIMEDOUT", Refusal::Silence)),
            (&[Errno::ETIMEDOUT, Errno::EHOSTUNREACH], ("EHOSTUNREACH", icmp)),
            (&[Errno::ECONNREFUSED, Errno::EHOSTUNREACH], ("ECONNREFUSED", Refusal::Reset)),
            (&[Errno::EHOSTUNREACH, Errno::ECONNREFUSED, Errno::ETIMEDOUT], ("ECONNREFUSED", Refusal::Reset)),
        ];
        for (failures, (errno, refusal)) in table {
            let mut addresses = Addresses::new([], false);
            failures.iter().for_each(|errno| addresses.failed(&(*errno).into()));
            assert_eq!(addresses.end(), SocketEvent::Failed { errno, refusal }, "{failures:?}");
        }
    }
}
