//! Kernel sockets in the place of a device: nftables leads connections to listeners of ours, which then have the address
//! that the client dialled (TPROXY), in a gateway and in a sidecar. Only CAP_NET_ADMIN is needed, and no setting below
//! `/proc/sys` but what makes a gateway forward. The table is gone with our process, and connections are direct again.
//!
//! | packets | get | and go |
//! |---|---|---|
//! | first SYN to a port | held | nowhere, until its server has answered; while we stop, on in a gateway, and refused by this host in a sidecar |
//! | the same, answered | a mark of its answer | to one of our listeners, or back as a RST or an ICMP error |
//! | further ones of a connection of ours, on either side | a mark | to our sockets |
//! | from or to a socket that has fallen silent | | nowhere |
//! | marked ones | | by a table of their own to this host, whatever their destination |
//! | sidecar: from this host to a port, or from an inbound port to a socket of ours | a mark | back to this host, to the rows above |
//! | sidecar: of a connection that was there before, and from our own sockets | | on |
//!
//! A kernel that cannot hold a SYN leads it to our listener at once: then a client is accepted before its server is dialled.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;

use socket2::{Domain, Protocol, Socket, Type};

use super::connections::{Connection, connections};
use super::facts::{Facts, cannot_list, check_marks, family_of, has_ipv6, meet};
use super::interception::{Interception, MARK, MARK_OWN, NFT_TABLE, TABLE};
use super::listen::BACKLOG;
use super::netlink::nft::{Action, Chain, Hook, Match, NftRule, Queueing, Table, TableKind};
use super::netlink::{Family, Netlink, Ports, Route, RouteKind, Rule, RuleAction};
use super::plan::{Plan, Step};
use super::sidecar::{self, LINK_LOCAL_V6, MOST_BEFORE_US, in_compose};
use super::{Error, gateway, sysctl};
use crate::engine::sockets::{AnswerMarks, Cut, Queue, UNREACHABLE, be_transparent};

/// Where our listeners are, unless somebody has this port of the loopback address already.
const DOOR: u16 = 10_400;
/// The same of those that are told what their SYN-ACKs offer.
const OFFERING_DOOR: u16 = 10_401;
const PREF: u32 = 10;

/// The number of our queue.
const QUEUE: u16 = 10_400;
/// The marks of our sockets.
pub const CUT: Cut = Cut { own: MARK_OWN, silent: 10_402 };
/// How the packet filter knows what becomes of a SYN that was held.
const ANSWERS: AnswerMarks =
    AnswerMarks { answered: 10_403, reset: 10_404, offered: 10_405, unreachable: 10_416 };

/// An interception that is up.
#[derive(Debug)]
pub struct Up {
    /// The interception.
    pub interception: Interception,
    /// The listeners that it leads to.
    pub listeners: Vec<TcpListener>,
    /// Where first SYNs wait, if this kernel can hold them.
    pub queue: Option<Queue>,
}

/// Puts a gateway up.
pub fn gateway(request: &gateway::Request) -> Result<Up, Error> {
    up(|netlink, ways| gateway_plan(request, gateway::Facts::gather(netlink)?, ways))
}

/// Puts a sidecar up.
pub fn sidecar(request: &sidecar::Request) -> Result<Up, Error> {
    let (mut silence, mut clients) = (None, Vec::new());
    let plan = |netlink: &mut Netlink, ways: &Ways| {
        let mut facts = Facts::gather(netlink)?;
        // If it cannot be made, nor can our table be, and that one says why.
        silence = silent(request, &facts).make().ok();
        facts.connections = connections().map_err(cannot_list)?;
        let before = before_us(request, &facts).take(MOST_BEFORE_US);
        let from_outside = before.filter(|c| has(&request.inbound_ports, c.local.port()));
        clients = from_outside.map(|c| c.peer).collect();
        sidecar_plan(request, &facts, ways)
    };
    let mut up = up(plan).map_err(in_compose)?;
    drop(silence);
    up.interception._reserved = clients.into_iter().filter_map(|client| occupy(client).ok()).collect();
    let facts = Facts::gather(&mut Netlink::open()?)?;
    up.interception.watch(&facts.outside(&request.device).collect::<Vec<_>>());
    Ok(up)
}

