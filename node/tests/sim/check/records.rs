//! The index as it should be, computed as a set from the records themselves, not in the order of any log.

use super::Truth;
use node::cluster::{Effect, Epoch, Marks, Position, Record, Stamp, Version};
use node::path::FtpPath;
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
}

pub(super) fn stamp(record: &Record) -> Stamp {
    Stamp { hlc: record.hlc, position: record.position }
}
