//! The last records of a leader's own, in memory for members that are a little behind. Bounded in number and in size; who
//! lacks more is sent what the disk has.

use super::record::Record;
use std::collections::VecDeque;
use std::sync::Arc;

/// Records kept.
const RECORDS: usize = 4096;
/// Paths they may change, all together.
const PATHS: usize = 65_536;

/// Records without a hole, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Recent {
    records: VecDeque<Arc<Record>>,
    paths: usize,
}

impl Recent {
    /// Takes the one that follows.
    pub(super) fn push(&mut self, record: Arc<Record>) {
        self.paths += record.paths().count();
        self.records.push_back(record);
        while self.records.len() > RECORDS || (self.paths > PATHS && self.records.len() > 1) {
            let Some(oldest) = self.records.pop_front() else { return };
            self.paths -= oldest.paths().count();
        }
    }
    /// All records from number `seq` of the epoch on, if that one is here or the next to come.
    pub(super) fn from(&self, seq: u64) -> Option<impl Iterator<Item = &Arc<Record>>> {
        let skip = seq.checked_sub(self.records.front()?.position.seq)?;
        Some(self.records.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX)))
    }
}
