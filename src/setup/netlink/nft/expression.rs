//! Rules as the kernel takes them: each question loads something into a register and compares it.

use std::net::IpAddr;

use super::super::message::Message;
use super::{Action, Family, Match, NftRule, Queueing, whole};

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const QUEUE_BYPASS: u16 = 1;
const REJECT_ICMP_UNREACH: u32 = 0;
const REJECT_TCP_RST: u32 = 1;
/// The first register of 16 bytes, which is enough for one thing at a time, and the second.
const REGISTER: u32 = 1;
const SECOND: u32 = 2;
const REGISTER_VERDICT: u32 = 0;
const META_PROTOCOL: u32 = 1;
const META_MARK: u32 = 3;
const META_IIFNAME: u32 = 6;
const META_SKUID: u32 = 10;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const META_PKTTYPE: u32 = 19;
const PACKET_HOST: u8 = 0;
const CMP_EQ: u32 = 0;
const CMP_NEQ: u32 = 1;
const BASE_NETWORK: u32 = 1;
const BASE_TRANSPORT: u32 = 2;
const SOCKET_TRANSPARENT: u32 = 0;
const SOCKET_MARK: u32 = 1;
const FIB_RESULT_ADDRTYPE: u32 = 3;
const FIB_DADDR: u32 = 2;
const RTN_LOCAL: u32 = 2;
/// Flags in the header of TCP.
const FLAGS_AT: u32 = 13;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const FIN_SYN_RST_ACK: u8 = 0x17;
const IFNAMSIZ: usize = 16;

/// Appends the expressions of a rule; `device` is the number of the interface that it forwards to.
pub(super) fn expressions(m: Message, rule: &NftRule, device: u32) -> Message {
    let m = rule.matches.iter().fold(m, asked);
    rule.actions.iter().fold(m, |m, action| done(m, action, device))
}

fn done(m: Message, action: &Action, device: u32) -> Message {
    match action {
        Action::Accept => verdict(m, NF_ACCEPT),
        Action::Drop => verdict(m, NF_DROP),
        Action::Mark(mark) => set_meta(m, META_MARK, &mark.to_ne_bytes()),
        Action::Tproxy(to) => {
            let m = immediate(m, REGISTER, &octets(to.ip()));
            let m = immediate(m, SECOND, &to.port().to_be_bytes());
            let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
            // NFTA_TPROXY_FAMILY, NFTA_TPROXY_REG_ADDR, NFTA_TPROXY_REG_PORT
            numbers(m, "tproxy", &[(1, u32::from(nfproto(family))), (2, REGISTER), (3, SECOND)])
        }
        Action::ToHost => set_meta(m, META_PKTTYPE, &[PACKET_HOST]),
        // NFTA_FWD_SREG_DEV
        Action::Forward(_) => numbers(immediate(m, REGISTER, &device.to_ne_bytes()), "fwd", &[(1, REGISTER)]),
        Action::Queue(number, Queueing::Expression) => expression(m, "queue", |m| {
            // NFTA_QUEUE_NUM, NFTA_QUEUE_TOTAL, NFTA_QUEUE_FLAGS
            let numbers = [(1, *number), (2, 1), (3, QUEUE_BYPASS)];
            numbers.iter().fold(m, |m, (attribute, value)| m.with(*attribute, &value.to_be_bytes()))
        }),
        Action::Queue(number, Queueing::Target) => expression(m, "target", |m| {
            // NFTA_TARGET_NAME, NFTA_TARGET_REV, NFTA_TARGET_INFO: struct xt_NFQ_info_v3, filled up to eight bytes.
            let info = [*number, 1, QUEUE_BYPASS, 0];
            let info: Vec<u8> = info.iter().flat_map(|number| number.to_ne_bytes()).collect();
            m.with_text(1, "NFQUEUE").with_be32(2, 3).with(3, &info)
        }),
        // NFTA_REJECT_TYPE, NFTA_REJECT_ICMP_CODE
        Action::Reset => numbers(m, "reject", &[(1, REJECT_TCP_RST)]),
        Action::Unreachable(_, code) => {
            expression(m, "reject", |m| m.with_be32(1, REJECT_ICMP_UNREACH).with(2, &[*code]))
        }
    }
}

