//! What a client wants changed, what it locks, and why the leader may refuse it.

use super::record::{Drain, Extent};
use super::types::{BlobId, Micros, NodeId, Position};
use crate::path::FtpPath;
use serde::{Deserialize, Serialize};

/// The name under which sessions show the losers of conflicts. Nobody makes it.
pub const CONFLICTS: &str = ".conflicts";

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
    /// APPE: a new version of a file, which is the one that is there when it is committed with these bytes at its end. Where
    /// there is none, it begins one. REST and STOR: the same of a version that is cut first.
    Append {
        /// Where.
        path: FtpPath,
        /// What to cut; nothing when it is missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cut: Option<Cut>,
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
    /// RNFR and RNTO of a file, which replaces a file, or of a directory with all that is in it, to where nothing is.
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
    /// SITE CHMOD.
    #[cfg(feature = "next-protocol")]
    SetMode {
        /// Of what.
        path: FtpPath,
        /// As in chmod(1), at most 0o7777.
        mode: u16,
    },
    /// DELE of a conflict's loser: it and its equals are gone for good.
    Resolve {
        /// Whose.
        path: FtpPath,
        /// Which version.
        position: Position,
    },
    /// `trebol forget`: a node is no member any more, nor ever again. Needs no lock.
    Forget {
        /// Which.
        node: NodeId,
    },
    /// `trebol drain`: a node's copies move elsewhere, or may stay again. Needs no lock.
    Drain(Drain),
    /// RNFR of a conflict's loser and RNTO: it becomes the version of `to`, which may be its own path, and is no loser
    /// any more.
    Recover {
        /// Whose.
        path: FtpPath,
        /// Which version.
        position: Position,
        /// Where to.
        to: FtpPath,
    },
}

/// What an append goes on, when that is not simply all that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// The version to cut. No other will do: the bytes that follow were chosen for this one.
    pub base: Position,
    /// Its bytes up to here stay; an extent ends there.
    pub keep: u64,
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
    /// A directory is to be moved to itself, or to below itself.
    #[error("a directory cannot be moved into itself")]
    IntoItself,
    /// A path below a directory that is to be renamed would become longer than paths may be.
    #[error("the name of something in the directory would become too long")]
    TooLong,
    /// A directory that is to be renamed holds more than is moved at once.
    #[error("the directory holds too much to be renamed at once; rename what is in it piece by piece")]
    TooMuch,
    /// A name that nobody may make: [`CONFLICTS`].
    #[error("the name .conflicts is reserved")]
    Reserved,
    /// Fewer nodes than `min_copies` could take the bytes.
    #[error("not enough nodes to keep the copies asked for")]
    TooFewCopies,
    /// The version that was to be cut is not the one that is there any more.
    #[error("the file was changed meanwhile: ask for its size and try again")]
    Changed,
    /// A file that was appended to as often as is allowed.
    #[error("the file was appended to too often: store it anew")]
    TooManyExtents,
    /// The operation waited longer than the lock wait.
    #[error("the path is locked by another writer")]
    LockWait,
    /// Another bound was reached: waiters, locks, size.
    #[error("the cluster is busy")]
    Busy,
    /// The leader is of a version before the one that knew this first.
    #[error("the leader does not know this yet: the cluster is being updated")]
    NotYet,
    /// No leader answered in time, and none was asked to commit.
    #[error("no leader answered in time; nothing was changed")]
    NoLeader,
    /// The commit was asked for and never answered. The only refusal that does not say that nothing happened.
    #[error("the commit was not answered in time; its outcome is not known")]
    Unknown,
    /// The operation moved too slowly, and its lease was ended.
    #[error("the transfer stalled")]
    Stalled,
    /// A node that is to be forgotten takes part in the cluster, or did a moment ago.
    #[error("the node is alive: stop it first, and wait until `trebol status` shows it as down")]
    NodeAlive,
    /// A node that is to be forgotten or drained is none of this cluster's.
    #[error("no node of this cluster has that id")]
    NoSuchNode,
}

impl Change {
    /// The paths to lock, in order and without repeats: all locks of an operation are taken together.
    pub fn paths(&self) -> Vec<&FtpPath> {
        let mut paths = match self {
            Self::Store { path, .. }
            | Self::Append { path, .. }
            | Self::Delete { path }
            | Self::MakeDirectory { path }
            | Self::RemoveDirectory { path }
            | Self::SetModified { path, .. }
            | Self::Resolve { path, .. } => vec![path],
            #[cfg(feature = "next-protocol")]
            Self::SetMode { path, .. } => vec![path],
            Self::Forget { .. } | Self::Drain(_) => vec![],
            Self::Rename { from: path, to } | Self::Recover { path, to, .. } => vec![path, to],
        };
        paths.sort();
        paths.dedup();
        paths
    }
    /// Whether it is about a node, and not about files: the request is the commit, without a lock.
    pub fn is_order(&self) -> bool {
        matches!(self, Self::Forget { .. } | Self::Drain(_))
    }
    /// Whether each of its locks is for everything below the path, too.
    pub fn takes_subtrees(&self) -> bool {
        matches!(self, Self::RemoveDirectory { .. } | Self::Rename { .. })
    }
    /// Whether bytes are staged before the commit.
    pub fn has_bytes(&self) -> bool {
        matches!(self, Self::Store { .. } | Self::Append { .. })
    }
}
