//! Listeners: addresses of this host, and what stands behind each.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::units::{HINT, Scalar, from_text};

/// An address and port of this host, such as `0.0.0.0:5432` or `[::]:5432`; port 1 to 65534.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddr(pub SocketAddr);

impl FromStr for ListenAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let address: SocketAddr = text.parse().map_err(|_| {
            let at = if text.parse::<u16>().is_ok() {
                format!("0.0.0.0:{text}")
            } else {
                "0.0.0.0:5432".to_owned()
            };
            format!("not an address and a port{HINT}write both, such as \"{at}\" or \"[::]:5432\"")
        })?;
        match address {
            _ if matches!(address.port(), 0 | u16::MAX) => {
                Err(format!("nothing can listen at port {}{HINT}ports go from 1 to 65534", address.port()))
            }
            SocketAddr::V6(v6) if v6.scope_id() != 0 || v6.ip().is_unicast_link_local() => Err(format!(
                "nothing can listen at a link-local address{HINT}use a global one, or [::] for all"
            )),
            _ => Ok(Self(address)),
        }
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A server by name or address, and its port: `db:5432`, `[fd00::1]:5432`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// A name or an address, without brackets.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
}

impl FromStr for Upstream {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad =
            || format!("not a host and a port{HINT}write both, such as \"db:5432\" or \"[fd00::1]:5432\"");
        let (host, port) = text.trim().rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(bad)?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(host) => host.parse::<std::net::Ipv6Addr>().map(|_| host).map_err(|_| bad())?,
            // Without brackets it would not be clear where the address ends.
            None if host.contains(':') => return Err(bad()),
            None => host,
        };
        let is_name = |host: &str| {
            !host.is_empty() && host.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '.' | '_'))
        };
        if host.parse::<IpAddr>().is_ok() || is_name(host) {
            Ok(Self { host: host.to_owned(), port })
        } else {
            Err(bad())
        }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

from_text! {
    ListenAddr: "an address and a port, such as \"0.0.0.0:5432\"",
    Upstream: "a host and a port, such as \"db:5432\"",
}

impl Serialize for ListenAddr {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl Serialize for Upstream {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// Where clients arrive, and where their connections go on to: a table, or `0.0.0.0:5432=db:5432`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listener {
    /// An address of this host; unspecified: all of its family.
    pub listen: ListenAddr,
    /// What stands behind it.
    pub upstream: Upstream,
}

impl FromStr for Listener {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (listen, upstream) = text.split_once('=').ok_or_else(|| {
            format!("names no upstream{HINT}write ADDR:PORT=HOST:PORT, such as \"0.0.0.0:5432=db:5432\"")
        })?;
        Ok(Self { listen: listen.parse()?, upstream: upstream.parse()? })
    }
}

impl<'de> Deserialize<'de> for Listener {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            listen: ListenAddr,
            upstream: Upstream,
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Listener;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a listener, such as { listen = \"0.0.0.0:5432\", upstream = \"db:5432\" }")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Listener, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Listener, A::Error> {
                let Table { listen, upstream } =
                    Table::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(Listener { listen, upstream })
            }
        }
        d.deserialize_any(Either)
    }
}

/// A port of the command of `exec` that clients outside reach: `[ADDR:]PORT[:PORT]`, where the address is the caller's
/// (127.0.0.1 if none is given), and the second port that of the command (the same if none is given).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Where clients connect.
    pub listen: ListenAddr,
    /// The port inside.
    pub port: u16,
}

impl FromStr for Publish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "not of the form [ADDR:]PORT[:PORT]{HINT}write \"8080\", \"8080:80\" or \"0.0.0.0:8080:80\""
            )
        };
        let port = |text: &str| text.parse().ok().filter(|port: &u16| *port != 0);
        let text = text.trim();
        if text.starts_with(':') {
            return Err(bad());
        }
        // The last colons part ports; those before belong to the address.
        let (rest, last) = text.rsplit_once(':').unwrap_or(("", text));
        let last = port(last).ok_or_else(bad)?;
        let (before, second) = rest.rsplit_once(':').unwrap_or(("", rest));
        let (address, outside) = match port(second) {
            Some(outside) if !rest.ends_with(']') => (before, outside),
            _ => (rest, last),
        };
        let ip: IpAddr = match address.strip_prefix('[').and_then(|address| address.strip_suffix(']')) {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().map_err(|_| bad())?.into(),
            None if address.is_empty() => std::net::Ipv4Addr::LOCALHOST.into(),
            None => address.parse::<std::net::Ipv4Addr>().map_err(|_| bad())?.into(),
        };
        Ok(Self { listen: ListenAddr(SocketAddr::new(ip, outside)), port: last })
    }
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.listen, self.port)
    }
}