fn asked(m: Message, question: &Match) -> Message {
    match question {
        Match::From(device) => compare(meta(m, META_IIFNAME), CMP_EQ, &name(device)),
        Match::NotFrom(device) => compare(meta(m, META_IIFNAME), CMP_NEQ, &name(device)),
        Match::Mark(mark) => compare(meta(m, META_MARK), CMP_EQ, &mark.to_ne_bytes()),
        Match::MarkBlock(mark) => {
            compare(mask(meta(m, META_MARK), &(!0xf_u32).to_ne_bytes()), CMP_EQ, &mark.to_ne_bytes())
        }
        Match::Family(family) => compare(meta(m, META_NFPROTO), CMP_EQ, &[nfproto(*family)]),
        Match::FrameOf(family) => compare(meta(m, META_PROTOCOL), CMP_EQ, &ethertype(*family).to_be_bytes()),
        Match::Tcp => compare(meta(m, META_L4PROTO), CMP_EQ, &[libc::IPPROTO_TCP as u8]),
        Match::Icmp(family) => {
            let protocol = if *family == Family::V4 { libc::IPPROTO_ICMP } else { libc::IPPROTO_ICMPV6 };
            compare(meta(m, META_L4PROTO), CMP_EQ, &[protocol as u8])
        }
        Match::SourcePort(range) => within(payload(m, BASE_TRANSPORT, 0, 2), *range.start(), *range.end()),
        Match::DestinationPort(range) => {
            within(payload(m, BASE_TRANSPORT, 2, 2), *range.start(), *range.end())
        }
        Match::Syn | Match::NotSyn => {
            let operator = if *question == Match::Syn { CMP_EQ } else { CMP_NEQ };
            compare(mask(payload(m, BASE_TRANSPORT, FLAGS_AT, 1), &[FIN_SYN_RST_ACK]), operator, &[SYN])
        }
        Match::NotReset => compare(mask(payload(m, BASE_TRANSPORT, FLAGS_AT, 1), &[RST]), CMP_NEQ, &[RST]),
        Match::HasDscp(Family::V4) => compare(mask(payload(m, BASE_NETWORK, 1, 1), &[0xfc]), CMP_NEQ, &[0]),
        Match::HasDscp(Family::V6) => {
            compare(mask(payload(m, BASE_NETWORK, 0, 2), &[0x0f, 0xc0]), CMP_NEQ, &[0; 2])
        }
        // Nobody has this number. Without a program there is nothing to compare, and the next rule is asked.
        Match::OfProgram => compare(meta(m, META_SKUID), CMP_NEQ, &u32::MAX.to_ne_bytes()),
        Match::Source(ip) => compare(address(m, *ip, [12, 8]), CMP_EQ, &octets(*ip)),
        Match::Destination(ip, prefix) => {
            let m = address(m, *ip, [16, 24]);
            let m = if *prefix == whole(*ip) { m } else { mask(m, &bits(*ip, *prefix)) };
            compare(m, CMP_EQ, &octets(*ip))
        }
        Match::Icmpv6Error => {
            let m = compare(meta(m, META_L4PROTO), CMP_EQ, &[libc::IPPROTO_ICMPV6 as u8]);
            range(payload(m, BASE_TRANSPORT, 0, 1), &[1], &[4])
        }
        // NFTA_FIB_DREG, NFTA_FIB_RESULT, NFTA_FIB_FLAGS
        Match::ForThisHost => {
            let m = numbers(m, "fib", &[(1, REGISTER), (2, FIB_RESULT_ADDRTYPE), (3, FIB_DADDR)]);
            compare(m, CMP_EQ, &RTN_LOCAL.to_ne_bytes())
        }
        // NFTA_SOCKET_KEY, NFTA_SOCKET_DREG
        Match::Transparent => {
            compare(numbers(m, "socket", &[(1, SOCKET_TRANSPARENT), (2, REGISTER)]), CMP_EQ, &[1])
        }
        Match::SocketMark(mark) => {
            let m = numbers(m, "socket", &[(1, SOCKET_MARK), (2, REGISTER)]);
            compare(m, CMP_EQ, &mark.to_ne_bytes())
        }
    }
}

fn expression(m: Message, name: &str, fill: impl FnOnce(Message) -> Message) -> Message {
    m.nest(NFTA_LIST_ELEM, |m| m.with_text(NFTA_EXPR_NAME, name).nest(NFTA_EXPR_DATA, fill))
}

/// An expression of which all attributes are numbers.
fn numbers(m: Message, name: &str, attributes: &[(u16, u32)]) -> Message {
    expression(m, name, |m| attributes.iter().fold(m, |m, &(attribute, value)| m.with_be32(attribute, value)))
}

/// Loads a property of a packet: `NFTA_META_DREG`, `NFTA_META_KEY`.
fn meta(m: Message, key: u32) -> Message {
    numbers(m, "meta", &[(1, REGISTER), (2, key)])
}

