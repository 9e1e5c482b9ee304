//! The caller's `/etc/resolv.conf`, and the one that a command in a namespace of its own sees instead.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Where the C library looks.
pub const PATH: &str = "/etc/resolv.conf";
/// The C library uses no more name servers than these (`MAXNS` of resolv.h).
pub const MAX_NAMESERVERS: usize = 3;

/// What `/etc/resolv.conf` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolv {
    /// The name servers in their order; the local host where the file names none, as in the C library.
    pub nameservers: Vec<SocketAddr>,
    /// Every other line: search domains and options.
    rest: Vec<String>,
}

impl Resolv {
    /// Reads the caller's file; one that is not there is empty.
    pub fn read() -> io::Result<Self> {
        match fs::read_to_string(PATH) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self::parse("")),
            Err(e) => Err(e),
        }
    }

    /// Reads the file's text. Lines that the C library would not understand are passed on and otherwise ignored.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut nameservers = Vec::new();
        let mut rest = Vec::new();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match (words.next(), words.next()) {
                (Some("nameserver"), Some(address)) => nameservers.extend(parse_address(address)),
                (Some(word), _) if !word.starts_with(['#', ';']) => rest.push(line.to_owned()),
                _ => {}
            }
        }
        nameservers.truncate(MAX_NAMESERVERS);
        if nameservers.is_empty() {
            nameservers.push(SocketAddr::from((Ipv4Addr::LOCALHOST, 53)));
        }
        Self { nameservers, rest }
    }

    /// The same file with the name servers replaced, one for one, by those at `first` and the addresses after it, so
    /// that a dead first server costs the command what it would cost it outside.
    #[must_use]
    pub fn with_nameservers_from(&self, first: Ipv4Addr) -> String {
        let mut text = String::new();
        for i in 0..self.nameservers.len() as u32 {
            text += &format!("nameserver {}\n", Ipv4Addr::from_bits(first.to_bits() + i));
        }
        for line in &self.rest {
            text += &format!("{line}\n");
        }
        text
    }
}

/// An address as in resolv.conf; a zone as in `fe80::1%eth0` is not supported by our sockets and skips the server.
fn parse_address(text: &str) -> Option<SocketAddr> {
    text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 53))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_replaced_one_for_one_and_the_rest_stays() {
        let text = "# made by hand\nsearch corp.example example\nnameserver 127.0.0.53\nnameserver  fd00::1\noptions ndots:5\n";
        let resolv = Resolv::parse(text);
        let expected = ["127.0.0.53:53", "[fd00::1]:53"].map(|a| a.parse().expect("an address"));
        assert_eq!(resolv.nameservers, expected);
        assert_eq!(
            resolv.with_nameservers_from(Ipv4Addr::new(10, 0, 2, 3)),
            "nameserver 10.0.2.3\nnameserver 10.0.2.4\nsearch corp.example example\noptions ndots:5\n"
        );
    }

    #[test]
    fn a_file_without_name_servers_means_the_local_host() {
        for text in ["", "nameserver\n", "nameserver not-an-address\n", "; nameserver 192.0.2.1\n"] {
            let resolv = Resolv::parse(text);
            assert_eq!(resolv.nameservers, ["127.0.0.1:53".parse().expect("an address")], "{text:?}");
        }
    }

    #[test]
    fn the_fourth_name_server_is_never_asked() {
        let text: String = (1..=5).map(|i| format!("nameserver 192.0.2.{i}\n")).collect();
        assert_eq!(Resolv::parse(&text).nameservers.len(), MAX_NAMESERVERS);
    }
}
