//! Where server legs come from that cannot have their client's port: the ports of [`Uplink::OtherPort`], around and around.
//!
//! What is taken is known by the index of the table, in which both tuples of a flow are. The port that has been free for the
//! longest time is next, so that the server has forgotten what it knew of it. Where all are taken, a flow that only waits out
//! its TIME-WAIT gives way, as Linux does for a new connection (RFC 6191: our ISN and timestamp are later than all before).

use std::net::SocketAddr;

use super::{Table, Uplink};
use crate::cx::Cx;
use crate::trace::Event;
use crate::wire::Tuple;

/// So many taken ports are looked at before one in TIME-WAIT gives way; a whole range would take long for each SYN.
const ENOUGH: usize = 64;

impl Table {
    /// The source port for the server leg of a new flow with `tuple`. `None`: all are taken by open flows to this server.
    pub(super) fn source_port(&mut self, cx: &mut Cx<'_>, tuple: Tuple) -> Option<u16> {
        let Uplink::OtherPort(range) = self.settings.uplink else { return Some(tuple.src.port()) };
        let within = (range.first..=range.last).contains(&self.next_port);
        let next = if within { self.next_port } else { range.first };
        let mut in_time_wait = None;
        for (tried, port) in (next..=range.last).chain(range.first..next).enumerate() {
            let source = SocketAddr::new(tuple.src.ip(), port);
            let leaving = Tuple { src: source, dst: tuple.dst };
            // A client that has this port itself is a connection of this host, too.
            if source == tuple.src || self.find(leaving).is_some() {
                continue;
            }
            let Some((key, _)) = self.find(leaving.reverse()) else {
                self.next_port = port.wrapping_add(1);
                return Some(port);
            };
            if in_time_wait.is_none() && self.entries[key.slot as usize].lingering {
                in_time_wait = Some((key, port));
            }
            if tried >= ENOUGH && in_time_wait.is_some() {
                break;
            }
        }
        if let Some((key, port)) = in_time_wait {
            self.remove(cx, key);
            self.next_port = port.wrapping_add(1);
            return Some(port);
        }
        cx.emit(Event::LimitHit { limit: "intercept.source_ports" });
        None
    }
}
