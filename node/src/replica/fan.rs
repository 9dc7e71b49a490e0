//! One stream to several replicas: each has a task and a bounded queue, so the slowest sets the pace, and one that fails
//! is left behind while the stream goes on. It hashes on the way. Dropped before its end, no replica keeps anything.

use super::raw::{Block, Raw};
use super::wire::CHUNK_MAX;
use crate::cluster::{BlobId, Hash, NodeId};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// The bytes on their way.
#[derive(Debug)]
pub(crate) struct Fan {
    lanes: Vec<Lane>,
    tasks: JoinSet<Option<NodeId>>,
    collected: BytesMut,
    hasher: blake3::Hasher,
    size: u64,
    nodes: Vec<NodeId>,
}

#[derive(Debug)]
struct Lane {
    node: NodeId,
    blocks: mpsc::Sender<Block>,
}

/// Every replica failed.
#[derive(Debug)]
pub(crate) struct AllLost;

/// A stream that has ended.
#[derive(Debug)]
pub(crate) struct Landed {
    pub(crate) size: u64,
    pub(crate) hash: Hash,
    /// Who has it on the disk.
    pub(crate) confirmed: Vec<NodeId>,
    /// Who failed.
    pub(crate) lost: Vec<NodeId>,
}

impl Fan {
    /// Opens the way to all of `nodes`.
    pub(crate) fn new(raw: &Arc<Raw>, blob: BlobId, nodes: Vec<NodeId>) -> Self {
        let mut tasks = JoinSet::new();
        let lane = |node: &NodeId| {
            let (blocks, received) = mpsc::channel(raw.limits.queue);
            let (raw, node) = (raw.clone(), *node);
            tasks.spawn(async move {
                match raw.put_large(node, blob, received).await {
                    Ok(()) => Some(node),
                    Err(error) => {
                        tracing::warn!(%node, %blob, %error, "replica lost during an upload");
                        None
                    }
                }
            });
            Lane { node, blocks }
        };
        let lanes = nodes.iter().map(lane).collect();
        Self { lanes, tasks, collected: BytesMut::new(), hasher: blake3::Hasher::new(), size: 0, nodes }
    }
    /// Sends bytes on as whole chunks; what is less waits for more, or for [`Self::flush`].
    pub(crate) async fn push(&mut self, mut bytes: Bytes) -> Result<(), AllLost> {
        while !bytes.is_empty() {
            if self.collected.is_empty() && bytes.len() >= CHUNK_MAX / 2 {
                let chunk = bytes.split_to(bytes.len().min(CHUNK_MAX));
                self.send(chunk).await?;
            } else {
                let room = CHUNK_MAX - self.collected.len();
                self.collected.extend_from_slice(&bytes.split_to(bytes.len().min(room)));
                if self.collected.len() == CHUNK_MAX {
                    self.flush().await?;
                }
            }
        }
        Ok(())
    }
    /// Sends what waits.
    pub(crate) async fn flush(&mut self) -> Result<(), AllLost> {
        if self.collected.is_empty() {
            return Ok(());
        }
        let chunk = self.collected.split().freeze();
        self.send(chunk).await
    }
    /// Ends the stream, and waits until every replica has confirmed or failed.
    pub(crate) async fn finish(mut self) -> Result<Landed, AllLost> {
        self.flush().await?;
        let hash = Hash::from(self.hasher.finalize());
        for lane in std::mem::take(&mut self.lanes) {
            // One that is gone shows below.
            lane.blocks.send(Block::End(self.size, hash)).await.ok();
        }
        let mut confirmed = Vec::with_capacity(self.nodes.len());
        while let Some(ended) = self.tasks.join_next().await {
            confirmed.extend(ended.ok().flatten());
        }
        if confirmed.is_empty() {
            return Err(AllLost);
        }
        // In the order of the plan, whoever was first.
        let (confirmed, lost) = self.nodes.iter().partition(|node| confirmed.contains(node));
        Ok(Landed { size: self.size, hash, confirmed, lost })
    }

    async fn send(&mut self, chunk: Bytes) -> Result<(), AllLost> {
        self.hasher.update(&chunk);
        self.size += chunk.len() as u64;
        let mut gone = Vec::new();
        for lane in &self.lanes {
            // Bounded: a replica's task ends when nothing moves.
            if lane.blocks.send(Block::Bytes(chunk.clone())).await.is_err() {
                gone.push(lane.node);
            }
        }
        self.lanes.retain(|lane| !gone.contains(&lane.node));
        if self.lanes.is_empty() { Err(AllLost) } else { Ok(()) }
    }
}
