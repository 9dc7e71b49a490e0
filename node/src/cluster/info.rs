//! What a node says of itself with every heartbeat: words only.

use super::marks::Marks;
use super::types::{Epoch, Micros, NodeId};
use serde::{Deserialize, Serialize};

/// What every heartbeat says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Info {
    /// What the sender is doing.
    pub role: RoleName,
    /// The epoch it promised to.
    pub promised: Epoch,
    /// Whom it follows.
    pub leader: Option<(NodeId, Epoch)>,
    /// Whether the lease of its leader binds it, towards the receiver.
    pub held: bool,
    /// Its heartbeats to the receiver come so much more slowly than usual.
    #[serde(default)]
    pub pace: Micros,
    /// What is in its log.
    pub marks: Marks,
    /// Its log begins beyond what it last heard that the receiver has: only its index can help.
    #[serde(default)]
    pub beyond_log: bool,
    /// How many records of its epoch it has committed, when it leads.
    pub committed: u64,
    /// Its disk.
    pub disk: DiskReport,
    /// Its wall clock; 0 from a version that does not say.
    #[serde(default)]
    pub wall: Micros,
    /// How far its wall clock is ahead of the others, when that bars it from leading; else 0.
    #[serde(default)]
    pub clock_ahead: Micros,
    /// It is about to stop: whoever stays leads rather.
    #[serde(default)]
    pub leaving: bool,
    /// The version of the protocol that the sender speaks.
    pub protocol: u32,
}

impl Info {
    /// Whether the sender may lead: with a disk that works and a clock that others can believe.
    pub fn could_lead(&self) -> bool {
        self.disk.healthy && self.clock_ahead == 0
    }
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
