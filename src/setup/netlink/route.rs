//! Routes.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::message::{Message, attribute, ip, u32_at};
use super::{Family, NLM_F_CREATE, NLM_F_REPLACE, Netlink, PROTOCOL};

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTAX_ADVMSS: u16 = 8;
const RTA_TABLE: u16 = 15;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RT_SCOPE_HOST: u8 = 254;
const RTN_UNICAST: u8 = 1;
const RTN_BLACKHOLE: u8 = 6;
const RTN_UNREACHABLE: u8 = 7;
const RTN_PROHIBIT: u8 = 8;

/// What happens to a packet that takes a route. The kinds other than unicast answer with an ICMP error or not at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RouteKind {
    /// It goes out.
    #[default]
    Unicast = 1,
    /// It is for this host, whatever its destination.
    Local = 2,
    /// It is dropped silently.
    Blackhole = 6,
    /// It is answered by host unreachable.
    Unreachable = 7,
    /// It is answered by administratively prohibited.
    Prohibit = 8,
    /// The lookup in this table ends, and the next rule is asked.
    Throw = 9,
}

impl RouteKind {
    const fn of(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Unicast,
            2 => Self::Local,
            6 => Self::Blackhole,
            7 => Self::Unreachable,
            8 => Self::Prohibit,
            9 => Self::Throw,
            _ => return None,
        })
    }
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination and prefix length; `None`: default.
    pub to: Option<(IpAddr, u8)>,
    /// IPv4 or IPv6.
    pub family: Family,
    /// Number of the interface it leaves by.
    pub device: Option<u32>,
    /// The next hop.
    pub via: Option<IpAddr>,
    /// The source address that a local connection gets.
    pub source: Option<IpAddr>,
    /// The MSS that a local connection offers, in bytes; `None`: what fits the interface.
    pub mss: Option<u32>,
    /// The table; 254 is `main`.
    pub table: u32,
    /// What happens.
    pub kind: RouteKind,
}

impl Route {
    /// The main table.
    pub const MAIN: u32 = 254;

    /// A default route into a device.
    #[must_use]
    pub const fn default_by(family: Family, device: u32, table: u32) -> Self {
        Self {
            to: None,
            family,
            device: Some(device),
            via: None,
            source: None,
            mss: None,
            table,
            kind: RouteKind::Unicast,
        }
    }

    /// `struct rtmsg` and the attributes.
    fn message(&self, kind: u16, flags: u16) -> Message {
        let scope = match (self.via, self.kind, self.device) {
            (None, RouteKind::Unicast, Some(_)) => RT_SCOPE_LINK,
            (_, RouteKind::Local, _) => RT_SCOPE_HOST,
            _ => RT_SCOPE_UNIVERSE,
        };
        let table = u8::try_from(self.table).unwrap_or(0);
        let prefix = self.to.map_or(0, |(_, prefix)| prefix);
        let fixed = [self.family.number(), prefix, 0, 0, table, PROTOCOL, scope, self.kind as u8, 0, 0, 0, 0];
        let mut message = Message::new(kind, flags, &fixed).with_u32(RTA_TABLE, self.table);
        if let Some((to, _)) = self.to {
            message = message.with_ip(RTA_DST, to);
        }
        if let Some(device) = self.device {
            message = message.with_u32(RTA_OIF, device);
        }
        if let Some(via) = self.via {
            message = message.with_ip(RTA_GATEWAY, via);
        }
        if let Some(source) = self.source {
            message = message.with_ip(RTA_PREFSRC, source);
        }
        if let Some(mss) = self.mss {
            message = message.nest(RTA_METRICS, |m| m.with_u32(RTAX_ADVMSS, mss));
        }
        message
    }

    /// Reads one of our own routes, as far as it takes to name it.
    fn parse_own(body: &[u8], family: Family) -> Option<Self> {
        if body.get(5) != Some(&PROTOCOL) {
            return None;
        }
        let route = Self::parse(body, family)?;
        matches!(route.kind, RouteKind::Unicast | RouteKind::Local | RouteKind::Throw).then_some(Self {
            via: None,
            source: None,
            mss: None,
            ..route
        })
    }

