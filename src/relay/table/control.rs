//! What is asked of all flows of a shard from outside, a bounded piece at a time.

use super::{FlowKey, Table};
use crate::cx::Cx;
use crate::relay::control::{FlowInfo, NotKilled};
use crate::time::Instant;
use crate::trace::{FlowId, Kill};

/// Slots that are looked at in one piece: about as long as a batch of packets takes.
const PIECE: u32 = 256;

/// What was found in one piece of a table.
#[derive(Debug, Default)]
pub struct Looked {
    /// The flows, in no order, each with its slot.
    pub flows: Vec<(u32, FlowInfo)>,
    /// The slot where the next piece begins, if there is more.
    pub next: Option<u32>,
}

impl Table {
    /// Looks at the flows in one piece of the table, from slot `from` on: those that are open, or the flow `only`, whether it
    /// is open or remembered.
    #[must_use]
    pub fn look(&self, now: Instant, from: u32, only: Option<FlowId>) -> Looked {
        let end = from.saturating_add(PIECE);
        let entries = (from..end).filter_map(|slot| Some((slot, self.entries.get(slot as usize)?)));
        let wanted = entries.filter(|(_, entry)| match only {
            Some(only) => entry.flow.id() == only,
            None => !entry.flow.is_lingering(),
        });
        let flows = wanted.map(|(slot, entry)| (slot, entry.flow.info(now))).collect();
        Looked { flows, next: Some(end).filter(|end| (*end as usize) < self.entries.capacity()) }
    }

    /// Kills a flow, if it is in this slot.
    ///
    /// # Errors
    /// [`NotKilled`] says why it still lives.
    pub fn kill(&mut self, cx: &mut Cx<'_>, slot: u32, flow: FlowId, how: Kill) -> Result<(), NotKilled> {
        let key = FlowKey { slot, generation: flow.0 as u32 };
        self.touch(key).ok_or(NotKilled::Unknown)?.kill(cx, how)
    }
}
