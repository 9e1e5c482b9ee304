//! The system calls of the devices. All `unsafe` of the engine is here.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use bytes::BytesMut;
use libc::{c_int, c_short, c_uint, ifreq};

use super::OpenError;
use crate::wire::vnet::VNET_HDR_LEN;

const TUN_PATH: &str = "/dev/net/tun";
/// `PACKET_QDISC_BYPASS` of linux/if_packet.h.
const PACKET_QDISC_BYPASS: c_int = 20;
const TUN_F_CSUM: c_uint = 0x01;
const TUN_F_TSO4: c_uint = 0x02;
const TUN_F_TSO6: c_uint = 0x04;
const TUN_F_TSO_ECN: c_uint = 0x08;

mod ioctl {
    use libc::c_int;
    nix::ioctl_write_ptr_bad!(set_iff, libc::TUNSETIFF, libc::ifreq);
    nix::ioctl_read_bad!(get_iff, libc::TUNGETIFF, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_vnet_hdr_size, libc::TUNSETVNETHDRSZ, c_int);
    nix::ioctl_write_ptr_bad!(set_vnet_le, libc::TUNSETVNETLE, c_int);
    // The one of them that takes its argument by value.
    nix::ioctl_write_int_bad!(set_offload, libc::TUNSETOFFLOAD);
    nix::ioctl_read_bad!(get_hardware_address, libc::SIOCGIFHWADDR, libc::ifreq);
    nix::ioctl_read_bad!(get_index, libc::SIOCGIFINDEX, libc::ifreq);
}

/// What a device of the TUN driver carries.
#[derive(Clone, Copy, Debug)]
pub(super) enum Layer {
    /// IP packets (TUN).
    Ip,
    /// Frames (TAP).
    Ethernet,
}

/// Attaches a new queue to the device `name` of the TUN driver, creating it if needed; returns the device's real name.
pub(super) fn open_tun(name: &str, layer: Layer, multi_queue: bool) -> Result<(OwnedFd, String), OpenError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(TUN_PATH)
        .map_err(|e| OpenError::new(format!("cannot open {TUN_PATH}"), e))?;
    let fd = OwnedFd::from(file);
    let fail = |e| OpenError::new(format!("cannot create the TUN device {name}"), e);

    let mut request = request(name).map_err(fail)?;
    let layer = match layer {
        Layer::Ip => libc::IFF_TUN,
        Layer::Ethernet => libc::IFF_TAP,
    };
    let mut flags = layer | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    if multi_queue {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    request.ifr_ifru.ifru_flags = flags as c_short;
    let raw = fd.as_raw_fd();
    // SAFETY: `request` is a complete ifreq and outlives the calls; the two sizes are ints on this stack.
    unsafe {
        ioctl::set_iff(raw, &raw const request).map_err(|e| fail(e.into()))?;
        // A device that existed before keeps its own flags.
        ioctl::get_iff(raw, &raw mut request).map_err(|e| fail(e.into()))?;
        if c_int::from(request.ifr_ifru.ifru_flags) & libc::IFF_VNET_HDR == 0 {
            return Err(fail(io::Error::from_raw_os_error(libc::EBUSY)));
        }
        let size = VNET_HDR_LEN as c_int;
        ioctl::set_vnet_hdr_size(raw, &raw const size).map_err(|e| fail(e.into()))?;
        let little_endian: c_int = 1;
        ioctl::set_vnet_le(raw, &raw const little_endian).map_err(|e| fail(e.into()))?;
        let offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
        ioctl::set_offload(raw, offloads as c_int).map_err(|e| fail(e.into()))?;
    }
    Ok((fd, name_of(&request)))
}

/// The Ethernet address of a device.
pub(super) fn hardware_address(name: &str) -> io::Result<[u8; 6]> {
    let mut request = request(name)?;
    let socket = any_socket()?;
    // SAFETY: `request` is a complete ifreq, outlives the call, and the kernel fills `ifru_hwaddr`.
    let bytes = unsafe {
        ioctl::get_hardware_address(socket.as_raw_fd(), &raw mut request)?;
        request.ifr_ifru.ifru_hwaddr.sa_data
    };
    Ok(std::array::from_fn(|i| bytes[i] as u8))
}

/// What a packet socket sees of its device.
#[derive(Clone, Copy, Debug)]
pub(super) enum Receives {
    /// All that arrives.
    All,
    /// Nothing; it only sends.
    Nothing,
}

/// A packet socket with vnet headers on the device `name`.
pub(super) fn open_packet(name: &str, receives: Receives, queue_bytes: c_int) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // Protocol 0: nothing is received before the socket is bound to its device.
    let socket = new_socket(libc::AF_PACKET, kind, 0)?;
    let fd = socket.as_raw_fd();
    set_option(fd, libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)?;
    set_option(fd, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
    // The queue of an interface that was up before its other end drops everything until the kernel gets round to it,
    // milliseconds later.
    set_option(fd, libc::SOL_PACKET, PACKET_QDISC_BYPASS, 1)?;
    // FORCE passes net.core.rmem_max, but Linux lets only those do that who have CAP_NET_ADMIN over the whole machine: an
    // ordinary user in a namespace of his own gets what rmem_max allows.
    for (force, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
        set_option(fd, libc::SOL_SOCKET, force, queue_bytes)
            .or_else(|_| set_option(fd, libc::SOL_SOCKET, plain, queue_bytes))?;
    }

    let mut request = request(name)?;
    // SAFETY: `request` is a complete ifreq; sockaddr_ll is plain data, all zero is valid, and `bind` gets its size.
    unsafe {
        ioctl::get_index(fd, &raw mut request)?;
        let mut address: libc::sockaddr_ll = mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = match receives {
            Receives::All => (libc::ETH_P_ALL as u16).to_be(),
            Receives::Nothing => 0,
        };
        address.sll_ifindex = request.ifr_ifru.ifru_ifindex;
        let len = size_of_val(&address) as libc::socklen_t;
        check(libc::bind(fd, (&raw const address).cast(), len))?;
    }
    Ok(socket)
}

/// Reads one packet behind the end of `buf`, as far as its capacity goes.
///
/// By the system call itself (rustix): that of the C library is a point where a thread can be cancelled, for which it takes and
/// gives back a lock each time.
pub(super) fn read(fd: BorrowedFd<'_>, buf: &mut BytesMut) -> io::Result<()> {
    let n = rustix::io::read(fd, buf.spare_capacity_mut())?.0.len();
    // SAFETY: the kernel has just written `n` bytes behind the end of `buf`, within its capacity.
    unsafe { buf.set_len(buf.len() + n) };
    Ok(())
}

fn request(name: &str) -> io::Result<ifreq> {
    // SAFETY: ifreq is plain data for which all zero is valid.
    let mut request: ifreq = unsafe { mem::zeroed() };
    let bytes = CString::new(name)?.into_bytes_with_nul();
    if bytes.len() > request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(bytes) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

fn name_of(request: &ifreq) -> String {
    request.ifr_name.iter().take_while(|c| **c != 0).map(|c| char::from(*c as u8)).collect()
}

fn any_socket() -> io::Result<OwnedFd> {
    new_socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0)
}

fn new_socket(family: c_int, kind: c_int, protocol: c_int) -> io::Result<OwnedFd> {
    // SAFETY: the result, once checked, is a descriptor that nobody else owns.
    unsafe { Ok(OwnedFd::from_raw_fd(check(libc::socket(family, kind, protocol))?)) }
}

fn set_option(fd: RawFd, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` is an int on this stack and `len` its size.
    check(unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), len) })?;
    Ok(())
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
