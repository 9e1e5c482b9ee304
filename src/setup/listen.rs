//! Listen mode: connections to certain addresses and ports of this host take the way through our device, whether they come
//! from other hosts or from this one, and everything else passes untouched. The ports are reserved for us, so that nobody
//! else can listen there, but no socket listens: if we are gone, connections are refused.
//!
//! | place | packets | go |
//! |---|---|---|
//! | 8 | this host's own ICMP errors about our segments | into the device |
//! | 9 | from the device | past the rules |
//! | 12 | from this host to a listener | into the device |
//! | 13 | else from this host | past the rules |
//! | 14 | ICMP for this host, by IPv6 errors alone, which nftables marks | into the device, which takes those about segments of ours and gives back the rest |
//! | 16 | to a listener | into the device |
//! | 20 | | to this host: the kernel's own first rule, which has to ask after ours |
//! | 21 | from an interface that did not forward before | nowhere |

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use super::facts::{Facts, Ipv6, family_of, is_global};
use super::interception::{Interception, TABLE_OWN, move_local_rule};
use super::netlink::{Family, Netlink, Port, Route, Rule, RuleAction};
use super::plan::{Plan, Step};
use super::sidecar::{LOOPBACK_V4, PREF_LOCAL, PREF_TO_SERVER, PREF_TO_SERVICE, in_compose};
use super::{Error, ErrorKind};

/// Clients that the kernel has accepted and we have not: Linux's `net.core.somaxconn`, which bounds it anyway.
pub(super) const BACKLOG: i32 = 4096;

/// What to intercept.
#[derive(Clone, Debug)]
pub struct Request {
    /// Addresses of this host, with ports from 1 to 65534; an unspecified one stands for all of its family.
    pub listeners: Vec<SocketAddr>,
    /// Name of our device.
    pub device: String,
}

/// Puts the interception up: from here on packets wait in the device.
pub fn up(request: &Request) -> Result<Interception, Error> {
    // First of all, because the kernel knows best what cannot be listened at.
    let reserved = request.listeners.iter().map(|at| reserve(*at)).collect::<Result<_, _>>()?;
    let mut up =
        Interception::up(|netlink| plan(request, netlink), Some((&request.device, 1))).map_err(missing)?;
    up._reserved = reserved;
    up.hear_icmpv6(request.icmpv6_errors(&Facts::gather(&mut Netlink::open()?)?));
    Ok(up)
}

/// What [`up`] would do, for `--dry-run`.
pub fn dry_run(request: &Request) -> Result<Plan, Error> {
    let mut netlink = Netlink::open()?;
    let mut plan = plan(request, &mut netlink)?;
    plan.steps.extend(request.icmpv6_errors(&Facts::gather(&mut netlink)?));
    Ok(plan)
}

/// The hint of another instance is right as it is. What lacks a device or a privilege can also be done without.
fn missing(error: Error) -> Error {
    if error.what.contains("already intercepts") {
        return error;
    }
    let lacks = matches!(error.kind, ErrorKind::Permission) || error.what.contains("/dev/net/tun");
    let error = in_compose(error);
    match &error.hint {
        Some(hint) if lacks => {
            let hint = format!("{hint}; or use --engine sockets, which needs neither and does fewer faults");
            error.hint(hint)
        }
        _ => error,
    }
}

fn plan(request: &Request, netlink: &mut Netlink) -> Result<Plan, Error> {
    request.plan(&Facts::gather(netlink)?)
}

/// Listens at these addresses by kernel sockets, which do not block. This needs no privilege for ports above 1023.
pub fn open(listeners: &[SocketAddr]) -> Result<Vec<TcpListener>, Error> {
    let open = |at: &SocketAddr| {
        let socket = reserve(*at)?;
        let listen = || socket.listen(BACKLOG).and_then(|()| socket.set_nonblocking(true));
        listen().map_err(|e| Error::from_io(format_args!("cannot listen at {at}"), &e))?;
        Ok(socket.into())
    };
    listeners.iter().map(open).collect()
}

/// Takes a port away from everybody else, without listening there.
fn reserve(at: SocketAddr) -> Result<Socket, Error> {
    let bind = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
        if at.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // Connections that a server before us has left in TIME-WAIT are no obstacle.
        socket.set_reuse_address(true)?;
        socket.bind(&at.into())?;
        // From now on nobody may share the port.
        socket.set_reuse_address(false)?;
        Ok(socket)
    };
    bind().map_err(|e| {
        let error = |kind, hint: &str| Error::new(kind, format!("cannot listen at {at}: {e}")).hint(hint);
        match e.raw_os_error() {
            Some(libc::EADDRINUSE) => {
                error(ErrorKind::Unavailable, "stop who listens there, or listen at another port")
            }
            Some(libc::EADDRNOTAVAIL) => error(
                ErrorKind::Config,
                "listen at an address of this host, or at 0.0.0.0 or [::] for all of them",
            ),
            Some(libc::EACCES) => error(
                ErrorKind::Permission,
                "ports below 1024 need CAP_NET_BIND_SERVICE; listen at a higher one, or run as root",
            ),
            Some(libc::EAFNOSUPPORT) => error(ErrorKind::Config, "this host has no IPv6"),
            _ => error(ErrorKind::Unavailable, "listen at another address or port"),
        }
    })
}

