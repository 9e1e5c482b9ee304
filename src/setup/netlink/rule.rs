//! Policy routing rules.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::message::{Message, attribute, ip, text, u16_at, u32_at};
use super::{NLM_F_CREATE, NLM_F_EXCL, Netlink, PROTOCOL};

const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const RTM_GETRULE: u16 = 34;
const FRA_DST: u16 = 1;
const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_GOTO: u16 = 4;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FRA_PROTOCOL: u16 = 21;
const FRA_IP_PROTO: u16 = 22;
const FRA_SPORT_RANGE: u16 = 23;
const FRA_DPORT_RANGE: u16 = 24;
const TABLE_LOCAL: u32 = 255;
const FR_ACT_TO_TBL: u8 = 1;
const FR_ACT_GOTO: u8 = 2;
const FR_ACT_NOP: u8 = 3;
const FR_ACT_BLACKHOLE: u8 = 6;
/// `RTPROT_KERNEL`, on the kernel's own rules.
const PROTOCOL_KERNEL: u8 = 2;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// `AF_INET` or `AF_INET6`.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::V4 => libc::AF_INET as u8,
            Self::V6 => libc::AF_INET6 as u8,
        }
    }

    /// The flag of `ip`.
    #[must_use]
    pub const fn flag(self) -> &'static str {
        match self {
            Self::V4 => "-4",
            Self::V6 => "-6",
        }
    }

    /// The IP protocol number of this family's ICMP.
    #[must_use]
    pub const fn icmp(self) -> u8 {
        match self {
            Self::V4 => libc::IPPROTO_ICMP as u8,
            Self::V6 => libc::IPPROTO_ICMPV6 as u8,
        }
    }
}

/// The port that a rule looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Port {
    /// The source port is in this range.
    Source(RangeInclusive<u16>),
    /// The destination port is in this range.
    Destination(RangeInclusive<u16>),
    /// The source port is in the first range, and the destination port in the second.
    Both(RangeInclusive<u16>, RangeInclusive<u16>),
}

impl Port {
    /// The ranges of the source and of the destination port.
    const fn ranges(&self) -> (Option<&RangeInclusive<u16>>, Option<&RangeInclusive<u16>>) {
        match self {
            Self::Source(source) => (Some(source), None),
            Self::Destination(destination) => (None, Some(destination)),
            Self::Both(source, destination) => (Some(source), Some(destination)),
        }
    }
}

/// What a rule does with a packet that it selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleAction {
    /// Looks into a table; if nothing is found there, the next rule is asked.
    Table(u32),
    /// Goes on with the rule of this priority.
    Goto(u32),
    /// Nothing; the target of a [`RuleAction::Goto`].
    Nop,
    /// Drops the packet.
    Blackhole,
}

/// A policy routing rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// IPv4 or IPv6.
    pub family: Family,
    /// Its place: rules are asked in ascending order.
    pub priority: u32,
    /// The interface that the packet came in by; `lo` stands for packets of this host itself.
    pub from_device: Option<String>,
    /// The mark that the packet filter, or its socket, has given it.
    pub mark: Option<u32>,
    /// The source address.
    pub from: Option<IpAddr>,
    /// The destination address.
    pub to: Option<IpAddr>,
    /// The IP protocol number.
    pub ip_protocol: Option<u8>,
    /// A port; needs `ip_protocol`. The kernel takes ports from 1 to 65534.
    pub port: Option<Port>,
    /// What happens.
    pub action: RuleAction,
}

impl Rule {
    /// True for what [`Netlink::move_local_rule`] has put in the place of the kernel's own rule.
    #[must_use]
    pub fn is_local_rule(&self) -> bool {
        self.action == RuleAction::Table(TABLE_LOCAL)
    }

    /// A rule that selects everything.
    #[must_use]
    pub const fn new(family: Family, priority: u32, action: RuleAction) -> Self {
        Self {
            family,
            priority,
            from_device: None,
            mark: None,
            from: None,
            to: None,
            ip_protocol: None,
            port: None,
            action,
        }
    }

