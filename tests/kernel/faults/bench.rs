//! Three hosts, a gateway with faults, its events, and how what was seen is compared.

use std::cell::Cell;
use std::fs;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use halfopen::setup::netlink::Family;
use nix::poll::PollFlags;

use crate::lab::events::{Events, Log};
use crate::lab::ns::Ns;
use crate::lab::{self, Lab, Listener, Way};

/// A fault against the kernel.
pub(crate) struct Proof {
    /// The fault's name.
    pub(crate) fault: &'static str,
    /// The entry of the catalogue that it is.
    pub(crate) entry: &'static str,
    /// What the application sees, by the field or by measurement; the tolerance belongs to it.
    pub(crate) expected: &'static str,
    /// Does it, asserts, and tells what was observed.
    pub(crate) run: fn() -> String,
}

thread_local! {
    /// Where halfopen stands in the proofs of this thread.
    static SEAT: Cell<Way> = const { Cell::new(Way::Proxied) };
}

/// Puts halfopen back into the gateway: the thread has other proofs to run, also if this one fails.
struct Seated;

impl Drop for Seated {
    fn drop(&mut self) {
        SEAT.set(Way::Proxied);
    }
}

/// Runs a proof with halfopen at another place than in the gateway.
pub(crate) fn seated(way: Way, proof: fn() -> String) {
    SEAT.set(way);
    let _seated = Seated;
    proof();
}

/// How much later than it could a thing may happen on a loaded machine.
pub(super) const SLACK: Duration = Duration::from_millis(400);

/// Three hosts, a gateway with faults, and its events.
pub(super) struct Bench {
    pub(super) lab: Lab,
    pub(super) events: Events,
    pub(super) listener: Listener,
    pub(super) family: Family,
}

impl Bench {
    pub(super) fn new(family: Family, faults: &[&str]) -> Self {
        Self::with(family, faults, None)
    }

    /// The same with all flows in one shard, so that they know of each other however many processors there are.
    pub(super) fn in_one_shard(family: Family, faults: &[&str]) -> Self {
        Self::with(family, faults, Some("[engine]\nshards = 1\n"))
    }

    fn with(family: Family, faults: &[&str], config: Option<&str>) -> Self {
        let events = Events::new();
        let mut options = vec!["--seed", "42", "--grace", "0", "--events", events.path()];
        let file = format!("{}.config.toml", events.path());
        if let Some(config) = config {
            fs::write(&file, config).expect("a temporary directory");
            options.extend(["--config", &file]);
        }
        options.extend(faults.iter().flat_map(|fault| ["--fault", fault]));
        let lab = Lab::with(SEAT.get(), &options);
        let listener = lab.listen(family);
        Self { lab, events, listener, family }
    }

    /// A connection, and how long it took.
    pub(super) fn connect(&self) -> (TcpStream, Duration) {
        let begin = Instant::now();
        let stream = self.lab.connect(lab::server_at(self.family)).expect("the server listens");
        (stream, begin.elapsed())
    }

    pub(super) fn pair(&self) -> (TcpStream, TcpStream) {
        self.lab.pair_by(&self.listener)
    }

    /// Ends the gateway and gives its events.
    pub(super) fn log(&mut self) -> Log {
        self.events.after(self.lab.halfopen.take().expect("it runs until now"))
    }

    /// What the client's kernel holds of its bytes for a connection over IPv4 until they are acknowledged.
    pub(super) fn send_queue(&self, client: &TcpStream) -> usize {
        let read = || fs::read_to_string("/proc/thread-self/net/tcp").expect("/proc is there");
        let table = self.lab.client_host().run(read);
        let port = format!(":{:04X}", client.local_addr().expect("connected").port());
        let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let queues = fields.filter(|fields| fields[1].ends_with(&port)).map(|fields| fields[4].to_owned());
        let queues = queues.collect::<Vec<_>>().pop().expect("the connection is in the table");
        let (sending, _) = queues.split_once(':').expect("two queues");
        usize::from_str_radix(sending, 16).expect("a number")
    }

    /// The states of the connections of the server's port in the server's kernel, numbered as in Linux: 04 is FIN-WAIT-1.
    pub(super) fn server_states(&self) -> Vec<String> {
        self.states(&self.lab.server, 1)
    }

    /// The states of the connections to the server's port in the client's kernel: 06 is TIME-WAIT.
    pub(super) fn client_states(&self) -> Vec<String> {
        self.states(&self.lab.client, 2)
    }

    /// Of those whose address in this column has the server's port.
    fn states(&self, host: &Ns, column: usize) -> Vec<String> {
        let file = if self.family == Family::V4 { "tcp" } else { "tcp6" };
        let read = || fs::read_to_string(format!("/proc/thread-self/net/{file}")).expect("/proc is there");
        let table = host.run(read);
        let port = format!(":{:04X}", lab::PORT);
        let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let connections = fields.filter(|fields| fields[column].ends_with(&port) && fields[3] != "0A");
        connections.map(|fields| fields[3].to_owned()).collect()
    }
}

/// Asserts that something took as long as it should, and says how long.
#[track_caller]
pub(super) fn took(what: &str, time: Duration, expected: Duration) -> String {
    assert!(time >= expected && time < expected + SLACK, "{what} took {time:?} instead of {expected:?}");
    format!("{what}: {:.2} s", time.as_secs_f64())
}

/// Asserts that times in seconds begin like a timer of the kernel as measured on Linux 6.18: each within 15 % and 60 ms.
/// Says what they were.
#[track_caller]
pub(super) fn near(times: &[f64], schedule: &[f64]) -> String {
    let fits = |(at, expected): (&f64, &f64)| (at - expected).abs() <= 0.06 + 0.15 * expected;
    let fit = times.len() >= schedule.len() && times.iter().zip(schedule).all(fits);
    assert!(fit, "{times:.3?} does not begin like {schedule:?}");
    let shown: Vec<String> = times[..schedule.len()].iter().map(|at| format!("{at:.2}")).collect();
    format!("{} s", shown.join(", "))
}

pub(super) fn is_ready(stream: &TcpStream, what: PollFlags, within: Duration) -> bool {
    lab::wait(stream.as_fd(), what, within)
}
