//! Tables of nftables: what leads connections to kernel sockets of ours, which then have the addresses of others (TPROXY), and
//! packets to devices of ours where routes cannot.
//!
//! A table belongs to the socket that has made it (`flags owner`): nobody else can change it, and it is gone with our
//! process, however that ends.

mod expression;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::net::if_::if_nametoindex;

use super::message::Message;
use super::rule::Ports;
use super::{Family, NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, Netlink};
use expression::expressions;

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_NEWRULE: u16 = 6;
const NFT_MSG_GETGEN: u16 = 16;
const NFPROTO_INET: u8 = 1;
const NFPROTO_NETDEV: u8 = 5;
const NFT_TABLE_F_OWNER: u32 = 2;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_FLAGS: u16 = 2;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_HOOK_DEV: u16 = 3;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;

/// What a rule asks of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// It came in by this interface; `lo` has what this host sends to itself.
    From(String),
    /// It came in by another interface than this one.
    NotFrom(String),
    /// It has this mark.
    Mark(u32),
    /// It has this mark, or one that differs from it in the last four bits only.
    MarkBlock(u32),
    /// It is of this family.
    Family(Family),
    /// The same of a frame on its device.
    FrameOf(Family),
    /// It is TCP.
    Tcp,
    /// It is ICMP, of IPv4 or of IPv6.
    Icmp(Family),
    /// TCP: the source port is in this range.
    SourcePort(RangeInclusive<u16>),
    /// TCP: the destination port is in this range.
    DestinationPort(RangeInclusive<u16>),
    /// TCP: it is a SYN, the first segment of a connection.
    Syn,
    /// TCP: it is any other segment.
    NotSyn,
    /// TCP: it is no RST.
    NotReset,
    /// Its DSCP is not 0. Wants [`Match::Family`] first.
    HasDscp(Family),
    /// A socket of a program sends it, not the kernel by itself.
    OfProgram,
    /// The source address. Wants [`Match::Family`] (or [`Match::FrameOf`]) first.
    Source(IpAddr),
    /// The destination address is within this prefix. Wants the same first.
    Destination(IpAddr, u8),
    /// It is an ICMPv6 error (RFC 4443: types 1 to 4).
    Icmpv6Error,
    /// Its destination is an address of this host.
    ForThisHost,
    /// It is for a socket with `IP_TRANSPARENT`.
    Transparent,
    /// It is for a socket that marks what it sends with this mark.
    SocketMark(u32),
}

/// What a rule does with a packet of which all its questions are true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It gets this mark.
    Mark(u32),
    /// It is for the socket that listens at this address, as if it were that of the packet. Without such a socket the next rule
    /// is asked.
    Tproxy(SocketAddr),
    /// It is for this host, whatever the address of its frame.
    ToHost,
    /// It goes on its way.
    Accept,
    /// It goes out by this interface instead.
    Forward(String),
    /// It is lost.
    Drop,
    /// It waits for the program that has the queue of this number; without one it goes on its way.
    Queue(u16, Queueing),
    /// It is answered by a RST, and goes no further.
    Reset,
    /// It is answered by an ICMP error (destination unreachable) with this code of the packet's family. Wants [`Match::Family`]
    /// first.
    Unreachable(Family, u8),
}

/// What puts packets into queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queueing {
    /// The expression of nftables (`CONFIG_NFT_QUEUE`).
    Expression,
    /// The target of iptables, which nftables can call (`CONFIG_NFT_COMPAT`), for kernels without the expression.
    Target,
}

