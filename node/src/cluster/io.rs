//! What goes into a member and what comes out of it. The shell in `peer/driver` and the simulator speak nothing else.

use super::change::{Change, Refusal, Staged};
use super::info::{DiskReport, RoleName};
use super::message::Message;
use super::record::{Extent, Outcome};
use super::types::{BlobId, Digest, Epoch, Micros, NodeId, OpId, PeerInfo, Position, Token};

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
        /// the transfer's own limits count. At most half of [`Config::outcome_retention`].
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
    /// The front that staged them still lives (its connection is open).
    BlobKept(BlobId),
    /// An [`Output::Fetch`] ended. Comes once for each.
    Fetched {
        /// Its number.
        id: u64,
        /// Whether all blobs are durable on this node's disk now.
        good: bool,
    },
    /// These blobs were deleted, as [`Output::DropBlobs`] asked.
    BlobsDropped(Vec<BlobId>),
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
    /// How many microseconds its clock is ahead of the others, when that bars it from leading and from new files; else 0.
    #[serde(default)]
    pub clock_ahead: Micros,
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

/// Settings of the core. Times in microseconds.
#[derive(Debug, Clone)]
pub struct Config {
    /// Between heartbeats. 250 ms: four chances before suspicion.
    pub heartbeat: Micros,
    /// In a cluster of more nodes than this, followers exchange heartbeats with their leader alone at that pace. 16.
    pub mesh: usize,
    /// And with each other at this one. 2 s.
    pub slow_heartbeat: Micros,
    /// Silence until Suspect. 1 s. The lease is three quarters of it.
    pub suspect: Micros,
    /// Silence until Down. 5 s.
    pub down: Micros,
    /// Wait for a Bully Answer. 300 ms.
    pub answer: Micros,
    /// Wait for any other answer. 2 s.
    pub rpc: Micros,
    /// Wait for promises, and for the first record's commit. 600 ms.
    pub collect: Micros,
    /// A lock's lease. 10 s.
    pub lock_lease: Micros,
    /// Longest wait in a lock's queue. 30 s.
    pub lock_wait: Micros,
    /// Waiters on one path, and locks in all.
    pub max_waiters: usize,
    /// How long outcomes are kept for repeats. 10 min; no front retries for longer than half of it.
    pub outcome_retention: Micros,
    /// How long losers of a conflict are kept. 7 days.
    pub loser_retention: Micros,
    /// A node that is silent for this long is forgotten, while most of the known nodes are there. 7 days.
    pub forget_after: Micros,
    /// How long staged bytes whose front is gone are kept.
    pub staged_grace: Micros,
    /// How long replaced bytes are kept for readers of the old version.
    pub replaced_grace: Micros,
    /// Longest upload, however fast it moves. 6 h.
    pub max_upload: Micros,
    /// An upload that moves less than `stall_bytes` in this time is ended. 60 s.
    pub stall_window: Micros,
    /// Bytes in `stall_window`. 240 KiB, which is 4 KiB/s.
    pub stall_bytes: u64,
    /// Free space that placement leaves on a disk, in bytes.
    pub disk_reserve: u64,
    /// Copies below which a write is refused. 2; 1 only by the operator's word.
    pub min_copies: usize,
    /// How far ahead of its peers a wall clock may be before its node neither leads nor takes new files. 500 ms.
    pub clock_bound: Micros,
    /// A version with one live copy gets another when the rest have been away for this long. 5 s.
    pub repair_last_copy: Micros,
    /// A version with fewer than three live copies does, when the rest have been away for this long. 60 s, so that restarts
    /// copy nothing.
    pub repair_after: Micros,
    /// A copy of which nothing is heard for this long is made elsewhere. 10 s.
    pub repair_timeout: Micros,
    /// Copies under way in all. 16.
    pub repair_copies: usize,
    /// Copies under way to one node. 4.
    pub repair_copies_per_node: usize,
    /// Extents of one version: no append beyond that, since each record of one names them all. 64.
    pub max_extents: usize,
    /// Records in one frame.
    pub records_per_frame: usize,
    /// Who lacks more records than this of a linked node leads nothing and is no member until it has them. 1,000.
    pub far_behind: u64,
    /// The newest records stay in the log, whoever has them. 4,000.
    pub log_least: u64,
    /// More records than this are not kept for nodes that are away: they get the index when they return. 200,000.
    pub log_most: u64,
    /// Paths compared at once when an index is taken over. 1,024.
    pub index_range: usize,
    /// A planted bug, for the simulator's self-test.
    #[cfg(feature = "planted-bugs")]
    pub planted: super::planted::Planted,
}

impl Default for Config {
    fn default() -> Self {
        let ms = super::types::MS;
        Self {
            heartbeat: 250 * ms,
            mesh: 16,
            slow_heartbeat: 2000 * ms,
            suspect: 1000 * ms,
            down: 5000 * ms,
            answer: 300 * ms,
            rpc: 2000 * ms,
            collect: 600 * ms,
            lock_lease: 10_000 * ms,
            lock_wait: 30_000 * ms,
            max_waiters: 1024,
            outcome_retention: 600_000 * ms,
            loser_retention: 7 * 24 * 3_600_000 * ms,
            forget_after: 7 * 24 * 3_600_000 * ms,
            staged_grace: 900_000 * ms,
            replaced_grace: 60_000 * ms,
            max_upload: 6 * 3_600_000 * ms,
            stall_window: 60_000 * ms,
            stall_bytes: 240 * 1024,
            disk_reserve: 64 * 1024 * 1024,
            min_copies: 2,
            clock_bound: 500 * ms,
            repair_last_copy: 5000 * ms,
            repair_after: 60_000 * ms,
            repair_timeout: 10_000 * ms,
            repair_copies: 16,
            repair_copies_per_node: 4,
            max_extents: 64,
            records_per_frame: 512,
            far_behind: 1000,
            log_least: 4000,
            log_most: 200_000,
            index_range: 1024,
            #[cfg(feature = "planted-bugs")]
            planted: super::planted::Planted::default(),
        }
    }
}
