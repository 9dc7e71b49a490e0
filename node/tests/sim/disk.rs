//! A disk: what was handed over, what is written, what a crash leaves. `Tables` is `Storage` over maps; never a file.

use crate::sim::rng::Rng;
use node::cluster::{
    Aging, AgingKind, Batch, BlobId, Epoch, Marks, MemberState, Mutation, NodeId, OpId, Outcome, PathEntry, PeerInfo,
    Position, Record, Restored, Storage, Version,
};
use node::path::FtpPath;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Everything a store holds besides blobs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tables {
    /// Records of each epoch with their number of arrival, in order of position.
    log: BTreeMap<Epoch, Vec<(u64, Arc<Record>)>>,
    arrivals: u64,
    pub(crate) entries: BTreeMap<FtpPath, PathEntry>,
    /// Visible children by directory: the rows of listings.
    rows: BTreeMap<FtpPath, BTreeSet<String>>,
    pub(crate) outcomes: BTreeMap<OpId, Outcome>,
    pub(crate) references: BTreeMap<BlobId, u64>,
    aging: BTreeSet<Aging>,
    met: BTreeMap<NodeId, PeerInfo>,
    pub(crate) state: MemberState,
}

impl Tables {
    /// Applies one batch. An error is a hole or a repeat in the log.
    fn apply(&mut self, batch: &Batch) -> Result<(), String> {
        for mutation in &batch.mutations {
            match mutation {
                Mutation::Record(record) => self.append(record)?,
                Mutation::Entry(path, entry) => self.set_entry(path, entry.as_ref()),
                Mutation::Outcome(op, outcome) => set(&mut self.outcomes, *op, *outcome),
                Mutation::References(blob, n) => set(&mut self.references, *blob, Some(*n).filter(|n| *n > 0)),
                Mutation::Aging(row, true) => drop(self.aging.insert(row.clone())),
                Mutation::Aging(row, false) => drop(self.aging.remove(row)),
                Mutation::Forgotten(node) => drop(self.met.remove(node)),
                Mutation::Met(info) => drop(self.met.insert(info.node, info.clone())),
                Mutation::State(state) => self.state = state.clone(),
            }
        }
        Ok(())
    }
    fn append(&mut self, record: &Arc<Record>) -> Result<(), String> {
        let of = self.log.entry(record.epoch()).or_default();
        if record.position.seq != of.len() as u64 {
            return Err(format!("{:?} is appended after {} records of its epoch", record.position, of.len()));
        }
        self.arrivals += 1;
        of.push((self.arrivals, record.clone()));
        Ok(())
    }
    fn set_entry(&mut self, path: &FtpPath, entry: Option<&PathEntry>) {
        let visible = entry.is_some_and(|e| e.visible().is_some());
        if let Some((parent, name)) = path.split() {
            let row = self.rows.entry(parent).or_default();
            if visible {
                row.insert(name.to_owned());
            } else {
                row.remove(name);
            }
        }
        set(&mut self.entries, path.clone(), entry.cloned());
    }
    pub(crate) fn has(&self, position: Position) -> bool {
        self.log.get(&position.epoch).is_some_and(|of| position.seq < of.len() as u64)
    }
    /// What the log holds, counted, not as the member says.
    pub(crate) fn marks(&self) -> Marks {
        Marks::from(self.log.iter().map(|(e, of)| (*e, of.len() as u64)).collect::<Vec<_>>())
    }
    pub(crate) fn children(&self, dir: &FtpPath) -> impl Iterator<Item = &String> {
        self.rows.get(dir).into_iter().flatten()
    }
    fn arrived_beyond(&self, marks: &Marks) -> Vec<(u64, &Arc<Record>)> {
        let beyond = |(e, of): (&Epoch, &'_ Vec<(u64, Arc<Record>)>)| (marks.count(*e) as usize).min(of.len());
        let mut found: Vec<_> =
            self.log.iter().flat_map(|(e, of)| of[beyond((e, of))..].iter().map(|(n, r)| (*n, r))).collect();
        found.sort_by_key(|(n, _)| *n);
        found
    }
    fn restored(&self, blobs: &BTreeMap<BlobId, u64>) -> Restored {
        let unsettled = |e: &PathEntry| e.heads.iter().any(|h| !h.confirmed);
        Restored {
            state: self.state.clone(),
            tail: self.arrived_beyond(&self.state.applied).into_iter().map(|(_, r)| r.clone()).collect(),
            unconfirmed: self.entries.iter().filter(|(_, e)| unsettled(e)).map(|(p, _)| p.clone()).collect(),
            met: self.met.values().cloned().collect(),
            outcomes: self.outcomes.keys().copied().collect(),
            unreferenced: blobs.keys().filter(|b| !self.references.contains_key(b)).copied().collect(),
        }
    }
    /// How many heads refer to each blob, counted from the heads.
    pub(crate) fn counted_references(&self) -> BTreeMap<BlobId, u64> {
        let mut counted = BTreeMap::new();
        for head in self.entries.values().flat_map(|e| &e.heads) {
            if let Version::File(file) = &head.what {
                for blob in file.extents.iter().map(|e| e.blob).collect::<BTreeSet<_>>() {
                    *counted.entry(blob).or_insert(0) += 1;
                }
            }
        }
        counted
    }
}

fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}

