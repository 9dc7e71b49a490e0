//! I6: tokens only grow, one holder per path and epoch, no write under a token that is not the lock's any more, and writes
//! of one epoch build on each other.

use super::commits::not_whole;
use super::{Broken, Truth};
use crate::sim::process::Process;
use node::cluster::{Change, Effect, Epoch, Extent, Marks, OpId, Position, Record, Token, Version};
use node::path::FtpPath;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, Default)]
pub(super) struct Locks {
    /// What each token was granted for.
    granted: BTreeMap<Token, (OpId, Change)>,
}

/// Whether two changes may not be under way at once: they share a path, or one takes a whole directory that the other is in.
fn overlap(a: &Change, b: &Change) -> bool {
    let whole = |change: &Change| matches!(change, Change::RemoveDirectory { .. } | Change::Rename { .. });
    let pairs = a.paths().into_iter().flat_map(|a| b.paths().into_iter().map(move |b| (a, b)));
    let mut pairs = pairs.into_iter();
    pairs.any(|(at, other)| at == other || (whole(a) && other.is_within(at)) || (whole(b) && at.is_within(other)))
}

impl Locks {
    pub(super) fn granted(&mut self, token: Token, op: OpId, change: &Change) -> Result<(), Broken> {
        let from = Token { epoch: token.epoch, n: 0 };
        if let Some((last, _)) = self.granted.range(from..=Token { n: u64::MAX, ..from }).next_back()
            && *last >= token
        {
            return Err(Broken::new("I6", format!("{token:?} granted after {last:?}")));
        }
        self.granted.insert(token, (op, change.clone()));
        Ok(())
    }
    /// Whether a token is its epoch's last one for all that it locks.
    fn holds(&self, epoch: Epoch, token: Token, op: OpId) -> bool {
        let Some((_, change)) = self.granted.get(&token).filter(|(o, _)| *o == op) else { return false };
        let later = Token { n: token.n + 1, ..token }..=Token { n: u64::MAX, ..token };
        token.epoch == epoch && !self.granted.range(later).any(|(_, (_, other))| overlap(change, other))
    }
}

impl Truth {
    /// The last write of an epoch on a path, while it is not committed.
    pub(super) fn last_uncommitted(&self, epoch: Epoch, path: &FtpPath) -> Option<Position> {
        let of_epoch = |p: &&Position| p.epoch == epoch && self.logged.contains(p);
        let last = self.by_path.get(path)?.iter().filter(of_epoch).max()?;
        Some(*last).filter(|p| !self.committed.contains_key(p))
    }

    /// The leader at `at` logged a write.
    pub(super) fn logged(
        &mut self,
        at: usize,
        position: Position,
        op: OpId,
        token: Token,
        processes: &[Process],
    ) -> Result<(), Broken> {
        let epoch = position.epoch;
        let parts: Vec<Arc<Record>> = self.parts(position).cloned().collect();
        let first = parts.first().map_or(position, |r| r.position);
        self.logged.extend(parts.iter().map(|r| r.position));
        if self.reigns.get(&epoch).is_none_or(|r| r.node != at) {
            return Err(Broken::new("I4", format!("{at} logged {position:?} in an epoch that is not its own")));
        }
        let Some(record) = self.records.get(&position).cloned() else {
            return Err(Broken::new("I11", format!("{at} logged {position:?} and never wrote it")));
        };
        if !self.locks.holds(epoch, token, op) {
            return Err(Broken::new("I6", format!("op {op:?} logged at {position:?} under the stale {token:?}")));
        }
        let before = self.closure(epoch, first.seq);
        if let Some(first) = self.by_op[&op].iter().find(|p| before.has(**p) && self.confirmed(**p, &before, epoch)) {
            return Err(Broken::new(
                "I9",
                format!("op {op:?} logged at {position:?}; its history has it at {first:?}"),
            ));
        }
        let later = |r: &&Arc<Record>| before.has(r.position) && r.hlc >= record.hlc;
        if let Some(later) = self.records.values().find(later) {
            let what = format!(
                "{position:?} is stamped {:?}, its history has {:?} {:?}",
                record.hlc, later.position, later.hlc
            );
            return Err(Broken::new("I8", what));
        }
        if let Some((blob, node)) = not_whole(&record, processes) {
            return Err(Broken::new("I1", format!("{position:?} logged without the bytes of {blob:?} on {node:?}")));
        }
        let effects: Vec<Effect> = parts.iter().filter_map(|r| r.write()).flat_map(|w| w.effects.clone()).collect();
        for effect in &effects {
            if let Some(head) = self.standing(&effect.path, &before, epoch)
                && effect.what != Version::Resolved
                && !effect.over.contains(&head)
            {
                let what = format!("{position:?} on {} is over {:?} and not over {head:?}", effect.path, effect.over);
                return Err(Broken::new("I6", what));
            }
        }
        let moved = |path: &FtpPath| self.standing(path, &before, epoch).and_then(|p| self.content(p, path));
        let change = &self.ops.get(&op).ok_or_else(|| Broken::new("I9", format!("nobody asked for {op:?}")))?.change;
        let said = match change {
            Change::Rename { from, to } if from == to => effects.is_empty(),
            Change::Rename { from, to } => self.moves(from, to, &effects, &before, epoch),
            _ => self.says(change, op, &effects, moved),
        };
        if !said {
            let what = format!("{position:?} says {effects:?}, asked for was {change:?}");
            return Err(Broken::new("I9", what));
        }
        Ok(())
    }
}