impl Request {
    fn plan(&self, facts: &Facts) -> Result<Plan, Error> {
        self.check(facts)?;
        let mut plan =
            Plan { steps: vec![Step::Device { name: self.device.clone() }], notes: self.notes(facts) };
        plan.steps.extend(facts.ipv4_settings(&self.device));
        for family in facts.families().filter(|family| self.of(*family).next().is_some()) {
            plan.steps.extend(self.routes(family, facts));
            plan.steps.extend(move_local_rule(&facts.local_rules, family, PREF_LOCAL)?);
            plan.steps.extend(self.rules(family, facts).into_iter().map(Step::Rule));
        }
        Ok(plan)
    }

    fn icmpv6_errors(&self, facts: &Facts) -> Option<Step> {
        facts.icmpv6_errors(&self.device).filter(|_| self.of(Family::V6).next().is_some())
    }

    fn check(&self, facts: &Facts) -> Result<(), Error> {
        let wrong = |kind, what: String, hint: String| Err(Error::new(kind, what).hint(hint));
        for at in self.of(Family::V6) {
            if !is_global(at.ip()) && !at.ip().is_unspecified() {
                let what =
                    format!("cannot listen at {at}: the kernel takes packets for it by one interface alone");
                let hint = "listen at 127.0.0.1 instead of ::1, or at a global IPv6 address";
                return wrong(ErrorKind::Config, what, hint.to_owned());
            }
            if let Ipv6::PassesBy(missing) = &facts.ipv6 {
                let what = format!("cannot listen at {at}: IPv6 packets do not get through our device here");
                let hint = format!(
                    "add `sysctls: {{{}}}` to this service in the compose file, or listen at 0.0.0.0",
                    missing.join(", ")
                );
                return wrong(ErrorKind::Unavailable, what, hint);
            }
        }
        Ok(())
    }

    fn of(&self, family: Family) -> impl Iterator<Item = SocketAddr> {
        self.listeners.iter().copied().filter(move |at| family_of(at.ip()) == family)
    }

    /// This host's own addresses into our device, each as its own source.
    fn routes(&self, family: Family, facts: &Facts) -> Vec<Step> {
        let whole = if family == Family::V4 { 32 } else { 128 };
        let own = facts.addresses.iter().filter(|a| family_of(a.ip) == family && is_global(a.ip));
        let loopback = (LOOPBACK_V4, IpAddr::V4(Ipv4Addr::LOCALHOST));
        let loopback = (family == Family::V4).then_some(loopback).into_iter();
        let into = |(to, source): ((IpAddr, u8), IpAddr)| Step::Route {
            route: Route {
                to: Some(to),
                source: Some(source),
                device: None,
                ..Route::default_by(family, 0, TABLE_OWN)
            },
            device: Some(self.device.clone()),
        };
        loopback.chain(own.map(|a| ((a.ip, whole), a.ip))).map(into).collect()
    }

    /// The rules of one family, in the order in which they are put up: what brings packets to us comes last.
    fn rules(&self, family: Family, facts: &Facts) -> Vec<Rule> {
        let mut rules = facts.first_rules(&self.device, family, TABLE_OWN);
        for at in self.of(family) {
            let to_listener = |priority| Rule {
                to: Some(at.ip()).filter(|ip| !ip.is_unspecified()),
                ip_protocol: Some(libc::IPPROTO_TCP as u8),
                port: Some(Port::Destination(at.port()..=at.port())),
                ..Rule::new(family, priority, RuleAction::Table(TABLE_OWN))
            };
            if !at.ip().is_loopback() {
                rules.push(to_listener(PREF_TO_SERVICE));
            }
            rules.push(Rule { from_device: Some("lo".to_owned()), ..to_listener(PREF_TO_SERVER) });
        }
        rules
    }

    fn notes(&self, facts: &Facts) -> Vec<String> {
        let mut notes = Vec::new();
        if self.of(Family::V6).next().is_some() {
            if facts.ipv6 == Ipv6::Off {
                notes.push("this host has no IPv6 address: nobody reaches the listeners at [::]".to_owned());
            } else {
                notes.push(
                    "connections to ::1 are refused: let clients on this host use 127.0.0.1".to_owned(),
                );
            }
        }
        if facts.rp_filter && self.of(Family::V4).next().is_some() {
            notes.push(
                "net.ipv4.conf.all.rp_filter is on: ICMP errors do not reach IPv4 connections of listeners; set it per \
                 interface instead"
                    .to_owned(),
            );
        }
        notes
    }
}

#[cfg(test)]
mod tests;
