//! `::1` in a sidecar. The kernel takes packets from and to it by `lo` alone, and no route leads them anywhere else. So frames of
//! intercepted connections are taken where they leave by `lo`, into a TAP device of ours, and what we write to that comes in by
//! `lo`: by nftables, whose table is gone with our process, so that a kill leaves nothing that could drop them (`tc` would).

use std::net::{IpAddr, Ipv6Addr};

use super::Error;
use super::facts::Facts;
use super::interception::{Interception, MARK_OWN, NFT_TABLE};
use super::netlink::Family;
use super::netlink::nft::{Action, Chain, Hook, Match, NftRule, Table, TableKind};
use super::plan::Step;
use super::sidecar::Request;
use crate::engine::tun::Device;

/// The name of the device.
const DEVICE: &str = "halfopen-lo";
const LOOPBACK: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// What takes connections to `::1`. `None` if there is no such address, or nobody dials it.
pub(super) fn plan(request: &Request, facts: &Facts) -> Option<[Step; 2]> {
    let is_there = facts.addresses.iter().any(|address| address.ip == LOOPBACK);
    (is_there && !request.ports.is_empty()).then(|| {
        let chains = vec![leaving(request, facts), coming()];
        let table = Table { kind: TableKind::Netdev, name: NFT_TABLE.to_owned(), chains };
        [Step::Tap { name: DEVICE.to_owned() }, Step::Table(table)]
    })
}

/// Adds it to an interception.
pub(super) fn up(interception: &mut Interception, steps: &[Step]) -> Result<(), Error> {
    interception.add(Device::open_tap(DEVICE)?, steps)
}

/// Frames of the application, and those of its servers to server legs.
fn leaving(request: &Request, facts: &Facts) -> Chain {
    let take = |ports: Vec<Match>| {
        // Who dials it from another address of this host gets its answers by routes, and so not by `lo` for us.
        let between = [Match::Source(LOOPBACK), Match::Destination(LOOPBACK, 128), Match::Tcp];
        let matches = std::iter::once(Match::FrameOf(Family::V6)).chain(between).chain(ports);
        NftRule::new(matches, [Action::Forward(DEVICE.to_owned())])
    };
    let mut rules = vec![NftRule::accept([Match::Mark(MARK_OWN)])];
    for range in &request.ports {
        rules.push(take(vec![Match::DestinationPort(range.clone())]));
        let mut answers = vec![Match::SourcePort(range.clone())];
        if !request.keeps_port(facts) {
            answers.push(Match::DestinationPort(request.source_ports.clone()));
        }
        rules.push(take(answers));
    }
    Chain { hook: Hook::Egress("lo".to_owned()), rules }
}

/// What we write. It leaves by `lo` once more before it comes in there.
fn coming() -> Chain {
    let actions = [Action::Mark(MARK_OWN), Action::ToHost, Action::Forward("lo".to_owned())];
    Chain { hook: Hook::Ingress(DEVICE.to_owned()), rules: vec![NftRule::new([], actions)] }
}
