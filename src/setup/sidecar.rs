//! Sidecar mode: in the application's own network namespace, connections of the application to certain server ports take the
//! way through our device, and leave by the same interfaces as before, with the same address and another source port: the
//! kernel has the application's own port in use, and drops what it would have to forward for it. Where `tcp_early_demux` is 0
//! it does not drop it, and the port stays the application's own. No packet filter and no setting below `/proc/sys` is
//! needed: CAP_NET_ADMIN and `/dev/net/tun` are enough; nftables, where there are some, add ICMPv6 errors of routers and
//! connections to `::1`. If we are gone, our rules match a table that is empty, and connections are direct again.
//!
//! | place | packets | go |
//! |---|---|---|
//! | 8 | this host's own ICMP errors | into the device |
//! | 9 | from the device | past the rules |
//! | 10 | from a server port to a source port of ours (to any, where the port stays) | into the device |
//! | 11 | from an inbound port of this host to such a port | into the device |
//! | 12 | from this host to a server port | into the device |
//! | 13 | else from this host | past the rules |
//! | 14 | ICMP, by IPv6 errors alone, which nftables marks | into the device, which takes those about segments of ours and gives back the rest |
//! | 15 | of a connection from outside that was there before | past the rules |
//! | 16 | to this host, to an inbound port | into the device |
//! | 20 | | to this host: the kernel's own first rule, which has to ask after ours |
//! | 21 | from an interface that did not forward before | nowhere |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use super::connections::Connection;
use super::facts::{Facts, Ipv6, family_of, is_global, meet};
use super::icmp::{mark_icmpv6_errors, own_icmp};
use super::interception::{Interception, MARK, TABLE, TABLE_OWN, check_ports, move_local_rule, set_ipv4};
use super::loopback;
use super::netlink::{Family, Ipv4Setting, Link, Netlink, Port, Route, RouteKind, Rule, RuleAction};
use super::plan::{Plan, Step};
use super::{Error, ErrorKind};

/// Each connection that exists at the start costs a rule, which every packet is compared with.
pub(super) const MOST_BEFORE_US: usize = 256;

const PREF_OWN_ICMP: u32 = 8;
const PREF_BYPASS: u32 = 9;
const PREF_TO_LEG: u32 = 10;
const PREF_FROM_SERVICE: u32 = 11;
pub(super) const PREF_TO_SERVER: u32 = 12;
const PREF_OWN_REST: u32 = 13;
const PREF_ICMP: u32 = 14;
const PREF_BEFORE_US: u32 = 15;
pub(super) const PREF_TO_SERVICE: u32 = 16;
const PREF_END: u32 = 19;
pub(super) const PREF_LOCAL: u32 = 20;
const PREF_NO_ROUTER: u32 = 21;

pub(super) const LOOPBACK_V4: (IpAddr, u8) = (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8);
const LOOPBACK_V6: (IpAddr, u8) = (IpAddr::V6(Ipv6Addr::LOCALHOST), 128);
pub(super) const LINK_LOCAL_V6: (IpAddr, u8) = (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10);

/// What to intercept.
#[derive(Clone, Debug)]
pub struct Request {
    /// Server ports of the connections that this host opens, 1 to 65534.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Ports of services on this host, 1 to 65534, whose connections from other hosts are taken.
    pub inbound_ports: Vec<RangeInclusive<u16>>,
    /// Where server legs come from, 1 to 65534; nothing else here may use these ports.
    pub source_ports: RangeInclusive<u16>,
    /// Name of our device.
    pub device: String,
}

/// Puts the interception up: from here on packets wait in the device.
pub fn up(request: &Request) -> Result<Interception, Error> {
    let mut up =
        Interception::up(|netlink| plan(request, netlink), Some((&request.device, 1))).map_err(in_compose)?;
    // Connections from outside that were taken by the application while the rules came up.
    let facts = Facts::gather(&mut Netlink::open()?)?;
    let rules = facts.families().flat_map(|family| request.before_us(family, &facts));
    up.applied.add(&rules.map(Step::Rule).collect::<Vec<_>>())?;
    up.same_port = request.keeps_port(&facts);
    up.hear_icmpv6(facts.icmpv6_errors(&request.device));
    if let Some(plan) = loopback::plan(request, &facts)
        && let Err(error) = loopback::up(&mut up, &plan)
    {
        up.notes.push(format!(
            "connections to ::1 pass by: let the application use 127.0.0.1, not localhost ({})",
            error.what
        ));
    }
    up.watch(&facts.outside(&request.device).collect::<Vec<_>>());
    Ok(up)
}

