//! System calls on sockets that have no safe form elsewhere.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use bytes::BytesMut;
use nix::sys::socket::{MsgFlags, recv};

/// `SIOCATMARK` of asm-generic/sockios.h.
const SIOCATMARK: u64 = 0x8905;
/// Of asm-generic/socket.h.
const SO_BUF_LOCK: libc::c_int = 72;
/// Of include/net/sock.h: the size of the receive buffer was set.
const SOCK_RCVBUF_LOCK: libc::c_int = 2;
/// `SIOCOUTQNSD` of linux/sockios.h.
const SIOCOUTQNSD: u64 = 0x894B;

nix::ioctl_read_bad!(at_mark, SIOCATMARK, libc::c_int);
nix::ioctl_read_bad!(waiting, libc::FIONREAD, libc::c_int);
nix::ioctl_read_bad!(not_sent, SIOCOUTQNSD, libc::c_int);

/// Receives at most `most` bytes behind the end of `buf`, which must have room for at least one. 0 is the end of the stream.
pub(super) fn receive(socket: impl AsFd, buf: &mut BytesMut, most: usize) -> io::Result<usize> {
    let fd = socket.as_fd().as_raw_fd();
    let spare = buf.spare_capacity_mut();
    let len = spare.len().min(most);
    // SAFETY: `spare` is writable for `len` bytes and lives during the call.
    let n = unsafe { libc::recv(fd, spare.as_mut_ptr().cast(), len, 0) };
    let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has just written `n` bytes behind the end of `buf`, within its capacity.
    unsafe { buf.set_len(buf.len() + n) };
    Ok(n)
}

/// Bytes that can be read at once; 0 also at the end of the stream, and if a read would fail.
pub(super) fn readable(socket: impl AsFd) -> io::Result<usize> {
    let mut answer = 0;
    // SAFETY: `answer` is the int that the request fills.
    unsafe { waiting(socket.as_fd().as_raw_fd(), &raw mut answer)? };
    Ok(usize::try_from(answer).unwrap_or(0))
}

/// Written bytes that the kernel has never sent: for want of a window, or of its turn.
pub(super) fn unsent(socket: impl AsFd) -> io::Result<usize> {
    let mut answer = 0;
    // SAFETY: `answer` is the int that the request fills.
    unsafe { not_sent(socket.as_fd().as_raw_fd(), &raw mut answer)? };
    Ok(usize::try_from(answer).unwrap_or(0))
}

/// True if there is a byte now. False at the end of the stream.
///
/// # Errors
/// That of a read, such as `EAGAIN` while there is none.
pub(super) fn has_more(socket: impl AsFd) -> io::Result<bool> {
    Ok(recv(socket.as_fd().as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK)? > 0)
}

/// True if the next byte to be read is the urgent one.
pub(in crate::engine) fn at_urgent_byte(socket: impl AsFd) -> io::Result<bool> {
    let mut answer = 0;
    // SAFETY: `answer` is the int that the request fills.
    unsafe { at_mark(socket.as_fd().as_raw_fd(), &raw mut answer)? };
    Ok(answer != 0)
}

/// Has a socket with an address and without a port get its port when it connects: then others may have the same one towards
/// other peers.
pub(super) fn bind_address_no_port(socket: impl AsFd) -> io::Result<()> {
    set_int(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
}

/// True unless the size of the receive buffer is the kernel's choice; also before Linux 5.15, which does not tell.
pub(super) fn has_set_buffer(socket: impl AsFd) -> bool {
    let mut locks: libc::c_int = 0;
    let mut len = size_of_val(&locks) as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `locks` is writable for the length given and lives during the call.
    let result =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, SO_BUF_LOCK, (&raw mut locks).cast(), &raw mut len) };
    result < 0 || locks & SOCK_RCVBUF_LOCK != 0
}

/// Gives the size of the receive buffer back to the kernel, which lets it grow with what is read, and forgets the bound of the window
/// that a small buffer has left.
pub(super) fn let_buffer_grow(socket: impl AsFd) -> io::Result<()> {
    set_int(&socket, libc::SOL_SOCKET, SO_BUF_LOCK, 0)?;
    set_int(&socket, libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP, 1 << 30)
}

fn set_int(socket: impl AsFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = size_of_val(&value) as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `value` is readable for the length given and lives during the call.
    let result = unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What the kernel knows of a connection.
pub(in crate::engine) fn tcp_info(socket: impl AsFd) -> io::Result<libc::tcp_info> {
    // SAFETY: tcp_info is plain data for which all zero is valid.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut len = size_of_val(&info) as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `info` is writable for the length given and lives during the call.
    let result = unsafe {
        libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut info).cast(), &raw mut len)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(info) }
}

/// How long ago the peer's last ACK came, in milliseconds; `None` while a probe of the kernel waits for one.
pub(super) fn last_ack(socket: impl AsFd) -> io::Result<Option<u32>> {
    let info = tcp_info(socket)?;
    Ok((info.tcpi_probes == 0).then_some(info.tcpi_last_ack_recv))
}
