//! System calls of the two ways of `ping`.
#![allow(unsafe_code)]

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use libc::c_int;
use nix::sys::socket::sockopt::{Ipv4RecvErr, Ipv6RecvErr};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};

/// `SKF_AD_OFF + SKF_AD_PKTTYPE` of linux/filter.h: who a packet is for.
const PACKET_TYPE: u32 = (-0x1000_i32 + 4) as u32;
/// `TP_STATUS_CSUMNOTREADY` of linux/if_packet.h.
const CHECKSUM_NOT_READY: u32 = 1 << 3;
/// Origins of `sock_extended_err` that are ICMP (linux/errqueue.h).
const ORIGINS_ICMP: [u8; 2] = [2, 3];

/// A timer without the millisecond steps of `epoll_wait`, by which every attempt would start late.
#[derive(Debug)]
pub(super) struct Timer(TimerFd);

impl Timer {
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        Ok(Self(TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?))
    }

    /// Becomes readable after this time; `None`: never.
    pub(super) fn set(&self, after: Option<Duration>) -> io::Result<()> {
        match after {
            // Zero would switch it off.
            Some(after) => {
                let after = TimeSpec::from_duration(after.max(Duration::from_nanos(1)));
                self.0.set(Expiration::OneShot(after), TimerSetTimeFlags::empty())?;
            }
            None => self.0.unset()?,
        }
        Ok(())
    }

    /// Is not readable any more.
    pub(super) fn clear(&self) {
        // It fails if it was not readable.
        let _ = self.0.wait();
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// A socket that sends whole IP packets: the kernel completes nothing but the IPv4 identification and checksum.
pub(super) fn raw_socket(ipv6: bool) -> io::Result<OwnedFd> {
    let domain = if ipv6 { Domain::IPV6 } else { Domain::IPV4 };
    // IPPROTO_RAW stands for IP_HDRINCL, with IPv6 as well, and receives nothing.
    let protocol = Protocol::from(libc::IPPROTO_RAW);
    Ok(Socket::new(domain, Type::RAW.nonblocking().cloexec(), Some(protocol))?.into())
}

/// Sends a packet by the kernel's route to `to`, on the link `scope` if its address is of one link.
pub(super) fn send(socket: &OwnedFd, packet: &[u8], to: IpAddr, scope: u32) -> io::Result<()> {
    // A port would be taken for a protocol.
    let to = match to {
        IpAddr::V4(_) => SocketAddr::new(to, 0),
        IpAddr::V6(to) => SocketAddrV6::new(to, 0, 0, scope).into(),
    };
    SockRef::from(socket).send_to(packet, &to.into()).map(drop)
}

/// A socket that sees the IP packets of this host that are TCP to one of `ports`, or ICMP.
pub(super) fn packet_socket(ports: RangeInclusive<u16>) -> io::Result<OwnedFd> {
    let all = Protocol::from(c_int::from((libc::ETH_P_ALL as u16).to_be()));
    let socket = Socket::new(Domain::PACKET, Type::DGRAM.nonblocking().cloexec(), Some(all))?;
    socket.attach_filter(&filter(&ports))?;
    set_option(&socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, 1)?;
    let socket = socket.into();
    // What came before the filter.
    let mut buf = [0; 64];
    while receive(&socket, &mut buf).is_ok() {}
    Ok(socket)
}

/// The program of the packet socket; its packets begin with the IP header.
fn filter(ports: &RangeInclusive<u16>) -> [SockFilter; 19] {
    const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
    const LOAD_HALF: u16 = 0x28; // BPF_LD | BPF_H | BPF_ABS
    const LOAD_HALF_AT_X: u16 = 0x48; // BPF_LD | BPF_H | BPF_IND
    const HEADER_TO_X: u16 = 0xb1; // BPF_LDX | BPF_B | BPF_MSH: four times the low half of a byte
    const SHIFT_RIGHT: u16 = 0x74; // BPF_ALU | BPF_RSH | BPF_K
    const IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const IF_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
    const IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
    const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let (first, last) = (u32::from(*ports.start()), u32::from(*ports.end()));
    [
        // For this host (PACKET_HOST): not what it sends, and not what it only overhears.
        SockFilter::new(LOAD_BYTE, 0, 0, PACKET_TYPE),
        SockFilter::new(IF_EQUAL, 0, 15, 0),
        SockFilter::new(LOAD_BYTE, 0, 0, 0),
        SockFilter::new(SHIFT_RIGHT, 0, 0, 4),
        SockFilter::new(IF_EQUAL, 0, 6, 4),
        // IPv4: protocol, then the destination port behind a header of any length.
        SockFilter::new(LOAD_BYTE, 0, 0, 9),
        SockFilter::new(IF_EQUAL, 11, 0, 1),
        SockFilter::new(IF_EQUAL, 0, 9, 6),
        SockFilter::new(HEADER_TO_X, 0, 0, 0),
        SockFilter::new(LOAD_HALF_AT_X, 0, 0, 2),
        SockFilter::new(JUMP, 0, 0, 4),
        // IPv6: the next header, then the destination port behind the fixed header.
        SockFilter::new(LOAD_BYTE, 0, 0, 6),
        SockFilter::new(IF_EQUAL, 5, 0, 58),
        SockFilter::new(IF_EQUAL, 0, 3, 6),
        SockFilter::new(LOAD_HALF, 0, 0, 42),
        SockFilter::new(IF_AT_LEAST, 0, 1, first),
        SockFilter::new(IF_GREATER, 0, 1, last),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
}

/// Reads one packet. True: its checksum is not finished, because it comes from this host.
pub(super) fn receive(socket: &OwnedFd, buf: &mut [u8]) -> io::Result<(usize, bool)> {
    let mut ancillary = nix::cmsg_space!([u8; 64]);
    let mut slices = [IoSliceMut::new(buf)];
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut ancillary),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let mut unfinished = false;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::Unknown(part) = part
            && let Some(status) = part.data_bytes.first_chunk()
        {
            unfinished = u32::from_ne_bytes(*status) & CHECKSUM_NOT_READY != 0;
        }
    }
    Ok((message.bytes, unfinished))
}

