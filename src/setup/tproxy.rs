//! Kernel sockets in the place of a device: nftables leads connections to listeners of ours, which then have the address
//! that the client dialled (TPROXY), in a gateway and in a sidecar. Only CAP_NET_ADMIN is needed, and no setting below
//! `/proc/sys` but what makes a gateway forward. The table is gone with our process, and connections are direct again.
//!
//! | packets | get | and go |
//! |---|---|---|
//! | first SYN to a port | a mark | to our listener; while we stop, on in a gateway, and refused by this host in a sidecar |
//! | further ones of a connection of ours, on either side | a mark | to our sockets |
//! | marked ones | | by a table of their own to this host, whatever their destination |
//! | sidecar: from this host to a port, or from an inbound port | a mark | back to this host, to the rows above |
//! | sidecar: of a connection that was there before, and from our own sockets | | on |

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;

use socket2::{Domain, Protocol, Socket, Type};

use super::connections::{Connection, connections};
use super::facts::{Facts, cannot_list, check_marks, family_of, has_ipv6, meet};
pub use super::interception::MARK_OWN;
use super::interception::{Interception, MARK, NFT_TABLE, TABLE};
use super::listen::BACKLOG;
use super::netlink::nft::{Action, Chain, Hook, Match, NftRule, Table, TableKind};
use super::netlink::{Family, Netlink, Ports, Route, RouteKind, Rule, RuleAction};
use super::plan::{Plan, Step};
use super::sidecar::{self, LINK_LOCAL_V6, MOST_BEFORE_US, in_compose};
use super::{Error, gateway, sysctl};
use crate::engine::sockets::be_transparent;

/// Where our listeners are, unless somebody has this port of the loopback address already.
const DOOR: u16 = 10_400;
const PREF: u32 = 10;

/// An interception that is up, and the listeners that it leads to.
pub type Up = (Interception, Vec<TcpListener>);

/// Puts a gateway up.
pub fn gateway(request: &gateway::Request) -> Result<Up, Error> {
    up(|netlink, doors| gateway_plan(request, gateway::Facts::gather(netlink)?, doors))
}

/// Puts a sidecar up.
pub fn sidecar(request: &sidecar::Request) -> Result<Up, Error> {
    let (mut silence, mut clients) = (None, Vec::new());
    let plan = |netlink: &mut Netlink, doors: &[SocketAddr]| {
        let mut facts = Facts::gather(netlink)?;
        // If it cannot be made, nor can our table be, and that one says why.
        silence = silent(request, &facts).make().ok();
        facts.connections = connections().map_err(cannot_list)?;
        let before = before_us(request, &facts).take(MOST_BEFORE_US);
        let from_outside = before.filter(|c| has(&request.inbound_ports, c.local.port()));
        clients = from_outside.map(|c| c.peer).collect();
        sidecar_plan(request, &facts, doors)
    };
    let (mut up, listeners) = up(plan).map_err(in_compose)?;
    drop(silence);
    up._reserved = clients.into_iter().filter_map(|client| occupy(client).ok()).collect();
    let facts = Facts::gather(&mut Netlink::open()?)?;
    up.watch(&facts.outside(&request.device).collect::<Vec<_>>());
    Ok((up, listeners))
}

/// What [`gateway()`] would do, for `--dry-run`.
pub fn dry_run_gateway(request: &gateway::Request) -> Result<Plan, Error> {
    gateway_plan(request, gateway::Facts::gather(&mut Netlink::open()?)?, &preferred()?)
}

/// What [`sidecar()`] would do, for `--dry-run`.
pub fn dry_run_sidecar(request: &sidecar::Request) -> Result<Plan, Error> {
    sidecar_plan(request, &Facts::gather(&mut Netlink::open()?)?, &preferred()?)
}

fn up(plan: impl FnOnce(&mut Netlink, &[SocketAddr]) -> Result<Plan, Error>) -> Result<Up, Error> {
    // Before the table, so that no SYN finds nobody.
    let listeners = preferred()?.into_iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let doors: io::Result<Vec<_>> = listeners.iter().map(TcpListener::local_addr).collect();
    let doors = doors.map_err(|e| Error::from_io("cannot tell the address of a listener", &e))?;
    Ok((Interception::up(|netlink| plan(netlink, &doors), None)?, listeners))
}

/// Where our listeners want to be: at the loopback address of each family that there is.
fn preferred() -> Result<Vec<SocketAddr>, Error> {
    let v6_off = sysctl::read("net/ipv6/conf/lo/disable_ipv6")
        .map_err(|e| Error::from_io("cannot tell whether there is IPv6", &e))?;
    let v6 = (v6_off.as_deref() == Some("0")).then_some(IpAddr::V6(Ipv6Addr::LOCALHOST));
    let all = [IpAddr::V4(Ipv4Addr::LOCALHOST)].into_iter().chain(v6);
    Ok(all.map(|ip| SocketAddr::new(ip, DOOR)).collect())
}

