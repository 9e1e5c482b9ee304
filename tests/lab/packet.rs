//! Packet sockets, bound to one device.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::ns::Ns;

/// How much of a packet a socket carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layer {
    /// From the Ethernet header on.
    Ethernet,
    /// From the IP header on.
    Ip,
}

/// A packet socket on a device, which sees what comes in and, unless `incoming_only`, what goes out.
pub(crate) fn open(ns: &Ns, device: &str, layer: Layer, incoming_only: bool) -> OwnedFd {
    ns.run(|| {
        let kind = if layer == Layer::Ip { libc::SOCK_DGRAM } else { libc::SOCK_RAW };
        let index = nix::net::if_::if_nametoindex(device).expect("the device");
        // SAFETY: plain system calls; sockaddr_ll is plain data and its size is given.
        unsafe {
            let fd = libc::socket(libc::AF_PACKET, kind | libc::SOCK_CLOEXEC, 0);
            assert!(fd >= 0, "a packet socket: {}", io::Error::last_os_error());
            let socket = OwnedFd::from_raw_fd(fd);
            // Beyond the limit only who is root of the whole machine may go; the others get what there is.
            option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 32 << 20)
                .or_else(|_| option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, 32 << 20))
                .expect("an option of sockets");
            option(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, incoming_only.into())
                .expect("an option of packet sockets");
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
            address.sll_ifindex = index as i32;
            let len = size_of_val(&address) as libc::socklen_t;
            let bound = libc::bind(fd, (&raw const address).cast(), len);
            assert_eq!(bound, 0, "bind to {device}: {}", io::Error::last_os_error());
            socket
        }
    })
}

fn option(socket: &OwnedFd, level: i32, name: i32, value: i32) -> nix::Result<()> {
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` is an int on this stack and `len` its size.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), len) };
    nix::errno::Errno::result(set).map(drop)
}

/// Switches off checksum offload and with it segmentation offload, so that every frame of the device is one true segment.
pub(crate) fn single_segments(ns: &Ns, device: &str) {
    #[repr(C)]
    struct EthtoolValue {
        cmd: u32,
        data: u32,
    }
    const ETHTOOL_STXCSUM: u32 = 0x17;
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    ns.run(|| {
        let mut value = EthtoolValue { cmd: ETHTOOL_STXCSUM, data: 0 };
        // SAFETY: ifreq is plain data; `value` is what ETHTOOL_STXCSUM takes and outlives the call.
        unsafe {
            let mut request: libc::ifreq = std::mem::zeroed();
            for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
                *to = from as libc::c_char;
            }
            request.ifr_ifru.ifru_data = (&raw mut value).cast();
            let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
            let socket = OwnedFd::from_raw_fd(socket);
            let done = libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request);
            assert_eq!(done, 0, "checksum offload of {device}: {}", io::Error::last_os_error());
        }
    });
}
