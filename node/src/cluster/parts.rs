//! Operations too large for one record. Their parts have consecutive positions and enter a log together: until the last one
//! is there the others wait in memory, and are no part of the log. So no log, no mark of one and no commit ever ends within an
//! operation, and every rule about records holds for their parts as it stands: a crash leaves all of them or none, and what
//! is adopted, merged, void or applied is so as a whole. Never on the disk. Only what is
//! asked for next, what is acknowledged as received, and how far a log is truncated may count single parts.

use super::marks::Marks;
use super::record::{Part, Record, Write};
use super::types::{Epoch, Position};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Epochs from which parts may wait at once. It is one of the leader's and those of a merge.
const EPOCHS: usize = 8;

/// Parts that wait for the rest of their operation, one operation an epoch.
#[derive(Debug, Default)]
pub(super) struct Arriving(BTreeMap<Epoch, Vec<Arc<Record>>>);

impl Arriving {
    /// How many records wait that follow the log's last one of this epoch.
    pub(super) fn count(&self, epoch: Epoch) -> u64 {
        self.0.get(&epoch).map_or(0, |waiting| waiting.len() as u64)
    }

    /// Takes the record that follows. What may be logged now: nothing while the operation is not whole, else all of it.
    /// `None` for what is no sequel; whoever sent it sends it again, from its beginning.
    pub(super) fn take(&mut self, record: &Arc<Record>) -> Option<Vec<Arc<Record>>> {
        let epoch = record.epoch();
        let part = record.write().and_then(|w| w.part);
        let index = part.map_or(0, |p| p.index);
        if index != self.count(epoch) {
            self.0.remove(&epoch);
            return None;
        }
        let Some(part) = part.filter(|p| p.count > 1) else { return Some(vec![record.clone()]) };
        if self.0.len() >= EPOCHS && index == 0 {
            self.clear();
        }
        let waiting = self.0.entry(epoch).or_default();
        waiting.push(record.clone());
        if part.is_last() { self.0.remove(&epoch) } else { Some(vec![]) }
    }

    /// What was received beyond what is logged.
    pub(super) fn raise(&self, logged: &Marks) -> Marks {
        let mut marks = logged.clone();
        for (epoch, waiting) in &self.0 {
            marks.raise(*epoch, logged.count(*epoch) + waiting.len() as u64);
        }
        marks
    }

    /// Forgets all of it: it is sent again.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Part {
    /// Whether it completes its operation.
    pub fn is_last(&self) -> bool {
        self.index + 1 >= self.count
    }
}

impl Write {
    /// Where its operation ends, if this is at `position`: what names one copy of it.
    pub fn last(&self, position: Position) -> Position {
        let left = self.part.map_or(0, |p| p.count.saturating_sub(p.index + 1));
        Position { seq: position.seq + left, ..position }
    }
    /// Whether it is all of its operation, or the end of it.
    pub fn is_last(&self) -> bool {
        self.part.is_none_or(|p| p.is_last())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Body, Hlc, OpId};

    fn part(seq: u64, part: Option<(u64, u64)>) -> Arc<Record> {
        let part = part.map(|(index, count)| Part { index, count });
        let write = Write { op: OpId(1), part, ..Write::default() };
        let position = Position { epoch: Epoch(1, 1), seq };
        Arc::new(Record { position, hlc: Hlc(1), durability: vec![], body: Body::Write(write) })
    }
    fn taken(arriving: &mut Arriving, record: &Arc<Record>) -> Option<Vec<u64>> {
        arriving.take(record).map(|records| records.iter().map(|r| r.position.seq).collect())
    }

    #[test]
    fn parts_wait_for_the_last_and_come_together() {
        let (mut arriving, logged) = (Arriving::default(), Marks::of(Epoch(1, 1), 4));
        assert_eq!(taken(&mut arriving, &part(4, Some((0, 3)))), Some(vec![]));
        assert_eq!(taken(&mut arriving, &part(5, Some((1, 3)))), Some(vec![]));
        assert_eq!(arriving.raise(&logged), Marks::of(Epoch(1, 1), 6), "what need not be sent again");
        assert_eq!(taken(&mut arriving, &part(6, Some((2, 3)))), Some(vec![4, 5, 6]));
        assert_eq!(arriving.count(Epoch(1, 1)), 0);
        assert_eq!(taken(&mut arriving, &part(7, None)), Some(vec![7]));
    }

    #[test]
    fn what_is_no_sequel_is_not_taken() {
        let mut arriving = Arriving::default();
        assert_eq!(taken(&mut arriving, &part(5, Some((1, 3)))), None, "its beginning was forgotten");
        assert_eq!(taken(&mut arriving, &part(4, Some((0, 3)))), Some(vec![]));
        assert_eq!(taken(&mut arriving, &part(5, None)), None, "nothing comes within an operation");
        assert_eq!(arriving.count(Epoch(1, 1)), 0);
    }

    #[test]
    fn an_operation_is_named_by_its_end() {
        let write = |r: &Arc<Record>| r.write().map(|w| w.last(r.position).seq);
        assert_eq!(write(&part(4, Some((0, 3)))), Some(6));
        assert_eq!((write(&part(6, Some((2, 3)))), write(&part(7, None))), (Some(6), Some(7)));
    }
}
