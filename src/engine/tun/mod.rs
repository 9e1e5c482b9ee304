//! The packet device: whole IP packets in and out, with offloads, so that a super-segment of up to 64 KiB stays in
//! one piece from `recv` to `send`.
//!
//! Three kinds behind one type: a TUN device; a TAP device for frames of `lo`; and, where `/dev/net/tun` does not open (the usual case in a rootless
//! namespace of a locked-down machine), one end of a veth pair read through an `AF_PACKET` socket.

mod sys;

use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice};
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use arrayvec::ArrayVec;
use bytes::{Buf as _, Bytes, BytesMut};
use smallvec::SmallVec;

use crate::wire::vnet::{VNET_HDR_LEN, VnetHdr};

/// The longest IP packet that we send.
pub const MAX_PACKET: usize = 65_535;
/// The longest that comes: `lo` has this MTU.
const MAX_RECEIVED: usize = 65_536;
/// Packets that the kernel should queue towards us, set with the link. The default of 500 is less than one receive window
/// of single segments.
pub const QUEUE_PACKETS: u32 = 4096;
/// Bytes that the kernel queues towards us on the `AF_PACKET` way; the default holds three super-segments.
const QUEUE_BYTES: i32 = 16 << 20;
/// More slices than this are joined before a write (`writev` takes 1024).
const MAX_SLICES: usize = 256;

/// A packet of at most so many bytes is copied and written in one piece, for which the kernel has a shorter way than for slices.
const SMALL: usize = 512;

/// The length of an Ethernet header.
pub const ETH_LEN: usize = 14;
/// The room that [`Device::recv`] wants: the longest packet and all that can stand in front of it.
pub const MAX_READ: usize = VNET_HDR_LEN + ETH_LEN + MAX_RECEIVED;

/// A device that carries whole IP packets.
#[derive(Debug)]
pub struct Device {
    file: File,
    framing: Framing,
    /// Where packets from `::1` are written; see [`Device::attach_loopback`].
    loopback: Option<File>,
}

/// What stands in front of the IP header on this device, besides the vnet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Nothing: a TUN device.
    Ip,
    /// An Ethernet header: `AF_PACKET` on one end of a veth pair.
    Ethernet {
        /// The address of the end that the kernel's IP stack uses. A `NOARP` device sends to its own address, so
        /// unicast packets of that stack carry it as destination, and the other end does not feel addressed.
        inside: [u8; 6],
        /// The address of our end.
        outside: [u8; 6],
    },
}

/// What `lo` has for addresses.
const LOOPBACK: Framing = Framing::Ethernet { inside: [0; 6], outside: [0; 6] };

impl Device {
    /// Creates a TUN device with `queues` queues and returns one [`Device`] per queue, and the device's name: `name`
    /// may hold a `%d`, which the kernel replaces by the first free number. The link is down.
    pub fn open_tun(name: &str, queues: usize) -> Result<(Vec<Self>, String), OpenError> {
        let mut found = name.to_owned();
        let mut devices = Vec::new();
        for _ in 0..queues.max(1) {
            let (fd, real) = sys::open_tun(&found, sys::Layer::Ip, queues > 1)?;
            found = real;
            devices.push(Self { file: fd.into(), framing: Framing::Ip, loopback: None });
        }
        Ok((devices, found))
    }

    /// Creates a TAP device for frames of `lo`, whose addresses are all 0. The link is down.
    pub fn open_tap(name: &str) -> Result<Self, OpenError> {
        let (fd, _) = sys::open_tun(name, sys::Layer::Ethernet, false)?;
        Ok(Self { file: fd.into(), framing: LOOPBACK, loopback: None })
    }

    /// Takes over the veth end `outside`, whose other end `inside` the kernel's IP stack uses. Both must be up, and
    /// `inside` must be `NOARP`.
    pub fn open_veth(inside: &str, outside: &str) -> Result<Self, OpenError> {
        let fail = |e| OpenError::new(format!("cannot open a packet socket on {outside}"), e);
        let framing = Framing::Ethernet {
            inside: sys::hardware_address(inside).map_err(fail)?,
            outside: sys::hardware_address(outside).map_err(fail)?,
        };
        let fd = sys::open_packet(outside, sys::Receives::All, QUEUE_BYTES).map_err(fail)?;
        Ok(Self { file: fd.into(), framing, loopback: None })
    }

    /// Packets from `::1` go in by `lo` from now on: the kernel takes them from no other interface.
    pub fn attach_loopback(&mut self) -> Result<(), OpenError> {
        let fd = sys::open_packet("lo", sys::Receives::Nothing, QUEUE_BYTES)
            .map_err(|e| OpenError::new("cannot open a packet socket on lo", e))?;
        self.loopback = Some(fd.into());
        Ok(())
    }

    /// A device that another process opened; `framing` and `loopback` as it says.
    #[must_use]
    pub fn from_fd(fd: OwnedFd, framing: Framing, loopback: Option<OwnedFd>) -> Self {
        Self { file: fd.into(), framing, loopback: loopback.map(File::from) }
    }