/// What [`gateway()`] would do, for `--dry-run`.
pub fn dry_run_gateway(request: &gateway::Request) -> Result<Plan, Error> {
    gateway_plan(request, gateway::Facts::gather(&mut Netlink::open()?)?, &Ways::preferred()?)
}

/// What [`sidecar()`] would do, for `--dry-run`.
pub fn dry_run_sidecar(request: &sidecar::Request) -> Result<Plan, Error> {
    sidecar_plan(request, &Facts::gather(&mut Netlink::open()?)?, &Ways::preferred()?)
}

/// The ways to our sockets.
struct Ways {
    doors: Vec<SocketAddr>,
    /// Those whose SYN-ACKs offer what they are told to, where SYNs are held.
    offering: Vec<SocketAddr>,
    /// How first SYNs are held.
    queueing: Option<Queueing>,
}

impl Ways {
    fn preferred() -> Result<Self, Error> {
        let queueing = queueing();
        let offering = if queueing.is_some() { doors(OFFERING_DOOR)? } else { Vec::new() };
        Ok(Self { doors: doors(DOOR)?, offering, queueing })
    }
}

/// What puts SYNs into our queue. Who may not ask, as in a dry run, hopes for the best.
fn queueing() -> Option<Queueing> {
    Queueing::find().unwrap_or(Some(Queueing::Expression))
}

fn up(plan: impl FnOnce(&mut Netlink, &Ways) -> Result<Plan, Error>) -> Result<Up, Error> {
    // Before the table, so that no SYN finds nobody.
    let (mut listeners, doors) = listen(DOOR)?;
    let queueing = queueing();
    let (mut queue, lacks) = match queueing.map(|_| Queue::bind(QUEUE, ANSWERS)) {
        Some(Ok(queue)) => (Some(queue), None),
        Some(Err(e)) => (
            None,
            Some(format!(
                "queue {QUEUE} of the packet filter cannot be had, another program may have it ({e})"
            )),
        ),
        None => (None, Some("this kernel has no NFQUEUE for nftables".to_owned())),
    };
    let mut ways = Ways { doors, offering: Vec::new(), queueing: queueing.filter(|_| queue.is_some()) };
    if let Some(queue) = &mut queue {
        let (more, offering) = listen(OFFERING_DOOR)?;
        let handles: io::Result<_> = more.iter().map(TcpListener::try_clone).collect();
        queue.offer_by(handles.map_err(|e| Error::from_io("cannot keep a listener at hand", &e))?);
        listeners.extend(more);
        ways.offering = offering;
    }
    let mut interception = Interception::up(|netlink| plan(netlink, &ways), None)?;
    let note = |lacks| format!("a client is accepted before its server is dialled: {lacks}");
    interception.notes.extend(lacks.map(note));
    Ok(Up { interception, listeners, queue })
}

/// Listens at this port or at others, and tells where.
fn listen(port: u16) -> Result<(Vec<TcpListener>, Vec<SocketAddr>), Error> {
    let listeners = doors(port)?.into_iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let at: io::Result<_> = listeners.iter().map(TcpListener::local_addr).collect();
    let at = at.map_err(|e| Error::from_io("cannot tell the address of a listener", &e))?;
    Ok((listeners, at))
}

/// Where our listeners want to be: at this port of the loopback address of each family that there is.
fn doors(port: u16) -> Result<Vec<SocketAddr>, Error> {
    let v6_off = sysctl::read("net/ipv6/conf/lo/disable_ipv6")
        .map_err(|e| Error::from_io("cannot tell whether there is IPv6", &e))?;
    let v6 = (v6_off.as_deref() == Some("0")).then_some(IpAddr::V6(Ipv6Addr::LOCALHOST));
    let all = [IpAddr::V4(Ipv4Addr::LOCALHOST)].into_iter().chain(v6);
    Ok(all.map(|ip| SocketAddr::new(ip, port)).collect())
}

