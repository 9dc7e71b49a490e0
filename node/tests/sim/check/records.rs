//! The index as it should be, computed as a set from the records themselves, not in the order of any log.

use super::{Broken, Truth};
use node::cluster::{Effect, Epoch, Marks, Position, Record, Stamp, Version};
use node::path::FtpPath;
use std::collections::BTreeSet;
use std::sync::Arc;

impl Truth {
    /// Everything that the first `n` records of an epoch stand on.
    pub(super) fn closure(&self, epoch: Epoch, n: u64) -> Marks {
        let mut scope = Marks::of(epoch, n);
        for cover in self.covers.iter().filter(|p| p.epoch == epoch && p.seq < n) {
            if let Some(cover) = self.records[cover].cover() {
                scope.join(&cover.marks);
            }
        }
        scope
    }
    /// Whether a record counts in a scope as seen by `epoch`: it is the epoch's own, or a cover there names it and does not
    /// void it.
    pub(super) fn confirmed(&self, position: Position, scope: &Marks, epoch: Epoch) -> bool {
        let position = self.last(position);
        if position.epoch == epoch {
            return true;
        }
        let covers = self.covers.iter().filter(|p| scope.has(**p)).filter_map(|p| self.records[p].cover());
        let mut confirming = covers.filter(|c| c.marks.has(position) && !c.voids.contains(&position));
        confirming.next().is_some()
    }
    /// Where the operation ends that has a part here: no part is there, or counts, without the last.
    pub(super) fn last(&self, position: Position) -> Position {
        let write = self.records.get(&position).and_then(|r| r.write());
        write.map_or(position, |w| w.last(position))
    }
    /// All parts of the copy of an operation that ends here.
    pub(super) fn parts(&self, last: Position) -> impl Iterator<Item = &Arc<Record>> {
        let count = self.records.get(&last).and_then(|r| r.write()?.part).map_or(1, |p| p.count);
        let first = Position { seq: last.seq + 1 - count, ..last };
        self.records.range(first..=last).map(|(_, record)| record)
    }
    /// How many effects an operation has, and in how many parts.
    pub(crate) fn size(&self, last: Position) -> (usize, usize) {
        let writes = || self.parts(last).filter_map(|r| r.write());
        (writes().map(|w| w.effects.len()).sum(), writes().count())
    }
    pub(super) fn effect<'a>(record: &'a Record, path: &FtpPath) -> Option<&'a Effect> {
        record.write()?.effects.iter().find(|e| e.path == *path)
    }
    /// Records of a scope that touch a path.
    pub(super) fn on_path<'a>(
        &'a self,
        path: &FtpPath,
        scope: &'a Marks,
    ) -> impl Iterator<Item = &'a Arc<Record>> + 'a {
        self.by_path.get(path).into_iter().flatten().filter(|p| scope.has(self.last(**p))).map(|p| &self.records[p])
    }
    /// By whom a version was replaced. A void duplicate's `over` counts, too.
    pub(super) fn replaced_by(&self, position: Position, path: &FtpPath, scope: &Marks) -> Option<Position> {
        self.on_path(path, scope)
            .find(|r| Self::effect(r, path).is_some_and(|e| e.over.contains(&position)))
            .map(|r| r.position)
    }
    /// The confirmed versions of a path that nothing replaced, the greatest stamp first.
    pub(super) fn heads(&self, path: &FtpPath, scope: &Marks, epoch: Epoch) -> Vec<Position> {
        let mut heads: Vec<&Arc<Record>> = self
            .on_path(path, scope)
            .filter(|r| self.confirmed(r.position, scope, epoch))
            .filter(|r| Self::effect(r, path).is_some_and(|e| e.what != Version::Resolved))
            .filter(|r| self.replaced_by(r.position, path, scope).is_none())
            .filter(|r| !self.is_dropped(path, r.position, scope))
            .collect();
        heads.sort_by_key(|r| std::cmp::Reverse(stamp(r)));
        heads.into_iter().map(|r| r.position).collect()
    }
    /// The head that counts: the greatest that is no file, if it is a directory, else the greatest.
    pub(super) fn standing(&self, path: &FtpPath, scope: &Marks, epoch: Epoch) -> Option<Position> {
        let heads = self.heads(path, scope, epoch);
        let what = |p: &Position| Self::effect(&self.records[p], path).map(|e| &e.what);
        let beneath = heads.iter().find(|p| !matches!(what(p), Some(Version::File(_))));
        beneath.filter(|p| matches!(what(p), Some(Version::Directory { .. }))).or(heads.first()).copied()
    }
    /// Notes what a version is made of. No operation's bytes are in it twice (I9), and it is as long as they are (I10).
    pub(super) fn learn_extents(&mut self, position: Position, what: &Version) -> Result<(), Broken> {
        let Version::File(file) = what else { return Ok(()) };
        let mut ops = BTreeSet::new();
        if let Some(twice) = file.extents.iter().find(|e| !ops.insert(e.blob.op)) {
            let what = format!("the version of {position:?} has the bytes of op {:?} twice", twice.blob.op);
            return Err(Broken::new("I9", what));
        }
        if file.size != file.extents.iter().map(|e| e.length).sum::<u64>() {
            return Err(Broken::new(
                "I10",
                format!("the version of {position:?} has other bytes than its length says"),
            ));
        }
        for extent in &file.extents {
            self.by_blob.entry(extent.blob).or_default().insert(position);
        }
        Ok(())
    }
    /// How many extents the staged bytes of a record are the last of.
    pub(crate) fn extents(&self, position: Position) -> usize {
        let write = self.records.get(&position).and_then(|r| r.write()).filter(|w| w.blob.is_some());
        let effect = write.and_then(|w| w.effects.first());
        if let Some(Version::File(file)) = effect.map(|e| &e.what) { file.extents.len() } else { 0 }
    }
    /// The extents a version refers to.
    pub(super) fn content(&self, position: Position, path: &FtpPath) -> Option<&[node::cluster::Extent]> {
        match &Self::effect(self.records.get(&position)?, path)?.what {
            Version::File(file) => Some(&file.extents),
            Version::Directory { .. } | Version::Deleted | Version::Resolved => None,
        }
    }
}

pub(super) fn stamp(record: &Record) -> Stamp {
    Stamp { hlc: record.hlc, position: record.position }
}
