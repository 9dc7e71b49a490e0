//! Records: what the log is made of. A record is logged once, by the leader of its epoch, and never changes.

use super::marks::Marks;
use super::types::{BlobId, Epoch, Hash, Hlc, Micros, NodeId, OpId, Position, Stamp};
use super::version::Later;
use crate::path::FtpPath;
use serde::{Deserialize, Serialize};

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its place.
    pub position: Position,
    /// Its clock reading, greater than that of all its leader had seen.
    pub hlc: Hlc,
    /// Its durability set: the nodes that must have fsynced it before it is committed. The leader, all replicas of its
    /// bytes, filled up to min(3, members). Who is not in it need not fsync.
    pub durability: Vec<NodeId>,
    /// What it says.
    pub body: Body,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// The first record of an epoch, or a merge record later in it.
    Cover(Cover),
    /// One client operation.
    Write(Write),
    /// Heads that have served their time.
    Drop(Dropped),
    /// Where versions live now.
    Move(Moved),
}

/// Everything under `marks` is part of this epoch's history and committed, save the void duplicates.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cover {
    /// What the epoch stands on.
    pub marks: Marks,
    /// Recovered copies of operations that have an outcome already: no heads, but what they were over stays replaced.
    pub voids: Vec<Position>,
    /// The member list.
    pub members: Vec<NodeId>,
}

/// One client operation, or a part of it: all effects of an operation take place or none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Write {
    /// The operation. Logged twice only on two sides of a partition.
    pub op: OpId,
    /// Attempt's blob, for outcome answers and presence; `None` when no bytes were staged.
    pub blob: Option<BlobId>,
    /// What happens to which path; at most one effect a path.
    pub effects: Vec<Effect>,
    /// A node that is no member any more, nor ever again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forget: Option<NodeId>,
    /// A node that is to hold no copies, or may hold some again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
    /// Which part of the operation this is; `None` when it is all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
    /// What a later version says beside.
    #[serde(flatten)]
    pub later: Later,
}

/// Whether a node is being drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Which.
    pub node: NodeId,
    /// False takes it back.
    pub draining: bool,
}

/// A piece of an operation that is too large for one record. All pieces have consecutive positions and one clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Which, counted from 0.
    pub index: u64,
    /// How many there are.
    pub count: u64,
}

/// Heads taken out of the index for good: deletes that every known node has covered, losers of conflicts that were kept long
/// enough, void duplicates that no later epoch needs to name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Dropped {
    /// Which head of which path. One that is not there any more does no harm.
    pub heads: Vec<(FtpPath, Position)>,
}

/// The location registers of some versions, set with this record's stamp: the greatest stamp of each counts. It changes the
/// bytes of no version, at most how they are cut into extents, and a version that is not there any more is passed over.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Moved {
    /// Each version at most once.
    pub versions: Vec<Relocated>,
}

/// One version's new location.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relocated {
    /// Of which path.
    pub path: FtpPath,
    /// Which version.
    pub position: Position,
    /// The nodes that hold all its extents.
    pub nodes: Vec<NodeId>,
    /// The extents that they hold; empty for a version whose extent never was another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extents: Vec<Extent>,
}

/// One path's new version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// Which path.
    pub path: FtpPath,
    /// The heads of that path that it replaces.
    pub over: Vec<Position>,
    /// What is there afterwards.
    pub what: Version,
}

/// What a path can be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Version {
    /// A file.
    File(File),
    /// A directory made by MKD.
    Directory {
        /// Modification time, microseconds since the Unix epoch.
        modified: Micros,
    },
    /// Nothing: a delete is a head, too, or a partition would resurrect what was deleted.
    Deleted,
    /// No version at all: the heads it is over are gone, and none comes (a conflict that was settled). Never in an index.
    Resolved,
}

/// A file's version: an immutable list of extents.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct File {
    /// The bytes, in order.
    pub extents: Vec<Extent>,
    /// Length in bytes.
    pub size: u64,
    /// BLAKE3 of the whole. Not known of a file that was appended to: only its extents' hashes are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<Hash>,
    /// Modification time, microseconds since the Unix epoch.
    pub modified: Micros,
    /// The nodes whose disks held all extents when it was logged.
    pub replicas: Vec<NodeId>,
    /// Permissions as chmod(1) sets them. Kept, shown, and not yet enforced.
    #[cfg(feature = "next-protocol")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u16>,
    /// What a later version says beside.
    #[serde(flatten)]
    pub later: Later,
}

/// A run of bytes of one immutable blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Which blob.
    pub blob: BlobId,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u64,
    /// BLAKE3 of these bytes.
    pub hash: Hash,
}

