//! An interception that is up, in whichever mode: one per network namespace, with its device, and its leftovers.

use std::ops::RangeInclusive;

use super::lock::Lock;
use super::netlink::{Family, Ipv4Setting, Netlink, Port, Rule, RuleAction};
use super::plan::{Applied, Plan, Step};
use super::{Error, ErrorKind};
use crate::engine::tun::Device;

/// The routing table that leads into our device.
pub(super) const TABLE: u32 = 10_400;
/// The routing table that leads there only what is for this host itself.
pub(super) const TABLE_OWN: u32 = 10_401;

/// An interception that is up. Dropping it undoes it.
#[derive(Debug)]
pub struct Interception {
    pub(super) applied: Applied,
    /// What the user should know.
    pub notes: Vec<String>,
    /// Our device, one entry per shard.
    pub devices: Vec<Device>,
    _lock: Lock,
}

impl Interception {
    /// Puts the interception up that `plan` makes: from here on packets wait in the queues of `device`, one per shard.
    pub(super) fn up(
        plan: impl FnOnce(&mut Netlink) -> Result<Plan, Error>,
        device: &str,
        shards: usize,
    ) -> Result<Self, Error> {
        let mut netlink = Netlink::open()?;
        let plan = plan(&mut netlink)?;
        let lock = Lock::take()?;
        remove_leftovers(&mut netlink)?;
        let (devices, _) = Device::open_tun(device, shards)?;
        let applied = plan.apply(netlink)?;
        Ok(Self { applied, notes: plan.notes, devices, _lock: lock })
    }

    /// Takes the interception down and returns what could not be undone.
    pub fn down(self) -> Vec<Error> {
        self.applied.undo()
    }
}

/// Removes what a predecessor that was killed has left behind: its rules point to a table without routes.
fn remove_leftovers(netlink: &mut Netlink) -> Result<(), Error> {
    let fail = |e| Error::from_io("cannot remove the rules of an earlier run", &e);
    for family in Family::ALL {
        let rules = match netlink.own_rules(family) {
            // A kernel without IPv6.
            Err(e) if e.raw_os_error() == Some(libc::EAFNOSUPPORT) => continue,
            other => other.map_err(fail)?,
        };
        for rule in rules {
            if rule.is_local_rule() {
                // This host must always have one.
                netlink.restore_local_rule(family, rule.priority).map_err(fail)?;
            } else {
                netlink.delete_rule(&rule).map_err(fail)?;
            }
        }
        for route in
            netlink.own_routes(family).map_err(fail)?.iter().filter(|r| [TABLE, TABLE_OWN].contains(&r.table))
        {
            netlink.delete_route(route).map_err(fail)?;
        }
    }
    Ok(())
}

/// Refuses ports that no rule can select.
pub(super) fn check_ports(ports: &[RangeInclusive<u16>]) -> Result<(), Error> {
    match ports.iter().find(|r| r.is_empty() || *r.start() == 0 || *r.end() == u16::MAX) {
        Some(range) => {
            let what = format!("ports {}-{} cannot be intercepted", range.start(), range.end());
            Err(Error::new(ErrorKind::Config, what).hint("ports go from 1 to 65534, the smaller one first"))
        }
        None => Ok(()),
    }
}

/// Sets an IPv4 setting of one interface.
pub(super) fn set_ipv4(device: &str, setting: Ipv4Setting, value: u32) -> Step {
    Step::Ipv4 { device: device.to_owned(), setting, value }
}

/// Rules for the ICMP errors that this host itself sends, because it finds no route, no neighbour or too small an MTU for
/// a segment of ours: the client would not recognise the numbers in them. The kernel keeps the ICMP type and code of a
/// packet where ports are, so that rules can tell errors from the rest.
pub(super) fn own_icmp(family: Family, priority: u32) -> impl Iterator<Item = Rule> {
    let of_types = |first: u16, last: u16| first << 8..=last << 8 | 0xff;
    let errors = match family {
        // Destination unreachable, time exceeded.
        Family::V4 => vec![of_types(3, 3), of_types(11, 11)],
        // Destination unreachable, packet too big, time exceeded.
        Family::V6 => vec![of_types(1, 3)],
    };
    errors.into_iter().map(move |types| Rule {
        from_device: Some("lo".to_owned()),
        ip_protocol: Some(family.icmp()),
        port: Some(Port::Destination(types)),
        ..Rule::new(family, priority, RuleAction::Table(TABLE))
    })
}