/// What [`up`] would do, for `--dry-run`.
pub fn dry_run(request: &Request) -> Result<Plan, Error> {
    let mut netlink = Netlink::open()?;
    let mut plan = plan(request, &mut netlink)?;
    let facts = Facts::gather(&mut netlink)?;
    plan.steps.extend(facts.icmpv6_errors(&request.device));
    plan.steps.extend(loopback::plan(request, &facts).into_iter().flatten());
    Ok(plan)
}

fn plan(request: &Request, netlink: &mut Netlink) -> Result<Plan, Error> {
    request.plan(&Facts::gather(netlink)?)
}

/// The same failure; a hint that says what is missing here also says where a compose file has it.
pub(super) fn in_compose(error: Error) -> Error {
    let line = match error.kind {
        ErrorKind::Permission if error.what.contains("/dev/net/tun") => "devices: [\"/dev/net/tun\"]",
        ErrorKind::Permission => "cap_add: [NET_ADMIN]",
        ErrorKind::Unavailable if error.what.contains("/dev/net/tun") => "devices: [\"/dev/net/tun\"]",
        ErrorKind::Unavailable if error.what.contains("already intercepts") => {
            return error.hint(
                "one sidecar takes all ports of its application: give the other one's to it in the compose file, such as \
                 `command: run --mode sidecar --ports 5432,6379`",
            );
        }
        _ => return error,
    };
    error.hint(format!("add `{line}` to this service in the compose file; outside of containers run as root"))
}

impl Request {
    fn plan(&self, facts: &Facts) -> Result<Plan, Error> {
        self.check(facts)?;
        let mut plan =
            Plan { steps: vec![Step::Device { name: self.device.clone() }], notes: self.notes(facts) };
        plan.steps.extend(facts.ipv4_settings(&self.device));
        for family in facts.families() {
            plan.steps.extend(self.routes(family, facts));
            plan.steps.extend(move_local_rule(&facts.local_rules, family, PREF_LOCAL)?);
            plan.steps.extend(self.rules(family, facts).into_iter().map(Step::Rule));
        }
        Ok(plan)
    }

    /// Server legs have the ports of their clients: answers are known by the port of the server alone, so that no connection
    /// may come from such a port.
    pub(super) fn keeps_port(&self, facts: &Facts) -> bool {
        let mut taken = self.ports.iter().chain(&self.inbound_ports);
        !facts.early_demux && !taken.any(|range| facts.given_out.iter().any(|given| meet(given, range)))
    }

    /// Refuses ports that cannot be taken.
    pub(super) fn check_taken(&self) -> Result<(), Error> {
        if self.ports.is_empty() && self.inbound_ports.is_empty() {
            let error = Error::new(ErrorKind::Config, "no ports to intercept");
            return Err(error.hint("e.g. --ports 5432,8000-8099"));
        }
        check_ports(&self.ports)?;
        check_ports(&self.inbound_ports)
    }

    fn check(&self, facts: &Facts) -> Result<(), Error> {
        let wrong = |what: String, hint: String| Err(Error::new(ErrorKind::Config, what).hint(hint));
        self.check_taken()?;
        check_ports(std::slice::from_ref(&self.source_ports))?;
        if self.keeps_port(facts) {
            return Ok(());
        }
        let (first, last) = (*self.source_ports.start(), *self.source_ports.end());
        let meets = |range: &&RangeInclusive<u16>| *range.start() <= last && *range.end() >= first;
        if let Some(range) = facts.given_out.iter().find(meets) {
            let (from, to) = (range.start(), range.end());
            return wrong(
                format!(
                    "the source ports {first}-{last} are among those that connections get here ({from}-{to})"
                ),
                format!(
                    "set intercept.source_ports to others, or add `sysctls: {{net.ipv4.ip_local_reserved_ports: {first}-{last}}}` \
                     to this service in the compose file"
                ),
            );
        }
        Ok(())
    }