    /// What [`Device::attach_loopback`] opened; needed by [`Device::from_fd`].
    #[must_use]
    pub fn loopback(&self) -> Option<BorrowedFd<'_>> {
        self.loopback.as_ref().map(AsFd::as_fd)
    }

    /// What this device puts in front of the IP header; needed by [`Device::from_fd`].
    #[must_use]
    pub const fn framing(&self) -> Framing {
        self.framing
    }

    /// Reads one IP packet into `buf`, which is cleared first. `None`: no packet is waiting.
    pub fn recv(&mut self, buf: &mut BytesMut) -> io::Result<Option<VnetHdr>> {
        loop {
            buf.clear();
            buf.reserve(MAX_READ);
            match sys::read(self.file.as_fd(), buf) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            }
            let Some((vnet, rest)) = buf.split_first_chunk() else { continue };
            let vnet = VnetHdr::from_bytes(*vnet);
            let Some(ethernet) = rest.get(..self.framing.len()) else { continue };
            if self.framing.is_for_us(ethernet) {
                buf.advance(VNET_HDR_LEN + self.framing.len());
                return Ok(Some(moved(vnet, -(self.framing.len() as i32))));
            }
        }
    }

    /// Writes one IP packet: `head` is its headers, `parts` its payload. [`io::ErrorKind::WouldBlock`] and `ENOBUFS`
    /// mean that the packet is lost, as on any full link.
    pub fn send(&mut self, hdr: &VnetHdr, head: &[u8], parts: &[Bytes]) -> io::Result<()> {
        let (file, framing) = match &self.loopback {
            Some(loopback) if is_from_loopback(head) => (loopback, LOOPBACK),
            _ => (&self.file, self.framing),
        };
        let vnet = moved(*hdr, framing.len() as i32).to_bytes();
        let ethernet = framing.header(head);
        let joined;
        let parts = if parts.len() <= MAX_SLICES {
            parts
        } else {
            joined = [parts.concat().into()];
            &joined
        };
        let slices = [&vnet, &ethernet[..framing.len()], head].into_iter();
        let slices = slices.chain(parts.iter().map(|part| &part[..]));
        let mut small = ArrayVec::<u8, SMALL>::new();
        let fits = slices.clone().all(|slice| small.try_extend_from_slice(slice).is_ok());
        let large: SmallVec<[_; 8]> = if fits { SmallVec::new() } else { slices.map(IoSlice::new).collect() };
        loop {
            match if fits { rustix::io::write(file, &small) } else { rustix::io::writev(file, &large) } {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// True for an IPv6 packet whose source is `::1`.
fn is_from_loopback(packet: &[u8]) -> bool {
    packet.first().is_some_and(|b| b >> 4 == 6) && packet.get(8..24) == Some(&Ipv6Addr::LOCALHOST.octets())
}

/// `hdr` with its offset counted from a place `by` bytes further to the front.
fn moved(mut hdr: VnetHdr, by: i32) -> VnetHdr {
    let shift = |at: u16| (i32::from(at) + by).clamp(0, i32::from(u16::MAX)) as u16;
    if hdr.flags & VnetHdr::NEEDS_CSUM != 0 {
        hdr.csum_start = shift(hdr.csum_start);
    }
    if hdr.hdr_len != 0 {
        hdr.hdr_len = shift(hdr.hdr_len);
    }
    hdr
}

impl Framing {
    const fn len(&self) -> usize {
        match self {
            Self::Ip => 0,
            Self::Ethernet { .. } => ETH_LEN,
        }
    }

    /// False for what the kernel sends of itself on any Ethernet link: multicast, ARP, LLDP.
    fn is_for_us(&self, header: &[u8]) -> bool {
        match self {
            Self::Ip => true,
            Self::Ethernet { inside, .. } => {
                header[..6] == *inside && matches!(header[12..14], [0x08, 0x00] | [0x86, 0xdd])
            }
        }
    }

    fn header(&self, packet: &[u8]) -> [u8; ETH_LEN] {
        let mut header = [0; ETH_LEN];
        if let Self::Ethernet { inside, outside } = self {
            header[..6].copy_from_slice(inside);
            header[6..12].copy_from_slice(outside);
            let ipv6 = packet.first().is_some_and(|b| b >> 4 == 6);
            header[12..].copy_from_slice(if ipv6 { &[0x86, 0xdd] } else { &[0x08, 0x00] });
        }
        header
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for Device {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// A device could not be opened.
#[derive(Debug)]
pub struct OpenError {
    /// What was tried.
    pub what: String,
    /// What the kernel said.
    pub cause: io::Error,
}

impl OpenError {
    fn new(what: impl Into<String>, cause: io::Error) -> Self {
        Self { what: what.into(), cause }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self.cause.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                "needs CAP_NET_ADMIN and read-write access to /dev/net/tun: run as root, or in a container add \
                 --cap-add NET_ADMIN --device /dev/net/tun"
            }
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
                "load the driver with `modprobe tun`, or in a container add --device /dev/net/tun"
            }
            Some(libc::EBUSY) => "another process has this device: stop it or choose another device name",
            Some(libc::EINVAL) => {
                "the name is too long (15 bytes are allowed) or belongs to a device of another kind"
            }
            _ => "look into the kernel log for the reason",
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.cause)
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

#[cfg(test)]
mod tests;