impl Truth {
    /// Whether all that stands at `from` and below goes to `to`, and nothing else happens.
    fn moves(&self, from: &FtpPath, to: &FtpPath, effects: &[Effect], before: &Marks, epoch: Epoch) -> bool {
        let said = |path: &FtpPath| effects.iter().find(|e| e.path == *path).map(|e| &e.what);
        let stands = |path: &FtpPath| {
            let effect = Self::effect(&self.records[&self.standing(path, before, epoch)?], path)?;
            Some(&effect.what).filter(|what| **what != Version::Deleted)
        };
        let paths = self.by_path.keys().filter(|path| path.is_within(from));
        let due: Vec<(&FtpPath, &Version)> = paths.filter_map(|path| Some((path, stands(path)?))).collect();
        due.len() * 2 == effects.len()
            && due.iter().all(|(path, what)| {
                let target = path.moved(from, to).ok();
                let there = target.and_then(|target| said(&target));
                said(path) == Some(&Version::Deleted) && there.is_some_and(|there| self.same(there, what))
            })
    }
}

impl Truth {
    /// Whether effects are what was asked for; `moved` is what lay at a path before.
    fn says(
        &self,
        change: &Change,
        op: OpId,
        effects: &[Effect],
        moved: impl Fn(&FtpPath) -> Option<Vec<Extent>>,
    ) -> bool {
        let at = |path: &FtpPath| effects.iter().find(|e| e.path == *path).map(|e| &e.what);
        let file = |path: &FtpPath| if let Some(Version::File(file)) = at(path) { Some(file) } else { None };
        match change {
            Change::Store { path, .. } => {
                effects.len() == 1 && file(path).is_some_and(|f| f.extents.len() == 1 && f.extents[0].blob.op == op)
            }
            Change::Append { path, .. } => {
                let base = moved(path).unwrap_or_default();
                let grown = |f: &node::cluster::File| {
                    let extents = self.unmerged(&f.extents);
                    extents.len() == base.len() + 1 && extents.starts_with(&base) && extents[base.len()].blob.op == op
                };
                effects.len() == 1 && file(path).is_some_and(grown)
            }
            Change::Delete { path } | Change::RemoveDirectory { path } => at(path) == Some(&Version::Deleted),
            Change::Forget { .. } | Change::Drain(_) => effects.is_empty(),
            Change::MakeDirectory { path } => matches!(at(path), Some(Version::Directory { .. })),
            Change::Rename { .. } => false, // see `moves`
            Change::SetModified { path, modified } => {
                file(path).is_none_or(|f| f.modified == *modified && Some(self.unmerged(&f.extents)) == moved(path))
            }
            #[cfg(feature = "next-protocol")]
            Change::SetMode { path, mode } => {
                file(path).is_none_or(|f| f.mode == Some(*mode) && Some(self.unmerged(&f.extents)) == moved(path))
            }
            Change::Resolve { path, .. } => matches!(at(path), Some(Version::Resolved | Version::Deleted)),
            Change::Recover { to, .. } => file(to).is_some(),
        }
    }
}
