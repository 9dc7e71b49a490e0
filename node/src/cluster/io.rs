//! What goes into a member and what comes out of it. The shell in `peer/driver` and the simulator speak nothing else.

use super::change::{Change, Refusal, Staged};
use super::info::{DiskReport, RoleName};
use super::message::Message;
use super::record::{Extent, Outcome};
use super::types::{BlobId, Digest, Epoch, Hash, Micros, NodeId, OpId, PeerInfo, Position, Token};

/// Something that happened around a member.
#[derive(Debug, Clone)]
pub enum Input {
    /// Time passed. At least every 50 ms.
    Tick,
    /// An authenticated link to a peer is up, or the peer says something new of itself.
    LinkUp(PeerInfo),
    /// The link to a peer broke; it is being redialled.
    LinkDown(NodeId),
    /// The link broke and the peer's port refuses connections: its process is gone.
    PortRefused(NodeId),
    /// A message came.
    Received {
        /// From whom, as its certificate and Hello proved.
        from: NodeId,
        /// What.
        message: Message,
    },
    /// All batches up to this one are written; those with `sync`, and all before them, are on the disk.
    Persisted {
        /// The greatest number written.
        batch: u64,
    },
    /// The store's report, every second or so.
    Disk(DiskReport),
    /// A session wants something changed.
    Submit {
        /// The operation; the caller makes the id, once for however many tries.
        op: OpId,
        /// What.
        change: Change,
        /// Longest wait for a leader or a lock before the bytes are staged, and again for the commit after it; in between
        /// the transfer's own limits count. At most half of [`Config::outcome_retention`](super::Config::outcome_retention).
        patience: Micros,
    },
    /// The session staged the bytes, and all of these nodes confirmed them as durable.
    Staged {
        /// The operation.
        op: OpId,
        /// The extent and its nodes.
        staged: Staged,
    },
    /// The session's transfer moves: the lease is worth renewing.
    Progress {
        /// The operation.
        op: OpId,
        /// Bytes moved so far.
        bytes: u64,
    },
    /// Replicas failed while bytes were staged.
    ReplicaLost {
        /// The operation.
        op: OpId,
        /// Those still good.
        kept: Vec<NodeId>,
        /// Those that failed.
        lost: Vec<NodeId>,
    },
    /// The session gives the operation up. Ignored once the commit is on its way.
    Cancel {
        /// The operation.
        op: OpId,
    },
    /// A session wants to read what is committed now.
    Read {
        /// The caller's number for it.
        id: u64,
    },
    /// Bytes were staged on this node's own disk by some front.
    BlobStaged(BlobId),
    /// The front that staged them, or one that reads them, still lives (its connection is open).
    BlobKept(BlobId),
    /// An [`Output::Fetch`] ended. Comes once for each.
    Fetched {
        /// Its number.
        id: u64,
        /// Whether all blobs are durable on this node's disk now.
        good: bool,
    },
    /// An [`Output::Merge`] ended. Comes once for each.
    Merged {
        /// The new blob.
        blob: BlobId,
        /// The hash of its bytes, if it is durable on this node's disk now.
        hash: Option<Hash>,
    },
    /// These blobs were deleted, as [`Output::DropBlobs`] asked.
    BlobsDropped(Vec<BlobId>),
    /// This node is about to stop: somebody else is to lead.
    Leave,
    /// This node's copy of a blob is bad or gone; [`Storage`](super::Storage) does not show it as one any more.
    Damaged(BlobId),
}

/// What a member wants done. Outputs are carried out in order; those that depend on the disk are only handed out once the
/// batch they depend on was reported as persisted.
#[derive(Debug, Clone)]
pub enum Output {
    /// Send it if there is a link, else drop it.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Tell the session that submitted `op`.
    Front {
        /// The operation.
        op: OpId,
        /// What happened.
        event: FrontEvent,
    },
    /// A read may go ahead, or must be refused.
    ReadReady {
        /// The caller's number.
        id: u64,
        /// What the local index shows by now.
        shows: Shows,
    },
    /// Blobs that nobody needs here any more: delete them, then say so.
    DropBlobs(Vec<BlobId>),
    /// Copy blobs to this node's disk, then say `Fetched`.
    Fetch {
        /// The caller's number for it.
        id: u64,
        /// Runs that together are whole blobs; one that is here already need not move.
        extents: Vec<Extent>,
        /// Nodes that may have them, the likeliest first.
        sources: Vec<NodeId>,
    },
    /// Make one blob of extents that are on this node's disk, then say `Merged`.
    Merge {
        /// Its name.
        blob: BlobId,
        /// Its bytes, in order.
        run: Vec<Extent>,
    },
    /// For logs, metrics and the simulator's checkers.
    Event(Event),
}

/// What the local index is good for when a read has waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// All that was committed when the read came: the leader's position then is covered.
    Committed(Position),
    /// What this node has. No leader was there for 3 s, and reads go on without one.
    Local,
    /// There is a leader, and in 10 s this node did not get as far as it: what it shows may be older than what others were
    /// told is done. No read may be answered from it.
    Behind,
}

