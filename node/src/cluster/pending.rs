//! Changes that were decided but not handed to the store yet, and reads that see them. One [`Pending`] becomes one
//! [`Batch`]: what a round of inputs changed reaches the disk together.

use super::marks::Marks;
use super::record::{Outcome, PathEntry, Record};
use super::storage::{Aging, Batch, MemberState, Mutation, PathRange, Storage};
use super::types::{BlobId, NodeId, OpId, PeerInfo, Position};
use crate::path::FtpPath;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

/// The batch being built, and which of the earlier ones are on the disk.
#[derive(Debug, Default)]
pub(super) struct Pending {
    records: Vec<Arc<Record>>,
    pub(super) entries: BTreeMap<FtpPath, Option<PathEntry>>,
    outcomes: BTreeMap<OpId, Option<Outcome>>,
    references: BTreeMap<BlobId, u64>,
    aging: BTreeMap<Aging, bool>,
    truncated: Vec<Position>,
    met: Vec<Mutation>,
    state_dirty: bool,
    sync: bool,
    /// Number of the last batch that was taken.
    taken: u64,
    /// Numbers of the batches taken with `sync` and not yet reported.
    syncing: VecDeque<u64>,
    /// The last batch that was taken with `sync`.
    last_sync: u64,
    /// Everything up to this batch is on the disk.
    durable: u64,
}

impl Pending {
    pub(super) fn record(&mut self, record: Arc<Record>) {
        self.records.push(record);
        self.state_dirty = true;
    }
    pub(super) fn entry(&mut self, path: FtpPath, entry: Option<PathEntry>) {
        self.entries.insert(path, entry);
        self.state_dirty = true;
    }
    pub(super) fn outcome(&mut self, op: OpId, outcome: Option<Outcome>) {
        self.outcomes.insert(op, outcome);
    }
    pub(super) fn references(&mut self, blob: BlobId, count: u64) {
        self.references.insert(blob, count);
    }
    pub(super) fn aging(&mut self, row: Aging, there: bool) {
        self.aging.insert(row, there);
    }
    pub(super) fn truncate(&mut self, positions: Vec<Position>) {
        self.truncated.extend(positions);
        self.state_dirty = true;
    }
    pub(super) fn met(&mut self, info: PeerInfo) {
        self.met.push(Mutation::Met(info));
    }
    pub(super) fn forgotten(&mut self, node: NodeId) {
        self.met.push(Mutation::Forgotten(node));
    }
    pub(super) fn touch_state(&mut self) {
        self.state_dirty = true;
    }

    fn is_empty(&self) -> bool {
        self.records.is_empty()
            && self.entries.is_empty()
            && self.outcomes.is_empty()
            && self.references.is_empty()
            && self.aging.is_empty()
            && self.truncated.is_empty()
            && self.met.is_empty()
            && !self.state_dirty
    }

    /// The number of the batch that must be durable for all that was decided so far to be; asks for its fsync.
    pub(super) fn need_durable(&mut self) -> u64 {
        if !self.is_empty() || self.last_sync < self.taken {
            self.sync = true;
            return self.taken + 1;
        }
        if self.sync { self.taken + 1 } else { self.taken }
    }

    /// Whether something written is not known to be on the disk, nor on its way there.
    pub(super) fn unsynced(&self) -> bool {
        self.last_sync < self.taken || !self.is_empty()
    }

    /// Everything up to this batch is on the disk.
    pub(super) fn durable(&self) -> u64 {
        self.durable
    }

    /// The number that the next batch will have.
    pub(super) fn next_number(&self) -> u64 {
        self.taken + 1
    }

    /// Notes the store's report.
    pub(super) fn persisted(&mut self, batch: u64) {
        while let Some(number) = self.syncing.front().copied().filter(|n| *n <= batch) {
            self.durable = number;
            self.syncing.pop_front();
        }
    }

