//! A kind of fault: all that is known of it without a rule. Help, config, API, metrics and documentation are made from it.

use std::fmt;
use std::sync::Arc;

use super::Fault;
use super::attributes::{AttributeDoc, Reader};
use super::error::Error;
use super::scene::Scene;
use super::trigger::{BOUNDS, Bounds};

/// The phase of a connection that a fault belongs to; also its folder in the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// SYN to final ACK.
    Handshake,
    /// Receive windows.
    Window,
    /// Acknowledgements.
    Ack,
    /// The open connection.
    Established,
    /// FIN to the end.
    Teardown,
    /// Bytes between the legs.
    Stream,
}

impl Topic {
    /// All of them, in the order of a connection's life.
    pub const ALL: [Self; 6] =
        [Self::Handshake, Self::Window, Self::Ack, Self::Established, Self::Teardown, Self::Stream];

    /// The name as a heading.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Handshake => "Handshake",
            Self::Window => "Windows",
            Self::Ack => "Acknowledgements",
            Self::Established => "The open connection",
            Self::Teardown => "The end of a connection",
            Self::Stream => "Bytes between the legs",
        }
    }

    /// The name, as in the folder.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Window => "window",
            Self::Ack => "ack",
            Self::Established => "established",
            Self::Teardown => "teardown",
            Self::Stream => "stream",
        }
    }
}

/// How connections are reached, as far as a fault can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Our TCP on both legs (gateway).
    Tun,
    /// Our TCP towards the client, a kernel socket towards the server (exec).
    Exec,
    /// Kernel sockets on both legs, where the kernel holds the client's SYN for us and can cut a connection off (kernel sockets
    /// in a gateway and in a sidecar).
    Sockets,
    /// Kernel sockets on both legs: only bytes and ends can be touched (kernel sockets behind a listener).
    PlainSockets,
}

impl Engine {
    /// All of them, the most capable first.
    pub const ALL: [Self; 4] = [Self::Tun, Self::Exec, Self::Sockets, Self::PlainSockets];

    /// The name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tun => "tun",
            Self::Exec => "exec",
            Self::Sockets => "sockets",
            Self::PlainSockets => "plain-sockets",
        }
    }
}

/// Where a fault is known from.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Its number in the catalogue: H for handshake, E for established, T for teardown, X for a toxic of Toxiproxy.
    pub id: &'static str,
    /// Where it happened to somebody.
    pub incident: &'static str,
}

/// Another entry of the catalogue that is this fault with certain attributes.
#[derive(Clone, Copy, Debug)]
pub struct Alias {
    /// The entry's number.
    pub id: &'static str,
    /// What the entry is called.
    pub name: &'static str,
    /// The rule that is this entry.
    pub rule: &'static str,
}

/// Makes a fault from its attributes.
pub type Build = fn(&Reader<'_>, &mut Bounds) -> Result<Arc<dyn Fault>, Error>;

/// One kind of fault.
#[derive(Clone, Copy)]
pub struct Kind {
    /// The name, the same in config, command line, API, metric label, ladder and file name.
    pub name: &'static str,
    /// What it does, in a line.
    pub summary: &'static str,
    /// The phase it belongs to.
    pub topic: Topic,
    /// The engines that can do it, at least with some attributes.
    pub engines: &'static [Engine],
    /// A rule as one would write it on the command line.
    pub example: &'static str,
    /// Its own attributes.
    pub attributes: &'static [AttributeDoc],
    /// Names of the bounds that it takes.
    pub bounds: &'static [&'static str],
    /// The bound that holds when the rule gives none, with its value.
    pub default_bound: Option<(&'static str, &'static str)>,
    /// Those of its attributes and bounds that a time scale may scale: idle times and ages, which a middlebox has of its
    /// own. Empty: its times only make sense against the kernels' own timers, and would be wrong if scaled.
    pub scales: &'static [&'static str],
    /// Where it is known from.
    pub source: Source,
    /// Further entries of the catalogue that it serves.
    pub also: &'static [Alias],
    /// What shows it best.
    pub scene: Scene,
    /// What the application sees.
    pub sees: &'static str,
    /// Makes the fault from its attributes. It may set bounds that follow from them.
    pub build: Build,
}

impl Kind {
    /// Its attributes and bounds with their defaults.
    #[must_use]
    pub fn documented(&self) -> Vec<AttributeDoc> {
        let taken =
            BOUNDS.iter().filter(|doc| self.bounds.contains(&doc.name)).map(|doc| match self.default_bound {
                Some((name, default)) if name == doc.name => AttributeDoc { default, ..*doc },
                _ => *doc,
            });
        self.attributes.iter().copied().chain(taken).collect()
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
