//! The bytes of netlink messages: a header, a fixed struct, attributes of type, length and value.

use std::net::IpAddr;

const NESTED: u16 = 1 << 15;
const TYPE_MASK: u16 = 0x3fff;
const HEADER: usize = 16;

/// A message being built.
#[derive(Debug)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// A message of type `kind` with its fixed struct in raw bytes.
    pub(super) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(fixed);
        Self(bytes).aligned()
    }

    /// Appends an attribute.
    #[must_use]
    pub(super) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let len = (value.len() + 4) as u16;
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.aligned()
    }

    /// Appends a 32-bit attribute.
    #[must_use]
    pub(super) fn with_u32(self, kind: u16, value: u32) -> Self {
        self.with(kind, &value.to_ne_bytes())
    }

    /// Appends a 32-bit attribute in the byte order of networks, as the packet filter has them.
    #[must_use]
    pub(super) fn with_be32(self, kind: u16, value: u32) -> Self {
        self.with(kind, &value.to_be_bytes())
    }

    /// Appends a zero-terminated string.
    #[must_use]
    pub(super) fn with_text(self, kind: u16, value: &str) -> Self {
        self.with(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Appends an address.
    #[must_use]
    pub(super) fn with_ip(self, kind: u16, value: IpAddr) -> Self {
        match value {
            IpAddr::V4(ip) => self.with(kind, &ip.octets()),
            IpAddr::V6(ip) => self.with(kind, &ip.octets()),
        }
    }

    /// Appends an attribute whose value is what `fill` appends.
    #[must_use]
    pub(super) fn nest(self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.0.len();
        let mut filled = fill(self.with(kind | NESTED, &[]));
        let len = (filled.0.len() - start) as u16;
        filled.0[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        filled
    }

    /// Appends raw bytes: the fixed struct inside an attribute that holds a whole message (`VETH_INFO_PEER`).
    #[must_use]
    pub(super) fn with_raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.aligned()
    }

    /// Adds flags to those of the header.
    pub(super) fn add_flags(&mut self, flags: u16) {
        let old = u16::from_ne_bytes([self.0[6], self.0[7]]);
        self.0[6..8].copy_from_slice(&(old | flags).to_ne_bytes());
    }

    /// The finished bytes.
    pub(super) fn finish(mut self, seq: u32) -> Vec<u8> {
        let len = self.0.len() as u32;
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        self.0[8..12].copy_from_slice(&seq.to_ne_bytes());
        self.0
    }

    fn aligned(mut self) -> Self {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }
}

/// A received message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) seq: u32,
    pub(super) body: &'a [u8],
}

/// The messages of one datagram.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let len = u32_at(bytes, 0)? as usize;
        let body = bytes.get(HEADER..len)?;
        let message =
            Received { kind: u16_at(bytes, 4)?, flags: u16_at(bytes, 6)?, seq: u32_at(bytes, 8)?, body };
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in `bytes`, each with its type.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & TYPE_MASK;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of type `kind`.
pub(super) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(k, _)| *k == kind).map(|(_, value)| value)
}

/// The native 16-bit number at an offset.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The native 32-bit number at an offset.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// An address.
pub(super) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// A zero-terminated string.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_read_back() {
        let bytes = Message::new(16, 5, &[1, 2, 3, 4])
            .with_text(3, "lo")
            .nest(26, |m| m.nest(2, |m| m.with_u32(1, 77)))
            .finish(9);
        assert_eq!(bytes.len() % 4, 0);
        let message = messages(&bytes).next().expect("one message");
        assert_eq!((message.kind, message.flags, message.seq), (16, 5, 9));
        let attrs = &message.body[4..];
        assert_eq!(text(attribute(attrs, 3).expect("name")), "lo");
        let conf = attribute(attribute(attrs, 26).expect("outer"), 2).expect("inner");
        assert_eq!(u32_at(attribute(conf, 1).expect("value"), 0), Some(77));
    }

    #[test]
    fn broken_lengths_end_the_iteration() {
        for bytes in [&[][..], &[3, 0, 1, 0], &[0, 0, 0, 0], &[200, 0, 1, 0, 9], &[4]] {
            assert!(attributes(bytes).count() <= 1, "{bytes:?}");
            assert_eq!(messages(bytes).count(), 0, "{bytes:?}");
        }
    }
}