impl Storage for Tables {
    fn entry(&self, path: &FtpPath) -> Option<PathEntry> {
        self.entries.get(path).cloned()
    }
    fn next_child(&self, dir: &FtpPath, after: Option<&str>) -> Option<String> {
        // A directory that is only implied by what lies below it is a child, too.
        let visible = dir.below_in(&self.entries).filter(|(_, entry)| entry.visible().is_some());
        let depth = dir.components().count();
        let names = visible.filter_map(|(path, _)| path.components().nth(depth));
        names.filter(|name| after.is_none_or(|a| *name > a)).min().map(str::to_owned)
    }
    fn outcome(&self, op: OpId) -> Option<Outcome> {
        self.outcomes.get(&op).copied()
    }
    fn references(&self, blob: BlobId) -> u64 {
        self.references.get(&blob).copied().unwrap_or(0)
    }
    fn records_beyond(&self, marks: &Marks, limit: usize) -> Vec<Arc<Record>> {
        self.arrived_beyond(marks).into_iter().take(limit).map(|(_, r)| r.clone()).collect()
    }
    fn aging(&self, kind: AgingKind, after: Option<&Aging>, limit: usize) -> Vec<Aging> {
        let rows = self.aging.iter().filter(|row| row.kind == kind && after.is_none_or(|a| *row > a));
        rows.take(limit).cloned().collect()
    }
}

/// One node's disk.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// All batches handed over.
    pub(crate) shown: Tables,
    /// What no crash takes away: everything up to the last batch that was fsynced.
    pub(crate) synced: Tables,
    /// Batches after that, in order.
    loose: VecDeque<Batch>,
    submitted: u64,
    written: u64,
    /// Blobs with their lengths; durable from the moment they are confirmed.
    pub(crate) blobs: BTreeMap<BlobId, u64>,
}

impl Disk {
    /// Takes a batch. An error is a mistake of the member.
    pub(crate) fn submit(&mut self, batch: Batch) -> Result<(), String> {
        if batch.number != self.submitted + 1 {
            return Err(format!("batch {} after batch {}", batch.number, self.submitted));
        }
        self.submitted = batch.number;
        self.shown.apply(&batch)?;
        self.loose.push_back(batch);
        Ok(())
    }
    /// The store has written all batches up to this one, and fsynced those that ask for it.
    pub(crate) fn written(&mut self, number: u64) -> Result<(), String> {
        self.written = number;
        let synced = self.loose.iter().filter(|b| b.sync && b.number <= number).map(|b| b.number).max();
        self.settle(synced.unwrap_or(0))
    }
    fn settle(&mut self, last: u64) -> Result<(), String> {
        while self.loose.front().is_some_and(|b| b.number <= last) {
            let batch = self.loose.pop_front().unwrap_or_default();
            self.synced.apply(&batch)?;
        }
        Ok(())
    }
    /// Batches the store has not finished.
    pub(crate) fn unwritten(&self) -> u64 {
        self.submitted - self.written
    }
    /// The process is gone. Everything fsynced is left, and some prefix of the rest: all that was written when only the
    /// process died, less when the machine did.
    pub(crate) fn crash(&mut self, power: bool, rng: &mut Rng) -> Result<(), String> {
        let last = if !power {
            self.written
        } else if rng.chance(60) {
            0
        } else {
            rng.range(self.written.saturating_sub(20), self.submitted + 1)
        };
        self.settle(last)?;
        self.loose.clear();
        self.shown = self.synced.clone();
        (self.submitted, self.written) = (0, 0);
        Ok(())
    }
    pub(crate) fn restored(&self) -> Restored {
        self.shown.restored(&self.blobs)
    }
    pub(crate) fn submitted(&self) -> u64 {
        self.submitted
    }
    /// Bytes of all blobs.
    pub(crate) fn used(&self) -> u64 {
        self.blobs.values().sum()
    }
}
