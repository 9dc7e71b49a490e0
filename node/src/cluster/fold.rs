//! Folding committed records into the index: heads, references, outcomes, the figures of visible files. Each record is
//! folded once, in causal order, and every node comes to the same heads.

use super::log::{COPIES, Log};
use super::record::{Body, Cover, Effect, Head, Location, PathEntry, Record, Relocated, Version, Write};
use super::storage::{Aging, AgingKind, Storage};
use super::types::{BlobId, Digest, Micros, Position};
use crate::path::FtpPath;

impl Log {
    /// `void`: a cover that is applied with it says that another copy counts.
    pub(super) fn apply(&mut self, now: Micros, record: &Record, void: bool, storage: &dyn Storage) {
        for path in record.paths() {
            self.untouch(path, record.position);
        }
        match &record.body {
            Body::Write(write) => {
                let confirmed = self.state.committed.has(record.position);
                for effect in &write.effects {
                    self.apply_effect(record, write, effect, confirmed, storage);
                }
                // Its replicas said that they have it; one may have dropped it since, by another copy of the operation.
                let here = write.blob.filter(|blob| write.replicas().any(|n| n == self.me) && storage.has_blob(*blob));
                if let Some(blob) = here {
                    self.rehomed.remove(&blob);
                }
                let counts = confirmed || !void || self.view(storage).outcome(write.op).is_none();
                if write.is_last() && counts {
                    self.pending.outcome(write.op, Some(record.outcome()));
                    self.outcomes.push_back((now, write.op));
                }
            }
            Body::Cover(cover) => self.apply_cover(cover, storage),
            Body::Drop(dropped) => {
                for (path, position) in &dropped.heads {
                    self.change(path, storage, |entry| entry.heads.retain(|h| h.position != *position));
                }
            }
            Body::Move(moved) => {
                for version in &moved.versions {
                    self.change(&version.path, storage, |entry| relocate(entry, record, version));
                }
            }
        }
        let position = record.position;
        if position.epoch != self.state.promised {
            self.news |= record.cover().is_none();
            self.unmerged += usize::from(record.cover().is_some());
        }
        self.state.applied.raise(position.epoch, position.seq + 1);
        self.pending.touch_state();
    }

    pub(super) fn untouch(&mut self, path: &FtpPath, by: Position) {
        if let Some(records) = self.touched.get_mut(path) {
            records.retain(|(record, _)| record.position != by);
            if records.is_empty() {
                self.touched.remove(path);
            }
        }
    }

    fn apply_effect(
        &mut self,
        record: &Record,
        write: &Write,
        effect: &Effect,
        confirmed: bool,
        storage: &dyn Storage,
    ) {
        #[cfg(feature = "planted-bugs")]
        let drop_losers = self.planted == super::planted::Planted::DropLosers;
        self.change(&effect.path, storage, |entry| {
            entry.heads.retain(|h| !effect.over.contains(&h.position));
            match entry.heads.iter_mut().find(|h| h.position == record.position) {
                // It came with an index that was ahead of its own log.
                Some(head) => head.confirmed |= confirmed,
                None => entry.heads.extend(head_of(record, write, effect, confirmed)),
            }
            sort(entry);
            #[cfg(feature = "planted-bugs")]
            if drop_losers {
                entry.heads.truncate(1);
            }
        });
    }

    fn apply_cover(&mut self, cover: &Cover, storage: &dyn Storage) {
        let confirmed: Vec<Position> =
            self.unconfirmed.keys().copied().filter(|p| cover.marks.has(*p) && !cover.voids.contains(p)).collect();
        for position in confirmed {
            self.confirm(position, storage);
        }
    }

    pub(super) fn confirm(&mut self, position: Position, storage: &dyn Storage) {
        self.news = true;
        for path in self.unconfirmed.remove(&position).unwrap_or_default() {
            self.change(&path, storage, |entry| {
                for head in entry.heads.iter_mut().filter(|h| h.position == position) {
                    head.confirmed = true;
                }
            });
        }
    }