/// Takes a port for both IP versions. Its socket listens, because no other state makes the kernel keep quiet about segments that
/// it does not expect; the filter lets nothing reach it.
pub(super) fn keep_port(port: u16) -> io::Result<OwnedFd> {
    let (socket, any) = match Socket::new(Domain::IPV6, Type::STREAM.cloexec(), Some(Protocol::TCP)) {
        Ok(socket) => {
            socket.set_only_v6(false)?;
            (socket, IpAddr::V6(Ipv6Addr::UNSPECIFIED))
        }
        Err(e) if e.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            let socket = Socket::new(Domain::IPV4, Type::STREAM.cloexec(), Some(Protocol::TCP))?;
            (socket, IpAddr::V4(Ipv4Addr::UNSPECIFIED))
        }
        Err(e) => return Err(e),
    };
    socket.attach_filter(&[SockFilter::new(0x06, 0, 0, 0)])?;
    socket.bind(&SocketAddr::new(any, port).into())?;
    socket.listen(1)?;
    Ok(socket.into())
}

/// The address that packets to `to` come from, and the MTU of the way there as far as it is known.
pub(super) fn route(to: SocketAddr) -> io::Result<(IpAddr, u32)> {
    let any = match to {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0))?;
    // Sends nothing; it finds the route.
    socket.connect(to)?;
    let (level, name) =
        if to.is_ipv6() { (libc::IPPROTO_IPV6, libc::IPV6_MTU) } else { (libc::IPPROTO_IP, libc::IP_MTU) };
    let mtu = option(&socket, level, name)?;
    Ok((socket.local_addr()?.ip(), u32::try_from(mtu).unwrap_or(1280)))
}

/// Lets the kernel keep the ICMP errors about a socket. TCP has them since Linux 6.2; before that [`icmp_error`] finds nothing.
pub(super) fn want_icmp_errors(socket: &impl AsFd, ipv6: bool) -> io::Result<()> {
    match ipv6 {
        false => setsockopt(socket, Ipv4RecvErr, &true)?,
        true => setsockopt(socket, Ipv6RecvErr, &true)?,
    }
    Ok(())
}

/// Type and code of the ICMP error that ended a socket, if it was one.
pub(super) fn icmp_error(socket: &impl AsRawFd) -> Option<(u8, u8)> {
    let mut ancillary = nix::cmsg_space!([u8; 128]);
    let mut buf = [0; 64];
    let mut slices = [IoSliceMut::new(&mut buf)];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, Some(&mut ancillary), flags).ok()?;
    message.cmsgs().ok()?.find_map(|part| match part {
        ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _) => {
            ORIGINS_ICMP.contains(&error.ee_origin).then_some((error.ee_type, error.ee_code))
        }
        _ => None,
    })
}

fn option(socket: &impl AsRawFd, level: c_int, name: c_int) -> io::Result<c_int> {
    let mut value: c_int = 0;
    let mut len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` is writable for the length given and lives during the call.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

fn set_option(socket: &impl AsRawFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` is an int on this stack and `len` its size.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
