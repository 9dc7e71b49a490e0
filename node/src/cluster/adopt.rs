//! What an epoch stands on: a new one on all that is logged, a running one, by a merge record, on what others committed since.
//! Of an operation that was logged more than once one copy counts; which is void is decided here, once, and logged.

use super::log::Log;
use super::record::{Cover, Version, Write};
use super::storage::Storage;
use super::types::{Epoch, NodeId, OpId, Position};
use crate::path::FtpPath;
use std::collections::{BTreeMap, BTreeSet};

/// The copies of one operation in the tail, each with all its parts, named by the last.
type Copies<'a> = BTreeMap<Position, Vec<(Position, &'a Write)>>;

impl Log {
    /// All that is logged becomes part of a new epoch. The tail, which no epoch has confirmed, is adopted, save copies of
    /// operations that have an outcome.
    pub(super) fn adopt_all(&self, epoch: Epoch, members: Vec<NodeId>, storage: &dyn Storage) -> Cover {
        let mut marks = self.state.logged.clone();
        marks.remove(epoch);
        let mut voids: BTreeSet<Position> = self.unconfirmed.keys().copied().collect();
        let mut replaced: BTreeMap<Position, BTreeSet<OpId>> = BTreeMap::new();
        let mut operations: BTreeMap<OpId, Copies<'_>> = BTreeMap::new();
        for (position, write) in self.tail.iter().filter_map(|r| r.write().map(|w| (r.position, w))) {
            for over in write.effects.iter().flat_map(|e| &e.over) {
                replaced.entry(*over).or_default().insert(write.op);
            }
            operations.entry(write.op).or_default().entry(write.last(position)).or_default().push((position, write));
        }
        for (op, copies) in operations {
            // Of several copies in one tail the one replaced there counts, else the last; none does where an outcome is known.
            let was_replaced = |parts: &[(Position, &Write)]| parts.iter().any(|(p, _)| replaced.contains_key(p));
            let best = copies.iter().max_by_key(|(last, parts)| (was_replaced(parts), **last)).map(|(last, _)| *last);
            let best = best.filter(|_| self.view(storage).outcome(op).is_none());
            let over = |parts: &[(Position, &Write)]| -> BTreeSet<Position> {
                parts.iter().flat_map(|(_, w)| &w.effects).flat_map(|e| &e.over).copied().collect()
            };
            let mut taken = best.and_then(|best| copies.get(&best)).map(|parts| over(parts)).unwrap_or_default();
            for (_, parts) in copies.iter().filter(|(last, _)| Some(**last) != best) {
                let others = |p: Position| replaced.get(&p).is_some_and(|ops| ops.iter().any(|o| *o != op));
                let spares =
                    |path: &FtpPath, p: Position| taken.contains(&p) || others(p) || self.is_gone(path, p, storage);
                // What it carries on is nowhere else, and a void copy takes away what it is over.
                if parts.iter().any(|(_, write)| carries_on(write, &spares)) {
                    taken.extend(over(parts));
                } else {
                    voids.extend(parts.iter().map(|(p, _)| *p));
                }
            }
        }
        voids.retain(|p| !self.state.committed.has(*p));
        Cover { marks, voids: voids.into_iter().collect(), members }
    }

    /// What other epochs committed becomes part of the running one, as it was decided there. What is in the log and not
    /// known to be committed stays out of it: the record that decides of it may be on its way.
    pub(super) fn merge(&self, epoch: Epoch, members: Vec<NodeId>) -> Cover {
        let mut marks = self.state.applied.clone();
        marks.remove(epoch);
        let voids = self.unconfirmed.keys().copied().filter(|p| !self.state.committed.has(*p)).collect();
        Cover { marks, voids, members }
    }

    /// Whether a head is neither in the index nor on its way there.
    fn is_gone(&self, path: &FtpPath, head: Position, storage: &dyn Storage) -> bool {
        let entry = self.view(storage).entry(path).unwrap_or_default();
        let logged = self.touched.get(path).is_some_and(|by| by.iter().any(|(record, _)| record.position == head));
        !logged && entry.heads.iter().all(|h| h.position != head)
    }
}

/// Whether a write's version is made of one it is over and that nothing else spares: a rename's and an append's are.
fn carries_on(write: &Write, spares: &impl Fn(&FtpPath, Position) -> bool) -> bool {
    let borrowed = |what: &Version| matches!(what, Version::File(file) if write.blob.is_none() || file.extents.iter().any(|e| Some(e.blob) != write.blob));
    write.effects.iter().any(|e| borrowed(&e.what))
        && write.effects.iter().any(|e| e.over.iter().any(|p| !spares(&e.path, *p)))
}