    /// Changes the heads of a path, and keeps in step what is counted of them: where bytes belong, figures, what is
    /// unconfirmed and what ages.
    pub(super) fn change(&mut self, path: &FtpPath, storage: &dyn Storage, how: impl FnOnce(&mut PathEntry)) {
        let before = self.view(storage).entry(path).unwrap_or_default();
        let mut after = before.clone();
        how(&mut after);
        if before == after {
            return;
        }
        for head in after.heads.iter().filter(|h| !h.confirmed) {
            self.unconfirmed.entry(head.position).or_default().insert(path.clone());
        }
        let waits = |head: &Head| after.heads.iter().any(|h| h.position == head.position && !h.confirmed);
        for head in before.heads.iter().filter(|h| !h.confirmed && !waits(h)) {
            self.forget_unconfirmed(head.position, path);
        }
        let placed = |h: &&Head| !before.heads.iter().any(|b| b.position == h.position && b.location == h.location);
        after.heads.iter().filter(placed).for_each(|head| self.placed.note(path, head));
        self.note_aging(path, &before, &after);
        let digest = self.state.digest.unwrap_or_default();
        self.state.digest = Some(digest - Digest::of(path, &before) + Digest::of(path, &after));
        self.count_copies(&before, -1);
        self.count_copies(&after, 1);
        self.pending.entry(path.clone(), Some(after.clone()).filter(|e| !e.heads.is_empty()));
        self.note_whereabouts(path, &before, &after, storage);
    }

    fn forget_unconfirmed(&mut self, position: Position, path: &FtpPath) {
        if let Some(paths) = self.unconfirmed.get_mut(&position) {
            paths.remove(path);
            if paths.is_empty() {
                self.unconfirmed.remove(&position);
            }
        }
    }

    /// Queues what will be collected one day: a delete that is alone now, a head that lost just now.
    fn note_aging(&mut self, path: &FtpPath, before: &PathEntry, after: &PathEntry) {
        let since = self.state.hlc;
        let row = |kind, position| Aging { kind, since, position, path: path.clone() };
        let delete = after.lone_delete().filter(|p| before.lone_delete() != Some(*p));
        let lost = after.beaten().filter(|p| before.beaten().all(|b| b != *p));
        let rows = delete.map(|p| row(AgingKind::Delete, p)).into_iter().chain(lost.map(|p| row(AgingKind::Loser, p)));
        for row in rows.collect::<Vec<_>>() {
            self.pending.aging(row, true);
        }
    }

    /// Keeps the figures of visible files: how many, how many copies on which node, how many copies short of three.
    fn count_copies(&mut self, entry: &PathEntry, by: i64) {
        let Some(head) = entry.visible().filter(|h| matches!(h.what, Version::File(_))) else { return };
        let state = &mut self.state;
        state.files = state.files.saturating_add_signed(by);
        let short = COPIES.saturating_sub(head.location.nodes.len()) as i64;
        state.shortfall = state.shortfall.saturating_add_signed(by * short);
        for node in &head.location.nodes {
            let count = state.copies.entry(*node).or_insert(0);
            *count = count.saturating_add_signed(by);
        }
    }
}

/// The head that an effect brings; none when it only takes heads away.
pub(super) fn head_of(record: &Record, write: &Write, effect: &Effect, confirmed: bool) -> Option<Head> {
    if effect.what == Version::Resolved {
        return None;
    }
    let nodes = if let Version::File(file) = &effect.what { file.replicas.clone() } else { vec![] };
    let stamp = record.stamp();
    Some(Head {
        position: record.position,
        hlc: record.hlc,
        op: write.op,
        confirmed,
        what: effect.what.clone(),
        location: Location { stamp, nodes },
    })
}

/// Sets the register of one version.
pub(super) fn relocate(entry: &mut PathEntry, record: &Record, version: &Relocated) {
    for head in entry.heads.iter_mut().filter(|h| h.position == version.position) {
        head.relocate(record.stamp(), version);
    }
}

/// The greatest stamp first.
pub(super) fn sort(entry: &mut PathEntry) {
    entry.heads.sort_by_key(|h| std::cmp::Reverse(h.stamp()));
}

pub(super) fn blobs(version: &Version) -> impl Iterator<Item = BlobId> + '_ {
    let file = if let Version::File(file) = version { Some(file) } else { None };
    file.into_iter().flat_map(|f| f.extents.iter().map(|e| e.blob))
}