impl Queueing {
    /// What this kernel knows, if anything. Asked by making a table that no packet fits, without `CAP_NET_ADMIN` in vain.
    ///
    /// # Errors
    /// Those of [`Table::make`], but for those that say that this kernel does not know it.
    pub fn find() -> io::Result<Option<Self>> {
        for queueing in [Self::Expression, Self::Target] {
            let asked = [Action::Queue(u16::MAX, queueing), Action::Reset];
            let rules = asked.map(|action| NftRule::new([Match::Mark(u32::MAX), Match::Tcp], [action]));
            let chains = vec![Chain { hook: Hook::Arriving, rules: rules.into() }];
            let name = format!("halfopen-{}", std::process::id());
            let table = Table { kind: TableKind::Inet, name, chains };
            match table.make() {
                Ok(_) => return Ok(Some(queueing)),
                Err(e)
                    if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EOPNOTSUPP | libc::EINVAL)) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NftRule {
    /// All must be true, and are asked in this order.
    pub matches: Vec<Match>,
    /// What happens then, in this order.
    pub actions: Vec<Action>,
}

/// Where the rules of a chain are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Of every packet that comes in, before anybody else has seen it, such as connection tracking.
    Arriving,
    /// Of every packet that comes in, before its route is looked up.
    Prerouting,
    /// Of every packet that this host sends; a new mark has its route looked up again.
    Output,
    /// Of every frame that comes in by this interface.
    Ingress(String),
    /// Of every frame that goes out by this interface (Linux 5.16).
    Egress(String),
}

impl Hook {
    const fn name(&self) -> &'static str {
        match self {
            Self::Arriving | Self::Prerouting => "prerouting",
            Self::Output => "output",
            Self::Ingress(_) => "ingress",
            Self::Egress(_) => "egress",
        }
    }

    /// The name of its chain.
    const fn chain(&self) -> &'static str {
        if matches!(self, Self::Arriving) { "arriving" } else { self.name() }
    }

    const fn kind(&self) -> &'static str {
        match self {
            Self::Output => "route",
            _ => "filter",
        }
    }

    /// `NF_INET_PRE_ROUTING`, `NF_INET_LOCAL_OUT`, `NF_NETDEV_INGRESS`, `NF_NETDEV_EGRESS`.
    const fn number(&self) -> u32 {
        match self {
            Self::Arriving | Self::Prerouting | Self::Ingress(_) => 0,
            Self::Output => 3,
            Self::Egress(_) => 1,
        }
    }

    const fn device(&self) -> Option<&String> {
        match self {
            Self::Ingress(device) | Self::Egress(device) => Some(device),
            _ => None,
        }
    }

    /// `NF_IP_PRI_RAW`. `NF_IP_PRI_MANGLE`: before the routing decision, and before any translation of addresses. `NF_IP_PRI_FILTER`.
    const fn priority(&self) -> (&'static str, i32) {
        match self {
            Self::Arriving => ("raw", -300),
            Self::Ingress(_) | Self::Egress(_) => ("filter", 0),
            _ => ("mangle", -150),
        }
    }
}

/// A chain with the name of its hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Where it is asked.
    pub hook: Hook,
    /// The first that fits decides.
    pub rules: Vec<NftRule>,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// What its chains are asked of.
    pub kind: TableKind,
    /// Its name.
    pub name: String,
    /// Its chains.
    pub chains: Vec<Chain>,
}

/// What the chains of a table are asked of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKind {
    /// IPv4 and IPv6 packets.
    Inet,
    /// Frames of interfaces.
    Netdev,
}

impl TableKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Netdev => "netdev",
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::Inet => NFPROTO_INET,
            Self::Netdev => NFPROTO_NETDEV,
        }
    }
}

/// A table that is there for as long as this lives.
#[derive(Debug)]
pub struct OwnedTable {
    _socket: Netlink,
}

impl NftRule {
    /// A rule.
    #[must_use]
    pub fn new(matches: impl IntoIterator<Item = Match>, actions: impl IntoIterator<Item = Action>) -> Self {
        Self { matches: matches.into_iter().collect(), actions: actions.into_iter().collect() }
    }

    /// A rule that accepts.
    #[must_use]
    pub fn accept(matches: impl IntoIterator<Item = Match>) -> Self {
        Self::new(matches, [Action::Accept])
    }

    /// A rule that marks.
    #[must_use]
    pub fn mark(matches: impl IntoIterator<Item = Match>, mark: u32) -> Self {
        Self::new(matches, [Action::Mark(mark), Action::Accept])
    }
}

impl Table {
    /// Makes the table.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_ADMIN`, `EEXIST` if there is such a table already, `ENODEV` if there is no such interface,
    /// `ENOENT` or `EOPNOTSUPP` if this kernel does not know one of the expressions or hooks.
    pub fn make(&self) -> io::Result<OwnedTable> {
        let mut socket = Netlink::connect(NETLINK_NETFILTER)?;
        socket.send_batch(self.messages()?)?;
        Ok(OwnedTable { _socket: socket })
    }

