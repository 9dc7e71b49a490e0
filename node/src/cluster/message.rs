//! Messages between members, as JSON on the RPC port. Each is one-way; answers are messages of their own, and whoever waits
//! for one does so with a deadline.

use super::marks::Marks;
use super::record::{Extent, Outcome, Record};
use super::types::{BlobId, Epoch, Hlc, Micros, NodeId, OpId, Position, Token};
use crate::path::FtpPath;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// "I live, and this is where I stand." Every [`Config::heartbeat`](super::Config).
    Heartbeat {
        /// The sender's monotonic clock.
        sent: Micros,
        /// The newest `sent` it had from the receiver: a link counts only while heartbeats are echoed both ways.
        echo: Micros,
        /// Its view.
        info: Box<Info>,
    },
    /// Bully: "do you live, higher one?"
    Election,
    /// Bully: "I do, leave it to me."
    Answer,
    /// The winner asks for everything, and for a promise to refuse every lower epoch.
    Collect {
        /// Its new epoch.
        epoch: Epoch,
        /// What it has.
        marks: Marks,
    },
    /// The promise; the epoch is on the sender's disk.
    Promise {
        /// The epoch promised to.
        epoch: Epoch,
        /// What the sender has.
        marks: Marks,
        /// What of it the winner lacks, at most one frame; the winner pulls the rest.
        records: Vec<Arc<Record>>,
        /// Known commits.
        committed: Marks,
        /// Locks held by the sender's fronts.
        locks: Vec<HeldLock>,
    },
    /// No promise: a higher epoch is promised, or another leader's lease still runs.
    Refuse {
        /// The epoch that was asked for.
        epoch: Epoch,
        /// The one promised to.
        promised: Epoch,
        /// True when only the lease stands in the way.
        held: bool,
    },
    /// The leader's stream.
    Append {
        /// Its epoch.
        epoch: Epoch,
        /// Records in the order of its log.
        records: Vec<Arc<Record>>,
        /// How many records of its epoch are committed.
        committed: u64,
        /// There are more, which wait for the acknowledgement of these.
        more: bool,
    },
    /// Cumulative acknowledgement of an epoch's records.
    Ack {
        /// Of which epoch.
        epoch: Epoch,
        /// In the sender's log.
        received: u64,
        /// And on its disk. Only this one counts for a commit.
        durable: u64,
    },
    /// "I lead this epoch; its first record is committed."
    Coordinator {
        /// The epoch.
        epoch: Epoch,
        /// Its members.
        members: Vec<NodeId>,
    },
    /// A higher-ranked, caught-up member asks the leader to hand over.
    HandoverAsk,
    /// The leader has stopped and frees its members.
    Release {
        /// The epoch it led.
        epoch: Epoch,
    },
    /// Asks for the committed records beyond `marks`.
    Pull {
        /// What the asker has.
        marks: Marks,
        /// The epoch that a winner collects for: who promised to it hands over uncommitted records, too.
        collecting: Option<Epoch>,
    },
    /// The answer to a Pull.
    Pulled {
        /// Records in the order of the sender's log, at most one frame.
        records: Vec<Arc<Record>>,
        /// Known commits.
        committed: Marks,
    },
    /// A front asks for the lock of an operation, and for a plan.
    LockRequest {
        /// Which operation.
        op: OpId,
        /// What it wants to do; the leader locks all its paths.
        change: Change,
    },
    /// The lock with its plan; also the same lock under a new leader's token.
    Granted {
        /// Which operation.
        op: OpId,
        /// To be shown at commit.
        token: Token,
        /// Where the bytes are to go; empty for metadata.
        replicas: Vec<NodeId>,
        /// The leader's clock, as a floor for later attempts.
        hlc: Hlc,
    },
    /// A front asks for nodes in place of replicas it lost.
    Replace {
        /// Which operation.
        op: OpId,
        /// Under which token.
        token: Token,
        /// Replicas that still hold or take the bytes.
        kept: Vec<NodeId>,
        /// Replicas that failed.
        lost: Vec<NodeId>,
    },
    /// Where to put copies instead: the answer to Replace, and to a Commit some of whose replicas are no members any more.
    Replacement {
        /// Which operation.
        op: OpId,
        /// Under which token.
        token: Token,
        /// Replicas whose copies still count.
        kept: Vec<NodeId>,
        /// Nodes that need a copy in place of the others.
        nodes: Vec<NodeId>,
    },
    /// The holder lives and its operation moves: the lease begins anew.
    Renew {
        /// Which operation.
        op: OpId,
        /// Under which token.
        token: Token,
    },
    /// All replicas have confirmed: log it.
    Commit {
        /// Which operation.
        op: OpId,
        /// Under which token.
        token: Token,
        /// What to do.
        change: Change,
        /// The staged bytes and who confirmed them; `None` for metadata.
        staged: Option<Staged>,
        /// No stamp below this: the greatest clock a leader showed this front, plus the time since.
        floor: Hlc,
    },
    /// Committed: on the disks of the whole durability set.
    Done {
        /// Which operation.
        op: OpId,
        /// Where and with how many copies.
        outcome: Outcome,
    },
    /// Not done, nothing changed, and trying again will not help now.
    Refused {
        /// Which operation.
        op: OpId,
        /// Why.
        refusal: Refusal,
    },
    /// The token is not (or no longer) the lock's: ask again.
    Stale {
        /// Which operation.
        op: OpId,
        /// The token that was shown.
        token: Token,
    },
    /// The receiver of the request cannot serve now.
    NotLeader {
        /// Which operation.
        op: OpId,
    },
    /// The front gave up, or no longer wants what it was granted.
    Unlock {
        /// Which operation.
        op: OpId,
        /// Under which token; `None` while still waiting in the queue.
        token: Option<Token>,
    },
    /// Asks the leader for its committed position.
    ReadRequest {
        /// The asker's number of this round.
        round: u64,
    },
    /// The committed position when the request came, from a leader whose lease runs.
    ReadPosition {
        /// The round it answers.
        round: u64,
        /// The last committed record.
        position: Position,
    },
}

