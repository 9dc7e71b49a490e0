//! What everything outside the driver holds to talk to the cluster: cloneable, and never a lock across an await.

use crate::clock::micros;
use crate::cluster::{
    BlobId, Change, FrontEvent, Hash, Input, NodeId, OpId, Outcome, PeerInfo, Refusal, Shows, Staged, Status,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Events of one operation that its session has not taken yet. There are rarely more than two.
const EVENTS: usize = 32;

/// What was said by peers that were met.
pub(crate) type Peers = Arc<RwLock<BTreeMap<NodeId, PeerInfo>>>;

/// What sessions ask of the driver.
#[derive(Debug)]
pub(crate) enum Command {
    /// Starts an operation.
    Submit(Submission),
    /// An input of the member, as it is.
    Input(Input),
    /// When may the local index be read, and what does it show then?
    Read(oneshot::Sender<Shows>),
    /// For people.
    Status(oneshot::Sender<Status>),
}

/// An operation at its start.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) op: OpId,
    pub(crate) change: Change,
    pub(crate) patience: Duration,
    pub(crate) events: mpsc::Sender<FrontEvent>,
    pub(crate) moved: Arc<AtomicU64>,
}

/// A door to the driver.
#[derive(Debug, Clone)]
pub struct ClusterHandle {
    node: NodeId,
    peers: Peers,
    commands: mpsc::Sender<Command>,
}

/// The driver has stopped: the node is shutting down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node is shutting down")]
pub struct Stopped;

/// Why the local index may not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadRefused {
    /// There is a leader that this node cannot keep up with.
    #[error("this node is catching up with the cluster; try again in a moment, or on another node")]
    Behind,
    /// The node is shutting down.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl ClusterHandle {
    pub(crate) fn new(node: NodeId, peers: Peers, commands: mpsc::Sender<Command>) -> Self {
        Self { node, peers, commands }
    }
    /// This node.
    pub fn node(&self) -> NodeId {
        self.node
    }
    /// What is known of a node that was met, this node included.
    pub fn peer(&self, node: NodeId) -> Option<PeerInfo> {
        self.peers.read().expect("no panic while held").get(&node).cloned()
    }
    /// Starts an operation. No event comes after `patience` but a final one.
    pub async fn submit(&self, change: Change, patience: Duration) -> Result<Operation, Stopped> {
        let op = OpId(random128());
        let (events, receiver) = mpsc::channel(EVENTS);
        let moved = Arc::new(AtomicU64::new(0));
        let submission = Submission { op, change, patience, events, moved: moved.clone() };
        self.command(Command::Submit(submission)).await?;
        Ok(Operation { op, events: receiver, moved, commands: self.commands.clone(), ended: false })
    }
    /// Runs an operation without bytes to its end.
    pub async fn change(&self, change: Change, patience: Duration) -> Result<Result<Outcome, Refusal>, Stopped> {
        let mut operation = self.submit(change, patience).await?;
        loop {
            match operation.next().await? {
                FrontEvent::Done(outcome) => return Ok(Ok(outcome)),
                FrontEvent::Refused(refusal) => return Ok(Err(refusal)),
                FrontEvent::Stage { .. } | FrontEvent::Replacement { .. } => {
                    debug_assert!(false, "an operation without bytes has nothing to stage");
                }
            }
        }
    }
    /// Waits until the local index shows all that is committed now; false when no leader answered and the local index has
    /// to do. Afterwards read the [`Store`](crate::store::Store).
    pub async fn fresh(&self) -> Result<bool, ReadRefused> {
        match self.ask(Command::Read).await? {
            Shows::Committed(_) => Ok(true),
            Shows::Local => Ok(false),
            Shows::Behind => Err(ReadRefused::Behind),
        }
    }
    /// For people.
    pub async fn status(&self) -> Result<Status, Stopped> {
        self.ask(Command::Status).await
    }
    /// Bytes of some front were staged on this node's disk.
    pub async fn blob_staged(&self, blob: BlobId) -> Result<(), Stopped> {
        self.command(Command::Input(Input::BlobStaged(blob))).await
    }
    /// The front that staged them still lives. Every 10 s or so while its connection is open.
    pub async fn blob_kept(&self, blob: BlobId) -> Result<(), Stopped> {
        self.command(Command::Input(Input::BlobKept(blob))).await
    }
    /// A [`Fetch`](super::Order::Fetch) ended: whether all its blobs are durable here.
    pub async fn fetched(&self, id: u64, good: bool) -> Result<(), Stopped> {
        self.command(Command::Input(Input::Fetched { id, good })).await
    }
    /// This node's copy of a blob is bad or gone, and the store condemned it.
    pub async fn damaged(&self, blob: BlobId) -> Result<(), Stopped> {
        self.command(Command::Input(Input::Damaged(blob))).await
    }

    /// This node is about to stop: somebody else is to lead.
    pub async fn leave(&self) -> Result<(), Stopped> {
        self.command(Command::Input(Input::Leave)).await
    }

    /// A [`Merge`](super::Order::Merge) ended: the hash of the new blob, if it is durable here.
    pub async fn merged(&self, blob: BlobId, hash: Option<Hash>) -> Result<(), Stopped> {
        self.command(Command::Input(Input::Merged { blob, hash })).await
    }

    async fn command(&self, command: Command) -> Result<(), Stopped> {
        self.commands.send(command).await.map_err(|_| Stopped)
    }
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Stopped> {
        let (answer, answered) = oneshot::channel();
        self.command(command(answer)).await?;
        answered.await.map_err(|_| Stopped)
    }
}

