//! Receive windows.

pub(super) mod silly_window;
pub(super) mod tiny_window;
pub(super) mod window_shrink;
pub(super) mod window_update_lost;
pub(super) mod zero_window_stall;

use crate::fault::attributes::{DIRECTIONS, Reader};
use crate::fault::catalog::SERVER_IS_SOCKET;
use crate::fault::error::Error;
use crate::fault::{AttributeDoc, Engine, Point, Verdict, Way};
use crate::trace::Direction;
use crate::wire::{Flags, RawWindow, Segment};

/// The largest window without a scale factor.
const UNSCALED: u64 = 65_535;

/// Whose window it is.
const DIRECTION: AttributeDoc = AttributeDoc {
    name: "direction",
    unit: DIRECTIONS,
    default: "upstream",
    zero: "",
    doc: "The direction of the bytes that the window is for; upstream is the window that the client is offered.",
};

/// The window towards a server behind a kernel socket is the kernel's.
fn refusal(engine: Engine, direction: Direction) -> Option<&'static str> {
    (engine == Engine::Exec && direction == Direction::Downstream).then_some(SERVER_IS_SOCKET)
}

/// Bytes of a window that is named to the byte.
fn unscaled_bytes(reader: &Reader<'_>, name: &str) -> Result<u32, Error> {
    match reader.bytes(name)? {
        Some(bytes) if bytes > UNSCALED => {
            Err(reader.wrong(name, "more than 65535 bytes, the largest window without a scale factor"))
        }
        bytes => Ok(bytes.unwrap_or_default() as u32),
    }
}

/// True for our SYN or SYN-ACK towards who writes in this direction. No knob turns its window: there is no connection yet.
fn is_our_syn(direction: Direction, at: Point, seg: &Segment) -> bool {
    at.way == Way::Out && at.leg == direction.enters() && seg.has(Flags::SYN)
}

/// Lets a SYN offer at most this much; its window is never scaled (RFC 7323 §2.2).
fn cap_syn(seg: &mut Segment, bytes: u32) -> Verdict {
    let most = u16::try_from(bytes).unwrap_or(u16::MAX);
    if seg.window.0 <= most {
        return Verdict::Pass;
    }
    seg.window = RawWindow(most);
    Verdict::Rewrite
}