    /// `struct fib_rule_hdr` and the attributes.
    fn message(&self, kind: u16, flags: u16) -> Message {
        let (action, table) = match self.action {
            RuleAction::Table(table) => (FR_ACT_TO_TBL, u8::try_from(table).unwrap_or(0)),
            RuleAction::Goto(_) => (FR_ACT_GOTO, 0),
            RuleAction::Nop => (FR_ACT_NOP, 0),
            RuleAction::Blackhole => (FR_ACT_BLACKHOLE, 0),
        };
        let prefix = |ip: Option<IpAddr>| ip.map_or(0, |ip| if ip.is_ipv4() { 32 } else { 128 });
        let fixed =
            [self.family.number(), prefix(self.to), prefix(self.from), 0, table, 0, 0, action, 0, 0, 0, 0];
        let mut message = Message::new(kind, flags, &fixed)
            .with_u32(FRA_PRIORITY, self.priority)
            .with(FRA_PROTOCOL, &[PROTOCOL]);
        match self.action {
            RuleAction::Table(table) => message = message.with_u32(FRA_TABLE, table),
            RuleAction::Goto(target) => message = message.with_u32(FRA_GOTO, target),
            RuleAction::Nop | RuleAction::Blackhole => {}
        }
        if let Some(device) = &self.from_device {
            message = message.with_text(FRA_IIFNAME, device);
        }
        if let Some(mark) = self.mark {
            message = message.with_u32(FRA_FWMARK, mark);
        }
        if let Some(from) = self.from {
            message = message.with_ip(FRA_SRC, from);
        }
        if let Some(to) = self.to {
            message = message.with_ip(FRA_DST, to);
        }
        if let Some(protocol) = self.ip_protocol {
            message = message.with(FRA_IP_PROTO, &[protocol]);
        }
        let (source, destination) = self.port.as_ref().map_or((None, None), Port::ranges);
        for (attr, range) in [(FRA_SPORT_RANGE, source), (FRA_DPORT_RANGE, destination)] {
            if let Some(range) = range {
                message =
                    message.with(attr, &[range.start().to_ne_bytes(), range.end().to_ne_bytes()].concat());
            }
        }
        message
    }

    /// Reads one of our own rules.
    fn parse_own(body: &[u8], family: Family) -> Option<Self> {
        let (attrs, fixed) = (body.get(12..)?, body.get(..12)?);
        if attribute(attrs, FRA_PROTOCOL)? != [PROTOCOL] {
            return None;
        }
        let number = |attr| attribute(attrs, attr).and_then(|v| u32_at(v, 0));
        let range = |attr| {
            let v = attribute(attrs, attr)?;
            Some(u16_at(v, 0)?..=u16_at(v, 2)?)
        };
        Some(Self {
            family,
            priority: number(FRA_PRIORITY).unwrap_or(0),
            from_device: attribute(attrs, FRA_IIFNAME).map(text),
            mark: number(FRA_FWMARK),
            from: attribute(attrs, FRA_SRC).and_then(ip),
            to: attribute(attrs, FRA_DST).and_then(ip),
            ip_protocol: attribute(attrs, FRA_IP_PROTO).and_then(|v| v.first().copied()),
            port: match (range(FRA_SPORT_RANGE), range(FRA_DPORT_RANGE)) {
                (Some(source), Some(destination)) => Some(Port::Both(source, destination)),
                (Some(source), None) => Some(Port::Source(source)),
                (None, Some(destination)) => Some(Port::Destination(destination)),
                (None, None) => None,
            },
            action: match fixed[7] {
                FR_ACT_TO_TBL => RuleAction::Table(number(FRA_TABLE)?),
                FR_ACT_GOTO => RuleAction::Goto(number(FRA_GOTO)?),
                FR_ACT_BLACKHOLE => RuleAction::Blackhole,
                _ => RuleAction::Nop,
            },
        })
    }
}

impl fmt::Display for Rule {
    /// As `ip rule add` takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pref {}", self.priority)?;
        if let Some(from) = self.from {
            write!(f, " from {from}")?;
        }
        if let Some(to) = self.to {
            write!(f, " to {to}")?;
        }
        if let Some(device) = &self.from_device {
            write!(f, " iif {device}")?;
        }
        if let Some(mark) = self.mark {
            write!(f, " fwmark {mark:#x}")?;
        }
        match self.ip_protocol.map(i32::from) {
            Some(libc::IPPROTO_TCP) => f.write_str(" ipproto tcp")?,
            Some(libc::IPPROTO_ICMP) => f.write_str(" ipproto icmp")?,
            Some(libc::IPPROTO_ICMPV6) => f.write_str(" ipproto ipv6-icmp")?,
            Some(other) => write!(f, " ipproto {other}")?,
            None => {}
        }
        let (source, destination) = self.port.as_ref().map_or((None, None), Port::ranges);
        for (word, range) in [("sport", source), ("dport", destination)] {
            if let Some(range) = range {
                write!(f, " {word} {}", Ports(range))?;
            }
        }
        match self.action {
            RuleAction::Table(TABLE_LOCAL) => f.write_str(" lookup local")?,
            RuleAction::Table(table) => write!(f, " lookup {table}")?,
            RuleAction::Goto(target) => write!(f, " goto {target}")?,
            RuleAction::Nop => f.write_str(" nop")?,
            RuleAction::Blackhole => f.write_str(" blackhole")?,
        }
        write!(f, " protocol {PROTOCOL}")
    }
}

