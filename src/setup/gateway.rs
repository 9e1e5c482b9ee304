//! Gateway mode: this host routes between clients and servers, and connections to certain server ports take the way
//! through our device. Addresses and ports stay as they are on both sides. No packet filter is used: policy routing
//! rules select the packets, and if we are gone, they match a table that is empty, and the kernel forwards again.

use std::ops::RangeInclusive;

use super::facts::{MARKS_LEAD_BACK, check_marks};
use super::icmp::own_icmp;
use super::interception::{Interception, TABLE, check_ports, set_ipv4};
use super::netlink::{Family, Ipv4Setting, Link, Netlink, Port, Route, Rule, RuleAction};
use super::plan::{Plan, Step};
use super::{Error, ErrorKind, sysctl};

/// The places of our rules: after `local` (0), before `main` (32766).
const PREF_OWN_ICMP: u32 = 8;
const PREF_BYPASS: u32 = 9;
const PREF_TO_SERVER: u32 = 10;
const PREF_TO_CLIENT: u32 = 11;
const PREF_ICMP: u32 = 12;
const PREF_END: u32 = 19;

/// What to intercept.
#[derive(Clone, Debug)]
pub struct Request {
    /// Server ports, 1 to 65534.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Name of the interface towards the clients. `None`: any; then connections of this host itself are left alone.
    pub client_interface: Option<String>,
    /// Name of the interface towards the servers. `None`: any.
    pub server_interface: Option<String>,
    /// Name of our device.
    pub device: String,
    /// Queues of the device, one per shard.
    pub shards: usize,
}

/// What of this host matters for the plan.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    links: Vec<Link>,
    pub(super) ipv6: Ipv6,
    /// New devices start with IPv6 off, although it is in use here (Docker does that).
    ipv6_off_by_default: bool,
    conntrack: bool,
    /// Reverse path filtering is on for all interfaces, and so for ours too.
    rp_filter: bool,
    /// The way back of a marked packet is looked up with its mark, on all interfaces.
    marks_lead_back: bool,
}

/// How IPv6 forwarding is switched on here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Ipv6 {
    /// No interface has IPv6.
    #[default]
    Off,
    /// It is on.
    Forwards,
    /// By a setting per interface (`force_forwarding`, Linux 6.17).
    PerDevice,
    /// Only for all interfaces at once.
    All,
}

/// Puts the interception up: from here on packets wait in the devices.
pub fn up(request: &Request) -> Result<Interception, Error> {
    Interception::up(|netlink| plan(request, netlink), Some((&request.device, request.shards)))
}

/// What [`up`] would do, for `--dry-run`.
pub fn dry_run(request: &Request) -> Result<Plan, Error> {
    plan(request, &mut Netlink::open()?)
}

fn plan(request: &Request, netlink: &mut Netlink) -> Result<Plan, Error> {
    request.plan(&Facts::gather(netlink)?)
}

impl Facts {
    pub(super) fn gather(netlink: &mut Netlink) -> Result<Self, Error> {
        let links = netlink.links().map_err(|e| Error::from_io("cannot list the network interfaces", &e))?;
        let is = |key: &str, value: &str| {
            let found =
                sysctl::read(key).map_err(|e| Error::from_io(format_args!("cannot read {key}"), &e))?;
            Ok::<_, Error>(found.map(|v| v == value))
        };
        let mut in_use = false;
        for link in links.iter().filter(|l| !l.is_loopback()) {
            in_use |= is(&format!("net/ipv6/conf/{}/disable_ipv6", link.name), "0")?.unwrap_or(false);
        }
        let ipv6 = if !in_use {
            Ipv6::Off
        } else if is("net/ipv6/conf/all/forwarding", "0")? == Some(false) {
            Ipv6::Forwards
        } else if is("net/ipv6/conf/default/force_forwarding", "0")?.is_some() {
            Ipv6::PerDevice
        } else {
            Ipv6::All
        };
        let ipv6_off_by_default = in_use && is("net/ipv6/conf/default/disable_ipv6", "1")? == Some(true);
        let conntrack = is("net/netfilter/nf_conntrack_count", "0")? == Some(false);
        let rp_filter = is("net/ipv4/conf/all/rp_filter", "0")? == Some(false);
        let marks_lead_back = is(MARKS_LEAD_BACK, "0")? == Some(false);
        Ok(Self { links, ipv6, ipv6_off_by_default, conntrack, rp_filter, marks_lead_back })
    }
}

/// What a gateway without a device of ours does besides leading connections to kernel sockets: it forwards.
pub(super) fn without_device(request: &Request, facts: Facts) -> Result<Plan, Error> {
    request.check_ports()?;
    let sides = request.sides(&facts)?;
    let crossed = facts.links.iter().filter(|link| sides.contains(&link.name.as_str()));
    check_marks(facts.marks_lead_back, crossed)?;
    let steps = [forward_ipv4(&sides), forward_ipv6(facts.ipv6, &sides)].concat();
    // A mark leads ICMP errors to our sockets, whatever the filter is.
    Ok(Plan { steps, notes: notes(&Facts { rp_filter: false, ..facts }) })
}

