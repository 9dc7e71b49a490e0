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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::member_tests::Empty;
    use crate::cluster::storage::MemberState;
    use crate::cluster::{BlobId, Body, Effect, Extent, File, Hash, Hlc, Marks, Record};
    use std::sync::Arc;

    fn at(counter: u64, seq: u64) -> Position {
        Position { epoch: Epoch(counter, 0), seq }
    }
    fn path(text: &str) -> FtpPath {
        FtpPath::try_from(text.to_owned()).unwrap()
    }
    fn file(blob: u128) -> Version {
        let extent =
            Extent { blob: BlobId { op: OpId(blob), ..BlobId::default() }, offset: 0, length: 3, hash: Hash([1; 32]) };
        Version::File(File { extents: vec![extent], size: 3, hash: None, modified: 0, ..File::default() })
    }
    fn effect(text: &str, over: &[Position], what: Version) -> Effect {
        Effect { path: path(text), over: over.to_vec(), what }
    }
    fn record(position: Position, op: u128, blob: Option<u128>, effects: Vec<Effect>) -> Arc<Record> {
        let blob = blob.map(|op| BlobId { op: OpId(op), ..BlobId::default() });
        let write = Write { op: OpId(op), blob, effects, ..Write::default() };
        Arc::new(Record { position, hlc: Hlc(position.epoch.0), durability: vec![], body: Body::Write(write) })
    }
    fn store(position: Position, op: u128, over: &[Position]) -> Arc<Record> {
        record(position, op, Some(op), vec![effect("/a", over, file(op))])
    }
    fn rename(position: Position, op: u128, of: u128, over: Position) -> Arc<Record> {
        record(position, op, None, vec![effect("/a", &[over], Version::Deleted), effect("/b", &[], file(of))])
    }
    fn append(position: Position, op: u128, to: u128, over: Position) -> Arc<Record> {
        let (Version::File(mut base), Version::File(delta)) = (file(to), file(op)) else { unreachable!() };
        base.extents.extend(delta.extents);
        record(position, op, Some(op), vec![effect("/a", &[over], Version::File(base))])
    }
    fn log(committed: u64, records: &[Arc<Record>]) -> Log {
        let mut log = Log::new(NodeId(1), MemberState::default(), vec![], vec![], 0);
        for record in records {
            assert!(log.add(record));
        }
        log.raise_committed(Epoch(1, 0), committed, &Empty);
        log.apply_committed(0, None, &Empty);
        log
    }
    fn voids(log: &Log) -> Vec<Position> {
        log.adopt_all(Epoch(9, 0), vec![], &Empty).voids
    }

    #[test]
    fn of_two_copies_in_a_tail_the_replaced_one_counts_else_the_last() {
        let base = store(at(1, 0), 1, &[]);
        let copies = [base.clone(), store(at(2, 0), 7, &[at(1, 0)]), store(at(3, 0), 7, &[at(1, 0)])];
        assert_eq!(voids(&log(1, &copies)), [at(2, 0)]);
        let replaced = [&copies[..], &[store(at(2, 1), 8, &[at(2, 0)])]].concat();
        assert_eq!(voids(&log(1, &replaced)), [at(3, 0)]);
    }

    #[test]
    fn no_copy_counts_of_what_has_an_outcome() {
        let copies = [store(at(1, 0), 7, &[]), store(at(2, 0), 7, &[]), rename(at(2, 1), 7, 7, at(1, 0))];
        assert_eq!(voids(&log(1, &copies[..2])), [at(2, 0)]);
        assert_eq!(voids(&log(0, &copies[..2])), [at(1, 0)], "without it the last does");
    }

    #[test]
    fn a_copy_that_carries_on_what_no_other_does_counts_as_well() {
        // The first leader knew a newer version than the second.
        let known = [store(at(1, 0), 1, &[]), store(at(2, 0), 2, &[at(1, 0)])];
        let moved = [rename(at(2, 1), 7, 2, at(2, 0)), rename(at(3, 0), 7, 1, at(1, 0))];
        assert_eq!(voids(&log(1, &[&known[..], &moved].concat())), [], "or the newer version would be nowhere");
        let grown = [append(at(2, 1), 7, 2, at(2, 0)), append(at(3, 0), 7, 1, at(1, 0))];
        assert_eq!(voids(&log(1, &[&known[..], &grown].concat())), []);
        let both = [rename(at(2, 0), 7, 1, at(1, 0)), rename(at(3, 0), 7, 1, at(1, 0))];
        assert_eq!(voids(&log(1, &[&known[..1], &both].concat())), [at(2, 0)], "the other copy takes it away, too");
        let later = [&known[..], &moved, &[store(at(2, 2), 8, &[at(2, 0)])]].concat();
        assert_eq!(voids(&log(1, &later)), [at(2, 1)], "another operation replaced it");
        // What no new bytes carry on is as good when it is away.
        let written = [&known[..], &[store(at(2, 1), 7, &[at(2, 0)]), store(at(3, 0), 7, &[at(1, 0)])]].concat();
        assert_eq!(voids(&log(1, &written)), [at(2, 1)]);
    }

    #[test]
    fn a_merge_covers_what_was_decided_elsewhere_and_nothing_else() {
        let log = log(1, &[store(at(1, 0), 1, &[]), store(at(1, 1), 2, &[at(1, 0)]), store(at(2, 0), 3, &[])]);
        assert_eq!(log.merge(Epoch(9, 0), vec![]).marks, Marks::of(Epoch(1, 0), 1));
    }
}