    /// The main table once more, but into our device, with the source address that each route would give. What the main table
    /// does not reach, or refuses, it goes on to refuse.
    fn routes(&self, family: Family, facts: &Facts) -> Vec<Step> {
        let into = |to: Option<(IpAddr, u8)>, source, mss| Step::Route {
            route: Route { to, source, mss, device: None, ..Route::default_by(family, 0, TABLE) },
            device: Some(self.device.clone()),
        };
        let throw = |to: Option<(IpAddr, u8)>| Step::Route {
            route: Route { to, device: None, kind: RouteKind::Throw, ..Route::default_by(family, 0, TABLE) },
            device: None,
        };
        let mut steps = match family {
            Family::V4 => vec![into(Some(LOOPBACK_V4), Some(Ipv4Addr::LOCALHOST.into()), None)],
            // The kernel takes packets from and to ::1 by `lo` alone (see `loopback`), and a link-local address belongs to one link.
            Family::V6 => vec![throw(Some(LOOPBACK_V6)), throw(Some(LINK_LOCAL_V6))],
        };
        let whole = if family == Family::V4 { 32 } else { 128 };
        for own in facts.addresses.iter().filter(|a| family_of(a.ip) == family && is_global(a.ip)) {
            steps.push(into(Some((own.ip, whole)), Some(own.ip), None));
            if !self.inbound_ports.is_empty() {
                let to = Some((own.ip, whole));
                let route = Route { to, device: None, ..Route::default_by(family, 0, TABLE_OWN) };
                steps.push(Step::Route { route, device: Some(self.device.clone()) });
            }
        }
        let mut seen = Vec::new();
        for route in facts.routes.iter().filter(|r| r.family == family) {
            let elsewhere =
                route.to.is_none_or(|(to, prefix)| is_global(to) || (to.is_unspecified() && prefix > 0));
            if !elsewhere || seen.contains(&route.to) {
                continue;
            }
            seen.push(route.to);
            steps.push(match route.kind {
                RouteKind::Unicast => into(route.to, facts.source(route), facts.mss(route)),
                _ => throw(route.to),
            });
        }
        steps
    }

    /// The rules of one family, in the order in which they are put up: what brings packets to us comes last.
    fn rules(&self, family: Family, facts: &Facts) -> Vec<Rule> {
        let tcp = Some(libc::IPPROTO_TCP as u8);
        let rule = |priority, action| Rule::new(family, priority, action);
        let from = |device: &str, rule: Rule| Rule { from_device: Some(device.to_owned()), ..rule };
        let divert = |priority| rule(priority, RuleAction::Table(TABLE));
        let mut rules = facts.first_rules(&self.device, family, TABLE);
        let answers = |range: &RangeInclusive<u16>| {
            Some(match self.keeps_port(facts) {
                true => Port::Source(range.clone()),
                false => Port::Both(range.clone(), self.source_ports.clone()),
            })
        };
        for range in &self.ports {
            rules.push(Rule { ip_protocol: tcp, port: answers(range), ..divert(PREF_TO_LEG) });
        }
        for range in &self.inbound_ports {
            let rule = Rule { ip_protocol: tcp, port: answers(range), ..divert(PREF_FROM_SERVICE) };
            rules.push(from("lo", rule));
        }
        rules.extend(self.before_us(family, facts));
        for range in &self.inbound_ports {
            let port = Some(Port::Destination(range.clone()));
            let own = rule(PREF_TO_SERVICE, RuleAction::Table(TABLE_OWN));
            rules.push(Rule { ip_protocol: tcp, port, ..own });
        }
        for range in &self.ports {
            let port = Some(Port::Destination(range.clone()));
            rules.push(from("lo", Rule { ip_protocol: tcp, port, ..divert(PREF_TO_SERVER) }));
        }
        rules
    }

    /// Rules for the connections from outside that are there already: the kernel would drop their packets on the way into our
    /// device, where it has found their sockets.
    fn before_us(&self, family: Family, facts: &Facts) -> Vec<Rule> {
        let tcp = Some(libc::IPPROTO_TCP as u8);
        let mine = self.existing(facts).filter(|c| family_of(c.local.ip()) == family);
        let rule = |Connection { local, peer, .. }: &Connection| Rule {
            from: Some(peer.ip()),
            ip_protocol: tcp,
            port: Some(Port::Both(peer.port()..=peer.port(), local.port()..=local.port())),
            ..Rule::new(family, PREF_BEFORE_US, RuleAction::Goto(PREF_END))
        };
        mine.take(MOST_BEFORE_US).map(rule).collect()
    }

