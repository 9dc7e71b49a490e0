//! A disk: what was handed over, what is written, what a crash leaves. `Disk` is `Storage` over maps; never a file.

use crate::sim::rng::Rng;
use crate::sim::world::Time;
use node::cluster::{
    Aging, AgingKind, Batch, BlobId, Holding, Marks, MemberState, Mutation, NodeId, OpId, Outcome, PathEntry,
    PathRange, PeerInfo, Position, Record, Restored, Storage, Version,
};
use node::path::FtpPath;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

/// Blobs and the paths that refer to them.
pub(crate) type Referrers = BTreeSet<(BlobId, FtpPath)>;

/// Everything a store holds besides blobs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tables {
    /// Records with their number of arrival.
    log: BTreeMap<Position, (u64, Arc<Record>)>,
    /// The positions in the order of their arrival.
    arrived: BTreeMap<u64, Position>,
    arrivals: u64,
    pub(crate) entries: BTreeMap<FtpPath, PathEntry>,
    /// Visible children by directory: the rows of listings.
    rows: BTreeMap<FtpPath, BTreeSet<String>>,
    pub(crate) outcomes: BTreeMap<OpId, Outcome>,
    pub(crate) referrers: Referrers,
    pub(crate) held: BTreeSet<(Holding, BlobId)>,
    aging: BTreeSet<Aging>,
    met: BTreeMap<NodeId, PeerInfo>,
    pub(crate) state: MemberState,
}

impl Tables {
    /// Applies one batch. An error is a hole or a repeat in the log.
    fn apply(&mut self, batch: &Batch) -> Result<(), String> {
        for mutation in &batch.mutations {
            match mutation {
                Mutation::Record(record) => self.append(record),
                Mutation::Truncate(positions) => positions.iter().for_each(|p| self.truncate(*p)),
                Mutation::Entry(path, entry) => self.set_entry(path, entry.as_ref()),
                Mutation::Outcome(op, outcome) => set(&mut self.outcomes, *op, *outcome),
                Mutation::Reference(blob, path, true) => drop(self.referrers.insert((*blob, path.clone()))),
                Mutation::Reference(blob, path, false) => drop(self.referrers.remove(&(*blob, path.clone()))),
                Mutation::Held(holding, blob, true) => drop(self.held.insert((*holding, *blob))),
                Mutation::Held(holding, blob, false) => drop(self.held.remove(&(*holding, *blob))),
                Mutation::Aging(row, true) => drop(self.aging.insert(row.clone())),
                Mutation::Aging(row, false) => drop(self.aging.remove(row)),
                Mutation::Forgotten(node) => drop(self.met.remove(node)),
                Mutation::Met(info) => drop(self.met.insert(info.node, info.clone())),
                Mutation::State(state) => self.state = state.clone(),
            }
        }
        self.whole(batch)
    }
    fn append(&mut self, record: &Arc<Record>) {
        self.arrivals += 1;
        self.log.insert(record.position, (self.arrivals, record.clone()));
        self.arrived.insert(self.arrivals, record.position);
    }
    fn truncate(&mut self, position: Position) {
        if let Some((number, _)) = self.log.remove(&position) {
            self.arrived.remove(&number);
        }
    }
    /// Whether what came is what the member says it has, each record behind the one before it.
    fn whole(&self, batch: &Batch) -> Result<(), String> {
        let came =
            batch.mutations.iter().filter_map(|m| if let Mutation::Record(r) = m { Some(r.position) } else { None });
        for Position { epoch, seq } in came {
            let before = seq.checked_sub(1).map(|seq| Position { epoch, seq });
            if before.is_some_and(|p| !self.log.contains_key(&p) && !self.state.truncated.has(p)) {
                return Err(format!("{epoch:?}/{seq} is appended, and the one before it is not there"));
            }
            if !self.state.logged.has(Position { epoch, seq }) {
                return Err(format!("{epoch:?}/{seq} is appended, and the state says {:?}", self.state.logged));
            }
        }
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
    /// Whether a record is or was in the log.
    pub(crate) fn has(&self, position: Position) -> bool {
        self.log.contains_key(&position) || self.state.truncated.has(position)
    }
    /// What the log holds or held, counted, not as the member says.
    pub(crate) fn marks(&self) -> Marks {
        let mut marks = self.state.truncated.clone();
        for position in self.log.keys() {
            marks.raise(position.epoch, position.seq + 1);
        }
        marks
    }
    pub(crate) fn children(&self, dir: &FtpPath) -> impl Iterator<Item = &String> {
        self.rows.get(dir).into_iter().flatten()
    }
    fn arrived_beyond(&self, marks: &Marks) -> impl Iterator<Item = &Arc<Record>> {
        let beyond = self.arrived.values().filter(move |p| !marks.has(**p));
        beyond.filter_map(|p| self.log.get(p)).map(|(_, record)| record)
    }
    fn restored(&self, node: NodeId, blobs: &BTreeMap<BlobId, u64>) -> Restored {
        let unsettled = |e: &PathEntry| e.heads.iter().any(|h| !h.confirmed);
        let referred: BTreeSet<BlobId> = self.referrers.iter().map(|(blob, _)| *blob).collect();
        let here: BTreeSet<BlobId> = blobs.keys().copied().collect();
        let due: BTreeSet<BlobId> =
            self.held.iter().filter(|(h, _)| *h == Holding::Node(node)).map(|(_, blob)| *blob).collect();
        let surplus = here.difference(&due).filter(|b| referred.contains(b));
        Restored {
            state: self.state.clone(),
            tail: self.arrived_beyond(&self.state.applied).cloned().collect(),
            unconfirmed: self.entries.iter().filter(|(_, e)| unsettled(e)).map(|(p, _)| p.clone()).collect(),
            met: self.met.values().cloned().collect(),
            outcomes: self.outcomes.keys().copied().collect(),
            unreferenced: here.difference(&referred).copied().collect(),
            astray: surplus.chain(due.difference(&here)).copied().collect(),
        }
    }
    /// What the heads say of blobs, counted from the heads: who refers to them, and who is to hold them.
    pub(crate) fn counted(&self) -> (Referrers, BTreeSet<(Holding, BlobId)>) {
        let (mut referrers, mut held) = (BTreeSet::new(), BTreeSet::new());
        for (path, head) in self.entries.iter().flat_map(|(p, e)| e.heads.iter().map(move |h| (p, h))) {
            let Version::File(file) = &head.what else { continue };
            for blob in file.extents.iter().map(|e| e.blob) {
                referrers.insert((blob, path.clone()));
                held.extend(head.location.nodes.iter().map(|n| (Holding::Node(*n), blob)));
                held.extend((head.location.nodes.len() < 3).then_some((Holding::Short, blob)));
            }
        }
        (referrers, held)
    }
}

fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
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
    /// Those whose bytes are no longer what was stored.
    pub(crate) bad: BTreeSet<BlobId>,
    /// Of these, those that this start of the node knows of, and since when.
    pub(crate) condemned: BTreeMap<BlobId, Time>,
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
        self.condemned.clear();
        (self.submitted, self.written) = (0, 0);
        Ok(())
    }
    pub(crate) fn restored(&self, node: NodeId) -> Restored {
        self.shown.restored(node, &self.blobs)
    }
    pub(crate) fn submitted(&self) -> u64 {
        self.submitted
    }
    /// A good copy is durable, in the place of a bad one perhaps.
    pub(crate) fn put(&mut self, blob: BlobId, size: u64) {
        self.take(blob);
        self.blobs.insert(blob, size);
    }
    /// A copy is gone.
    pub(crate) fn take(&mut self, blob: BlobId) {
        self.blobs.remove(&blob);
        self.bad.remove(&blob);
        self.condemned.remove(&blob);
    }
    /// Whether its copy is what was stored, whatever the node believes.
    pub(crate) fn has_good(&self, blob: BlobId) -> bool {
        self.blobs.contains_key(&blob) && !self.bad.contains(&blob)
    }
    /// Bad copies that this start of the node does not know of.
    pub(crate) fn unknown_bad(&self) -> Vec<BlobId> {
        self.bad.iter().copied().filter(|blob| !self.condemned.contains_key(blob)).collect()
    }
    /// Bytes of all blobs.
    pub(crate) fn used(&self) -> u64 {
        self.blobs.values().sum()
    }
}