/// One operation of one session. Dropped before its end, it is cancelled.
#[derive(Debug)]
pub struct Operation {
    op: OpId,
    events: mpsc::Receiver<FrontEvent>,
    moved: Arc<AtomicU64>,
    commands: mpsc::Sender<Command>,
    ended: bool,
}

impl Operation {
    /// Its id, for logs.
    pub fn id(&self) -> OpId {
        self.op
    }
    /// The next event; after `Done` or `Refused` there is none. Safe to cancel.
    pub async fn next(&mut self) -> Result<FrontEvent, Stopped> {
        let event = self.events.recv().await.ok_or(Stopped)?;
        self.ended |= matches!(event, FrontEvent::Done(_) | FrontEvent::Refused(_));
        Ok(event)
    }
    /// The bytes are durable on all of `staged.confirmed`.
    pub async fn staged(&self, staged: Staged) -> Result<(), Stopped> {
        self.input(Input::Staged { op: self.op, staged }).await
    }
    /// Bytes moved so far, in all. Cheap, call it often: it only sets a number, which the driver looks at every second.
    pub fn progress(&self, bytes: u64) {
        self.moved.fetch_max(bytes, Ordering::Relaxed);
    }
    /// Replicas failed while bytes were staged.
    pub async fn replica_lost(&self, kept: Vec<NodeId>, lost: Vec<NodeId>) -> Result<(), Stopped> {
        self.input(Input::ReplicaLost { op: self.op, kept, lost }).await
    }
    async fn input(&self, input: Input) -> Result<(), Stopped> {
        self.commands.send(Command::Input(input)).await.map_err(|_| Stopped)
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        // Where the queue is full nothing is lost: the driver looks now and then whose events nobody takes any more.
        if !self.ended {
            let _ = self.commands.try_send(Command::Input(Input::Cancel { op: self.op }));
        }
    }
}

/// 128 bits from the system.
pub(crate) fn random128() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has random bytes");
    u128::from_le_bytes(bytes)
}

impl Submission {
    pub(crate) fn input(&self) -> Input {
        Input::Submit { op: self.op, change: self.change.clone(), patience: micros(self.patience) }
    }
}
