//! Messages between members, as JSON on the RPC port. Each is one-way; answers are messages of their own, and whoever waits
//! for one does so with a deadline.

use super::change::{Change, Refusal, Staged};
use super::comparison::{IndexAnswer, IndexAsk};
use super::info::Info;
use super::marks::Marks;
use super::record::{Extent, Outcome, Record};
use super::types::{BlobId, Epoch, Hash, Hlc, Micros, NodeId, OpId, Position, Stamp, Token};
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
        /// It answers a frame that was not the last.
        #[serde(default)]
        took: bool,
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
    /// Asks about the receiver's index: records that the sender lacks are in no log any more.
    IndexAsk(Box<IndexAsk>),
    /// The answer.
    IndexAnswer(Box<IndexAnswer>),
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
    /// The leader wants a copy of a version on the receiver's disk; repeated until an answer ends it.
    Fetch {
        /// Which version.
        what: VersionId,
        /// All of its bytes.
        extents: Vec<Extent>,
        /// Nodes that have them.
        sources: Vec<NodeId>,
    },
    /// How the copy stands.
    Fetched {
        /// Which version.
        what: VersionId,
        /// How.
        copy: CopyState,
        /// The blobs that are durable. The version may have others by now: then this is no copy of it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        blobs: Vec<BlobId>,
    },
    /// The leader wants one blob made of extents that are on the receiver's disk; repeated until it is there.
    Merge {
        /// Its name, which follows from the run.
        blob: BlobId,
        /// What it is made of, in order.
        run: Vec<Extent>,
    },
    /// It is on the sender's disk, or cannot be made there.
    Merged {
        /// Which.
        blob: BlobId,
        /// Of all its bytes, if it was made.
        hash: Option<Hash>,
    },
    /// Asks a node that a register names whether it has a blob: the sender has it, too, and no register names the sender.
    Have(Possession),
    /// The answer: it has, on its disk, and the register that was named is the one in its index, on its disk as well. A node
    /// that cannot say so says nothing.
    HaveIt(Possession),
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

/// One version of one path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VersionId {
    /// Of which path.
    pub path: FtpPath,
    /// Which.
    pub position: Position,
}

/// How a copy that the leader wanted stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyState {
    /// It is being made.
    UnderWay,
    /// All of it is on the sender's disk.
    Durable,
    /// It cannot be made there now.
    Failed,
}

/// That a blob is where a register says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Possession {
    /// Which blob.
    pub blob: BlobId,
    /// A version that refers to it.
    pub what: VersionId,
    /// The register of that version: no other value of it counts.
    pub register: Stamp,
    /// The asker's clock when it asked: old answers do not count.
    pub asked: Micros,
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