    fn messages(&self) -> io::Result<Vec<Message>> {
        let family = generic(self.kind.number(), 0);
        let new = |kind| Message::new((NFNL_SUBSYS_NFTABLES << 8) | kind, CREATE, &family);
        let mut all = vec![batch(NFNL_MSG_BATCH_BEGIN)];
        all.push(
            new(NFT_MSG_NEWTABLE)
                .with_text(NFTA_TABLE_NAME, &self.name)
                .with_be32(NFTA_TABLE_FLAGS, NFT_TABLE_F_OWNER),
        );
        for Chain { hook, rules } in &self.chains {
            let priority = hook.priority().1.cast_unsigned();
            all.push(
                new(NFT_MSG_NEWCHAIN)
                    .with_text(NFTA_CHAIN_TABLE, &self.name)
                    .with_text(NFTA_CHAIN_NAME, hook.chain())
                    .nest(NFTA_CHAIN_HOOK, |m| {
                        let m = m.with_be32(NFTA_HOOK_HOOKNUM, hook.number());
                        let m = m.with_be32(NFTA_HOOK_PRIORITY, priority);
                        hook.device().iter().fold(m, |m, device| m.with_text(NFTA_HOOK_DEV, device))
                    })
                    .with_text(NFTA_CHAIN_TYPE, hook.kind()),
            );
            for rule in rules {
                let forwards = rule.actions.iter().find_map(|action| match action {
                    Action::Forward(device) => Some(if_nametoindex(device.as_str())),
                    _ => None,
                });
                let device = forwards.transpose()?.unwrap_or(0);
                all.push(
                    new(NFT_MSG_NEWRULE)
                        .with_text(NFTA_RULE_TABLE, &self.name)
                        .with_text(NFTA_RULE_CHAIN, hook.chain())
                        .nest(NFTA_RULE_EXPRESSIONS, |m| expressions(m, rule, device)),
                );
            }
        }
        // An error is told of any; that there was none, of the last.
        if let Some(last) = all.last_mut() {
            last.add_flags(NLM_F_ACK);
        }
        all.push(batch(NFNL_MSG_BATCH_END));
        Ok(all)
    }
}

/// True if the kernel knows nftables, and lets this process use them.
#[must_use]
pub fn is_there() -> bool {
    let generation =
        |flags| Message::new((NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_GETGEN, flags, &generic(NFPROTO_INET, 0));
    Netlink::connect(NETLINK_NETFILTER).is_ok_and(|mut socket| socket.change(0, generation).is_ok())
}

/// `NLM_F_APPEND`: a rule comes behind those before it.
const NLM_F_APPEND: u16 = 0x800;
const CREATE: u16 = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_APPEND;

/// `struct nfgenmsg`.
fn generic(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

/// The begin or the end of what the kernel does wholly or not at all.
fn batch(kind: u16) -> Message {
    Message::new(kind, NLM_F_REQUEST, &generic(0, NFNL_SUBSYS_NFTABLES))
}

impl fmt::Display for Table {
    /// As `nft` lists it and takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {} {{", self.kind.name(), self.name)?;
        writeln!(f, "\tflags owner")?;
        for (number, Chain { hook, rules }) in self.chains.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            let (name, kind) = (hook.name(), hook.kind());
            writeln!(f, "\tchain {} {{", hook.chain())?;
            write!(f, "\t\ttype {kind} hook {name}")?;
            if let Some(device) = hook.device() {
                write!(f, " device \"{device}\"")?;
            }
            writeln!(f, " priority {}; policy accept;", hook.priority().0)?;
            rules.iter().try_for_each(|rule| writeln!(f, "\t\t{rule}"))?;
            writeln!(f, "\t}}")?;
        }
        f.write_str("}")
    }
}

