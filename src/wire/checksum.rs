//! The Internet checksum (RFC 1071): a one's complement sum of 16-bit words.

use std::net::IpAddr;

/// A running one's complement sum. Slices may have any length; their concatenation counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Below 2^33, so that many slices can be added before it is folded.
    acc: u64,
    /// True after an odd number of bytes: the next byte is the low half of a word.
    odd: bool,
}

impl Sum {
    /// The pseudo-header of RFC 9293 §3.1 (IPv4) and RFC 8200 §8.1 (IPv6). `len` is the length of the upper-layer header and
    /// data in bytes. Both addresses are of one family.
    #[must_use]
    pub fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, len: u32) -> Self {
        let sum = match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => Self::default().with(&src.octets()).with(&dst.octets()),
            (src, dst) => Self::default().with(&to_v6(src)).with(&to_v6(dst)),
        };
        sum.with(&len.to_be_bytes()).with(&[0, protocol])
    }

    /// Adds the bytes after those added before.
    #[must_use]
    pub fn with(self, bytes: &[u8]) -> Self {
        let part = partial(bytes);
        let part = if self.odd { part.swap_bytes() } else { part };
        Self { acc: self.acc + u64::from(part), odd: self.odd ^ (bytes.len() % 2 == 1) }
    }

    /// The sum folded to 16 bits, not complemented: 0xffff over data that contains its right checksum, and the value
    /// that a device with checksum offload wants to find in the checksum field.
    #[must_use]
    pub const fn folded(self) -> u16 {
        fold(self.acc)
    }

    /// The value of the checksum field.
    #[must_use]
    pub const fn checksum(self) -> u16 {
        !self.folded()
    }
}

/// An address as IPv6; IPv4 as mapped.
pub(super) fn to_v6(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

const fn fold(mut acc: u64) -> u16 {
    while acc > 0xffff {
        acc = (acc & 0xffff) + (acc >> 16);
    }
    acc as u16
}

/// The folded sum of one slice. Words are added in the machine's byte order, 32 bits at a time in eight lanes that the
/// compiler turns into vector additions, and swapped once at the end (RFC 1071 §2 B).
fn partial(bytes: &[u8]) -> u16 {
    let mut lanes = [0u64; 8];
    let (blocks, rest) = bytes.as_chunks::<32>();
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<4>().0) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    let (words, tail) = rest.as_chunks::<2>();
    let mut acc: u64 = lanes.iter().sum();
    acc += words.iter().map(|word| u64::from(u16::from_ne_bytes(*word))).sum::<u64>();
    if let [last] = tail {
        acc += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    u16::from_be(fold(acc))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, word by word.
    fn slow(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn the_example_of_rfc_1071_section_3() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::default().with(&bytes).folded(), 0xddf2);
    }

    #[test]
    fn largest_packet_of_ones_does_not_overflow() {
        let bytes = vec![0xff; 65_535];
        assert_eq!(Sum::default().with(&bytes).folded(), slow(&bytes));
    }

    proptest::proptest! {
        #[test]
        fn any_cut_gives_the_sum_of_the_whole(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300),
            cuts in proptest::collection::vec(0usize..300, 0..4),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|c| c % (bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let mut sum = Sum::default();
            let mut from = 0;
            for to in cuts.into_iter().chain([bytes.len()]) {
                sum = sum.with(&bytes[from..to]);
                from = to;
            }
            proptest::prop_assert_eq!(sum.folded(), slow(&bytes));
        }
    }
}
