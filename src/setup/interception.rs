//! An interception that is up, in whichever mode: one per network namespace, with its device, and its leftovers.

use std::ops::RangeInclusive;

use socket2::Socket;

use super::lock::Lock;
use super::netlink::{Family, Ipv4Setting, Link, LocalRule, Netlink};
use super::plan::{Applied, Plan, Step};
use super::{Error, ErrorKind};
use crate::engine::tun::Device;

/// The routing table that leads into our device.
pub(super) const TABLE: u32 = 10_400;
/// The routing table that leads there only what is for this host itself.
pub(super) const TABLE_OWN: u32 = 10_401;

/// The mark of packets that the packet filter leads to us.
pub(super) const MARK: u32 = TABLE;
/// The mark of what is ours, and not to be taken again.
pub(super) const MARK_OWN: u32 = TABLE_OWN;
/// The name of our table of nftables.
pub(super) const NFT_TABLE: &str = "halfopen";

/// An interception that is up. Dropping it undoes it.
#[derive(Debug)]
pub struct Interception {
    pub(super) applied: Applied,
    /// Numbers of the interfaces that led out of the network namespace at the start, if that is somebody else's.
    outside: Vec<u32>,
    /// Server legs of a sidecar may have the ports of their clients.
    pub same_port: bool,
    /// The kernel holds first SYNs until it hears what becomes of them.
    pub holds_syns: bool,
    /// What the user should know.
    pub notes: Vec<String>,
    /// Our device, one entry per shard.
    pub devices: Vec<Device>,
    /// Ports that nobody else can have meanwhile.
    pub(super) _reserved: Vec<Socket>,
    _lock: Lock,
}

impl Interception {
    /// Puts the interception up that `plan` makes: from here on packets wait in the queues of our device, if it has this name
    /// and so many of them.
    pub(super) fn up(
        plan: impl FnOnce(&mut Netlink) -> Result<Plan, Error>,
        device: Option<(&str, usize)>,
    ) -> Result<Self, Error> {
        let mut netlink = Netlink::open()?;
        let lock = Lock::take()?;
        let plan = plan(&mut netlink)?;
        remove_leftovers(&mut netlink)?;
        let devices = match device {
            Some((name, queues)) => Device::open_tun(name, queues)?.0,
            None => Vec::new(),
        };
        let applied = plan.apply(netlink)?;
        Ok(Self {
            applied,
            outside: Vec::new(),
            same_port: false,
            holds_syns: false,
            notes: plan.notes,
            devices,
            _reserved: Vec::new(),
            _lock: lock,
        })
    }

    /// These interfaces lead out of a network namespace that is somebody else's.
    pub(super) fn watch(&mut self, outside: &[&Link]) {
        self.outside = outside.iter().map(|link| link.index).collect();
    }

    /// What marks ICMPv6 errors, if it can be.
    pub(super) fn hear_icmpv6(&mut self, step: Option<Step>) {
        if let Err(error) = self.applied.add(step.as_slice()) {
            let what = error.what;
            self.notes.push(format!("ICMPv6 errors of routers do not reach intercepted connections: {what}"));
        }
    }

    /// One more device, which these steps bring up, and what leads to it.
    pub(super) fn add(&mut self, device: Device, steps: &[Step]) -> Result<(), Error> {
        self.applied.add(steps)?;
        self.devices.push(device);
        Ok(())
    }

    /// True while all interfaces are gone that led out of somebody else's network namespace: its owner, such as the
    /// application's container, has ended, and only this process keeps it.
    pub fn is_abandoned(&mut self) -> bool {
        let is_there = |links: Vec<Link>| links.iter().any(|link| self.outside.contains(&link.index));
        !self.outside.is_empty() && self.applied.links().is_ok_and(|links| !is_there(links))
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

/// What makes room for our rules, so that the kernel's own for local addresses is asked after them, at `priority`. `None`: it
/// is already, because another program has moved it.
///
/// # Errors
/// It has been moved to a place among ours.
pub(super) fn move_local_rule(
    rules: &[LocalRule],
    family: Family,
    priority: u32,
) -> Result<Option<Step>, Error> {
    let places = || rules.iter().filter(|rule| rule.family == family);
    // One of ours is left from a run that was killed, and goes back to 0 before we start.
    let is_moved = |rule: &&LocalRule| !rule.is_own && rule.priority > 0;
    if let Some(rule) = places().filter(is_moved).find(|rule| rule.priority < priority) {
        let what = format!(
            "another program has moved the rule for local addresses to place {} (`ip {} rule`), before which there is no room \
             for ours",
            rule.priority,
            family.flag()
        );
        return Err(Error::new(ErrorKind::Unavailable, what).hint(format!(
            "have it use a place from {priority}, or leave its service out of those that share this network in the compose \
             file (`network_mode`)"
        )));
    }
    let is_behind = places().next().is_some() && places().all(|rule| is_moved(&rule));
    Ok((!is_behind).then_some(Step::MoveLocalRule { family, priority }))
}

/// Sets an IPv4 setting of one interface.
pub(super) fn set_ipv4(device: &str, setting: Ipv4Setting, value: u32) -> Step {
    Step::Ipv4 { device: device.to_owned(), setting, value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_for_local_addresses_is_moved_only_where_it_is_in_the_way() {
        let rule = |priority, is_own| LocalRule { family: Family::V4, priority, is_own };
        let other = LocalRule { family: Family::V6, priority: 5, is_own: false };
        let moved = Some(Step::MoveLocalRule { family: Family::V4, priority: 20 });
        for (rules, expected) in [
            (vec![other, rule(0, false)], moved.clone()),
            (vec![rule(0, false), rule(100, false)], moved.clone()),
            (vec![rule(20, true)], moved),
            (vec![rule(20, false)], None),
            (vec![rule(100, false)], None),
        ] {
            let step = move_local_rule(&rules, Family::V4, 20).expect("there is room");
            assert_eq!(step, expected, "{rules:?}");
        }
        let rules = [rule(0, false), rule(5, false)];
        let error = move_local_rule(&rules, Family::V4, 20).expect_err("one stands before ours");
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert!(error.to_string().contains("to place 5 (`ip -4 rule`)"), "{error}");
    }
}
