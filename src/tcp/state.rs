//! The RFC's name of a synchronised state, derived from its two halves: our FIN and the peer's.

use crate::trace::State;

/// How far our FIN is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum OurFin {
    /// The application has not closed.
    #[default]
    None,
    /// The application has closed; the FIN follows the queued data.
    Queued,
    /// The FIN is on its way.
    Sent,
    /// The peer has acknowledged it.
    Acked,
}

/// How far the peer's FIN is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum PeerFin {
    /// Not received.
    #[default]
    None,
    /// Received before our application closed.
    First,
    /// Received after our application closed.
    Second,
}

/// RFC 9293 §3.3.2. The state changes when the application closes, not when the FIN leaves (RFC 9293 §3.10.4): with a full
/// window the FIN may wait for long, and a connection that never leaves ESTABLISHED is never freed.
pub(super) const fn name(ours: OurFin, peers: PeerFin) -> State {
    match (ours, peers) {
        (OurFin::None, PeerFin::None) => State::Established,
        (OurFin::Queued | OurFin::Sent, PeerFin::None) => State::FinWait1,
        (OurFin::Acked, PeerFin::None) => State::FinWait2,
        (OurFin::None, _) => State::CloseWait,
        (OurFin::Queued | OurFin::Sent, PeerFin::First) => State::LastAck,
        (OurFin::Queued | OurFin::Sent, PeerFin::Second) => State::Closing,
        (OurFin::Acked, PeerFin::First) => State::Closed,
        (OurFin::Acked, PeerFin::Second) => State::TimeWait,
    }
}
