//! Kernel sockets, as the loop sees them: those behind the flows in exec and listen mode, perhaps with somebody who takes the
//! packets that are no flow's, and both sides of the sockets engine. Where both legs are packets there are none, and what is no
//! flow's is written back.

use std::io;

use bytes::BytesMut;
use mio::event::Event;

use crate::relay::{FlowKey, SocketCommand, SocketEvent, SocketOffer};
use crate::tcp::SynOptions;
use crate::time::Instant;
use crate::trace::Leg;
use crate::wire::{Segment, Tuple};

/// A client that a kernel socket has accepted.
#[derive(Clone, Copy, Debug)]
pub struct Accepted {
    /// From the client to the server.
    pub tuple: Tuple,
    /// What the SYN to the server offers, where that leg is our own TCP; `None`: it is a kernel socket, too.
    pub offer: Option<SynOptions>,
}

/// What is said to the client of a SYN that the kernel holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A SYN-ACK, by the kernel itself, which offers this.
    Accept(SocketOffer),
    /// A RST.
    Reset,
    /// Destination unreachable, by ICMP, with this code if it can be had. `None`: another error.
    Unreachable(Option<u8>),
    /// It goes on to where it was going.
    Pass,
    /// Nothing.
    Drop,
}

/// Carries out what socket legs want. Lives on the thread of its shard; no call waits.
pub trait Outside: Send {
    /// Called once, before the loop. The tokens from `first_token` on are free for sockets.
    fn start(&mut self, registry: mio::Registry, first_token: usize) -> io::Result<()>;

    /// Carries out a command for the kernel socket of a leg.
    fn command(&mut self, flow: FlowKey, leg: Leg, command: SocketCommand);

    /// The next first SYN that the kernel holds, until [`Self::answer`] or until the client repeats it.
    fn poll_syn(&mut self, now: Instant) -> Option<(Tuple, Segment)> {
        let _ = now;
        None
    }

    /// Answers the newest SYN with these addresses.
    fn answer(&mut self, syn: Tuple, answer: Answer) {
        let _ = (syn, answer);
    }

    /// The next client that a kernel socket has accepted, as its SYN came. Each is to be settled by [`Self::settle`] before the
    /// next is asked for.
    fn poll_accepted(&mut self) -> Option<Accepted> {
        None
    }

    /// What has become of the client that [`Self::poll_accepted`] gave: it is the client leg of this flow. `None`: of none,
    /// and it gets a RST.
    fn settle(&mut self, flow: Option<FlowKey>) {
        let _ = flow;
    }

    /// No new client is wanted any more.
    fn stop(&mut self) {}

    /// One of the sockets is ready. A socket that is still readable after its share of reads, or that got new credit,
    /// must be taken up again by [`Self::poll_event`]: readiness is edge-triggered.
    fn on_ready(&mut self, event: &Event);

    /// The next thing that happened. The loop calls this until `None` after commands, readiness and timeouts.
    fn poll_event(&mut self) -> Option<(FlowKey, Leg, SocketEvent)>;

    /// An IP packet that is neither TCP nor an ICMP error of a flow; its checksum may be unfinished if `needs_csum` (only the
    /// pseudo-header sum is in the field, as it is for packets of the same machine). False: it is written back.
    fn on_packet(&mut self, now: Instant, packet: &[u8], needs_csum: bool) -> bool {
        let _ = (now, packet, needs_csum);
        false
    }

    /// The next whole IP packet, with full checksums, for the inside. Clears and fills `packet`; false if there is none.
    fn poll_packet(&mut self, packet: &mut BytesMut) -> bool {
        packet.clear();
        false
    }

    /// The config key of a limit that was hit since the last call. The loop calls this until `None` after packets.
    fn poll_limit(&mut self) -> Option<&'static str> {
        None
    }

    /// When [`Self::on_timeout`] wants to be called; a time in the past if events or packets are left for the next turn.
    fn poll_timeout(&self) -> Option<Instant>;

    /// Runs what is due.
    fn on_timeout(&mut self, now: Instant);
}