/// Listens at an address, or at another port of it.
fn open(at: SocketAddr) -> Result<TcpListener, Error> {
    let opened = || -> io::Result<TcpListener> {
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
    opened().map_err(|e| Error::from_io(format_args!("cannot listen at {at} for other addresses"), &e))
}

fn gateway_plan(request: &gateway::Request, facts: gateway::Facts, ways: &Ways) -> Result<Plan, Error> {
    let v6_passes_by = facts.ipv6 != gateway::Ipv6::Off && !ways.doors.iter().any(SocketAddr::is_ipv6);
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
    let mut rules = Vec::from(ours());
    // A program of this host would answer the client, not our socket that has its address.
    rules.push(NftRule::accept([Match::Tcp, Match::Syn, Match::ForThisHost]));
    let before = vec![rules[rules.len() - 1].clone()];
    let taken = to_us(&[client], &request.ports, ways);
    let sent = Chain { hook: Hook::Output, rules: vec![silence()] };
    let chains = arriving(ways, before, rules, taken).into_iter().chain([sent]);
    plan.steps.extend(steps(chains.collect(), &ways.doors));
    Ok(plan)
}

fn sidecar_plan(request: &sidecar::Request, facts: &Facts, ways: &Ways) -> Result<Plan, Error> {
    request.check_taken()?;
    check_marks(facts.marks_lead_back, facts.outside(&request.device))?;
    let lo = || "lo".to_owned();
    let has_v6 = ways.doors.iter().any(SocketAddr::is_ipv6);
    // An address that means another host on each link.
    let link_local = Match::Destination(LINK_LOCAL_V6.0, LINK_LOCAL_V6.1);
    let link_local = [Match::Family(Family::V6), link_local];
    let link_local = has_v6.then(|| NftRule::accept(link_local));
    let mut rules: Vec<NftRule> = link_local.clone().into_iter().collect();
    let mut before = rules.clone();
    // Of IPv4 it can send no ICMP error from an address that it does not have.
    let error = [Match::From(lo()), Match::Family(Family::V4), Match::MarkBlock(ANSWERS.unreachable)];
    before.push(reset(error));
    rules.extend(ours());
    let mut taken = to_us(&[Match::From(lo()), Match::Mark(MARK)], &request.ports, ways);
    taken.extend(to_us(&[Match::NotFrom(lo()), Match::ForThisHost], &request.inbound_ports, ways));
    let mut chains = arriving(ways, before, rules, taken);

    let mut rules = vec![silence(), NftRule::accept([Match::Mark(MARK_OWN)])];
    rules.extend(link_local);
    rules.extend(before_us(request, facts).take(MOST_BEFORE_US).map(pass));
    let mark = |matches: Vec<Match>| NftRule::mark(matches, MARK);
    rules.extend(to_take(request, facts.port_range.as_ref()).into_iter().map(mark));
    chains.push(Chain { hook: Hook::Output, rules });

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
    Ok(Plan { steps: steps(chains, &ways.doors), notes })
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
        let matches = [Match::Tcp, Match::SourcePort(range.clone())].into_iter().chain(client);
        of_the_service().map(|which| matches.clone().chain(which).collect())
    };
    request.ports.iter().map(to_server).chain(request.inbound_ports.iter().flat_map(to_client)).collect()
}

