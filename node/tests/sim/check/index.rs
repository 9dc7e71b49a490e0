//! What a node may put into its index. I8: the greatest stamp comes first. I10: only what is committed. And state that must
//! never go back.

use super::{Broken, Truth};
use crate::sim::disk::Tables;
use node::cluster::{Head, Mutation, PathEntry};
use node::path::FtpPath;

impl Truth {
    /// `tables` is what shows once the whole batch is there.
    pub(super) fn changed(&self, at: usize, mutation: &Mutation, tables: &Tables) -> Result<(), Broken> {
        if let Mutation::Entry(path, Some(entry)) = mutation {
            self.entry(at, path, entry)?;
            // While another's index is being taken over, nothing is shown of it.
            let state = &tables.state;
            let known = |p| state.applied.has(p) || state.borrowed.has(p);
            let half = |h: &&Head| !known(self.last(h.position));
            if let Some(head) = entry.heads.iter().find(half) {
                let what = format!("{at} shows {head:?} at {path}, a part of what it has not all of");
                return Err(Broken::new("I10", what));
            }
        }
        Ok(())
    }
    fn entry(&self, at: usize, path: &FtpPath, entry: &PathEntry) -> Result<(), Broken> {
        if entry.heads.is_empty() || !entry.heads.is_sorted_by(|a, b| a.stamp() > b.stamp()) {
            return Err(Broken::new("I8", format!("{at} keeps heads of {path} out of order: {:?}", entry.heads)));
        }
        for head in &entry.heads {
            let record = self.records.get(&head.position);
            let said = record.and_then(|r| Self::effect(r, path)).map(|e| &e.what);
            if said.is_none_or(|said| !self.same(said, &head.what)) || record.is_some_and(|r| r.hlc != head.hlc) {
                let what = format!("{at} keeps {head:?} at {path}, logged was {said:?}");
                return Err(Broken::new("I2", what));
            }
            if head.confirmed && !self.committed.contains_key(&self.last(head.position)) {
                return Err(Broken::new(
                    "I10",
                    format!("{at} shows {:?} at {path}, which is not committed", head.position),
                ));
            }
        }
        Ok(())
    }
}
