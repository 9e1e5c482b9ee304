use super::*;
use crate::setup::netlink::RouteKind;

const ETH0: u32 = 2;

pub(in crate::setup) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A container: one interface, a default route, IPv4 and IPv6.
pub(in crate::setup) fn facts(ipv6: Ipv6) -> Facts {
    let link = |index, name: &str, flags: i32| Link::for_test(index, name, flags as u32);
    let address = |device, text, prefix| Address { device, ip: ip(text), prefix };
    let route = |family, to: Option<(&str, u8)>, via: Option<&str>, kind| Route {
        to: to.map(|(to, prefix)| (ip(to), prefix)),
        via: via.map(ip),
        kind,
        ..Route::default_by(family, ETH0, Route::MAIN)
    };
    let unicast = RouteKind::Unicast;
    Facts {
        links: vec![
            link(1, "lo", libc::IFF_UP | libc::IFF_LOOPBACK),
            link(ETH0, "eth0", libc::IFF_UP),
            link(4, "down0", 0),
        ],
        addresses: vec![
            address(1, "127.0.0.1", 8),
            address(ETH0, "172.18.0.3", 16),
            address(1, "::1", 128),
            address(ETH0, "fd18::3", 64),
            address(ETH0, "fe80::3", 64),
        ],
        routes: vec![
            route(Family::V4, None, Some("172.18.0.1"), unicast),
            route(Family::V4, Some(("10.9.0.0", 16)), None, RouteKind::Unreachable),
            route(Family::V4, Some(("172.18.0.0", 16)), None, unicast),
            route(Family::V6, Some(("fd18::", 64)), None, unicast),
            route(Family::V6, Some(("fe80::", 64)), None, unicast),
            route(Family::V6, None, Some("fd18::1"), unicast),
        ],
        local_rules: Family::ALL.map(|family| LocalRule { family, priority: 0, is_own: false }).into(),
        ipv6,
        rp_filter: false,
        marks_lead_back: false,
        nftables: true,
        port_range: Some(32_768..=60_999),
        given_out: vec![32_768..=60_999],
        connections: Vec::new(),
        early_demux: true,
    }
}

#[test]
fn reserved_ports_are_not_given_out() {
    let left = |reserved: &str| without_reserved(32_768..=60_999, reserved);
    assert_eq!(left(""), [32_768..=60_999]);
    assert_eq!(left("40000-40009,50000"), [32_768..=39_999, 40_010..=49_999, 50_001..=60_999]);
    assert_eq!(left("1-65535"), []);
    assert_eq!(left("60000-65535,32768"), [32_769..=59_999]);
}