from_text! { Publish: "a port to publish, such as \"8080:80\"" }

impl Serialize for Publish {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// What a list has in it.
pub trait Item: FromStr<Err = String> {
    /// What a list of it looks like.
    const LIST: &'static str;
}

impl Item for Listener {
    const LIST: &'static str = "a list of listeners, such as [\"0.0.0.0:5432=db:5432\"]";
}

impl Item for Publish {
    const LIST: &'static str = "a list of ports to publish, such as [8080, \"8081:80\"]";
}

/// A list, or one text with commas between its items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Item + Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Items<T>(std::marker::PhantomData<T>);
        impl<'de, T: Item + Deserialize<'de>> Visitor<'de> for Items<T> {
            type Value = List<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::LIST)
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<List<T>, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<List<T>, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<List<T>, E> {
                let parts = text.split(',').filter(|part| !part.trim().is_empty());
                parts.map(str::parse).collect::<Result<_, _>>().map(List).map_err(E::custom)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List<T>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(List(items))
            }
        }
        d.deserialize_any(Items(std::marker::PhantomData))
    }
}

impl<T: Serialize> Serialize for List<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_has_an_address_and_an_upstream() {
        for text in [
            "0.0.0.0:5432=db:5432",
            "[::]:80=[fd00::1]:8080",
            "127.0.0.1:1=192.0.2.1:65535",
            "10.0.0.1:65534=my_db.example-1.org:1",
        ] {
            let listener: Listener = text.parse().unwrap();
            assert_eq!(format!("{}={}", listener.listen, listener.upstream), text);
        }
    }

    #[test]
    fn a_published_port_has_an_address_and_a_port_inside() {
        for (text, whole) in [
            ("8080", "127.0.0.1:8080:8080"),
            ("8080:80", "127.0.0.1:8080:80"),
            ("0.0.0.0:8080", "0.0.0.0:8080:8080"),
            ("0.0.0.0:8080:80", "0.0.0.0:8080:80"),
            ("[::1]:8080", "[::1]:8080:8080"),
            ("[::]:8080:80", "[::]:8080:80"),
        ] {
            assert_eq!(text.parse::<Publish>().unwrap().to_string(), whole);
        }
        for text in ["", "0", "http", "8080:", ":80", "localhost:80", "1:2:3:4", "::1:80", "65536", "0:80"] {
            assert!(text.parse::<Publish>().unwrap_err().starts_with("not of the form"), "{text}");
        }
    }

    #[test]
    fn what_is_no_listener_is_told_with_an_example() {
        for (text, told) in [
            ("5432", "names no upstream\nwrite ADDR:PORT=HOST:PORT, such as \"0.0.0.0:5432=db:5432\""),
            (
                "5432=db:5432",
                "not an address and a port\nwrite both, such as \"0.0.0.0:5432\" or \"[::]:5432\"",
            ),
            (
                "localhost:80=db:80",
                "not an address and a port\nwrite both, such as \"0.0.0.0:5432\" or \"[::]:5432\"",
            ),
            ("0.0.0.0:0=db:80", "nothing can listen at port 0\nports go from 1 to 65534"),
            ("0.0.0.0:65535=db:80", "nothing can listen at port 65535\nports go from 1 to 65534"),
            (
                "[fe80::1]:80=db:80",
                "nothing can listen at a link-local address\nuse a global one, or [::] for all",
            ),
            ("0.0.0.0:80=db", "not a host and a port\nwrite both, such as \"db:5432\" or \"[fd00::1]:5432\""),
            (
                "0.0.0.0:80=db:0",
                "not a host and a port\nwrite both, such as \"db:5432\" or \"[fd00::1]:5432\"",
            ),
            (
                "0.0.0.0:80=http://db:80",
                "not a host and a port\nwrite both, such as \"db:5432\" or \"[fd00::1]:5432\"",
            ),
            (
                "0.0.0.0:80=fd00::1:80",
                "not a host and a port\nwrite both, such as \"db:5432\" or \"[fd00::1]:5432\"",
            ),
        ] {
            assert_eq!(text.parse::<Listener>().unwrap_err(), told, "{text}");
        }
    }
}
