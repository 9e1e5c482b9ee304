//! The engine: how packets reach the relay, and the loop that moves them.
//!
//! One thread per [`Device`] (a queue of the TUN device) runs a shard: its own table of flows, its own timers, no locks. The
//! kernel's steering of packets to queues is symmetric, so both legs of a flow meet in one shard.

mod buffers;
pub mod clock;
pub mod exec;
pub mod listen;
pub mod outside;
pub mod ping;
mod remote;
mod shard;
pub mod sockets;
pub mod tun;
pub mod wheel;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use mio::{Poll, Waker};

pub use crate::relay::{FlowInfo, NotKilled, RuleFired};
pub use clock::Clock;
pub use outside::{Accepted, Answer, Outside};
pub use remote::{Gone, Remote};

use crate::fault::Rules;
use crate::relay::{self, FlowIds};
use crate::trace::Sink;
use remote::Question;
use shard::Shard;
use tun::Device;

/// What the engine is told at its start.
#[derive(Debug)]
pub struct Settings {
    /// For the relay; its limits are those of each shard.
    pub relay: relay::Settings,
    /// Rules for new flows.
    pub rules: Arc<Rules>,
    /// Should differ from run to run; see [`relay::Table::new`].
    pub hash_seed: u64,
    /// The clock of the run.
    pub clock: Clock,
}

/// What a shard can be told.
#[derive(Debug)]
enum Command {
    /// Take no new flows; end when the flows that are there have ended, or after this time.
    Stop(Duration),
    /// Rules for flows from now on.
    SetRules(Arc<Rules>),
    /// Answer.
    Tell(Question),
}

/// How full the tables are and what has passed the devices, over all shards.
#[derive(Debug, Default)]
pub struct Gauges {
    flows: AtomicUsize,
    queued: AtomicUsize,
    received: AtomicU64,
    sent: AtomicU64,
}

impl Gauges {
    /// Flows that are not closed.
    #[must_use]
    pub fn flows(&self) -> usize {
        self.flows.load(Ordering::Relaxed)
    }

    /// Payload bytes that wait in all flows.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Packets read from the devices; a super-segment is one.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Packets written to the devices; a super-segment is one.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Adds what a shard has counted, and lets it begin anew.
    fn add(&self, passed: &mut Passed) {
        let Passed { received, sent } = std::mem::take(passed);
        for (total, count) in [(&self.received, received), (&self.sent, sent)] {
            if count > 0 {
                total.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    fn change(gauge: &AtomicUsize, from: &mut usize, to: usize) {
        if *from != to {
            gauge.fetch_add(to.wrapping_sub(*from), Ordering::Relaxed);
            *from = to;
        }
    }
}

/// Packets that have passed the device of a shard.
#[derive(Debug, Default)]
struct Passed {
    received: u64,
    sent: u64,
}

/// The running engine. Dropping it stops it at once.
#[derive(Debug)]
pub struct Handle {
    shards: Vec<Running>,
    stopping: AtomicBool,
    gauges: Arc<Gauges>,
}

#[derive(Debug)]
struct Running {
    commands: Sender<Command>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

/// Starts one shard per device; one without a device if there are kernel sockets only. `outside` belongs to the first one: what
/// has an outside has at most one device. `sink` makes the
/// receiver of the events of one shard.
///
/// # Errors
/// If the system gives no thread or no descriptor.
pub fn start<S: Sink + Send + 'static>(
    settings: &Settings,
    devices: Vec<Device>,
    outside: Option<Box<dyn Outside>>,
    mut sink: impl FnMut() -> S,
) -> io::Result<Handle> {
    let relay = Arc::new(settings.relay.clone());
    let ids = FlowIds::default();
    let mut handle = Handle { shards: Vec::new(), stopping: AtomicBool::new(false), gauges: Arc::default() };
    let mut outside = outside;
    let mut devices: Vec<Option<Device>> = devices.into_iter().map(Some).collect();
    if devices.is_empty() && outside.is_some() {
        devices.push(None);
    }
    for (number, device) in devices.into_iter().enumerate() {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), shard::WAKE)?);
        let (commands, inbox): (_, Receiver<Command>) = channel();
        let table = relay::Table::new(
            Arc::clone(&relay),
            Arc::clone(&settings.rules),
            ids.clone(),
            settings.hash_seed,
        );
        let mut shard = Shard::new(poll, device, table, settings.clock, sink())?;
        if let Some(outside) = outside.take() {
            shard.set_outside(outside)?;
        }
        let gauges = Arc::clone(&handle.gauges);
        let thread = std::thread::Builder::new()
            .name(format!("shard-{number}"))
            .spawn(move || shard.run(&inbox, &gauges))?;
        handle.shards.push(Running { commands, waker, thread: Some(thread) });
    }
    Ok(handle)
}

impl Handle {
    /// Rules for flows from now on; flows that are there keep theirs.
    pub fn set_rules(&self, rules: &Arc<Rules>) {
        self.tell(|| Command::SetRules(Arc::clone(rules)));
    }

    /// How full the tables are.
    #[must_use]
    pub fn gauges(&self) -> &Arc<Gauges> {
        &self.gauges
    }

    /// A way to ask the shards from any thread, for as long as they live.
    #[must_use]
    pub fn remote(&self) -> Remote {
        Remote::new(self.shards.iter().map(|shard| (shard.commands.clone(), Arc::clone(&shard.waker))))
    }

    /// True once all shards have ended after [`Self::stop`], or one because its device failed.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let mut ended =
            self.shards.iter().map(|shard| shard.thread.as_ref().is_none_or(JoinHandle::is_finished));
        if self.stopping.load(Ordering::Relaxed) {
            ended.all(|ended| ended)
        } else {
            ended.any(|ended| ended)
        }
    }

    /// Takes no new flows from now on: their SYNs pass untouched in a gateway and a sidecar, and are refused in exec and listen
    /// mode, and in a sidecar with kernel sockets. Ends when the flows that are there have ended, at the latest after `grace`;
    /// 0 is at once. Flows that are still open then are told as such, and their peers hear nothing.
    pub fn stop(&self, grace: Duration) {
        self.stopping.store(true, Ordering::Relaxed);
        self.tell(|| Command::Stop(grace));
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// What the device of a shard said when it failed.
    pub fn join(mut self) -> io::Result<()> {
        if !self.stopping.load(Ordering::Relaxed) && self.has_ended() {
            // A device has failed, and the other shards know nothing of it.
            self.stop(Duration::ZERO);
        }
        self.wait()
    }

    fn tell(&self, mut command: impl FnMut() -> Command) {
        for shard in &self.shards {
            // A shard that has ended needs to hear nothing.
            let _ = shard.commands.send(command());
            let _ = shard.waker.wake();
        }
    }

    fn wait(&mut self) -> io::Result<()> {
        let mut result = Ok(());
        for shard in &mut self.shards {
            if let Some(thread) = shard.thread.take() {
                let ended = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                result = result.and(ended);
            }
        }
        result
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.shards.iter().any(|shard| shard.thread.is_some()) {
            self.stop(Duration::ZERO);
            let _ = self.wait();
        }
    }
}

#[cfg(test)]
mod tests;
