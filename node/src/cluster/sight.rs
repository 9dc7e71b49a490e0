//! What the leader sees when it judges a change: the index with everything its epoch logged on top, committed or not. Exact,
//! or a change would be refused for something that is gone already.

use super::change::Refusal;
use super::decide::Sight;
use super::fold::{head_of, relocate, sort};
use super::log::Log;
use super::member::Cx;
use super::record::{Body, Head, PathEntry, Record};
use super::storage::Storage;
use super::types::Epoch;
use crate::path::FtpPath;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The index with the tail of the log on top.
pub(super) struct LeaderSight<'a> {
    pub(super) log: &'a Log,
    pub(super) storage: &'a dyn Storage,
    /// The leader's own.
    pub(super) epoch: Epoch,
    /// More entries than this are not renamed at once.
    pub(super) most: usize,
}

impl super::member::Member {
    pub(super) fn sight<'a>(&'a self, cx: Cx<'a>) -> LeaderSight<'a> {
        LeaderSight {
            log: &self.log,
            storage: cx.storage,
            epoch: self.log.state.promised,
            most: self.config.rename_entries,
        }
    }
}

impl Sight for LeaderSight<'_> {
    fn entry(&self, path: &FtpPath) -> PathEntry {
        self.log.leader_entry(path, self.epoch, self.storage)
    }
    fn has_children(&self, dir: &FtpPath) -> bool {
        let shown = |path: &FtpPath| self.entry(path).visible().is_some();
        dir.below_in(&self.log.touched).any(|(path, _)| shown(path))
            || dir.below_in(&self.log.pending.entries).any(|(path, _)| shown(path))
            || self.stored_below(dir)
    }
    fn visible_below(&self, dir: &FtpPath) -> Result<Vec<FtpPath>, Refusal> {
        let logged = dir.below_in(&self.log.touched).map(|(path, _)| path);
        let pending = dir.below_in(&self.log.pending.entries).map(|(path, _)| path);
        let shown = |path: &FtpPath| self.entry(path).visible().is_some();
        let mut found: BTreeSet<FtpPath> = logged.chain(pending).filter(|path| shown(path)).cloned().collect();
        let (mut directories, mut rows) = (vec![dir.clone()], 0);
        while let Some(dir) = directories.pop() {
            let mut after = None;
            while let Some(name) = self.storage.next_child(&dir, after.as_deref()) {
                rows += 1;
                if rows.max(found.len()) > self.most {
                    return Err(Refusal::TooMuch);
                }
                let child = dir.join(&name).map_err(|_| Refusal::TooLong)?;
                if shown(&child) {
                    found.insert(child.clone());
                }
                directories.push(child);
                after = Some(name);
            }
        }
        if found.len() > self.most { Err(Refusal::TooMuch) } else { Ok(found.into_iter().collect()) }
    }
}

impl LeaderSight<'_> {
    /// Whether a listing row below `dir` still stands for something. Rows of the store may be behind what is logged: one
    /// whose own path shows nothing any more may be there for what is below it. Stops at the first that stands.
    fn stored_below(&self, dir: &FtpPath) -> bool {
        let mut after = None;
        while let Some(name) = self.storage.next_child(dir, after.as_deref()) {
            let Ok(child) = dir.join(&name) else { return true };
            if self.entry(&child).visible().is_some() || self.stored_below(&child) {
                return true;
            }
            after = Some(name);
        }
        false
    }
}

impl Log {
    /// The heads of a path as the leader must see them: all that its epoch logged or merged counts, committed or not. What was
    /// pulled and is not known to be committed does not: the records that decide of it are on their way.
    fn leader_entry(&self, path: &FtpPath, epoch: Epoch, storage: &dyn Storage) -> PathEntry {
        let mut entry = self.view(storage).entry(path).unwrap_or_default();
        let own = |(record, _): &&(Arc<Record>, usize)| record.epoch() == epoch;
        let mut touching = self.touched.get(path).into_iter().flatten().filter(own).peekable();
        if touching.peek().is_none() && entry.heads.iter().all(|h| h.confirmed) {
            return entry;
        }
        for (record, n) in touching {
            match &record.body {
                Body::Write(write) => {
                    if let Some(effect) = write.effects.get(*n) {
                        entry.heads.retain(|h| !effect.over.contains(&h.position));
                        entry.heads.extend(head_of(record, write, effect, true));
                    }
                }
                Body::Drop(_) => {
                    let gone = |h: &Head| record.dropped().iter().any(|(p, at)| p == path && *at == h.position);
                    entry.heads.retain(|h| !gone(h));
                }
                Body::Move(moved) => {
                    for version in moved.versions.iter().filter(|v| v.path == *path) {
                        relocate(&mut entry, record, version);
                    }
                }
                Body::Cover(_) => {}
            }
        }
        // A cover names only what was logged before it, so it may come last.
        for cover in self.tail.iter().filter(|r| r.epoch() == epoch).filter_map(|r| r.cover()) {
            for head in entry.heads.iter_mut() {
                head.confirmed |= cover.marks.has(head.position) && !cover.voids.contains(&head.position);
            }
        }
        sort(&mut entry);
        entry
    }
}