    /// What to write now, if anything.
    pub(super) fn take(&mut self, state: &MemberState) -> Option<Batch> {
        if self.is_empty() && !self.sync {
            return None;
        }
        self.taken += 1;
        let sync = std::mem::take(&mut self.sync);
        if sync {
            self.syncing.push_back(self.taken);
            self.last_sync = self.taken;
        }
        let mut mutations: Vec<Mutation> = self.records.drain(..).map(Mutation::Record).collect();
        mutations.extend(std::mem::take(&mut self.entries).into_iter().map(|(p, e)| Mutation::Entry(p, e)));
        mutations.extend(std::mem::take(&mut self.outcomes).into_iter().map(|(op, o)| Mutation::Outcome(op, o)));
        mutations.extend(std::mem::take(&mut self.references).into_iter().map(|(b, n)| Mutation::References(b, n)));
        mutations.extend(std::mem::take(&mut self.aging).into_iter().map(|(row, there)| Mutation::Aging(row, there)));
        if !self.truncated.is_empty() {
            mutations.push(Mutation::Truncate(std::mem::take(&mut self.truncated)));
        }
        mutations.append(&mut self.met);
        if std::mem::take(&mut self.state_dirty) {
            mutations.push(Mutation::State(state.clone()));
        }
        Some(Batch { number: self.taken, sync, mutations })
    }
}

/// The store with what is pending on top.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) pending: &'a Pending,
    pub(super) storage: &'a dyn Storage,
}

impl View<'_> {
    pub(super) fn entry(&self, path: &FtpPath) -> Option<PathEntry> {
        self.pending.entries.get(path).cloned().unwrap_or_else(|| self.storage.entry(path))
    }
    pub(super) fn outcome(&self, op: OpId) -> Option<Outcome> {
        self.pending.outcomes.get(&op).copied().unwrap_or_else(|| self.storage.outcome(op))
    }
    pub(super) fn references(&self, blob: BlobId) -> u64 {
        self.pending.references.get(&blob).copied().unwrap_or_else(|| self.storage.references(blob))
    }

    /// Outcomes beyond an operation's, at most `limit`.
    pub(super) fn outcomes(&self, after: Option<OpId>, limit: usize) -> Vec<(OpId, Outcome)> {
        let after_bound = after.map_or(Bound::Unbounded, Bound::Excluded);
        let changed: Vec<_> = self.pending.outcomes.range((after_bound, Bound::Unbounded)).collect();
        let mut merged: BTreeMap<OpId, Outcome> =
            self.storage.outcomes(after, limit + changed.len()).into_iter().collect();
        for (op, outcome) in changed {
            match outcome {
                Some(outcome) => drop(merged.insert(*op, *outcome)),
                None => drop(merged.remove(op)),
            }
        }
        merged.into_iter().take(limit).collect()
    }

    /// The paths of a range with their heads, at most `limit`.
    pub(super) fn entries(&self, range: &PathRange, limit: usize) -> Vec<(FtpPath, PathEntry)> {
        let after = range.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let upto = range.upto.as_ref().map_or(Bound::Unbounded, Bound::Included);
        if range.after.is_some() && range.upto.is_some() && range.after >= range.upto {
            return vec![];
        }
        let changed: Vec<_> = self.pending.entries.range::<FtpPath, _>((after, upto)).collect();
        // Each of the changed ones may take one of the stored away.
        let stored = self.storage.entries(range, limit + changed.len());
        let mut merged: BTreeMap<FtpPath, PathEntry> = stored.into_iter().collect();
        for (path, entry) in changed {
            match entry {
                Some(entry) => drop(merged.insert(path.clone(), entry.clone())),
                None => drop(merged.remove(path)),
            }
        }
        merged.into_iter().take(limit).collect()
    }

    /// Records beyond `marks` in the order of the log, at most `limit`.
    pub(super) fn records_beyond(&self, marks: &Marks, limit: usize) -> Vec<Arc<Record>> {
        let mut found = self.storage.records_beyond(marks, limit);
        let room = limit.saturating_sub(found.len());
        found.extend(self.pending.records.iter().filter(|r| !marks.has(r.position)).take(room).cloned());
        found
    }
}