/// How an operation goes on, for the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrontEvent {
    /// Stage the bytes under this name on these nodes, then say `Staged`. Comes once for an operation: a lock reissued by a
    /// new leader keeps the staged bytes.
    Stage {
        /// The blob's name.
        blob: BlobId,
        /// Where.
        replicas: Vec<NodeId>,
    },
    /// Copies on other nodes are wanted. The session keeps those in `kept`, has `nodes` copy the blob from one of them (or
    /// sends the bytes again if it has them), and says `Staged` once more with all that confirmed. `nodes` may be empty:
    /// then what is kept has to do. A session that can produce nothing cancels.
    Replacement {
        /// Copies that still count.
        kept: Vec<NodeId>,
        /// Nodes that need one.
        nodes: Vec<NodeId>,
    },
    /// The end: durable on its whole durability set.
    Done(Outcome),
    /// The end: not done.
    Refused(Refusal),
}

/// Something worth knowing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// This node took over.
    TookOver {
        /// Its epoch, persisted.
        epoch: Epoch,
        /// Members.
        members: Vec<NodeId>,
        /// What the epoch stands on.
        marks: super::Marks,
    },
    /// The epoch's first record is committed: it serves.
    Serving {
        /// The epoch.
        epoch: Epoch,
    },
    /// This node follows a leader.
    Follows {
        /// Whom.
        leader: NodeId,
        /// In which epoch.
        epoch: Epoch,
    },
    /// This node lost its leader, or stopped leading.
    Leaderless,
    /// A lock was granted.
    Granted {
        /// Its token.
        token: Token,
        /// Whose.
        op: OpId,
        /// On what.
        change: Change,
    },
    /// The leader logged a write.
    Logged {
        /// Where.
        position: Position,
        /// Whose.
        op: OpId,
        /// Under which token.
        token: Token,
    },
    /// The leader committed its records below this one.
    Committed {
        /// The epoch.
        epoch: Epoch,
        /// How many.
        count: u64,
    },
    /// This node took over what another's index had, for want of records.
    TookIndex {
        /// Whose.
        from: NodeId,
        /// How many paths changed here.
        paths: u64,
    },
    /// A node is no member any more, nor ever again: it is refused from now on.
    Forgot {
        /// Which.
        node: NodeId,
    },
    /// A peer's state changed.
    Liveness {
        /// Who.
        node: NodeId,
        /// How.
        liveness: Liveness,
    },
    /// A peer named an epoch counter that no cluster can have come to; its messages that do are dropped.
    Implausible {
        /// Who.
        from: NodeId,
        /// The counter.
        counter: u64,
    },
    /// This node's wall clock came to be too far ahead of its peers', or is so no longer.
    ClockAhead {
        /// How far, in microseconds; 0 when it is within bounds again.
        by: Micros,
    },
}

/// How a peer looks from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Liveness {
    /// Silent for longer than `down`.
    Down,
    /// Silent for longer than `suspect`, or its port refuses.
    Suspect,
    /// Heartbeats are echoed both ways.
    Alive,
}

/// One member as seen from here, for `trebol status`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct MemberStatus {
    /// Who.
    pub info: PeerInfo,
    /// How it looks.
    pub liveness: Liveness,
    /// What it does.
    pub role: RoleName,
    /// Records it lacks of what is logged here.
    pub behind: u64,
    /// Its disk.
    pub disk: DiskReport,
    /// How many microseconds its clock is ahead of the others, when that bars it from leading; else 0.
    #[serde(default)]
    pub clock_ahead: Micros,
    /// Whether it is being drained, and how far that is.
    #[serde(default)]
    pub draining: Draining,
    /// Visible files that have a copy there.
    #[serde(default)]
    pub copies: u64,
    /// Whether it is about to stop.
    #[serde(default)]
    pub leaving: bool,
    /// The version of the protocol that it speaks, as far as it has said.
    #[serde(default)]
    pub protocol: u32,
}

/// How far the draining of a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Draining {
    /// It is not being drained.
    #[default]
    No,
    /// Something is to be on it that is not to be there in the end.
    UnderWay,
    /// It is there, and no version is to be on it any more.
    Done,
}

/// The state of the cluster as seen from one node.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Status {
    /// This node.
    pub node: NodeId,
    /// Its role.
    pub role: RoleName,
    /// The leader it follows, or itself.
    pub leader: Option<NodeId>,
    /// The epoch it promised to.
    pub epoch: Epoch,
    /// Every node known, this one among them.
    pub members: Vec<MemberStatus>,
    /// What the local index comes to, as hexadecimal digits: nodes that show the same have the same.
    #[serde(default)]
    pub digest: Digest,
    /// Visible files in the local index.
    pub files: u64,
    /// Copies that visible files lack, judged by live nodes.
    pub missing_copies: u64,
    /// Records applied here.
    pub applied: u64,
}