/// What leaves an inbound port for our legs. RSTs that the kernel makes by itself have the DSCP of our legs, unless they are for
/// clients, as those of our own table, which refuses. Since Linux 6.13 those of a listener have its program: a stranger to it hears
/// nothing.
fn of_the_service() -> [Vec<Match>; 4] {
    let answer = |family| vec![Match::Family(family), Match::HasDscp(family)];
    [vec![Match::NotReset], answer(Family::V4), answer(Family::V6), vec![Match::OfProgram]]
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

/// First SYNs to these ports wait in our queue, or go to our listeners.
fn to_us(from: &[Match], ports: &[RangeInclusive<u16>], ways: &Ways) -> Vec<NftRule> {
    let rule = |range: &RangeInclusive<u16>, to: SocketAddr| {
        let of_family = [Match::Family(family_of(to.ip())), Match::Tcp];
        let first = [Match::DestinationPort(range.clone()), Match::Syn];
        let matches = from.iter().cloned().chain(of_family).chain(first);
        match ways.queueing {
            Some(queueing) => NftRule::new(matches, [Action::Queue(QUEUE, queueing)]),
            None => to_door(matches, to),
        }
    };
    ports.iter().flat_map(|range| ways.doors.iter().map(move |to| rule(range, *to))).collect()
}

fn to_door(matches: impl IntoIterator<Item = Match>, to: SocketAddr) -> NftRule {
    NftRule::new(matches, [Action::Tproxy(to), Action::Mark(MARK), Action::Accept])
}

/// The chains of what comes in. SYNs are held before connection tracking has seen them: for it, the server leg of a gateway is the
/// same connection, and of two first packets of one it loses the second.
fn arriving(
    ways: &Ways,
    mut before: Vec<NftRule>,
    mut rules: Vec<NftRule>,
    taken: Vec<NftRule>,
) -> Vec<Chain> {
    if ways.queueing.is_none() {
        rules.extend(taken);
        return vec![Chain { hook: Hook::Prerouting, rules }];
    }
    before.insert(0, NftRule::accept([Match::Tcp, Match::NotSyn]));
    before.extend(answers(ways).chain(taken));
    let accepted = ways.doors.iter().map(|to| answered(ANSWERS.answered, *to));
    let offered = ways.offering.iter().map(|to| answered(ANSWERS.offered, *to));
    rules.extend(accepted.chain(offered));
    vec![Chain { hook: Hook::Arriving, rules: before }, Chain { hook: Hook::Prerouting, rules }]
}

/// What becomes of SYNs that were held.
fn answers(ways: &Ways) -> impl Iterator<Item = NftRule> {
    let unreachable = |to: &SocketAddr| {
        let family = family_of(to.ip());
        UNREACHABLE[usize::from(to.is_ipv6())].iter().map(move |code| {
            let matches = [Match::Family(family), Match::Mark(ANSWERS.unreachable + u32::from(*code))];
            NftRule::new(matches, [Action::Unreachable(family, *code)])
        })
    };
    let goes_on = [ANSWERS.answered, ANSWERS.offered].map(|mark| NftRule::accept([Match::Mark(mark)]));
    let resets = reset([Match::Mark(ANSWERS.reset)]);
    [resets].into_iter().chain(goes_on).chain(ways.doors.iter().flat_map(unreachable))
}

/// A SYN with this mark is for our listener.
fn answered(mark: u32, to: SocketAddr) -> NftRule {
    to_door([Match::Family(family_of(to.ip())), Match::Tcp, Match::Mark(mark)], to)
}

fn reset(matches: impl IntoIterator<Item = Match>) -> NftRule {
    NftRule::new([Match::Tcp].into_iter().chain(matches), [Action::Reset])
}

/// Packets for our sockets, but for SYNs: one for a connection of ours in TIME-WAIT opens a new one.
fn ours() -> [NftRule; 4] {
    let silent = [Match::Tcp, Match::NotSyn, Match::SocketMark(CUT.silent)];
    // Routers answer to the address of the client, which our socket has.
    let error = |family| NftRule::mark([Match::Icmp(family), Match::Transparent], MARK);
    [
        NftRule::new(silent, [Action::Drop]),
        NftRule::mark([Match::Tcp, Match::NotSyn, Match::Transparent], MARK),
        error(Family::V4),
        error(Family::V6),
    ]
}

/// What sockets of ours send that have fallen silent.
fn silence() -> NftRule {
    NftRule::new([Match::Mark(CUT.silent)], [Action::Drop])
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