impl fmt::Display for NftRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The family is in the words of such an answer.
        let answers = self.actions.iter().any(|action| matches!(action, Action::Unreachable(..)));
        let matches = self.matches.iter().filter(|asked| !(answers && matches!(asked, Match::Family(_))));
        let words = matches.map(ToString::to_string);
        let words: Vec<_> = words.chain(self.actions.iter().map(ToString::to_string)).collect();
        f.write_str(&words.join(" "))
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mark(mark) => write!(f, "meta mark set {mark:#010x}"),
            Self::Tproxy(to) if to.is_ipv4() => write!(f, "tproxy ip to {to}"),
            Self::Tproxy(to) => write!(f, "tproxy ip6 to {to}"),
            Self::ToHost => f.write_str("meta pkttype set host"),
            Self::Accept => f.write_str("accept"),
            Self::Forward(device) => write!(f, "fwd to \"{device}\""),
            Self::Drop => f.write_str("drop"),
            Self::Queue(number, _) => write!(f, "queue flags bypass to {number}"),
            Self::Reset => f.write_str("reject with tcp reset"),
            Self::Unreachable(family, code) => {
                let (protocol, name) = match (family, code) {
                    (Family::V4, 0) => ("icmp", "net-unreachable"),
                    (Family::V4, 1) => ("icmp", "host-unreachable"),
                    (Family::V4, 2) => ("icmp", "prot-unreachable"),
                    (Family::V4, 3) => ("icmp", "port-unreachable"),
                    (Family::V4, 13) => ("icmp", "admin-prohibited"),
                    (Family::V4, _) => ("icmp", ""),
                    (Family::V6, 0) => ("icmpv6", "no-route"),
                    (Family::V6, 1) => ("icmpv6", "admin-prohibited"),
                    (Family::V6, 3) => ("icmpv6", "addr-unreachable"),
                    (Family::V6, 4) => ("icmpv6", "port-unreachable"),
                    (Family::V6, _) => ("icmpv6", ""),
                };
                if name.is_empty() {
                    return write!(f, "reject with {protocol} {code}");
                }
                write!(f, "reject with {protocol} {name}")
            }
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = |ip: &IpAddr| if ip.is_ipv4() { "ip" } else { "ip6" };
        match self {
            Self::From(device) => write!(f, "iifname \"{device}\""),
            Self::NotFrom(device) => write!(f, "iifname != \"{device}\""),
            Self::Mark(mark) => write!(f, "meta mark {mark:#010x}"),
            Self::MarkBlock(mark) => write!(f, "meta mark & 0xfffffff0 == {mark:#010x}"),
            Self::Family(Family::V4) => f.write_str("meta nfproto ipv4"),
            Self::Family(Family::V6) => f.write_str("meta nfproto ipv6"),
            Self::FrameOf(Family::V4) => f.write_str("meta protocol ip"),
            Self::FrameOf(Family::V6) => f.write_str("meta protocol ip6"),
            Self::Tcp => f.write_str("meta l4proto tcp"),
            Self::Icmp(Family::V4) => f.write_str("meta l4proto icmp"),
            Self::Icmp(Family::V6) => f.write_str("meta l4proto ipv6-icmp"),
            Self::SourcePort(range) => write!(f, "tcp sport {}", Ports(range)),
            Self::DestinationPort(range) => write!(f, "tcp dport {}", Ports(range)),
            Self::Syn => f.write_str("tcp flags & (fin | syn | rst | ack) == syn"),
            Self::NotSyn => f.write_str("tcp flags & (fin | syn | rst | ack) != syn"),
            Self::NotReset => f.write_str("tcp flags & rst != rst"),
            Self::HasDscp(Family::V4) => f.write_str("ip dscp != cs0"),
            Self::HasDscp(Family::V6) => f.write_str("ip6 dscp != cs0"),
            Self::OfProgram => write!(f, "meta skuid != {}", u32::MAX),
            Self::Source(ip) => write!(f, "{} saddr {ip}", family(ip)),
            Self::Destination(ip, prefix) if *prefix == whole(*ip) => write!(f, "{} daddr {ip}", family(ip)),
            Self::Destination(ip, prefix) => write!(f, "{} daddr {ip}/{prefix}", family(ip)),
            Self::Icmpv6Error => f.write_str("meta l4proto ipv6-icmp icmpv6 type 1-4"),
            Self::ForThisHost => f.write_str("fib daddr type local"),
            Self::Transparent => f.write_str("socket transparent 1"),
            Self::SocketMark(mark) => write!(f, "socket mark {mark:#010x}"),
        }
    }
}

/// The length of an address in bits.
const fn whole(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}
