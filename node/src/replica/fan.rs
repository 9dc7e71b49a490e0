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

#[cfg(test)]
mod tests {
    use super::super::Limits;
    use super::super::testing::{Town, blob, node, nodes};
    use super::*;
    use std::time::Duration;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpSocket, TcpStream};

    /// What is forwarded of each connection: greetings and the request, and hardly any of a body.
    const GREETING: u64 = 64 * 1024;
    /// What buffers of the kernel may hold of one connection on loopback, on both sides.
    const KERNEL: usize = 16 << 20;

    /// Stands before a node: lets it be greeted, then takes nothing more, and closes nothing.
    async fn stand_still(before: std::net::SocketAddr, at: NodeId, town: &Town) -> JoinSet<()> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(64 * 1024).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener: TcpListener = socket.listen(8).unwrap();
        town.move_to(at, listener.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut server = TcpStream::connect(before).await.unwrap();
            let (from_client, mut to_client) = client.split();
            let (mut from_server, mut to_server) = server.split();
            let mut greeting = from_client.take(GREETING);
            let forward = async {
                tokio::io::copy(&mut greeting, &mut to_server).await.unwrap();
                std::future::pending::<()>().await;
            };
            tokio::join!(forward, async { tokio::io::copy(&mut from_server, &mut to_client).await.ok() });
        });
        tasks
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_replica_that_takes_nothing_holds_the_client_back_until_it_is_given_up() {
        let limits = Limits { queue: 4, replica_stalled: Duration::from_secs(5), ..Limits::default() };
        let (town, nodes) = nodes(3, limits.clone()).await;
        let _still = stand_still(nodes[1].address, node(2), &town).await;
        let mut fan = Fan::new(&nodes[0].raw, blob(1), vec![node(2), node(3)]);
        // Far more than may be on the way.
        let (chunk, chunks) = (Bytes::from(vec![7; CHUNK_MAX]), 256);
        let mut taken = None;
        for n in 0..chunks {
            fan.push(chunk.clone()).await.unwrap();
            if fan.lanes.len() == 1 {
                taken.get_or_insert(n * CHUNK_MAX);
            }
        }
        let taken = taken.expect("one was given up");
        // In the queue, in the hands of its task and of whoever pushes, and with the kernel.
        let bound = (limits.queue + 2) * CHUNK_MAX + KERNEL;
        assert!(taken <= bound, "{taken} bytes were taken while a replica stood still, {bound} may be on the way");
        let landed = fan.finish().await.unwrap();
        assert_eq!((landed.confirmed, landed.lost), (vec![node(3)], vec![node(2)]));
        assert_eq!(landed.size, (chunks * CHUNK_MAX) as u64);
    }
}