    fn notes(&self, facts: &Facts) -> Vec<String> {
        let mut notes = notes(facts);
        let existing = self.existing(facts).filter(|c| !c.is_over).count();
        if existing > MOST_BEFORE_US {
            notes.push(format!(
                "of {existing} connections from outside only {MOST_BEFORE_US} will survive the start: add `sysctls: \
                 {{net.ipv4.tcp_early_demux: 0}}` to this service in the compose file, and all do"
            ));
        }
        notes
    }

    fn existing<'a>(&'a self, facts: &'a Facts) -> impl Iterator<Item = &'a Connection> {
        let taken = |c: &&Connection| {
            self.inbound_ports.iter().any(|range| range.contains(&c.local.port()))
                && c.local.ip() != c.peer.ip()
        };
        facts.connections.iter().filter(|_| facts.early_demux).filter(taken)
    }
}

impl Facts {
    /// What lets packets of this host itself go through `device`.
    pub(super) fn ipv4_settings(&self, device: &str) -> Vec<Step> {
        let routers = self.outside(device).map(|link| link.name.as_str()).chain([device]);
        let mut steps: Vec<Step> =
            routers.map(|device| set_ipv4(device, Ipv4Setting::Forwarding, 1)).collect();
        // Packets of 127.0.0.1 and from this host's own addresses come out of our device.
        for setting in [Ipv4Setting::RouteLocalnet, Ipv4Setting::AcceptLocal] {
            steps.push(set_ipv4(device, setting, 1));
        }
        steps.push(set_ipv4(device, Ipv4Setting::RpFilter, 0));
        steps
    }

    /// Keeps this host from becoming a router, by the interfaces that did not forward before.
    fn no_router(&self, device: &str, family: Family) -> Vec<Rule> {
        if family == Family::V6 {
            return Vec::new();
        }
        let closed = self.outside(device).filter(|link| link.ipv4(Ipv4Setting::Forwarding) == 0);
        let drop = |link: &Link| Rule {
            from_device: Some(link.name.clone()),
            ..Rule::new(family, PREF_NO_ROUTER, RuleAction::Blackhole)
        };
        closed.map(drop).collect()
    }

    /// The rules that are put up first: what is ours is not taken again, this host is no router, and ICMP errors about our
    /// segments go by `table` into our device.
    pub(super) fn first_rules(&self, device: &str, family: Family, table: u32) -> Vec<Rule> {
        let rule = |priority, action| Rule::new(family, priority, action);
        let from = |device: &str, priority| Rule {
            from_device: Some(device.to_owned()),
            ..rule(priority, RuleAction::Goto(PREF_END))
        };
        let mut rules =
            vec![rule(PREF_END, RuleAction::Nop), from(device, PREF_BYPASS), from("lo", PREF_OWN_REST)];
        rules.extend(self.no_router(device, family));
        if family == Family::V6 || !self.rp_filter {
            rules.extend(own_icmp(family, PREF_OWN_ICMP, table));
        }
        let icmp = rule(PREF_ICMP, RuleAction::Table(table));
        match family {
            Family::V4 if !self.rp_filter => {
                rules.push(Rule { ip_protocol: Some(family.icmp()), ..icmp });
            }
            // Neighbour discovery is ICMP as well, and would not survive the way.
            Family::V6 if self.nftables => rules.push(Rule { mark: Some(MARK), ..icmp }),
            _ => {}
        }
        rules
    }

    /// What lets the last of them find ICMPv6 errors.
    pub(super) fn icmpv6_errors(&self, device: &str) -> Option<Step> {
        (self.nftables && self.ipv6 == Ipv6::Ready).then(|| mark_icmpv6_errors(device))
    }
}

fn notes(facts: &Facts) -> Vec<String> {
    let mut notes = Vec::new();
    if let Ipv6::PassesBy(missing) = &facts.ipv6 {
        notes.push(format!(
            "IPv6 connections pass by: add `sysctls: {{{}}}` to this service in the compose file",
            missing.join(", ")
        ));
    }
    if facts.ipv6 == Ipv6::Ready && !facts.nftables {
        notes.push(
            "the kernel has no nftables: the application does not learn of ICMPv6 errors of routers about its intercepted \
             connections"
                .to_owned(),
        );
    }
    if facts.rp_filter {
        notes.push(
            "net.ipv4.conf.all.rp_filter is on: the application does not learn of ICMP errors about its intercepted \
             connections; set it per interface instead"
                .to_owned(),
        );
    }
    notes
}

#[cfg(test)]
mod tests;
