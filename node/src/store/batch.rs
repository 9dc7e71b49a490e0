//! A member's batch turned into changes of tables. Here the listing rows are kept in step with the heads: a path has a row
//! when clients see something there, which is a file, a directory made by MKD, or a directory implied by something below it.
//! A directory wins over a file of the same name. So is the table of conflicts: a path is in it while it has losers.

use super::keys::{self, Table};
use super::overlay::{Merged, Reader};
use super::row::Row;
use super::state::Written;
use super::tables::Writes;
use crate::cluster::{Batch, Marks, Mutation, PathEntry, Position, Record, Version};
use crate::path::FtpPath;
use fjall::Slice;
use std::collections::BTreeSet;
use std::ops::Range;

/// Where the log ends.
#[derive(Debug, Clone, Default)]
pub(super) struct LogEnd {
    /// The number the next record gets.
    pub(super) arrival: u64,
    /// No record has a lower one.
    pub(super) oldest: u64,
    /// What is in the log.
    pub(super) marks: Marks,
    /// The watermarks of the state as they were written last.
    pub(super) written: Written,
}

/// Changes that build up over a reader; what was changed already is read back.
struct Changes<'a, R> {
    below: &'a R,
    writes: Writes,
    /// Directories that lost a child, by depth: whether anything is left in them is asked once, when all is set. Asked each
    /// time, to empty one would cost the square of what was in it.
    emptied: BTreeSet<(usize, FtpPath)>,
}

/// All changes of a batch, each key once.
pub(super) fn changes<R: Reader>(below: &R, batch: &Batch, end: &mut LogEnd) -> Writes {
    let mut changes = Changes::over(below);
    for mutation in &batch.mutations {
        changes.apply(mutation, end);
    }
    while let Some((_, path)) = changes.emptied.pop_last() {
        changes.look_again(&path);
    }
    changes.writes
}

impl<'a, R> Changes<'a, R> {
    fn over(below: &'a R) -> Self {
        Self { below, writes: Writes::new(), emptied: BTreeSet::new() }
    }
}

