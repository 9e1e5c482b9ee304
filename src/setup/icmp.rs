//! ICMP errors about segments of ours, and how they come to us instead of to sockets of this host.

use super::interception::{MARK, NFT_TABLE};
use super::netlink::nft::{Chain, Hook, Match, NftRule, Table, TableKind};
use super::netlink::{Family, Port, Rule, RuleAction};
use super::plan::Step;

/// Rules for the ICMP errors that this host itself sends, because it finds no route, no neighbour or too small an MTU for
/// a segment of ours: the client would not recognise the numbers in them. The kernel keeps the ICMP type and code of a
/// packet where ports are, so that rules can tell errors from the rest.
pub(super) fn own_icmp(family: Family, priority: u32, table: u32) -> impl Iterator<Item = Rule> {
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
        ..Rule::new(family, priority, RuleAction::Table(table))
    })
}

/// Marks the ICMPv6 errors that come in, but not by `device`, which is ours: for a host of its own, where routing rules cannot tell
/// them from neighbour discovery, because the kernel does not keep the type of a packet that comes in.
pub(super) fn mark_icmpv6_errors(device: &str) -> Step {
    let from = [Match::NotFrom("lo".to_owned()), Match::NotFrom(device.to_owned())];
    let rule = NftRule::mark(from.into_iter().chain([Match::Icmpv6Error]), MARK);
    let chains = vec![Chain { hook: Hook::Prerouting, rules: vec![rule] }];
    Step::Table(Table { kind: TableKind::Inet, name: NFT_TABLE.to_owned(), chains })
}
