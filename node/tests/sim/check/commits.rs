//! I1, the moment of the commit: the record is on the disks of its whole durability set, the bytes on all replicas, and the
//! set is large enough. And what a client was told is true.

use super::epochs::promise_kept;
use super::{Broken, Truth};
use crate::sim::process::{Process, id, index};
use crate::sim::world::Time;
use node::cluster::{BlobId, Epoch, File, NodeId, OpId, Outcome, Position, Record, Relocated, Version};
use std::collections::BTreeSet;

/// A replica that a record with staged bytes names and that lacks any of the version's, though its disk lost none. Of what
/// an append goes on it may have dropped its copy, before it heard of a register that a dead leader had set and that names
/// it again: then as many others have one.
pub(super) fn not_whole(record: &Record, processes: &[Process]) -> Option<(BlobId, NodeId)> {
    let write = record.write().filter(|w| w.blob.is_some())?;
    let files = write.effects.iter().filter_map(|e| if let Version::File(file) = &e.what { Some(file) } else { None });
    let of = |f: &File| f.extents.iter().flat_map(|e| f.replicas.iter().map(|n| (e.blob, *n))).collect::<Vec<_>>();
    let elsewhere = |blob: BlobId| processes.iter().filter(|p| !p.gone && p.disk.has_good(blob)).count();
    let dropped = |process: &Process, blob: BlobId| {
        Some(blob) != write.blob && process.had.contains(&blob) && elsewhere(blob) >= write.replicas().count()
    };
    let mut copies = files.flat_map(of);
    copies.find(|(blob, node)| {
        let process = &processes[index(*node)];
        let there = process.disk.blobs.contains_key(blob) || process.rotten.contains(blob);
        !(process.gone || there || dropped(process, *blob))
    })
}

/// A node that is to hold merged extents and never made them.
fn not_merged(record: &Record, processes: &[Process]) -> Option<(BlobId, NodeId)> {
    let of = |v: &Relocated| v.extents.iter().flat_map(|e| v.nodes.iter().map(|n| (e.blob, *n))).collect::<Vec<_>>();
    let mut copies = record.moved().iter().flat_map(of);
    copies.find(|(blob, node)| {
        let process = &processes[index(*node)];
        // What was there may have been lost since, or replaced and collected.
        !(process.gone || process.lost.is_some() || process.had.contains(blob))
    })
}

impl Truth {
    pub(super) fn commits(
        &mut self,
        now: Time,
        at: usize,
        epoch: Epoch,
        count: u64,
        processes: &[Process],
    ) -> Result<(), Broken> {
        let Some(reign) = self.reigns.get(&epoch).filter(|r| r.node == at) else {
            return Err(Broken::new("I4", format!("{at} commits in {epoch:?}, which is not its own")));
        };
        for seq in reign.committed..count {
            let position = Position { epoch, seq };
            self.durable(position, processes)?;
            let record = self.records[&position].clone();
            self.commit(now, position, epoch, &record.durability);
            self.stood_on(position)?;
            let Some(cover) = record.cover() else { continue };
            if seq > 0 {
                self.linear.merged();
            }
            let adopted: Vec<Position> = self.records.keys().copied().filter(|p| cover.marks.has(*p)).collect();
            // A cover that is adopted may confirm what this one, which knows more, calls void.
            let elsewhere = |p: &Position| {
                let others = adopted.iter().filter_map(|c| self.records[c].cover());
                others.filter(|other| other.marks.has(*p)).any(|other| !other.voids.contains(p))
            };
            let counts: Vec<Position> =
                adopted.iter().copied().filter(|p| !cover.voids.contains(p) || elsewhere(p)).collect();
            for p in counts {
                self.commit(now, p, epoch, &record.durability);
            }
        }
        if let Some(reign) = self.reigns.get_mut(&epoch) {
            reign.committed = reign.committed.max(count);
        }
        Ok(())
    }
    fn durable(&self, position: Position, processes: &[Process]) -> Result<(), Broken> {
        let broken = |what: String| Err(Broken::new("I1", format!("{position:?} committed {what}")));
        let Some(record) = self.records.get(&position) else { return broken("and never written".into()) };
        let reign = &self.reigns[&position.epoch];
        let set: BTreeSet<NodeId> = record.durability.iter().copied().collect();
        if set.len() < reign.members.len().min(3) || !set.iter().all(|n| reign.members.contains(n)) {
            return broken(format!("by {set:?} of the members {:?}", reign.members));
        }
        if !set.contains(&id(reign.node)) {
            return broken("without its leader".into());
        }
        let lasting = |n: &&NodeId| !processes[index(**n)].gone; // a disk that was lost since had it
        if let Some((blob, node)) = not_merged(record, processes) {
            return Err(Broken::new("I3", format!("{position:?} says that {node:?} has {blob:?}, which it never had")));
        }
        if let Some(node) = set.iter().filter(lasting).find(|n| !processes[index(**n)].disk.synced.has(position)) {
            return broken(format!("without {node:?}, whose disk has it not"));
        }
        if let Some(node) = record.write().into_iter().flat_map(|w| w.replicas()).find(|n| !set.contains(n)) {
            return broken(format!("without waiting for replica {node:?}"));
        }
        match not_whole(record, processes) {
            Some((blob, node)) => broken(format!("without replica {node:?} of {blob:?}")),
            None => Ok(()),
        }
    }
    /// An epoch that was taken before this commit came, by members that made it, must stand on it.
    fn stood_on(&self, position: Position) -> Result<(), Broken> {
        let set = self.records[&position].durability.iter().copied().collect();
        let later = self.reigns.range(position.epoch..).filter(|(e, _)| **e > position.epoch);
        for (epoch, reign) in later {
            promise_kept(position, &set, *epoch, &reign.members, &self.closure(*epoch, 1))?;
        }
        Ok(())
    }
    /// A client is told that its operation is done; with how many others it is in conflict.
    pub(crate) fn done(&mut self, op: OpId, outcome: Outcome) -> Result<u64, Broken> {
        self.linear.done(op);
        let logged = self.records.get(&outcome.position).and_then(|r| r.write()).map(|w| w.op);
        if logged != Some(op) || !self.committed.contains_key(&outcome.position) {
            let what = format!("op {op:?} acknowledged at {:?}, where {logged:?} is logged", outcome.position);
            return Err(Broken::new("I1", what));
        }
        if let Some(asked) = self.ops.get_mut(&op) {
            asked.done = Some(outcome);
        }
        Ok(self.acknowledged(outcome.position))
    }
    /// The records that name a blob.
    pub(crate) fn logged_with(&self, blob: BlobId) -> impl Iterator<Item = Position> + '_ {
        self.by_blob.get(&blob).into_iter().flatten().copied()
    }
    /// A node deletes a blob: nothing in its index or its log may need it.
    pub(crate) fn dropped(&self, now: Time, at: usize, blob: BlobId, processes: &[Process]) -> Result<(), Broken> {
        let tables = &processes[at].disk.shown;
        let logged = self.logged_with(blob).filter(|p| tables.has(*p));
        let mut unapplied = logged.filter(|p| !tables.state.applied.has(*p));
        let unapplied = unapplied.find(|p| self.records[p].write().is_some_and(|w| w.replicas().any(|n| n == id(at))));
        if let Some(position) = unapplied {
            return Err(Broken::new("I1", format!("{at} drops {blob:?}, which {position:?} in its log needs")));
        }
        self.surplus(now, at, blob, processes)
    }
}
