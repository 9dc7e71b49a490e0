//! File bytes between nodes, on the raw port (2124): written to all replicas at once, read from the nearest that has them.
//! A STOR goes `write` → `stage` → `fan` → `raw` on this node, `serve` → `sink` on the others; an APPE `write` → `delta` →
//! `stage`, and the replicas fetch what it brings; a RETR goes `read` → `raw`.
//! `scrub` and `doubt` read this disk's copies again and condemn bad ones, which `pull` then replaces.
//! It never touches log, index or locks: what bytes mean is said by the cluster core.

mod blocks;
mod delta;
mod doubt;
mod fan;
#[cfg(test)]
mod liar_tests;
mod pace;
mod pool;
mod pull;
mod raw;
mod read;
mod scrub;
#[cfg(test)]
mod scrub_tests;
mod serve;
mod sink;
mod stage;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod wire;
mod write;

pub use read::*;
pub use serve::{ReplicaTasks, serve};
pub use write::*;

use crate::cluster::{BlobId, Hash, NodeId};
use crate::meter::Meter;
use crate::peer::{ClusterHandle, Greeter, Stopped};
use crate::store::Store;
use delta::Deltas;
use doubt::Doubts;
use pace::SharedPace;
use pool::Pool;
use raw::Raw;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

/// Sends and fetches blobs; one per node, cloneable.
#[derive(Debug, Clone)]
pub struct Replicas {
    handle: ClusterHandle,
    raw: Arc<Raw>,
}

/// Bounds of the raw port, on both sides.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections served at once. 1024.
    pub connections: usize,
    /// Idle connections kept to each node. 8.
    pub idle_per_peer: usize,
    /// How long they are kept; the server closes them after twice that. 30 s.
    pub idle: Duration,
    /// For the first answer to a read. 10 s: then another replica is asked.
    pub answer: Duration,
    /// For anything that should move. 60 s.
    pub stalled: Duration,
    /// For a replica to take or give the next bytes; then the transfer goes on without it. 20 s, less than `stalled`:
    /// the client must not be given up for the replica's sake.
    pub replica_stalled: Duration,
    /// Chunks of at most 256 KiB that wait for each replica of an upload. 8.
    pub queue: usize,
    /// Between two signs of life to nodes that have staged bytes, or that a version is read from. 10 s.
    pub keep: Duration,
    /// Wait for leader and lock, and again for the commit. 35 s: a bit longer than the lock wait, so that the leader's
    /// refusal comes first.
    pub patience: Duration,
    /// Bytes a second at which the scrubber reads, 0 for never. 8 MiB.
    pub scrub_rate: u64,
    /// From the end of one of its rounds to the beginning of the next. A day.
    pub scrub_rest: Duration,
    /// Bytes a second that all repair together copies to this node, 0 for no bound. 200 MiB.
    pub repair_rate: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            idle_per_peer: 8,
            idle: Duration::from_secs(30),
            answer: Duration::from_secs(10),
            stalled: Duration::from_secs(60),
            replica_stalled: Duration::from_secs(20),
            queue: 8,
            keep: Duration::from_secs(10),
            patience: Duration::from_secs(35),
            scrub_rate: 8 << 20,
            scrub_rest: Duration::from_secs(86_400),
            repair_rate: 200 << 20,
        }
    }
}

impl Replicas {
    /// Dials with `greeter`, the one that also serves both ports.
    pub fn new(handle: ClusterHandle, store: Arc<Store>, greeter: Arc<Greeter>, limits: Limits, meter: Meter) -> Self {
        let raw = Raw::new(handle.node(), Box::new(handle.clone()), store, greeter, limits, meter);
        Self { handle, raw: Arc::new(raw) }
    }
}

impl Raw {
    fn new(
        me: NodeId,
        cluster: Box<dyn Cluster>,
        store: Arc<Store>,
        greeter: Arc<Greeter>,
        limits: Limits,
        meter: Meter,
    ) -> Self {
        let pool = Pool::new(greeter, limits.clone(), meter);
        let (deltas, doubts, turn) = (Deltas::default(), Doubts::default(), AtomicUsize::new(0));
        let repair = SharedPace::new(limits.repair_rate);
        Self { me, cluster, store, pool, limits, deltas, doubts, turn, repair }
    }
}

type Answering<'a> = Pin<Box<dyn Future<Output = Result<(), Stopped>> + Send + 'a>>;

/// What the raw port needs of the cluster: a [`ClusterHandle`], or a list in tests.
pub(crate) trait Cluster: fmt::Debug + Send + Sync {
    /// Where a node's raw port is.
    fn raw(&self, node: NodeId) -> Option<SocketAddr>;
    /// See [`ClusterHandle::blob_staged`].
    fn blob_staged(&self, blob: BlobId) -> Answering<'_>;
    /// See [`ClusterHandle::blob_kept`].
    fn blob_kept(&self, blob: BlobId) -> Answering<'_>;
    /// See [`ClusterHandle::fetched`].
    fn fetched(&self, id: u64, good: bool) -> Answering<'_>;
    /// See [`ClusterHandle::merged`].
    fn merged(&self, blob: BlobId, hash: Option<Hash>) -> Answering<'_>;
    /// See [`ClusterHandle::damaged`].
    fn damaged(&self, blob: BlobId) -> Answering<'_>;
}

impl Cluster for ClusterHandle {
    fn raw(&self, node: NodeId) -> Option<SocketAddr> {
        self.peer(node).map(|info| info.raw)
    }
    fn blob_staged(&self, blob: BlobId) -> Answering<'_> {
        Box::pin(Self::blob_staged(self, blob))
    }
    fn blob_kept(&self, blob: BlobId) -> Answering<'_> {
        Box::pin(Self::blob_kept(self, blob))
    }
    fn fetched(&self, id: u64, good: bool) -> Answering<'_> {
        Box::pin(Self::fetched(self, id, good))
    }
    fn merged(&self, blob: BlobId, hash: Option<Hash>) -> Answering<'_> {
        Box::pin(Self::merged(self, blob, hash))
    }
    fn damaged(&self, blob: BlobId) -> Answering<'_> {
        Box::pin(Self::damaged(self, blob))
    }
}
