//! Settings of the core, with what they are by default. Words only: who reads a settings file sets them.

use super::types::Micros;

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
    /// How far ahead of its peers a wall clock may be before its node may not lead and takes new files last of its zone. 500 ms.
    pub clock_bound: Micros,
    /// A version with one live copy gets another when the rest have been away for this long. 5 s.
    pub repair_last_copy: Micros,
    /// A version with fewer than three live copies does, when the rest have been away for this long. 60 s, so that restarts
    /// copy nothing.
    pub repair_after: Micros,
    /// A copy of which nothing is heard for this long is made elsewhere. 10 s.
    pub repair_timeout: Micros,
    /// Blobs that repair looks at in one beat. 512.
    pub repair_look: usize,
    /// Copies under way in all. 16.
    pub repair_copies: usize,
    /// Copies under way to one node. 4.
    pub repair_copies_per_node: usize,
    /// Extents of one version from which on they are merged. 16.
    pub merge_extents: usize,
    /// Extents of one version: no append beyond that, since each record of one names them all. 64.
    pub max_extents: usize,
    /// Records in one frame.
    pub records_per_frame: usize,
    /// Paths that one record changes. A larger operation has several.
    pub effects_per_record: usize,
    /// Files and directories below a directory that is renamed; more are refused. They are moved in one step, for which
    /// every node stands still, some 30 µs each: a leader that stands still for longer than its lease collects anew.
    pub rename_entries: usize,
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
            repair_look: 512,
            repair_copies: 16,
            repair_copies_per_node: 4,
            merge_extents: 16,
            max_extents: 64,
            records_per_frame: 512,
            effects_per_record: 1000,
            rename_entries: 10_000,
            far_behind: 1000,
            log_least: 4000,
            log_most: 200_000,
            index_range: 1024,
            #[cfg(feature = "planted-bugs")]
            planted: super::planted::Planted::default(),
        }
    }
}
