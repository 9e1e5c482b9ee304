//! Which TCP ports listen on the loopback address of this network namespace, from `/proc/net/tcp` and `tcp6`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

/// `TCP_LISTEN` of include/net/tcp_states.h, as procfs prints it.
const LISTEN: &str = "0A";

/// The ports on which a connection to `127.0.0.1` would be taken, in ascending order. A kernel without IPv6 has no
/// `tcp6`.
pub fn on_loopback() -> io::Result<BTreeSet<u16>> {
    let mut ports = parse(&fs::read_to_string("/proc/self/net/tcp")?);
    if let Ok(text) = fs::read_to_string("/proc/self/net/tcp6") {
        ports.extend(parse(&text));
    }
    Ok(ports)
}

/// Joins neighbouring ports, because one routing rule can name a range.
#[must_use]
pub fn ranges(ports: &BTreeSet<u16>) -> Vec<RangeInclusive<u16>> {
    let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
    for &port in ports {
        match ranges.last_mut() {
            Some(last) if last.end().checked_add(1) == Some(port) => *last = *last.start()..=port,
            _ => ranges.push(port..=port),
        }
    }
    ranges
}

fn parse(text: &str) -> BTreeSet<u16> {
    text.lines().skip(1).filter_map(loopback_port).collect()
}

/// The port of one line, if it is a listener that takes connections to `127.0.0.1`.
fn loopback_port(line: &str) -> Option<u16> {
    let mut words = line.split_ascii_whitespace();
    let (local, state) = (words.nth(1)?, words.nth(1)?);
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let reachable = match parse_address(address)? {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_unspecified(),
        // An IPv6 wildcard takes IPv4 as well unless it is IPV6_V6ONLY, which procfs does not tell; then the connection
        // is refused outside instead of inside.
        IpAddr::V6(ip) => ip.is_unspecified() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback()),
    };
    (state == LISTEN && reachable).then_some(port)
}

/// procfs prints addresses as 32-bit words in the byte order of the machine.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let mut bytes = Vec::with_capacity(16);
    for at in (0..hex.len()).step_by(8) {
        let word = u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|b| Ipv4Addr::from(b).into()),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|b| Ipv6Addr::from(b).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(address: &str) -> String {
        let bytes = match address.parse().expect("an address") {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let words = bytes.chunks(4).map(|w| u32::from_ne_bytes(w.try_into().expect("four bytes")));
        words.map(|w| format!("{w:08X}")).collect()
    }

    #[test]
    fn a_listener_counts_if_loopback_reaches_it() {
        let table = [
            ("127.0.0.1", "0A", true),
            ("127.8.8.8", "0A", true),
            ("0.0.0.0", "0A", true),
            ("::", "0A", true),
            ("::ffff:127.0.0.1", "0A", true),
            ("127.0.0.1", "01", false), // a connection, not a listener
            ("192.0.2.1", "0A", false),
            ("::1", "0A", false), // not reachable at 127.0.0.1
            ("::ffff:192.0.2.1", "0A", false),
        ];
        for (address, state, counts) in table {
            let line = format!("   0: {}:1F90 00000000:0000 {state} 00000000:00000000", hex(address));
            assert_eq!(loopback_port(&line), counts.then_some(8080), "{address} {state}");
        }
    }

    #[test]
    fn text_that_is_no_table_has_no_listeners() {
        for text in
            ["", "head", "head\n", "head\n 0: xyz 0A", "head\n 0: 0100007F:XX 0 0A", "head\n 0: 01:1F90 0 0A"]
        {
            assert!(parse(text).is_empty(), "{text:?}");
        }
    }

    #[test]
    fn neighbours_become_one_range() {
        let ports = BTreeSet::from([0, 1, 5, 80, 81, 82, 65_535]);
        assert_eq!(ranges(&ports), [0..=1, 5..=5, 80..=82, 65_535..=65_535]);
    }
}