/// Sets it: `NFTA_META_KEY`, `NFTA_META_SREG`.
fn set_meta(m: Message, key: u32, value: &[u8]) -> Message {
    numbers(immediate(m, REGISTER, value), "meta", &[(2, key), (3, REGISTER)])
}

/// Loads bytes of a header: `NFTA_PAYLOAD_DREG`, `_BASE`, `_OFFSET`, `_LEN`.
fn payload(m: Message, base: u32, offset: u32, len: u32) -> Message {
    numbers(m, "payload", &[(1, REGISTER), (2, base), (3, offset), (4, len)])
}

/// Loads an address, which is at one of these offsets, by IPv4 and IPv6.
fn address(m: Message, ip: IpAddr, [v4, v6]: [u32; 2]) -> Message {
    match ip {
        IpAddr::V4(_) => payload(m, BASE_NETWORK, v4, 4),
        IpAddr::V6(_) => payload(m, BASE_NETWORK, v6, 16),
    }
}

/// `NFTA_BITWISE_SREG`, `_DREG`, `_LEN`, `_MASK`, `_XOR`.
fn mask(m: Message, mask: &[u8]) -> Message {
    expression(m, "bitwise", |m| {
        m.with_be32(1, REGISTER)
            .with_be32(2, REGISTER)
            .with_be32(3, mask.len() as u32)
            .nest(4, |m| m.with(NFTA_DATA_VALUE, mask))
            .nest(5, |m| m.with(NFTA_DATA_VALUE, &vec![0; mask.len()]))
    })
}

/// Goes on if the register is (or is not) this: `NFTA_CMP_SREG`, `_OP`, `_DATA`.
fn compare(m: Message, operator: u32, value: &[u8]) -> Message {
    expression(m, "cmp", |m| {
        m.with_be32(1, REGISTER).with_be32(2, operator).nest(3, |m| m.with(NFTA_DATA_VALUE, value))
    })
}

/// Goes on if the register is a port in this range.
fn within(m: Message, first: u16, last: u16) -> Message {
    if first == last {
        return compare(m, CMP_EQ, &first.to_be_bytes());
    }
    range(m, &first.to_be_bytes(), &last.to_be_bytes())
}

/// `NFTA_RANGE_SREG`, `_OP`, `_FROM_DATA`, `_TO_DATA`.
fn range(m: Message, first: &[u8], last: &[u8]) -> Message {
    expression(m, "range", |m| {
        m.with_be32(1, REGISTER)
            .with_be32(2, CMP_EQ)
            .nest(3, |m| m.with(NFTA_DATA_VALUE, first))
            .nest(4, |m| m.with(NFTA_DATA_VALUE, last))
    })
}

/// Fills a register: `NFTA_IMMEDIATE_DREG`, `_DATA`.
fn immediate(m: Message, register: u32, value: &[u8]) -> Message {
    expression(m, "immediate", |m| m.with_be32(1, register).nest(2, |m| m.with(NFTA_DATA_VALUE, value)))
}

fn verdict(m: Message, code: u32) -> Message {
    expression(m, "immediate", |m| {
        m.with_be32(1, REGISTER_VERDICT)
            .nest(2, |m| m.nest(NFTA_DATA_VERDICT, |m| m.with_be32(NFTA_VERDICT_CODE, code)))
    })
}

/// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
const fn nfproto(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

/// `ETH_P_IP`, `ETH_P_IPV6`.
const fn ethertype(family: Family) -> u16 {
    match family {
        Family::V4 => 0x0800,
        Family::V6 => 0x86dd,
    }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// A prefix as a mask.
fn bits(ip: IpAddr, prefix: u8) -> Vec<u8> {
    let prefix = usize::from(prefix);
    let byte = |at: usize| (0xff_u16 << 8usize.saturating_sub(prefix.saturating_sub(8 * at))) as u8;
    (0..octets(ip).len()).map(byte).collect()
}

fn name(device: &str) -> Vec<u8> {
    let mut name = device.as_bytes().to_vec();
    name.resize(IFNAMSIZ, 0);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_so_many_leading_ones() {
        let table = [
            ("192.0.2.0", 24, "ff ff ff 00"),
            ("192.0.2.0", 20, "ff ff f0 00"),
            ("192.0.2.0", 0, "00 00 00 00"),
        ];
        for (ip, prefix, expected) in table {
            let bits = bits(ip.parse().expect("an address"), prefix);
            assert_eq!(
                bits.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" "),
                expected,
                "{prefix}"
            );
        }
        assert_eq!(bits("fe80::".parse().expect("an address"), 10)[..3], [0xff, 0xc0, 0]);
    }
}