/// Listens at an address, or at another port of it.
fn open(at: SocketAddr) -> Result<TcpListener, Error> {
    let listen = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(at), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        if at.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // The sockets of clients have all of it from here. Those on the host of their server have its port, and without this
        // it could not listen there again while they live.
        socket.set_reuse_address(true)?;
        be_transparent(&socket, at, MARK_OWN)?;
        match socket.bind(&at.into()) {
            Err(e) if e.raw_os_error() == Some(libc::EADDRINUSE) => {
                socket.bind(&SocketAddr::new(at.ip(), 0).into())?;
            }
            other => other?,
        }
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    listen().map_err(|e| Error::from_io(format_args!("cannot listen at {at} for other addresses"), &e))
}

fn gateway_plan(
    request: &gateway::Request,
    facts: gateway::Facts,
    doors: &[SocketAddr],
) -> Result<Plan, Error> {
    let v6_passes_by = facts.ipv6 != gateway::Ipv6::Off && !doors.iter().any(SocketAddr::is_ipv6);
    let mut plan = gateway::without_device(request, facts)?;
    if v6_passes_by {
        plan.notes.push(
            "IPv6 connections pass by, because `lo` has IPv6 off: `sysctl -w net.ipv6.conf.lo.disable_ipv6=0`, and start \
             again"
                .to_owned(),
        );
    }
    let client = match &request.client_interface {
        Some(name) => Match::From(name.clone()),
        None => Match::NotFrom("lo".to_owned()),
    };
    // A program of this host would answer the client, not our socket that has its address.
    let mut rules = vec![NftRule::accept([Match::Tcp, Match::Syn, Match::ForThisHost])];
    rules.extend(to_doors(&[client], &request.ports, doors));
    rules.push(ours());
    plan.steps.extend(steps(vec![Chain { hook: Hook::Prerouting, rules }], doors));
    Ok(plan)
}

fn sidecar_plan(request: &sidecar::Request, facts: &Facts, doors: &[SocketAddr]) -> Result<Plan, Error> {
    request.check_taken()?;
    check_marks(facts.marks_lead_back, facts.outside(&request.device))?;
    let lo = || "lo".to_owned();
    let has_v6 = doors.iter().any(SocketAddr::is_ipv6);
    // An address that means another host on each link.
    let link_local = Match::Destination(LINK_LOCAL_V6.0, LINK_LOCAL_V6.1);
    let link_local = [Match::Family(Family::V6), link_local];
    let link_local = has_v6.then(|| NftRule::accept(link_local));
    let mut rules: Vec<NftRule> = link_local.clone().into_iter().collect();
    rules.extend(to_doors(&[Match::From(lo()), Match::Mark(MARK)], &request.ports, doors));
    rules.extend(to_doors(&[Match::NotFrom(lo()), Match::ForThisHost], &request.inbound_ports, doors));
    rules.push(ours());
    let arriving = Chain { hook: Hook::Prerouting, rules };

    let mut rules = vec![NftRule::accept([Match::Mark(MARK_OWN)])];
    rules.extend(link_local);
    rules.extend(before_us(request, facts).take(MOST_BEFORE_US).map(pass));
    let mark = |matches: Vec<Match>| NftRule::mark(matches, MARK);
    rules.extend(to_take(request, facts.port_range.as_ref()).into_iter().map(mark));
    let sent = Chain { hook: Hook::Output, rules };

    let mut notes = Vec::new();
    if !has_v6 && has_ipv6(&facts.addresses) {
        notes.push(
            "IPv6 connections pass by: add `sysctls: {net.ipv6.conf.all.disable_ipv6: 0}` to this service in the compose file"
                .to_owned(),
        );
    }
    notes.extend(shared_ports(request, facts));
    let existing = before_us(request, facts).filter(|c| !c.is_over).count();
    if existing > MOST_BEFORE_US {
        notes.push(format!("of {existing} connections only {MOST_BEFORE_US} will survive the start"));
    }
    Ok(Plan { steps: steps(vec![arriving, sent], doors), notes })
}

/// What lets no connection come up, nor move on, between the list of those that are there and the table that leaves them
/// alone: our table would take half of it. Peers send once more what is lost meanwhile.
fn silent(request: &sidecar::Request, facts: &Facts) -> Table {
    let lost = |matches| NftRule::new(matches, [Action::Drop]);
    // Without the SYN, for a service that has seen it sends its answer again, which would be taken.
    let first = |range: &RangeInclusive<u16>| {
        lost(vec![
            Match::NotFrom("lo".to_owned()),
            Match::Tcp,
            Match::DestinationPort(range.clone()),
            Match::Syn,
        ])
    };
    let arriving = request.inbound_ports.iter().map(first).collect();
    let sent = to_take(request, facts.port_range.as_ref()).into_iter().map(lost).collect();
    Table {
        kind: TableKind::Inet,
        name: format!("{NFT_TABLE}-start"),
        chains: vec![
            Chain { hook: Hook::Prerouting, rules: arriving },
            Chain { hook: Hook::Output, rules: sent },
        ],
    }
}

