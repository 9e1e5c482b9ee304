//! Listeners that accept clients.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use nix::errno::Errno;

use super::pauses;
use crate::time::{Duration, Instant};

/// How long to wait before the next accept once the process has no descriptor left. The clients wait in the accept queue.
const SHORTAGE: Duration = Duration::from_millis(100);

/// A client that was accepted.
#[derive(Debug)]
pub(in crate::engine) struct Client {
    /// Its socket.
    pub(in crate::engine) stream: TcpStream,
    /// Its address.
    pub(in crate::engine) from: SocketAddr,
    /// The how-manieth listener has accepted it.
    pub(in crate::engine) door: usize,
}

/// Listeners, and which of them may have clients.
#[derive(Debug, Default)]
pub(in crate::engine) struct Doors {
    listeners: Vec<TcpListener>,
    /// Readiness is edge-triggered.
    ready: VecDeque<usize>,
    /// When to accept again after a shortage.
    resumes: Option<Instant>,
    shortage: bool,
    burst: u32,
}

impl Doors {
    /// Listeners that do not block.
    pub(in crate::engine) fn new(listeners: impl IntoIterator<Item = std::net::TcpListener>) -> Self {
        let listeners = listeners.into_iter().map(TcpListener::from_std).collect();
        Self { listeners, ..Self::default() }
    }

    /// How many there are.
    pub(in crate::engine) const fn len(&self) -> usize {
        self.listeners.len()
    }

    /// Registers each listener with a token of its own.
    pub(in crate::engine) fn register(
        &mut self,
        registry: &Registry,
        token: impl Fn(usize) -> Token,
    ) -> io::Result<()> {
        let mut listeners = self.listeners.iter_mut().enumerate();
        listeners.try_for_each(|(id, listener)| registry.register(listener, token(id), Interest::READABLE))
    }

    /// Closes all: what comes from now on meets the network as it is.
    pub(in crate::engine) fn close(&mut self) {
        self.listeners.clear();
        self.ready.clear();
    }

    /// A listener has clients.
    pub(in crate::engine) fn on_ready(&mut self, id: usize) {
        if !self.ready.contains(&id) {
            self.ready.push_back(id);
        }
    }

    /// The next client.
    pub(in crate::engine) fn accept(&mut self) -> Option<Client> {
        if self.resumes.is_some() || pauses(&mut self.burst) {
            return None;
        }
        while let Some(&door) = self.ready.front() {
            let Some(listener) = self.listeners.get(door) else { break };
            match listener.accept() {
                Ok((stream, from)) => return Some(Client { stream, from, door }),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => match e.raw_os_error().map(Errno::from_raw) {
                    Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
                        // The listener stays ready: nobody tells when there is a descriptor again.
                        (self.shortage, self.resumes) = (true, Some(Instant::ZERO));
                        return None;
                    }
                    // An error of one client, such as `ECONNABORTED`: accept(2) says to go on.
                    errno if errno != Some(Errno::EAGAIN) => {}
                    _ => {
                        self.ready.pop_front();
                    }
                },
            }
        }
        self.burst = 0;
        None
    }

    /// The limit that was hit since the last call.
    pub(in crate::engine) fn poll_limit(&mut self) -> Option<&'static str> {
        std::mem::take(&mut self.shortage).then_some("RLIMIT_NOFILE")
    }

    /// True if clients may wait for the next turn.
    pub(in crate::engine) fn is_busy(&self) -> bool {
        !self.ready.is_empty() && self.resumes.is_none()
    }

    /// When [`Self::on_timeout`] wants to be called, besides being busy.
    pub(in crate::engine) const fn poll_timeout(&self) -> Option<Instant> {
        self.resumes
    }

    /// Runs what is due.
    pub(in crate::engine) fn on_timeout(&mut self, now: Instant) {
        match self.resumes {
            Some(Instant::ZERO) => self.resumes = Some(now + SHORTAGE),
            Some(at) if at <= now => self.resumes = None,
            _ => {}
        }
    }
}