impl<R: Reader> Changes<'_, R> {
    fn apply(&mut self, mutation: &Mutation, end: &mut LogEnd) {
        match mutation {
            Mutation::Record(record) => self.record(record, end),
            Mutation::Truncate(positions) => positions.iter().for_each(|at| self.truncate(*at, end)),
            Mutation::Entry(path, entry) => self.entry(path, entry.as_ref()),
            Mutation::Outcome(op, outcome) => {
                self.set(Table::Outcomes, keys::op(*op), outcome.as_ref().map(keys::encode))
            }
            Mutation::Reference(blob, path, there) => {
                self.set(Table::Referrers, keys::referrer(*blob, path), there.then(|| keys::framed(&[])));
            }
            Mutation::Held(holding, blob, there) => {
                self.set(Table::Held, keys::held(*holding, *blob), there.then(|| keys::framed(&[])));
            }
            Mutation::Aging(row, there) => {
                self.set(Table::Aging, keys::aging(row), there.then(|| keys::framed(&[])));
            }
            Mutation::Forgotten(node) => self.set(Table::Met, keys::node(*node), None),
            Mutation::Met(info) => self.set(Table::Met, keys::node(info.node), Some(keys::encode(info))),
            Mutation::State(state) => {
                end.written.changes(state).into_iter().for_each(|(table, key, value)| self.set(table, key, value));
            }
        }
    }

    fn record(&mut self, record: &Record, end: &mut LogEnd) {
        let number = keys::arrival(end.arrival);
        self.set(Table::Position, keys::position(record.position), Some(number.clone()));
        self.set(Table::Log, number, Some(keys::encode(record)));
        end.arrival += 1;
        end.marks.raise(record.epoch(), record.position.seq + 1);
    }

    /// Records are truncated in the order of their arrival.
    fn truncate(&mut self, at: Position, end: &mut LogEnd) {
        let key = keys::position(at);
        if let Some(number) = self.get(Table::Position, &key) {
            end.oldest = keys::read_arrival(&number) + 1;
            self.set(Table::Position, key, None);
            self.set(Table::Log, number, None);
        }
    }

    fn entry(&mut self, path: &FtpPath, entry: Option<&PathEntry>) {
        let entry = entry.filter(|e| !e.heads.is_empty());
        let unconfirmed = entry.is_some_and(|e| e.heads.iter().any(|h| !h.confirmed));
        self.set(Table::Index, keys::path(path), entry.map(keys::encode));
        self.set(Table::Unconfirmed, keys::path(path), unconfirmed.then(|| keys::framed(&[])));
        // The path's own children did not change: its row says whether there are any worth looking for.
        let maybe = self.row(path).is_some_and(|row| row.directory);
        let row = self.row_of(entry, || None, maybe, path);
        self.conflict(path, entry, row.as_ref());
        self.place(path, row);
    }

    /// Sets the row of a directory that lost a child.
    fn look_again(&mut self, path: &FtpPath) {
        let entry = self.get(Table::Index, &keys::path(path)).map(|bytes| keys::decode::<PathEntry>(&bytes));
        let row = self.row_of(entry.as_ref(), || None, true, path);
        // A file that was hidden by what lay below it is no loser any more.
        self.conflict(path, entry.as_ref(), row.as_ref());
        self.place(path, row);
    }

    /// Sets the row of a path, and goes up as long as rows come.
    fn place(&mut self, path: &FtpPath, row: Option<Row>) {
        let (mut path, mut row) = (path.clone(), row);
        while let Some((parent, name)) = path.split() {
            let key = keys::child(&parent, name);
            let before = self.get(Table::Live, &key);
            let after = row.as_ref().map(Row::encode);
            let (was, is) = (before.is_some(), after.is_some());
            if before != after {
                self.set(Table::Live, key, after);
            }
            if was == is || parent.is_root() {
                return;
            }
            if !is {
                self.emptied.insert((parent.components().count(), parent));
                return;
            }
            let entry = self.get(Table::Index, &keys::path(&parent)).map(|bytes| keys::decode::<PathEntry>(&bytes));
            row = self.row_of(entry.as_ref(), || Some(true), true, &parent);
            // A file that is hidden by what lies below it is a loser as long as that is there.
            self.conflict(&parent, entry.as_ref(), row.as_ref());
            path = parent;
        }
    }

    /// What a listing shows of a path with these heads. `known` says whether it has children, if the caller knows;
    /// `maybe` is false when it surely has none.
    fn row_of(
        &self,
        entry: Option<&PathEntry>,
        known: impl Fn() -> Option<bool>,
        maybe: bool,
        path: &FtpPath,
    ) -> Option<Row> {
        let name = path.name().to_owned();
        let head = entry.and_then(PathEntry::visible);
        if let Some(Version::Directory { modified }) = head.map(|h| &h.what) {
            return Some(Row { name, directory: true, size: 0, modified: *modified });
        }
        let children = || self.scan(Table::Live, keys::children(path, None)).next().is_some();
        if maybe && known().unwrap_or_else(children) {
            return Some(Row { name, directory: true, size: 0, modified: 0 });
        }
        match head.map(|h| &h.what) {
            Some(Version::File(file)) => Some(Row { name, directory: false, size: file.size, modified: file.modified }),
            _ => None,
        }
    }

    /// Notes how many losers a path with these heads and this row has.
    fn conflict(&mut self, path: &FtpPath, entry: Option<&PathEntry>, row: Option<&Row>) {
        let covered = row.is_some_and(|row| row.directory);
        let losers = entry.map_or(0, |entry| entry.losers(covered).len() as u64);
        let (key, after) = (keys::tree(path), (losers > 0).then(|| keys::encode(&losers)));
        if self.get(Table::Conflicts, &key) != after {
            self.set(Table::Conflicts, key, after);
        }
    }

    fn row(&self, path: &FtpPath) -> Option<Row> {
        let (parent, name) = path.split()?;
        self.get(Table::Live, &keys::child(&parent, name)).map(|bytes| Row::decode(name.to_owned(), &bytes))
    }

    fn set(&mut self, table: Table, key: Slice, value: Option<Slice>) {
        self.writes.insert((table, key), value);
    }
}

impl<R: Reader> Reader for Changes<'_, R> {
    fn get(&self, table: Table, key: &Slice) -> Option<Slice> {
        let changed = self.writes.get(&(table, key.clone()));
        changed.map_or_else(|| self.below.get(table, key), Clone::clone)
    }
    fn scan(&self, table: Table, range: Range<Slice>) -> Merged {
        let changed = self
            .writes
            .range((table, range.start.clone())..(table, range.end.clone()))
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect();
        Merged::new(Box::new(self.below.scan(table, range)), changed)
    }
}
