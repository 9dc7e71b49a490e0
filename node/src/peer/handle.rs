//! What everything outside the driver holds to talk to the cluster: cloneable, and never a lock across an await.

use crate::cluster::{BlobId, Change, FrontEvent, NodeId, OpId, Outcome, PeerInfo, Refusal, Staged, Status};
use std::time::Duration;

/// A door to the driver.
#[derive(Debug, Clone)]
pub struct ClusterHandle {}

/// The driver has stopped: the node is shutting down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node is shutting down")]
pub struct Stopped;

impl ClusterHandle {
    /// This node.
    pub fn node(&self) -> NodeId {
        unimplemented!()
    }
    /// What is known of a node that was met.
    pub fn peer(&self, _node: NodeId) -> Option<PeerInfo> {
        unimplemented!()
    }
    /// Starts an operation. No event comes after `patience` but a final one.
    pub async fn submit(&self, _change: Change, _patience: Duration) -> Result<Operation, Stopped> {
        unimplemented!()
    }
    /// Runs an operation without bytes to its end.
    pub async fn change(&self, _change: Change, _patience: Duration) -> Result<Result<Outcome, Refusal>, Stopped> {
        unimplemented!()
    }
    /// Waits until the local index shows all that is committed now; false when no leader answered and the local index has
    /// to do. Afterwards read the [`Store`](crate::store::Store).
    pub async fn fresh(&self) -> Result<bool, Stopped> {
        unimplemented!()
    }
    /// For people.
    pub async fn status(&self) -> Result<Status, Stopped> {
        unimplemented!()
    }
    /// Bytes of some front were staged on this node's disk.
    pub async fn blob_staged(&self, _blob: BlobId) -> Result<(), Stopped> {
        unimplemented!()
    }
    /// The front that staged them still lives. Every 10 s or so while its connection is open.
    pub async fn blob_kept(&self, _blob: BlobId) -> Result<(), Stopped> {
        unimplemented!()
    }
}

/// One operation of one session. Dropped before its end, it is cancelled.
#[derive(Debug)]
pub struct Operation {}

impl Operation {
    /// Its id, for logs.
    pub fn id(&self) -> OpId {
        unimplemented!()
    }
    /// The next event; after `Done` or `Refused` there is none.
    pub async fn next(&mut self) -> Result<FrontEvent, Stopped> {
        unimplemented!()
    }
    /// The bytes are durable on all of `staged.confirmed`.
    pub async fn staged(&self, _staged: Staged) -> Result<(), Stopped> {
        unimplemented!()
    }
    /// Bytes moved so far; cheap, call it often, most calls only set a number.
    pub fn progress(&self, _bytes: u64) {
        unimplemented!()
    }
    /// Replicas failed while bytes were staged.
    pub async fn replica_lost(&self, _kept: Vec<NodeId>, _lost: Vec<NodeId>) -> Result<(), Stopped> {
        unimplemented!()
    }
}