impl Request {
    fn plan(&self, facts: &Facts) -> Result<Plan, Error> {
        self.check_ports()?;
        let sides = self.sides(facts)?;
        let mut plan = Plan { steps: vec![Step::Device { name: self.device.clone() }], notes: notes(facts) };
        let routers: Vec<&str> = sides.iter().copied().chain([self.device.as_str()]).collect();
        plan.steps.extend(forward_ipv4(&routers));
        // This host's own ICMP errors come back out of our device, with this host's address as their source.
        plan.steps.push(set_ipv4(&self.device, Ipv4Setting::AcceptLocal, 1));
        plan.steps.push(set_ipv4(&self.device, Ipv4Setting::RpFilter, 0));
        if facts.ipv6_off_by_default {
            let key = format!("net/ipv6/conf/{}/disable_ipv6", self.device);
            plan.steps.push(Step::Sysctl { key, value: "0" });
        }
        plan.steps.extend(forward_ipv6(facts.ipv6, &routers));
        for family in Family::ALL.into_iter().filter(|f| *f == Family::V4 || facts.ipv6 != Ipv6::Off) {
            plan.steps.push(Step::Route {
                route: Route { device: None, ..Route::default_by(family, 0, TABLE) },
                device: Some(self.device.clone()),
            });
            plan.steps.extend(self.rules(family).into_iter().map(Step::Rule));
            if family == Family::V6 || !facts.rp_filter {
                plan.steps.extend(own_icmp(family, PREF_OWN_ICMP, TABLE).map(Step::Rule));
            }
        }
        Ok(plan)
    }

    fn check_ports(&self) -> Result<(), Error> {
        if self.ports.is_empty() {
            return Err(
                Error::new(ErrorKind::Config, "no ports to intercept").hint("e.g. --ports 5432,8000-8099")
            );
        }
        check_ports(&self.ports)
    }

    /// The names of the interfaces that packets of the flows cross.
    fn sides<'a>(&'a self, facts: &'a Facts) -> Result<Vec<&'a str>, Error> {
        let usable: Vec<&str> = facts
            .links
            .iter()
            .filter(|l| !l.is_loopback() && l.is_up() && l.name != self.device)
            .map(|l| l.name.as_str())
            .collect();
        let named = [&self.client_interface, &self.server_interface].map(Option::as_deref);
        if let Some(name) = named.iter().flatten().find(|name| !usable.contains(*name)) {
            let hint = format!("interfaces that are up here: {}", usable.join(", "));
            return Err(
                Error::new(ErrorKind::Config, format!("there is no interface {name} that is up")).hint(hint)
            );
        }
        if usable.is_empty() {
            return Err(Error::new(ErrorKind::Config, "no network interface is up besides the loopback")
                .hint("a gateway stands between clients and servers: set its interfaces up first"));
        }
        Ok(match named {
            [Some(client), Some(server)] if client == server => vec![client],
            [Some(client), Some(server)] => vec![client, server],
            _ => usable,
        })
    }

    /// The rules of one family. What the device emits matches none of them and goes on as any forwarded packet.
    fn rules(&self, family: Family) -> Vec<Rule> {
        let tcp = Some(libc::IPPROTO_TCP as u8);
        let (client, server) = (self.client_interface.clone(), self.server_interface.clone());
        let divert = |priority| Rule::new(family, priority, RuleAction::Table(TABLE));
        let mut rules = Vec::new();
        if client.is_none() || server.is_none() {
            let skip = |from: &str| Rule {
                from_device: Some(from.to_owned()),
                ..Rule::new(family, PREF_BYPASS, RuleAction::Goto(PREF_END))
            };
            rules.extend([Rule::new(family, PREF_END, RuleAction::Nop), skip(&self.device), skip("lo")]);
        }
        for range in &self.ports {
            let (to, from) = (Port::Destination(range.clone()), Port::Source(range.clone()));
            rules.push(Rule {
                from_device: client.clone(),
                ip_protocol: tcp,
                port: Some(to),
                ..divert(PREF_TO_SERVER)
            });
            rules.push(Rule {
                from_device: server.clone(),
                ip_protocol: tcp,
                port: Some(from),
                ..divert(PREF_TO_CLIENT)
            });
        }
        // ICMP errors about our own segments: the engine takes those and writes all other ICMP back.
        let icmp = Rule { ip_protocol: Some(family.icmp()), ..divert(PREF_ICMP) };
        rules.push(Rule { from_device: server, ..icmp.clone() });
        rules.push(Rule { from_device: client, ..icmp });
        rules.dedup();
        rules
    }
}

fn forward_ipv4(routers: &[&str]) -> Vec<Step> {
    routers.iter().map(|device| set_ipv4(device, Ipv4Setting::Forwarding, 1)).collect()
}

fn forward_ipv6(ipv6: Ipv6, routers: &[&str]) -> Vec<Step> {
    let set = |key, value| Step::Sysctl { key, value };
    match ipv6 {
        Ipv6::Off | Ipv6::Forwards => Vec::new(),
        Ipv6::PerDevice => {
            let of = |device: &&str| set(format!("net/ipv6/conf/{device}/force_forwarding"), "1");
            routers.iter().map(of).collect()
        }
        Ipv6::All => vec![set("net/ipv6/conf/all/forwarding".to_owned(), "1")],
    }
}

fn notes(facts: &Facts) -> Vec<String> {
    let mut notes = Vec::new();
    if facts.ipv6 == Ipv6::Off {
        notes.push("IPv6 is off on all interfaces: only IPv4 is intercepted".to_owned());
    }
    if facts.rp_filter {
        notes.push(
            "net.ipv4.conf.all.rp_filter is on: clients do not learn when this host itself finds no IPv4 route, neighbour \
             or MTU for an intercepted connection; set it per interface instead"
                .to_owned(),
        );
    }
    if facts.conntrack {
        notes.push(
            "connection tracking is active here: a firewall rule that drops `ct state invalid` would break intercepted \
             connections; exempt their ports with `notrack`"
                .to_owned(),
        );
    }
    notes
}

#[cfg(test)]
pub(super) mod tests;