    fn parse(body: &[u8], family: Family) -> Option<Self> {
        let (attrs, fixed) = (body.get(12..)?, body.get(..12)?);
        let number = |attr| attribute(attrs, attr).and_then(|v| u32_at(v, 0));
        let metrics = attribute(attrs, RTA_METRICS);
        Some(Self {
            to: attribute(attrs, RTA_DST).and_then(ip).map(|ip| (ip, fixed[1])),
            family,
            device: number(RTA_OIF),
            via: attribute(attrs, RTA_GATEWAY).and_then(ip),
            source: attribute(attrs, RTA_PREFSRC).and_then(ip),
            mss: metrics.and_then(|m| attribute(m, RTAX_ADVMSS)).and_then(|v| u32_at(v, 0)),
            table: number(RTA_TABLE)?,
            kind: RouteKind::of(fixed[7])?,
        })
    }
}

/// Destination and prefix length of a route of the main table to somewhere else, even if it only leads to an error.
fn parse_destination(body: &[u8], family: Family) -> Option<(IpAddr, u8)> {
    let (attrs, fixed) = (body.get(12..)?, body.get(..12)?);
    let table = attribute(attrs, RTA_TABLE).and_then(|v| u32_at(v, 0))?;
    let elsewhere = [RTN_UNICAST, RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT].contains(&fixed[7]);
    let all = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let to = attribute(attrs, RTA_DST).map_or(Some(all), ip)?;
    let local = match to {
        IpAddr::V4(to) => to.is_loopback() || to.is_multicast(),
        IpAddr::V6(to) => to.is_loopback() || to.is_multicast() || to.is_unicast_link_local(),
    };
    (table == Route::MAIN && elsewhere && !local).then_some((to, fixed[1]))
}

impl fmt::Display for Route {
    /// As `ip route` takes it, without the device, whose name a route does not know.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            RouteKind::Throw => f.write_str("throw ")?,
            RouteKind::Local => f.write_str("local ")?,
            _ => {}
        }
        match self.to {
            Some((ip, prefix)) => write!(f, "{ip}/{prefix}"),
            None => f.write_str("default"),
        }
    }
}

impl Netlink {
    /// Adds a route or replaces the one to the same destination.
    pub fn add_route(&mut self, route: &Route) -> io::Result<()> {
        self.change(NLM_F_CREATE | NLM_F_REPLACE, |flags| route.message(RTM_NEWROUTE, flags))
    }

    /// Removes a route.
    pub fn delete_route(&mut self, route: &Route) -> io::Result<()> {
        self.change(0, |flags| route.message(RTM_DELROUTE, flags))
    }

    /// Where the main table leads to, other than this host: destination and prefix length, 0 for the default route.
    pub fn destinations(&mut self, family: Family) -> io::Result<Vec<(IpAddr, u8)>> {
        let mut destinations = Vec::new();
        let fixed = [family.number(), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        self.list(
            |flags| Message::new(RTM_GETROUTE, flags, &fixed),
            |body| destinations.extend(parse_destination(body, family)),
        )?;
        destinations.sort_unstable();
        destinations.dedup();
        Ok(destinations)
    }

    /// The routes of the main table; of those to one destination the preferred one comes first.
    pub fn main_routes(&mut self, family: Family) -> io::Result<Vec<Route>> {
        let mut routes = Vec::new();
        let fixed = [family.number(), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        self.list(
            |flags| Message::new(RTM_GETROUTE, flags, &fixed),
            |body| routes.extend(Route::parse(body, family).filter(|route| route.table == Route::MAIN)),
        )?;
        Ok(routes)
    }

    /// The unicast, local and throw routes that carry our protocol number, in all tables.
    pub fn own_routes(&mut self, family: Family) -> io::Result<Vec<Route>> {
        let mut routes = Vec::new();
        let fixed = [family.number(), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        self.list(
            |flags| Message::new(RTM_GETROUTE, flags, &fixed),
            |body| routes.extend(Route::parse_own(body, family)),
        )?;
        Ok(routes)
    }
}
