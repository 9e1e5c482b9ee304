//! What is behind the flows, as the loop sees it in exec and listen mode: kernel sockets, and perhaps somebody who takes the
//! packets that are no flow's. In the other modes there is none: both legs are packets, and what is no flow's is written back.

use std::io;

use bytes::BytesMut;
use mio::event::Event;

use crate::relay::{FlowKey, SocketCommand, SocketEvent};
use crate::time::Instant;

/// Carries out what socket legs want. Lives on the thread of its shard; no call waits.
pub trait Outside: Send {
    /// Called once, before the loop. The tokens from `first_token` on are free for sockets.
    fn start(&mut self, registry: mio::Registry, first_token: usize) -> io::Result<()>;

    /// Carries out a command of a flow.
    fn command(&mut self, flow: FlowKey, command: SocketCommand);

    /// One of the sockets is ready. A socket that is still readable after its share of reads, or that got new credit,
    /// must be taken up again by [`Self::poll_event`]: readiness is edge-triggered.
    fn on_ready(&mut self, event: &Event);

    /// The next thing that happened. The loop calls this until `None` after commands, readiness and timeouts.
    fn poll_event(&mut self) -> Option<(FlowKey, SocketEvent)>;

    /// An IP packet that is neither TCP nor an ICMP error of a flow; its checksum may be unfinished if `needs_csum` (only the
    /// pseudo-header sum is in the field, as it is for packets of the same machine). False: it is written back.
    fn on_packet(&mut self, now: Instant, packet: &[u8], needs_csum: bool) -> bool;

    /// The next whole IP packet, with full checksums, for the inside. Clears and fills `packet`; false if there is none.
    fn poll_packet(&mut self, packet: &mut BytesMut) -> bool;

    /// The config key of a limit that was hit since the last call. The loop calls this until `None` after packets.
    fn poll_limit(&mut self) -> Option<&'static str>;

    /// When [`Self::on_timeout`] wants to be called; a time in the past if events or packets are left for the next turn.
    fn poll_timeout(&self) -> Option<Instant>;

    /// Runs what is due.
    fn on_timeout(&mut self, now: Instant);
}