/// Reads show all batches that were handed over.
impl Storage for Disk {
    fn entry(&self, path: &FtpPath) -> Option<PathEntry> {
        self.shown.entries.get(path).cloned()
    }
    fn next_child(&self, dir: &FtpPath, after: Option<&str>) -> Option<String> {
        // A directory that is only implied by what lies below it is a child, too.
        let visible = dir.below_in(&self.shown.entries).filter(|(_, entry)| entry.visible().is_some());
        let depth = dir.components().count();
        let names = visible.filter_map(|(path, _)| path.components().nth(depth));
        names.filter(|name| after.is_none_or(|a| *name > a)).min().map(str::to_owned)
    }
    fn outcome(&self, op: OpId) -> Option<Outcome> {
        self.shown.outcomes.get(&op).copied()
    }
    fn referrers(&self, blob: BlobId) -> Vec<FtpPath> {
        let rows = self.shown.referrers.range((blob, FtpPath::root())..);
        rows.take_while(|(b, _)| *b == blob).map(|(_, path)| path.clone()).collect()
    }
    fn held(&self, holding: Holding, after: Option<BlobId>, limit: usize) -> Vec<BlobId> {
        let rows = self.shown.held.iter().filter(|(h, blob)| *h == holding && after.is_none_or(|a| *blob > a));
        rows.map(|(_, blob)| *blob).take(limit).collect()
    }
    fn has_blob(&self, blob: BlobId) -> bool {
        self.blobs.contains_key(&blob) && !self.condemned.contains_key(&blob)
    }
    fn has_damaged(&self, blob: BlobId) -> bool {
        self.condemned.contains_key(&blob)
    }
    fn records_beyond(&self, marks: &Marks, limit: usize) -> Vec<Arc<Record>> {
        self.shown.arrived_beyond(marks).take(limit).cloned().collect()
    }
    fn oldest(&self, limit: usize) -> Vec<Arc<Record>> {
        self.shown.arrived_beyond(&Marks::default()).take(limit).cloned().collect()
    }
    fn entries(&self, range: &PathRange, limit: usize) -> Vec<(FtpPath, PathEntry)> {
        let after = range.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let within = |path: &FtpPath| range.upto.as_ref().is_none_or(|upto| path <= upto);
        let found = self.shown.entries.range::<FtpPath, _>((after, Bound::Unbounded));
        let found = found.take_while(|(path, _)| within(path)).take(limit);
        found.map(|(path, entry)| (path.clone(), entry.clone())).collect()
    }
    fn outcomes(&self, after: Option<OpId>, limit: usize) -> Vec<(OpId, Outcome)> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let found = self.shown.outcomes.range((after, Bound::Unbounded)).take(limit);
        found.map(|(op, outcome)| (*op, *outcome)).collect()
    }
    fn aging(&self, kind: AgingKind, after: Option<&Aging>, limit: usize) -> Vec<Aging> {
        let rows = self.shown.aging.iter().filter(|row| row.kind == kind && after.is_none_or(|a| *row > a));
        rows.take(limit).cloned().collect()
    }
}
