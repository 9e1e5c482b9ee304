//! Errors of kernel sockets, and how to make the command's own kernel give it the same one.

use std::io;

use nix::errno::Errno;

use crate::relay::Refusal;

/// The name of an error, e.g. `ECONNREFUSED`.
#[must_use]
pub(in crate::engine) fn name(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ECONNREFUSED) => "ECONNREFUSED",
        Some(Errno::ECONNRESET) => "ECONNRESET",
        Some(Errno::EHOSTUNREACH) => "EHOSTUNREACH",
        Some(Errno::EHOSTDOWN) => "EHOSTDOWN",
        Some(Errno::ENETUNREACH) => "ENETUNREACH",
        Some(Errno::ENETDOWN) => "ENETDOWN",
        Some(Errno::ENONET) => "ENONET",
        Some(Errno::ENOPROTOOPT) => "ENOPROTOOPT",
        Some(Errno::EOPNOTSUPP) => "EOPNOTSUPP",
        Some(Errno::EPROTO) => "EPROTO",
        Some(Errno::EACCES) => "EACCES",
        Some(Errno::EPERM) => "EPERM",
        Some(Errno::EINVAL) => "EINVAL",
        Some(Errno::EADDRNOTAVAIL) => "EADDRNOTAVAIL",
        Some(Errno::EAFNOSUPPORT) => "EAFNOSUPPORT",
        Some(Errno::ETIMEDOUT) => "ETIMEDOUT",
        Some(Errno::EMSGSIZE) => "EMSGSIZE",
        Some(Errno::EMFILE) => "EMFILE",
        Some(Errno::ENFILE) => "ENFILE",
        Some(Errno::ENOBUFS) => "ENOBUFS",
        Some(Errno::ENOMEM) => "ENOMEM",
        Some(Errno::EAGAIN) => "EAGAIN",
        _ => "EIO",
    }
}

/// What the client must see so that its connect fails as ours did: the inverse of Linux's `icmp_err_convert` and
/// `icmpv6_err_convert`.
#[must_use]
pub(in crate::engine) fn refusal(error: &io::Error, ipv6: bool) -> Refusal {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ECONNREFUSED | Errno::ECONNRESET) => Refusal::Reset,
        // The client's own timer, which started a moment before ours, ends at the same time. The others are shortages of
        // ours, about which no message of a network says anything.
        Some(
            Errno::ETIMEDOUT | Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM | Errno::EAGAIN,
        ) => Refusal::Silence,
        errno => {
            let (kind, code) = unreachable(errno, ipv6);
            Refusal::Icmp { kind, code }
        }
    }
}

/// Type and code of the ICMP message that Linux turns into `errno`. Where there is none, as for `EPERM` or IPv4's `EACCES`,
/// it is the message that a router with that trouble sends.
#[must_use]
pub(in crate::engine) fn unreachable(errno: Option<Errno>, ipv6: bool) -> (u8, u8) {
    match (errno, ipv6) {
        (Some(Errno::ECONNREFUSED), false) => (3, 3),
        (Some(Errno::ECONNREFUSED), true) => (1, 4),
        (Some(Errno::EHOSTUNREACH), false) => (3, 1),
        (Some(Errno::EHOSTUNREACH | Errno::EHOSTDOWN), true) => (1, 3),
        (Some(Errno::EHOSTDOWN), false) => (3, 7),
        (Some(Errno::ENONET), false) => (3, 8),
        (Some(Errno::ENOPROTOOPT), false) => (3, 2),
        (Some(Errno::EOPNOTSUPP), false) => (3, 5),
        (Some(Errno::EPROTO), false) => (12, 0),
        (Some(Errno::EPROTO), true) => (4, 0),
        (Some(Errno::EACCES | Errno::EPERM), false) => (3, 13),
        (Some(Errno::EACCES | Errno::EPERM), true) => (1, 1),
        (_, false) => (3, 0),
        (_, true) => (1, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_of_a_dial_has_its_refusal() {
        let icmp = |kind, code| Refusal::Icmp { kind, code };
        let table = [
            (Errno::ECONNREFUSED, Refusal::Reset, Refusal::Reset),
            (Errno::ETIMEDOUT, Refusal::Silence, Refusal::Silence),
            (Errno::EMFILE, Refusal::Silence, Refusal::Silence),
            (Errno::EHOSTUNREACH, icmp(3, 1), icmp(1, 3)),
            (Errno::ENETUNREACH, icmp(3, 0), icmp(1, 0)),
            (Errno::EHOSTDOWN, icmp(3, 7), icmp(1, 3)),
            (Errno::ENONET, icmp(3, 8), icmp(1, 0)),
            (Errno::ENOPROTOOPT, icmp(3, 2), icmp(1, 0)),
            (Errno::EOPNOTSUPP, icmp(3, 5), icmp(1, 0)),
            (Errno::EPROTO, icmp(12, 0), icmp(4, 0)),
            (Errno::EACCES, icmp(3, 13), icmp(1, 1)),
            (Errno::EPERM, icmp(3, 13), icmp(1, 1)),
            (Errno::EADDRNOTAVAIL, icmp(3, 0), icmp(1, 0)),
        ];
        for (errno, v4, v6) in table {
            let error = io::Error::from(errno);
            assert_eq!((refusal(&error, false), refusal(&error, true)), (v4, v6), "{errno:?}");
            assert_eq!(name(&error), format!("{errno:?}"));
        }
    }
}
