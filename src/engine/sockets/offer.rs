//! What a kernel socket offers to its peer where that is not the kernel's own choice.

use std::io;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::Socket;

use super::sys;
use crate::relay::SocketOffer;

/// Linux's first buffer (the middle of `net.ipv4.tcp_rmem`), half of which is offered.
const FIRST_BUFFER: u32 = 64 << 10;
/// The kernel doubles what it is given.
const MOST: u32 = i32::MAX as u32 / 2;

/// What the SYN of a fresh socket offers. It sends no segments that are larger than its MSS either.
pub(super) fn of_dial(socket: &Socket, offer: SocketOffer) {
    if let Some(mss) = offer.mss {
        // That of a client may be one that cannot be set, as on `lo`: then the route's stands.
        let _ = set_mss(socket, mss);
    }
    if offer.window.is_some() {
        set_window(socket, offer.window);
    }
}

/// What the SYN-ACKs of a listener offer from now on. Those that it repeats because they were lost have the MSS of the last offer.
pub(super) fn of_door(door: &Socket, offer: SocketOffer) {
    // None at all is the route's.
    let _ = set_mss(door, offer.mss.unwrap_or(0));
    set_window(door, offer.window);
}

/// Linux takes 88 to 32767 (`TCP_MAXSEG`), and announces the MSS of the route if that is less.
fn set_mss(socket: &Socket, mss: u16) -> io::Result<()> {
    socket.set_tcp_mss(mss.into())
}

/// Offers about this many bytes, or as many as the kernel likes. Linux offers half of a buffer at first, never less than 1152 bytes,
/// and more of it as segments tell how little of it they need. `TCP_WINDOW_CLAMP` would be exact, but Linux forgets it.
pub(super) fn set_window(socket: &Socket, most: Option<u32>) {
    match most {
        Some(bytes) => set_buffer(socket, bytes),
        None if sys::has_set_buffer(socket) => {
            set_buffer(socket, FIRST_BUFFER);
            // It fails before Linux 5.15, where the buffer does not grow again.
            let _ = sys::let_buffer_grow(socket);
        }
        None => {}
    }
}

fn set_buffer(socket: &Socket, bytes: u32) {
    let bytes = bytes.min(MOST) as usize;
    // Only who is root outside of all user namespaces may have more than `net.core.rmem_max`.
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        // No size is refused.
        let _ = socket.set_recv_buffer_size(bytes);
    }
}
