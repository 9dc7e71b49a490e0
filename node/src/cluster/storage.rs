//! What a member reads from its disk, and what it asks to have written. The store implements it over fjall, the simulator
//! over maps that a crash rolls back.

use super::marks::Marks;
use super::record::{Outcome, PathEntry, Record};
use super::types::{BlobId, Digest, Epoch, Hlc, NodeId, OpId, PeerInfo, Position, Stamp};
use crate::path::FtpPath;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Reads of what was written so far: all batches handed over count, whether they are on disk already or not.
pub trait Storage {
    /// The heads of a path.
    fn entry(&self, path: &FtpPath) -> Option<PathEntry>;
    /// The name of the first visible child of `dir` that is greater than `after`, bytewise.
    fn next_child(&self, dir: &FtpPath, after: Option<&str>) -> Option<String>;
    /// How an operation ended.
    fn outcome(&self, op: OpId) -> Option<Outcome>;
    /// The paths with a head that refers to a blob, in order. There is rarely more than one.
    fn referrers(&self, blob: BlobId) -> Vec<FtpPath>;
    /// Blobs greater than `after` with such a holding, in order, at most `limit`.
    fn held(&self, holding: Holding, after: Option<BlobId>, limit: usize) -> Vec<BlobId>;
    /// Whether a blob's bytes are on this node's disk, and not known to be bad.
    fn has_blob(&self, blob: BlobId) -> bool;
    /// Whether a copy of a blob is on this node's disk that is known to be bad: other bytes than were stored, or too few.
    fn has_damaged(&self, blob: BlobId) -> bool;
    /// Records that `marks` does not cover, in the order they were logged here (which is causal), at most `limit`.
    /// Cost is proportional to what is returned and to the number of epochs, never to the length of the log.
    fn records_beyond(&self, marks: &Marks, limit: usize) -> Vec<Arc<Record>>;
    /// The oldest records that are still in the log, at most `limit`.
    fn oldest(&self, limit: usize) -> Vec<Arc<Record>>;
    /// The paths of a range with their heads, in bytewise order, at most `limit`.
    fn entries(&self, range: &PathRange, limit: usize) -> Vec<(FtpPath, PathEntry)>;
    /// Outcomes of operations beyond `after`, in the order of their ids, at most `limit`.
    fn outcomes(&self, after: Option<OpId>, limit: usize) -> Vec<(OpId, Outcome)>;
    /// Rows of one kind beyond `after`, the oldest first, at most `limit`.
    fn aging(&self, kind: AgingKind, after: Option<&Aging>, limit: usize) -> Vec<Aging>;
}

/// A range of paths in bytewise order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PathRange {
    /// Begins behind this path; at the first one if there is none.
    pub after: Option<FtpPath>,
    /// Ends with this path; with the last one if there is none.
    pub upto: Option<FtpPath>,
}

/// What the location registers of the heads that refer to a blob say of it: an index from nodes to what they are to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holding {
    /// One of them names this node.
    Node(NodeId),
    /// One of them names fewer than three nodes.
    Short,
}

/// A head that will be collected once it is old. A row may outlive its head; whoever looks at it finds out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Aging {
    /// Why.
    pub kind: AgingKind,
    /// The greatest clock seen when it came to be so here: rows of one kind are in this order.
    pub since: Hlc,
    /// Which head.
    pub position: Position,
    /// Of which path.
    pub path: FtpPath,
}

/// What makes a head age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AgingKind {
    /// A delete, and all that is left of its path.
    Delete,
    /// The loser of a conflict.
    Loser,
}

/// Changes that reach the disk together or not at all.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Batches are numbered from 1 without holes and written in order.
    pub number: u64,
    /// Whether anything waits for this batch to survive a power cut: if so it is fsynced before it is reported as
    /// persisted, and everything before it with it.
    pub sync: bool,
    /// What changes, later ones winning over earlier ones.
    pub mutations: Vec<Mutation>,
}

/// One change of what is stored.
#[derive(Debug, Clone)]
pub enum Mutation {
    /// Appends a record to the log. Arrival order is the order of these changes.
    Record(Arc<Record>),
    /// Removes records from the log.
    Truncate(Vec<Position>),
    /// Sets the heads of a path, or drops the path. The store keeps the listing row of the visible head in step.
    Entry(FtpPath, Option<PathEntry>),
    /// Sets or drops an outcome.
    Outcome(OpId, Option<Outcome>),
    /// A path's heads refer to a blob from now on, or not any more.
    Reference(BlobId, FtpPath, bool),
    /// The registers of a blob's heads say this of it from now on, or not any more.
    Held(Holding, BlobId, bool),
    /// Adds or drops a row of what ages.
    Aging(Aging, bool),
    /// Remembers a node that was met, with the addresses it gave.
    Met(PeerInfo),
    /// Drops a node that was met.
    Forgotten(NodeId),
    /// Replaces the singletons.
    State(MemberState),
}

/// What a member must remember of itself across a crash, besides log and index.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MemberState {
    /// The highest epoch it promised to; it refuses every lower one.
    pub promised: Epoch,
    /// The records in its log.
    pub logged: Marks,
    /// The records folded into the index.
    pub applied: Marks,
    /// How far each epoch's own leader is known to have committed.
    pub committed: Marks,
    /// Records that may not be in the log any more; all of them are applied.
    #[serde(default)]
    pub truncated: Marks,
    /// What others had applied of whom part of the index was taken over: until all of it is applied here, too, the index is
    /// none that anybody ever had.
    #[serde(default)]
    pub borrowed: Marks,
    /// The greatest clock seen.
    pub hlc: Hlc,
    /// Whom any cover ever named and no record forgot.
    pub known: Vec<NodeId>,
    /// Whom a record forgot.
    #[serde(default)]
    pub forgotten: Vec<NodeId>,
    /// Who is being drained, or was.
    #[serde(default)]
    pub drains: BTreeMap<NodeId, Drained>,
    /// Of the whole index; `None` from a version that kept none.
    #[serde(default)]
    pub digest: Option<Digest>,
    /// How many files are visible in the index.
    pub files: u64,
    /// How many copies visible files lack of three, were all nodes alive.
    pub shortfall: u64,
    /// How many visible files have a copy on which node.
    pub copies: BTreeMap<NodeId, u64>,
}

/// The register of whether a node is being drained; the greatest stamp counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Drained {
    /// When it was last set.
    pub stamp: Stamp,
    /// Whether it is.
    pub draining: bool,
}

/// What the store hands a member at its start.
#[derive(Debug, Clone, Default)]
pub struct Restored {
    /// The singletons.
    pub state: MemberState,
    /// Records logged but not applied, in order of arrival.
    pub tail: Vec<Arc<Record>>,
    /// Paths with a head that is not confirmed.
    pub unconfirmed: Vec<FtpPath>,
    /// Nodes met before.
    pub met: Vec<PeerInfo>,
    /// Operations whose outcomes are kept.
    pub outcomes: Vec<OpId>,
    /// Blobs on disk that no head refers to.
    pub unreferenced: Vec<BlobId>,
    /// Blobs on disk that heads refer to and no register has here, and blobs that one has here and are not on disk.
    pub astray: Vec<BlobId>,
}