/// A rule that asks the kernel's table of local addresses about every packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalRule {
    /// IPv4 or IPv6.
    pub family: Family,
    /// Its place; the kernel's own is at 0.
    pub priority: u32,
    /// It carries our protocol number.
    pub is_own: bool,
}

impl LocalRule {
    fn parse(body: &[u8], family: Family) -> Option<Self> {
        let (attrs, fixed) = (body.get(12..)?, body.get(..12)?);
        let number = |attr| attribute(attrs, attr).and_then(|v| u32_at(v, 0));
        let selects = [FRA_IIFNAME, FRA_IP_PROTO].iter().any(|attr| attribute(attrs, *attr).is_some());
        // The lengths of the prefixes that the destination and the source must have.
        let about_all = !selects && fixed[1] == 0 && fixed[2] == 0;
        let local = fixed[7] == FR_ACT_TO_TBL && number(FRA_TABLE) == Some(TABLE_LOCAL);
        (about_all && local).then(|| Self {
            family,
            priority: number(FRA_PRIORITY).unwrap_or(0),
            is_own: attribute(attrs, FRA_PROTOCOL) == Some(&[PROTOCOL]),
        })
    }
}

/// A range of ports as `ip` and `nft` write it.
pub(in crate::setup) struct Ports<'a>(pub(in crate::setup) &'a RangeInclusive<u16>);

impl fmt::Display for Ports<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.start(), self.0.end()) {
            (first, last) if first == last => first.fmt(f),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

impl Netlink {
    /// Adds a rule; `EEXIST` if there is just this one.
    pub fn add_rule(&mut self, rule: &Rule) -> io::Result<()> {
        self.change(NLM_F_CREATE | NLM_F_EXCL, |flags| rule.message(RTM_NEWRULE, flags))
    }

    /// Removes a rule.
    pub fn delete_rule(&mut self, rule: &Rule) -> io::Result<()> {
        self.change(0, |flags| rule.message(RTM_DELRULE, flags))
    }

    /// Moves the kernel's own rule for local addresses, which is asked before all others, to `priority`, so that other
    /// rules can stand in front of it.
    pub fn move_local_rule(&mut self, family: Family, priority: u32) -> io::Result<()> {
        self.add_rule(&Rule::new(family, priority, RuleAction::Table(TABLE_LOCAL)))?;
        // Nothing else that somebody may have put there.
        let fixed = [family.number(), 0, 0, 0, TABLE_LOCAL as u8, 0, 0, FR_ACT_TO_TBL, 0, 0, 0, 0];
        let first = |flags| {
            Message::new(RTM_DELRULE, flags, &fixed)
                .with_u32(FRA_PRIORITY, 0)
                .with_u32(FRA_TABLE, TABLE_LOCAL)
        };
        self.change(0, first)
    }

    /// Takes [`Self::move_local_rule`] back: the kernel's own rule first, then the one in its place.
    pub fn restore_local_rule(&mut self, family: Family, priority: u32) -> io::Result<()> {
        let fixed = [family.number(), 0, 0, 0, TABLE_LOCAL as u8, 0, 0, FR_ACT_TO_TBL, 0, 0, 0, 0];
        let first = |flags| {
            Message::new(RTM_NEWRULE, flags, &fixed)
                .with_u32(FRA_PRIORITY, 0)
                .with(FRA_PROTOCOL, &[PROTOCOL_KERNEL])
                .with_u32(FRA_TABLE, TABLE_LOCAL)
        };
        match self.change(NLM_F_CREATE | NLM_F_EXCL, first) {
            Err(e) if e.raw_os_error() != Some(libc::EEXIST) => return Err(e),
            _ => {}
        }
        self.delete_rule(&Rule::new(family, priority, RuleAction::Table(TABLE_LOCAL)))
    }

    /// The rules that carry our protocol number.
    pub fn own_rules(&mut self, family: Family) -> io::Result<Vec<Rule>> {
        self.rules(family, Rule::parse_own)
    }

    /// The rules for local addresses. None where the kernel has no such family.
    pub fn local_rules(&mut self, family: Family) -> io::Result<Vec<LocalRule>> {
        match self.rules(family, LocalRule::parse) {
            Err(e) if e.raw_os_error() == Some(libc::EAFNOSUPPORT) => Ok(Vec::new()),
            other => other,
        }
    }

    fn rules<T>(&mut self, family: Family, parse: impl Fn(&[u8], Family) -> Option<T>) -> io::Result<Vec<T>> {
        let mut rules = Vec::new();
        let fixed = [family.number(), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        self.list(
            |flags| Message::new(RTM_GETRULE, flags, &fixed),
            |body| rules.extend(parse(body, family)),
        )?;
        Ok(rules)
    }
}