/// One version of a path that no committed record has replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its identity: positions, not operations, for an operation may be logged on both sides of a partition.
    pub position: Position,
    /// The clock it was logged with.
    pub hlc: Hlc,
    /// Whose it is.
    pub op: OpId,
    /// False for a void duplicate: kept, but no head.
    pub confirmed: bool,
    /// What it is. The replica list here is the one of the log; [`Head::location`] is the current one. Extents are those of
    /// the location, which may be fewer and longer than those of the log.
    pub what: Version,
    /// Where its bytes live now: a register of its own, so that repair never restamps a version.
    pub location: Location,
}

/// The register of a version's location; the greatest stamp counts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Location {
    /// When it was last set.
    pub stamp: Stamp,
    /// The nodes that hold all its extents.
    pub nodes: Vec<NodeId>,
}

impl Head {
    /// Sets the register, if nothing later has: the nodes, and the extents that they hold.
    pub fn relocate(&mut self, stamp: Stamp, to: &Relocated) {
        if stamp <= self.location.stamp {
            return;
        }
        self.location = Location { stamp, nodes: to.nodes.clone() };
        if let Version::File(file) = &mut self.what
            && !to.extents.is_empty()
        {
            file.extents.clone_from(&to.extents);
            file.hash = if let [whole] = &to.extents[..] { Some(whole.hash) } else { None };
        }
    }
    /// The register that says that its bytes are on these nodes.
    pub fn relocated(&self, path: FtpPath, nodes: Vec<NodeId>) -> Relocated {
        let Version::File(file) = &self.what else {
            return Relocated { path, position: self.position, nodes, extents: vec![] };
        };
        let as_stored = file.extents.len() == 1 && file.extents[0].blob.op == self.op;
        let extents = if as_stored { vec![] } else { file.extents.clone() };
        Relocated { path, position: self.position, nodes, extents }
    }
    /// What orders it among the heads of its path.
    pub fn stamp(&self) -> Stamp {
        Stamp { hlc: self.hlc, position: self.position }
    }
}

/// All heads of one path, void duplicates among them, the greatest stamp first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PathEntry {
    /// Never empty in the index.
    pub heads: Vec<Head>,
}

/// How an operation ended, kept for repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Where it was logged.
    pub position: Position,
    /// With which clock.
    pub hlc: Hlc,
    /// How many nodes hold its bytes (or, for metadata, its record).
    pub copies: u32,
}

impl Record {
    /// The write in it, if it is one.
    pub fn write(&self) -> Option<&Write> {
        if let Body::Write(write) = &self.body { Some(write) } else { None }
    }
    /// The cover in it, if it is one.
    pub fn cover(&self) -> Option<&Cover> {
        if let Body::Cover(cover) = &self.body { Some(cover) } else { None }
    }
    /// The heads it drops, if it drops any.
    pub fn dropped(&self) -> &[(FtpPath, Position)] {
        if let Body::Drop(dropped) = &self.body { &dropped.heads } else { &[] }
    }
    /// The versions it moves, if it moves any.
    pub fn moved(&self) -> &[Relocated] {
        if let Body::Move(moved) = &self.body { &moved.versions } else { &[] }
    }
    /// The paths whose heads it changes.
    pub fn paths(&self) -> impl Iterator<Item = &FtpPath> + '_ {
        let effects = self.write().into_iter().flat_map(|w| &w.effects).map(|e| &e.path);
        let dropped = self.dropped().iter().map(|(path, _)| path);
        effects.chain(dropped).chain(self.moved().iter().map(|v| &v.path))
    }
    /// Its stamp.
    pub fn stamp(&self) -> Stamp {
        Stamp { hlc: self.hlc, position: self.position }
    }
    /// What it comes to once it is committed: for bytes the copies of them, for metadata those of the record.
    pub fn outcome(&self) -> Outcome {
        let staged = self.write().filter(|w| w.blob.is_some());
        let copies = staged.map_or(self.durability.len(), |w| w.replicas().count());
        Outcome { position: self.position, hlc: self.hlc, copies: copies as u32 }
    }
    /// Its epoch.
    pub fn epoch(&self) -> Epoch {
        self.position.epoch
    }
}

impl Write {
    /// The nodes that must hold this record's bytes before it may be acknowledged.
    pub fn replicas(&self) -> impl Iterator<Item = NodeId> + '_ {
        let staged = self.blob.is_some();
        self.effects
            .iter()
            .filter_map(move |e| if let Version::File(file) = &e.what { Some(file) } else { None })
            .filter(move |_| staged)
            .flat_map(|f| f.replicas.iter().copied())
    }
}
