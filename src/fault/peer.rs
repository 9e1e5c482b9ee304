//! Patterns of addresses, as in `10.81.2.0/24:5432`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;

/// Which addresses and ports a rule is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The network; any address without.
    net: Option<IpNet>,
    /// First and last port; any port without.
    ports: Option<(u16, u16)>,
}

impl Peer {
    /// The port, if only one is meant.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.ports.filter(|(from, to)| from == to).map(|(port, _)| port)
    }

    /// True if this address and port are meant.
    #[must_use]
    pub fn contains(&self, addr: SocketAddr) -> bool {
        self.net.is_none_or(|net| net.contains(&addr.ip()))
            && self.ports.is_none_or(|(from, to)| (from..=to).contains(&addr.port()))
    }
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (net, ports) = split(text.trim())?;
        Ok(Self { net: parse_net(net)?, ports: ports.map(parse_ports).transpose()?.flatten() })
    }
}

/// Takes the port off. IPv6 with a port needs brackets, as everywhere.
fn split(text: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (net, after) = rest.split_once(']').ok_or_else(|| format!("\"{text}\" lacks its \"]\""))?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((net, Some(port))),
            None if after.is_empty() => Ok((net, None)),
            None => Err(format!("\"{after}\" is not a port")),
        };
    }
    match text.split_once(':') {
        Some((net, port)) if !port.contains(':') => Ok((net, Some(port))),
        _ => Ok((text, None)),
    }
}

fn parse_net(text: &str) -> Result<Option<IpNet>, String> {
    if matches!(text, "" | "any" | "*") {
        return Ok(None);
    }
    let net = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    net.map(|net| Some(net.trunc())).map_err(|_| format!("\"{text}\" is neither an address nor a network"))
}

fn parse_ports(text: &str) -> Result<Option<(u16, u16)>, String> {
    if matches!(text, "any" | "*") {
        return Ok(None);
    }
    let port = |t: &str| t.parse::<u16>().map_err(|_| format!("\"{t}\" is not a port"));
    let (from, to) = match text.split_once('-') {
        Some((from, to)) => (port(from)?, port(to)?),
        None => (port(text)?, port(text)?),
    };
    if from > to { Err(format!("\"{text}\" runs backwards")) } else { Ok(Some((from, to))) }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.net, self.ports) {
            (None, None) => return f.write_str("any"),
            (Some(IpNet::V6(net)), Some(_)) => write!(f, "[{net}]")?,
            (Some(net), _) => write!(f, "{net}")?,
            (None, Some(_)) => {}
        }
        match self.ports {
            Some((from, to)) if from == to => write!(f, ":{from}"),
            Some((from, to)) => write!(f, ":{from}-{to}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_address_and_port() {
        for (pattern, printed, inside, outside) in [
            ("any", "any", "10.0.0.1:1", ""),
            ("10.81.2.0/24:5432", "10.81.2.0/24:5432", "10.81.2.9:5432", "10.81.2.9:5433"),
            ("10.81.2.7/24", "10.81.2.0/24", "10.81.2.9:1", "10.81.3.9:1"),
            ("10.0.0.1", "10.0.0.1/32", "10.0.0.1:9", "10.0.0.2:9"),
            (":80-89", ":80-89", "[::1]:85", "[::1]:90"),
            ("*:443", ":443", "1.2.3.4:443", "1.2.3.4:80"),
            ("fd00::/8", "fd00::/8", "[fd00::1]:1", "[fe80::1]:1"),
            ("[fd00::1]:443", "[fd00::1/128]:443", "[fd00::1]:443", "[fd00::1]:80"),
        ] {
            let peer: Peer = pattern.parse().unwrap();
            assert_eq!(peer.to_string(), printed);
            assert_eq!(printed.parse(), Ok(peer), "{printed}");
            assert!(peer.contains(inside.parse().unwrap()), "{pattern}");
            assert!(outside.is_empty() || !peer.contains(outside.parse().unwrap()), "{pattern}");
        }
    }

    #[test]
    fn what_is_not_a_pattern_is_said() {
        for (text, problem) in [
            ("10.0.0.0/33", "\"10.0.0.0/33\" is neither an address nor a network"),
            ("localhost:80", "\"localhost\" is neither an address nor a network"),
            ("10.0.0.1:http", "\"http\" is not a port"),
            ("10.0.0.1:90-80", "\"90-80\" runs backwards"),
            ("[::1", "\"[::1\" lacks its \"]\""),
            ("[::1]80", "\"80\" is not a port"),
        ] {
            assert_eq!(text.parse::<Peer>(), Err(problem.to_owned()));
        }
    }
}