/// What this host sends to a server, and what a service here sends to a client. A port that clients may have as well does not
/// tell which side of the connection it is; then the other one must be a port that clients have. Our own sockets that have
/// the address of a client get such a port from the kernel.
fn to_take(request: &sidecar::Request, port_range: Option<&RangeInclusive<u16>>) -> Vec<Vec<Match>> {
    let shared = |range: &RangeInclusive<u16>| port_range.filter(|ports| meet(ports, range)).cloned();
    let to_server = |range: &RangeInclusive<u16>| {
        let client = shared(range).map(Match::SourcePort);
        [Match::Tcp, Match::DestinationPort(range.clone())].into_iter().chain(client).collect()
    };
    let to_client = |range: &RangeInclusive<u16>| {
        let client = shared(range).map(Match::DestinationPort);
        [Match::Tcp, Match::SourcePort(range.clone())].into_iter().chain(client).collect()
    };
    request.ports.iter().map(to_server).chain(request.inbound_ports.iter().map(to_client)).collect()
}

/// Tells of ports that a connection may come from.
fn shared_ports(request: &sidecar::Request, facts: &Facts) -> Option<String> {
    let range = facts.port_range.as_ref()?;
    let all = request.ports.iter().chain(&request.inbound_ports);
    let shared = all.filter(|range| facts.given_out.iter().any(|given| meet(given, range)));
    let shared: Vec<_> = shared.map(|range| Ports(range).to_string()).collect();
    let ports = shared.join(",");
    let (first, last) = (range.start(), range.end());
    (!shared.is_empty()).then(|| {
        format!(
            "connections may come from {ports} as well (net.ipv4.ip_local_port_range): one from there to another port of \
             {first}-{last} is broken; add `sysctls: {{net.ipv4.ip_local_reserved_ports: \"{ports}\"}}` to this service in the \
             compose file"
        )
    })
}

/// Keeps the kernel from giving the port of a client, whose connection was there before, to a socket of ours that has the
/// client's address: the answers of the service would pass, too, and not get to it.
fn occupy(client: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(client), Type::STREAM, Some(Protocol::TCP))?;
    be_transparent(&socket, client, MARK_OWN)?;
    // A service of this host may still have the port.
    socket.set_reuse_address(true)?;
    socket.bind(&client.into())?;
    Ok(socket)
}

/// First SYNs to these ports go to our listeners.
fn to_doors(from: &[Match], ports: &[RangeInclusive<u16>], doors: &[SocketAddr]) -> Vec<NftRule> {
    let rule = |range: &RangeInclusive<u16>, to: SocketAddr| {
        let of_family = [Match::Family(family_of(to.ip())), Match::Tcp];
        let first = [Match::DestinationPort(range.clone()), Match::Syn];
        let matches = from.iter().cloned().chain(of_family).chain(first);
        NftRule::new(matches, [Action::Tproxy(to), Action::Mark(MARK), Action::Accept])
    };
    ports.iter().flat_map(|range| doors.iter().map(move |to| rule(range, *to))).collect()
}

/// Packets for our sockets. After the SYNs: one for a connection of ours in TIME-WAIT opens a new one.
fn ours() -> NftRule {
    NftRule::mark([Match::Tcp, Match::Transparent], MARK)
}

fn has(ports: &[RangeInclusive<u16>], port: u16) -> bool {
    ports.iter().any(|range| range.contains(&port))
}

/// Connections that are there already: our sockets do not know them.
fn before_us<'a>(request: &'a sidecar::Request, facts: &'a Facts) -> impl Iterator<Item = &'a Connection> {
    facts.connections.iter().filter(move |c| {
        !c.peer.ip().is_loopback()
            && (has(&request.ports, c.peer.port()) || has(&request.inbound_ports, c.local.port()))
    })
}

/// What this host sends on a connection goes on as before.
fn pass(Connection { local, peer, .. }: &Connection) -> NftRule {
    let whole = if peer.is_ipv4() { 32 } else { 128 };
    NftRule::accept([
        Match::Family(family_of(peer.ip())),
        Match::Tcp,
        Match::Source(local.ip()),
        Match::SourcePort(local.port()..=local.port()),
        Match::Destination(peer.ip(), whole),
        Match::DestinationPort(peer.port()..=peer.port()),
    ])
}

/// The way of marked packets to this host, and then what marks them.
fn steps(chains: Vec<Chain>, doors: &[SocketAddr]) -> Vec<Step> {
    let mut steps = Vec::new();
    for family in doors.iter().map(|door| family_of(door.ip())) {
        let route = Route { kind: RouteKind::Local, device: None, ..Route::default_by(family, 0, TABLE) };
        steps.push(Step::Route { route, device: Some("lo".to_owned()) });
        let rule = Rule::new(family, PREF, RuleAction::Table(TABLE));
        steps.push(Step::Rule(Rule { mark: Some(MARK), ..rule }));
    }
    steps.push(Step::Table(Table { kind: TableKind::Inet, name: NFT_TABLE.to_owned(), chains }));
    steps
}

#[cfg(test)]
mod tests;