/// What every heartbeat says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Info {
    /// What the sender is doing.
    pub role: RoleName,
    /// The epoch it promised to.
    pub promised: Epoch,
    /// Whom it follows.
    pub leader: Option<(NodeId, Epoch)>,
    /// Whether the lease of its leader binds it, towards the receiver.
    pub held: bool,
    /// What is in its log.
    pub marks: Marks,
    /// How many records of its epoch it has committed, when it leads.
    pub committed: u64,
    /// Its disk.
    pub disk: DiskReport,
}

/// Roles as peers and people see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoleName {
    /// Follows, or looks for someone to follow.
    #[default]
    Follow,
    /// Asks higher ranks.
    Elect,
    /// Collects promises, or waits for the first record of its epoch.
    Collect,
    /// Serves.
    Lead,
}

/// A node's disk, for placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DiskReport {
    /// Bytes of blobs and inline files.
    pub used: u64,
    /// Bytes free on its file system.
    pub free: u64,
    /// False while writes fail or stall: it leaves placement.
    pub healthy: bool,
}

/// A lock that one of the sender's fronts holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldLock {
    /// Which operation.
    pub op: OpId,
    /// The token it was granted with.
    pub token: Token,
    /// What it wants.
    pub change: Change,
    /// Where it stages.
    pub replicas: Vec<NodeId>,
}

/// What a client wants changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// STOR: a whole new version of a file.
    Store {
        /// Where.
        path: FtpPath,
        /// Refuse if something is there (STOU, and profiles without "modify").
        create_only: bool,
    },
    /// DELE.
    Delete {
        /// What.
        path: FtpPath,
    },
    /// MKD.
    MakeDirectory {
        /// Where.
        path: FtpPath,
    },
    /// RMD of an empty directory.
    RemoveDirectory {
        /// What.
        path: FtpPath,
    },
    /// RNFR and RNTO of a file.
    Rename {
        /// From here.
        from: FtpPath,
        /// To there.
        to: FtpPath,
    },
    /// MFMT.
    SetModified {
        /// Of what.
        path: FtpPath,
        /// Microseconds since the Unix epoch.
        modified: Micros,
    },
}

/// Bytes staged by one attempt, confirmed as durable by every node named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// The new extent. An empty file has an empty one.
    pub extent: Extent,
    /// The nodes that confirmed it.
    pub confirmed: Vec<NodeId>,
}

impl Staged {
    /// The blob's name.
    pub fn blob(&self) -> BlobId {
        self.extent.blob
    }
}

/// Why the leader will not do something. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The path does not exist.
    #[error("no such file or directory")]
    NotFound,
    /// The directory it should be in does not exist.
    #[error("the parent directory does not exist")]
    NoParent,
    /// Something is there already.
    #[error("already exists")]
    Exists,
    /// A directory where a file is wanted.
    #[error("is a directory")]
    IsDirectory,
    /// A file where a directory is wanted.
    #[error("is not a directory")]
    NotDirectory,
    /// RMD of a directory with something in it.
    #[error("directory not empty")]
    NotEmpty,
    /// Fewer nodes than `min_copies` could take the bytes.
    #[error("not enough nodes to keep the copies asked for")]
    TooFewCopies,
    /// The operation waited longer than the lock wait.
    #[error("the path is locked by another writer")]
    LockWait,
    /// Another bound was reached: waiters, locks, size.
    #[error("the cluster is busy")]
    Busy,
    /// No leader answered in time, and none was asked to commit.
    #[error("no leader answered in time; nothing was changed")]
    NoLeader,
    /// The commit was asked for and never answered. The only refusal that does not say that nothing happened.
    #[error("the commit was not answered in time; its outcome is not known")]
    Unknown,
    /// The operation moved too slowly, and its lease was ended.
    #[error("the transfer stalled")]
    Stalled,
}

impl Change {
    /// The paths to lock, in order and without repeats: all locks of an operation are taken together.
    pub fn paths(&self) -> Vec<&FtpPath> {
        let mut paths = match self {
            Self::Store { path, .. }
            | Self::Delete { path }
            | Self::MakeDirectory { path }
            | Self::RemoveDirectory { path }
            | Self::SetModified { path, .. } => vec![path],
            Self::Rename { from, to } => vec![from, to],
        };
        paths.sort();
        paths.dedup();
        paths
    }
    /// Whether bytes are staged before the commit.
    pub fn has_bytes(&self) -> bool {
        matches!(self, Self::Store { .. })
    }
}
