//! I5 and I10: a read that a leader answered sees every write to its path that was committed before the read began, unless
//! that write was made where none of the leader's members was; and no read sees what is not committed.

use super::records::stamp;
use super::{Broken, Truth};
use crate::sim::disk::Tables;
use crate::sim::world::Time;
use node::cluster::{Epoch, Marks, NodeId, Position, Record, Stamp, Version};
use node::path::FtpPath;
use std::sync::Arc;

impl Truth {
    /// A session that began to read at `began` looks up `path` in its node's index.
    pub(crate) fn read(
        &self,
        id: u64,
        began: Time,
        position: Option<Position>,
        path: &FtpPath,
        tables: &Tables,
    ) -> Result<(), Broken> {
        let seen = tables.entries.get(path).and_then(|e| e.winner());
        if let Some(head) = seen
            && !self.committed.contains_key(&self.last(head.position))
        {
            let what = format!("read {id} of {path} sees {:?}, which is not committed", head.position);
            return Err(Broken::new("I10", what));
        }
        if let Some(head) = seen
            && let Version::File(file) = &head.what
            && self.content(head.position, path) != Some(self.unmerged(&file.extents))
        {
            let what =
                format!("read {id} of {path} sees {:?}, which was never logged like that: {file:?}", head.position);
            return Err(Broken::new("I10", what));
        }
        let Some(position) = position.filter(|_| !self.reads_unjudged) else { return Ok(()) };
        if !self.committed.contains_key(&position) || !tables.state.applied.has(position) {
            let what = format!("read {id} at {position:?}, which is not committed or not here");
            return Err(Broken::new("I5", what));
        }
        let Some(reign) = self.reigns.get(&position.epoch) else {
            return Err(Broken::new("I5", format!("read {id} in no epoch: {position:?}")));
        };
        // What was dropped from the index was seen by everybody before.
        let seen = seen.map(|h| h.stamp()).max(self.last_dropped(path));
        let scope = self.closure(position.epoch, position.seq + 1);
        for part in self.by_path.get(path).into_iter().flatten() {
            let due = &self.last(*part);
            if self.committed.get(due).is_none_or(|at| *at >= began) || seen >= Some(stamp(&self.records[part])) {
                continue;
            }
            if self.void_replaced(*part, path, &scope, position.epoch, seen) {
                continue;
            }
            let holders = self.holders.get(due);
            let held = |m: &NodeId| holders.and_then(|h| h.get(m)).is_some_and(|(_, at)| *at < began);
            if scope.has(*due) || reign.members.iter().any(held) {
                let what =
                    format!("read {id} of {path} at {position:?} sees {seen:?}, older than the committed {due:?}");
                return Err(Broken::new("I5", what));
            }
        }
        Ok(())
    }

    /// Whether what is seen stands in for this version. Logged twice and committed by leaders that did not know of each other
    /// it may be void: the other copy counts. And what a void copy is over stays replaced, and so does what that was over.
    fn void_replaced(&self, part: Position, path: &FtpPath, scope: &Marks, epoch: Epoch, seen: Option<Stamp>) -> bool {
        if self.stand_in(self.last(part), path, scope, epoch).is_some_and(|copy| seen >= Some(copy)) {
            return true;
        }
        let over = |r: &&Arc<Record>| Self::effect(r, path).is_some_and(|e| e.over.contains(&part));
        self.on_path(path, scope).filter(over).any(|r| self.void_replaced(r.position, path, scope, epoch, seen))
    }

    /// The stamp, on this path, of the copy that counts in a scope where this one is void.
    fn stand_in(&self, position: Position, path: &FtpPath, scope: &Marks, epoch: Epoch) -> Option<Stamp> {
        if !scope.has(position) || self.confirmed(position, scope, epoch) {
            return None;
        }
        let op = self.records[&position].write()?.op;
        let copies = self.by_op.get(&op)?.iter().filter(|p| scope.has(**p) && self.confirmed(**p, scope, epoch));
        let parts: Vec<&Arc<Record>> = copies.flat_map(|p| self.parts(*p)).collect();
        // Of an operation in parts one part is about the path.
        let on_path = parts.iter().filter(|r| Self::effect(r, path).is_some()).map(|r| stamp(r)).max();
        on_path.or_else(|| parts.iter().map(|r| stamp(r)).max())
    }
}
