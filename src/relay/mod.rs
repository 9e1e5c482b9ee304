//! The relay: flows, their two legs, and the seam between them.

pub mod socket_leg;

pub use socket_leg::{Refusal, SocketCommand, SocketEvent, SocketLeg};

/// Names one flow of one shard: a slot of its table, and how often that slot was used before, so that what arrives late
/// for a flow that is gone does not reach its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Slot of the table.
    pub slot: u32,
    /// How many flows had this slot before.
    pub generation: u32,
}
