//! All latencies of a run, and the same apart by what the flows have in common.
//!
//! Their memory is bounded: twelve latencies of at most 150 KiB, and at most [`MOST_GROUPS`] groups of each kind of at most
//! 22 KiB, each twice where steps never finished. All of it is 13 MiB; a run with one server and few rules needs one or two.

use std::sync::Arc;

use serde::ser::{Serialize, SerializeStruct as _, Serializer};

use super::latency::{Detail, Latency};
use crate::time::Duration;

/// Most rules and most targets that are told apart; what comes later is in no group.
pub const MOST_GROUPS: usize = 64;

/// A latency; [`Self::name`] is its name everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// First client SYN → final ACK: what the client felt.
    Connect,
    /// The same without the time that faults have added.
    ConnectWithoutFault,
    /// What faults have added to [`Self::Connect`] by losing or holding segments; only of flows where they did.
    AddedByFault,
    /// What halfopen has added to it by itself: from the client's SYN to the one to the server, and from the server's SYN-ACK
    /// to the one to the client.
    AddedByProxy,
    /// First SYN-ACK to the client → final ACK.
    ClientRtt,
    /// First SYN to the server → its SYN-ACK; in exec mode, the time of the kernel's connect.
    ServerConnect,
    /// Last SYN to the server → its SYN-ACK.
    ServerNet,
    /// The client's first payload, or where the server speaks first the final ACK → the first payload to the client.
    Ttfb,
    /// Our FIN to the client → its ACK.
    ClientFinAck,
    /// The first FIN between us and the client → that of the other side.
    ClientFinFin,
    /// Our FIN to the server → its ACK; not in exec mode.
    ServerFinAck,
    /// The first FIN between us and the server → that of the other side; not in exec mode.
    ServerFinFin,
}

impl Kind {
    /// All of them, in the order of every table.
    pub const ALL: [Self; 12] = [
        Self::Connect,
        Self::ConnectWithoutFault,
        Self::AddedByFault,
        Self::AddedByProxy,
        Self::ClientRtt,
        Self::ServerConnect,
        Self::ServerNet,
        Self::Ttfb,
        Self::ClientFinAck,
        Self::ClientFinFin,
        Self::ServerFinAck,
        Self::ServerFinFin,
    ];

    /// Their names, in the same order.
    pub const NAMES: [&'static str; 12] = [
        "connect",
        "connect_without_fault",
        "added_by_fault",
        "added_by_proxy",
        "client_rtt",
        "server_connect",
        "server_net",
        "ttfb",
        "client_fin_ack",
        "client_fin_fin",
        "server_fin_ack",
        "server_fin_fin",
    ];

    /// Its name in output, assertions and files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// The latency of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// What flows of a group have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The outcome. The value of a refusal is the time until it was told.
    Outcome,
    /// How often the client sent its SYN again: `0`, `1`, `2`, `3+`.
    Retransmits,
    /// A rule that matched.
    Rule,
    /// The server's address and port.
    Target,
}

impl By {
    /// Its name in output and files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Outcome => "outcome",
            Self::Retransmits => "retransmits",
            Self::Rule => "rule",
            Self::Target => "target",
        }
    }

    /// That of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::Outcome, Self::Retransmits, Self::Rule, Self::Target].into_iter().find(|by| by.name() == name)
    }
}

/// One latency of the flows that have something in common.
#[derive(Clone, Debug)]
pub struct Group {
    /// Which latency.
    pub kind: Kind,
    /// What they have in common.
    pub by: By,
    /// The value of it: an outcome, a number of retransmits, a rule's name, an address and port.
    pub name: Arc<str>,
    /// Their values, to 1 %.
    pub values: Latency,
}

/// All latencies of a run.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    all: [Latency; 12],
    groups: Vec<Group>,
}

impl Latencies {
    /// One latency.
    #[must_use]
    pub fn get(&self, kind: Kind) -> &Latency {
        &self.all[kind as usize]
    }

    pub(super) fn get_mut(&mut self, kind: Kind) -> &mut Latency {
        &mut self.all[kind as usize]
    }

    /// All of them, also those without values, in the order of [`Kind::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (Kind, &Latency)> {
        Kind::ALL.into_iter().zip(&self.all)
    }

    /// The groups that have values: by outcome, retransmits, rule and target, each in the order of their first value.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        let order = [By::Outcome, By::Retransmits, By::Rule, By::Target];
        order
            .into_iter()
            .flat_map(|by| self.groups.iter().filter(move |group| group.by == by && group.values.count() > 0))
    }

    /// A group, which is made if it is not there.
    pub(super) fn group(&mut self, kind: Kind, by: By, name: &Arc<str>) -> &mut Latency {
        // Few at most, and the pointers are mostly the same: cheaper than to hash.
        let same = |group: &Group| {
            group.kind == kind && group.by == by && (Arc::ptr_eq(&group.name, name) || group.name == *name)
        };
        let at = self.groups.iter().position(same).unwrap_or_else(|| {
            self.groups.push(Group { kind, by, name: name.clone(), values: Latency::new(Detail::Coarse) });
            self.groups.len() - 1
        });
        &mut self.groups[at].values
    }

    /// Adds all values of others. Nothing is lost.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.all.iter_mut().zip(&other.all) {
            mine.add(theirs);
        }
        for Group { kind, by, name, values } in &other.groups {
            self.group(*kind, *by, name).add(values);
        }
    }

    /// Forgets the values and keeps their memory for the next ones.
    pub fn clear(&mut self) {
        self.all.iter_mut().for_each(Latency::clear);
        self.groups.iter_mut().for_each(|group| group.values.clear());
    }
}

impl Serialize for Latencies {
    /// An object with all of them by name.
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.iter().map(|(kind, latency)| (kind.name(), latency)))
    }
}

impl Serialize for Group {
    /// `{"latency": "connect", "by": "target", "name": "10.0.0.2:80", "values": {…}}`.
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut group = s.serialize_struct("Group", 4)?;
        group.serialize_field("latency", self.kind.name())?;
        group.serialize_field("by", self.by.name())?;
        group.serialize_field("name", &*self.name)?;
        group.serialize_field("values", &self.values)?;
        group.end()
    }
}

/// A step that finished, or that was given up.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Took(Duration),
    Unfinished(Duration),
}

impl Latency {
    pub(super) fn step(&mut self, step: Step) {
        match step {
            Step::Took(time) => self.record(time),
            Step::Unfinished(time) => self.unfinished(time),
        }
    }
}
