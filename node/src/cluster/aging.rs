//! What is collected when it is old: deletes that everybody knows of, losers of conflicts after their retention, void
//! duplicates that no later epoch needs to name. The leader decides, by a logged record; every node looks through its own
//! queue in bounded steps and never through its whole index.

use super::marks::Marks;
use super::member::{Cx, Member};
use super::record::{Body, Dropped};
use super::storage::{Aging, AgingKind};
use super::types::{NodeId, Position};
use crate::path::FtpPath;

/// Rows looked at in one beat, and heads in one record.
const AT_ONCE: usize = 256;
/// The same, for who only clears rows whose heads are gone.
const CLEARED_AT_ONCE: usize = 32;

/// How far the queue of deletes has been looked through; it is gone through again and again.
#[derive(Debug, Default)]
pub(super) struct AgingSeen {
    deletes: Option<Aging>,
}

impl Member {
    /// Looks at what may be old enough, and has it dropped where this node leads.
    pub(super) fn tick_aging(&mut self, cx: Cx<'_>) {
        let may = self.serves() && self.lease_ok(cx);
        let settled = may.then(|| self.settled()).flatten();
        let mut heads = vec![];
        self.old_deletes(cx, settled.as_deref(), &mut heads);
        self.old_losers(cx, may, &mut heads);
        if let Some(others) = &settled {
            self.old_voids(others, &mut heads);
        }
        heads.truncate(AT_ONCE);
        if !heads.is_empty() {
            self.append(cx, Body::Drop(Dropped { heads }));
        }
    }

    /// What all other known nodes have covered, if all that they held then is in our index: only then does a path's only
    /// head say that nobody holds another.
    fn settled(&self) -> Option<Vec<Marks>> {
        let others = self.log.state.known.iter().filter(|n| **n != self.me.node);
        let said = |node: &NodeId| {
            let covered = self.peers.covered(*node).filter(|covered| self.log.state.applied.covers(covered));
            #[cfg(feature = "planted-bugs")]
            if self.config.planted == super::planted::Planted::DeleteForgotten {
                return Some(self.log.state.applied.clone());
            }
            covered.cloned()
        };
        others.map(said).collect()
    }

    fn is_touched(&self, path: &FtpPath) -> bool {
        self.log.touched.contains_key(path)
    }

    fn old_deletes(&mut self, cx: Cx<'_>, settled: Option<&[Marks]>, heads: &mut Vec<(FtpPath, Position)>) {
        let limit = if settled.is_some() { AT_ONCE } else { CLEARED_AT_ONCE };
        let rows = cx.storage.aging(AgingKind::Delete, self.aging.deletes.as_ref(), limit);
        let last = rows.last().filter(|_| rows.len() == limit).cloned();
        for row in rows {
            if self.log.view(cx.storage).entry(&row.path).and_then(|e| e.lone_delete()) != Some(row.position) {
                self.log.pending.aging(row, false);
            } else if settled.is_some_and(|all| all.iter().all(|m| m.has(row.position))) && !self.is_touched(&row.path)
            {
                heads.push((row.path, row.position));
            }
        }
        self.aging.deletes = last;
    }

    fn old_losers(&mut self, cx: Cx<'_>, may: bool, heads: &mut Vec<(FtpPath, Position)>) {
        let (now, retention) = (cx.now.wall.max(self.log.state.hlc.0), self.config.loser_retention);
        for row in cx.storage.aging(AgingKind::Loser, None, AT_ONCE) {
            if now.saturating_sub(row.since.0) <= retention {
                return;
            }
            let entry = self.log.view(cx.storage).entry(&row.path).unwrap_or_default();
            let free = may && !self.is_touched(&row.path) && !heads.iter().any(|(path, _)| *path == row.path);
            if !entry.beaten().any(|p| p == row.position) {
                self.log.pending.aging(row, false);
            } else if free && entry.can_spare(row.position) {
                heads.push((row.path, row.position));
            }
        }
    }

    /// Once every known node has the first record of our epoch, which names all void duplicates, nobody will confirm them.
    fn old_voids(&self, others: &[Marks], heads: &mut Vec<(FtpPath, Position)>) {
        let first = Position { epoch: self.log.state.promised, seq: 0 };
        if !others.iter().all(|m| m.has(first)) {
            return;
        }
        let voids = self.log.unconfirmed.iter().flat_map(|(p, paths)| paths.iter().map(|path| (path, *p)));
        let free = voids.filter(|(path, _)| !self.is_touched(path)).map(|(path, p)| (path.clone(), p));
        heads.extend(free.take(AT_ONCE));
    }
}
