//! Questions from other threads to the shards. A shard answers between two turns of its loop, a bounded piece at a time, and
//! never waits for whoever has asked.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use mio::Waker;

use super::Command;
use crate::cx::Cx;
use crate::relay::{FlowInfo, Looked, NotKilled, Table};
use crate::trace::{FlowId, Kill};

/// Where an answer goes. Dropped without a call if the shard ends before.
type Reply<T> = Box<dyn FnOnce(T) + Send>;

/// What a shard can be asked.
pub(super) enum Question {
    /// Its flows: see [`Table::look`].
    Look { from: u32, only: Option<FlowId>, reply: Reply<Looked> },
    /// The end of a flow: see [`Table::kill`].
    Kill { slot: u32, flow: FlowId, how: Kill, reply: Reply<Result<(), NotKilled>> },
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Look { from, only, .. } => {
                f.debug_struct("Look").field("from", from).field("only", only).finish()
            }
            Self::Kill { flow, how, .. } => {
                f.debug_struct("Kill").field("flow", flow).field("how", how).finish()
            }
        }
    }
}

impl Question {
    pub(super) fn answer(self, cx: &mut Cx<'_>, table: &mut Table) {
        match self {
            Self::Look { from, only, reply } => reply(table.look(cx.now, from, only)),
            Self::Kill { slot, flow, how, reply } => reply(table.kill(cx, slot, flow, how)),
        }
    }
}

/// The engine has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// Asks the shards of a running engine.
#[derive(Clone, Debug)]
pub struct Remote(Arc<[(Sender<Command>, Arc<Waker>)]>);

impl Remote {
    pub(super) fn new(shards: impl Iterator<Item = (Sender<Command>, Arc<Waker>)>) -> Self {
        Self(shards.collect())
    }

    /// The open flows with numbers after `after`, by number, at most `most`; and how many more there are.
    ///
    /// # Errors
    /// [`Gone`] if the engine ends before it has answered.
    pub async fn flows(&self, after: FlowId, most: usize) -> Result<(Vec<FlowInfo>, usize), Gone> {
        let (mut flows, mut more) = (Vec::new(), 0);
        for shard in 0..self.0.len() {
            let mut from = Some(0);
            while let Some(piece) = from {
                let looked = self.look(shard, piece, None).await?;
                flows.extend(looked.flows.into_iter().map(|(_, flow)| flow).filter(|flow| flow.flow > after));
                // Cut early: what is asked for is bounded, what is there need not be.
                flows.sort_unstable_by_key(|flow: &FlowInfo| flow.flow);
                more += flows.len().saturating_sub(most);
                flows.truncate(most);
                from = looked.next;
            }
        }
        Ok((flows, more))
    }

    /// One flow, open or remembered.
    ///
    /// # Errors
    /// [`Gone`] if the engine ends before it has answered.
    pub async fn flow(&self, flow: FlowId) -> Result<Option<FlowInfo>, Gone> {
        Ok(self.find(flow).await?.map(|(_, _, found)| found))
    }

    /// Kills a flow.
    ///
    /// # Errors
    /// [`Gone`] if the engine ends before it has answered; in it [`NotKilled`] if the flow still lives.
    pub async fn kill(&self, flow: FlowId, how: Kill) -> Result<Result<(), NotKilled>, Gone> {
        let Some((shard, slot, _)) = self.find(flow).await? else { return Ok(Err(NotKilled::Unknown)) };
        self.ask(shard, |reply| Question::Kill { slot, flow, how, reply }).await
    }

    /// The shard, the slot, and the flow.
    async fn find(&self, flow: FlowId) -> Result<Option<(usize, u32, FlowInfo)>, Gone> {
        for shard in 0..self.0.len() {
            let mut from = Some(0);
            while let Some(piece) = from {
                let mut looked = self.look(shard, piece, Some(flow)).await?;
                if let Some((slot, found)) = looked.flows.pop() {
                    return Ok(Some((shard, slot, found)));
                }
                from = looked.next;
            }
        }
        Ok(None)
    }

    async fn look(&self, shard: usize, from: u32, only: Option<FlowId>) -> Result<Looked, Gone> {
        self.ask(shard, |reply| Question::Look { from, only, reply }).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        shard: usize,
        question: impl FnOnce(Reply<T>) -> Question,
    ) -> Result<T, Gone> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        // Nobody listens any more if the asker has gone away.
        let reply = Box::new(move |value| drop(answer.send(value)));
        let (commands, waker) = &self.0[shard];
        commands.send(Command::Tell(question(reply))).map_err(|_| Gone)?;
        waker.wake().map_err(|_| Gone)?;
        answered.await.map_err(|_| Gone)
    }
}
