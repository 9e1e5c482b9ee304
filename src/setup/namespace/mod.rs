//! A network of its own for one command, without privileges: a child process in new user, network and mount namespaces,
//! whose every packet goes to the device that this process holds.
//!
//! [`prepare`] must run before any thread exists. It leaves a child that waits, and its packet device; when the engine
//! runs on the device, [`Prepared::start`] lets the child become the command.
//!
//! Inside, the host is a router:
//!
//! | address | is |
//! |---|---|
//! | `10.0.2.100/24`, `fd00:2::100/64` | the command |
//! | `10.0.2.2`, `fd00:2::2` | the gateway; its TCP and UDP ports are those of the caller's loopback |
//! | `10.0.2.3` … `10.0.2.5` | the caller's name servers, port 53 |
//! | `127.0.0.1` and `::1`, ports in [`Inside::loopback_ports`] | the caller's loopback, at its true address |
//!
//! A connection to such a port of `::1` comes from `fd00:2::100`: the kernel has no route that would make it come from `::1`.
//!
//! Nothing stays behind: namespaces, device and routes end with the last process in them. If this process is killed,
//! the kernel sends SIGTERM to the command, because its network is dead from then on.

mod child;
mod handover;
mod mounts;
mod network;
mod stage;
mod supervise;
mod users;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid};

use crate::engine::tun::Device;
use crate::setup::listeners::LoopbackPorts;
use crate::setup::netlink::{Family, Netlink};

use handover::{Channel, Message};
pub use stage::{ask_for_extensions, stage};
pub use supervise::Running;
use supervise::Signals;

/// Most destinations copied per family.
const MAX_DESTINATIONS: usize = 1000;
/// Addresses that are on no network, so that only a default route leads to them: the IPv4 dummy address (RFC 7600) and the
/// discard prefix (RFC 6666).
const NOWHERE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
const NOWHERE_V6: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1);

/// What stands inside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inside {
    /// The command and its arguments; looked up in `PATH`. Never empty.
    pub command: Vec<OsString>,
    /// TCP ports of the loopback addresses that are the caller's instead of the namespace's.
    pub loopback_ports: LoopbackPorts,
    /// Where the command's network leads to: destinations and prefix lengths; see [`destinations`].
    pub destinations: Vec<(IpAddr, u8)>,
    /// The text of `/etc/resolv.conf` inside; `None` leaves the caller's.
    pub resolv_conf: Option<String>,
}

/// Where the network of the calling process leads to. The command gets routes to the same destinations, so that what has
/// no route outside has none inside: the errno comes from the same place, and the C library sorts the addresses of a name
/// in the same order (RFC 6724).
pub fn destinations() -> Result<Vec<(IpAddr, u8)>, crate::setup::Error> {
    let mut netlink = Netlink::open()?;
    let mut all = Vec::new();
    for (family, anywhere, nowhere) in [
        (Family::V4, IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(NOWHERE_V4)),
        (Family::V6, IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(NOWHERE_V6)),
    ] {
        // A kernel without IPv6 has no such table.
        let found = netlink.destinations(family).unwrap_or_default();
        // Policy routing may lead by other tables; a table too long to copy has a default route in all but name.
        if has_route(nowhere, anywhere) || found.len() > MAX_DESTINATIONS {
            all.push((anywhere, 0));
        }
        all.extend(found.into_iter().filter(|(_, prefix)| *prefix > 0).take(MAX_DESTINATIONS));
    }
    Ok(all)
}

/// Asks the kernel for a route; nothing is sent.
fn has_route(to: IpAddr, any: IpAddr) -> bool {
    UdpSocket::bind((any, 0)).is_ok_and(|socket| socket.connect((to, 9)).is_ok())
}

/// Why there is no namespace, or no command in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The exit code for it, as env(1) has them: 125 no namespace, 126 cannot be executed, 127 no such command.
    pub code: u8,
    /// What went wrong.
    pub what: String,
    /// What to do about it; may be empty.
    pub hint: String,
}

impl Error {
    fn setup(what: &str, cause: impl Into<io::Error>, hint: impl Into<String>) -> Self {
        Self { code: 125, what: format!("cannot {what}: {}", cause.into()), hint: hint.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, "\nhint: {}", self.hint) }
    }
}

impl std::error::Error for Error {}

/// A child that waits in its namespace.
#[derive(Debug)]
pub struct Prepared {
    child: Pid,
    channel: Channel,
    signals: Signals,
}

/// Makes the namespace. The calling process must have one thread only, and that thread must live as long as the command:
/// its end is what the kernel takes as the end of this process. From here on signals wait for [`Running::wait`].
#[allow(unsafe_code)]
pub fn prepare(inside: &Inside) -> Result<(Prepared, Device), Error> {
    let (ours, theirs) = Channel::pair().map_err(|e| Error::setup("make a socket pair", e, ""))?;
    // SAFETY: the process has one thread (see above), so that the child may allocate and lock as it likes.
    match unsafe { nix::unistd::fork() }.map_err(|e| Error::setup("fork", e, ""))? {
        ForkResult::Child => {
            drop(ours);
            child::run(inside, &theirs)
        }
        ForkResult::Parent { child } => {
            drop(theirs);
            // Now, so that every later thread inherits the mask, and not before, so that the command does not.
            let signals = Signals::catch().map_err(|e| Error::setup("catch signals", e, ""))?;
            let prepared = Prepared { child, channel: ours, signals };
            match prepared.channel.receive() {
                Ok(Some(Message::Device(device))) => Ok((prepared, device)),
                answer => Err(prepared.failed(answer)),
            }
        }
    }
}

impl Prepared {
    /// Starts the command.
    pub fn start(self) -> Result<Running, Error> {
        let answer = self.channel.send_go().and_then(|()| self.channel.receive());
        match answer {
            Ok(None) => Ok(Running::new(self.child, self.signals)),
            answer => Err(self.failed(answer)),
        }
    }

    /// What the child's last words mean. It exits after them.
    fn failed(self, answer: io::Result<Option<Message>>) -> Error {
        // It cannot fail for our own child that nobody else waits for, and there is nothing to learn from its status.
        let _ = waitpid(self.child, None);
        match answer {
            Ok(Some(Message::Failed(error))) => error,
            Ok(_) => {
                Error::setup("set up the namespace", io::Error::other("the child process ended early"), "")
            }
            Err(e) => Error::setup("talk to the child process", e, ""),
        }
    }
}
