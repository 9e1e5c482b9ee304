//! `struct virtio_net_hdr` (virtio 1.3 §5.1.6): the 10 bytes in front of every packet on a device with offloads.

/// Length of the header in bytes; TUN is told with `TUNSETVNETHDRSZ`.
pub const VNET_HDR_LEN: usize = 10;

/// What a device knows or wants done about a packet. Kept as it came, so that a packet that does not concern us is written
/// back unchanged. Numbers are little-endian on the device (`TUNSETVNETLE`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHdr {
    /// [`Self::NEEDS_CSUM`], [`Self::DATA_VALID`].
    pub flags: u8,
    /// One of the `GSO_` numbers, with or without [`Self::GSO_ECN`].
    pub gso_type: u8,
    /// Length of all headers in bytes. From the kernel it is a hint only.
    pub hdr_len: u16,
    /// Payload bytes per wire segment of a super-segment.
    pub gso_size: u16,
    /// Where the checksummed part starts, from the start of the packet.
    pub csum_start: u16,
    /// Where the checksum field is, from `csum_start`.
    pub csum_offset: u16,
}

impl VnetHdr {
    /// The checksum field holds the folded pseudo-header sum only; who receives the packet finishes it.
    pub const NEEDS_CSUM: u8 = 1;
    /// The checksum is verified.
    pub const DATA_VALID: u8 = 2;
    /// One packet.
    pub const GSO_NONE: u8 = 0;
    /// TCP over IPv4 super-segment.
    pub const GSO_TCPV4: u8 = 1;
    /// TCP over IPv6 super-segment.
    pub const GSO_TCPV6: u8 = 4;
    /// The super-segment has CWR set, which belongs to its first wire segment only (RFC 3168 §6.1.2).
    pub const GSO_ECN: u8 = 0x80;

    /// Reads the 10 bytes.
    #[must_use]
    pub const fn from_bytes(b: [u8; VNET_HDR_LEN]) -> Self {
        Self {
            flags: b[0],
            gso_type: b[1],
            hdr_len: u16::from_le_bytes([b[2], b[3]]),
            gso_size: u16::from_le_bytes([b[4], b[5]]),
            csum_start: u16::from_le_bytes([b[6], b[7]]),
            csum_offset: u16::from_le_bytes([b[8], b[9]]),
        }
    }

    /// Writes the 10 bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; VNET_HDR_LEN] {
        let ([h0, h1], [g0, g1]) = (self.hdr_len.to_le_bytes(), self.gso_size.to_le_bytes());
        let ([s0, s1], [o0, o1]) = (self.csum_start.to_le_bytes(), self.csum_offset.to_le_bytes());
        [self.flags, self.gso_type, h0, h1, g0, g1, s0, s1, o0, o1]
    }

    /// True if the checksum must not be looked at: it is not there yet (a packet of this machine that never crossed a
    /// wire), or someone else has verified it.
    #[must_use]
    pub const fn vouches_for_checksum(self) -> bool {
        self.flags & (Self::NEEDS_CSUM | Self::DATA_VALID) != 0
    }

    /// The `gso_size` of a TCP super-segment, else 0.
    #[must_use]
    pub const fn tcp_gso_size(self) -> u16 {
        match self.gso_type & !Self::GSO_ECN {
            Self::GSO_TCPV4 | Self::GSO_TCPV6 => self.gso_size,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_the_round_trip() {
        let bytes = [1, 0x84, 2, 3, 4, 5, 6, 7, 8, 9];
        let hdr = VnetHdr::from_bytes(bytes);
        assert_eq!(hdr.to_bytes(), bytes);
        assert_eq!(
            (hdr.hdr_len, hdr.gso_size, hdr.csum_start, hdr.csum_offset),
            (0x302, 0x504, 0x706, 0x908)
        );
    }

    #[test]
    fn only_tcp_super_segments_have_a_tcp_gso_size() {
        let of = |gso_type| VnetHdr { gso_type, gso_size: 1448, ..VnetHdr::default() }.tcp_gso_size();
        assert_eq!([of(0), of(1), of(4), of(0x81), of(3), of(5)], [0, 1448, 1448, 1448, 0, 0]);
    }
}
