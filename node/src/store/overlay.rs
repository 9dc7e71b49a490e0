//! What is readable: the database with the batches laid over it that were handed over but not written yet. Readers see a
//! batch as a whole or not at all; they never wait for the disk's writes.

use super::keys::Table;
use super::tables::{Tables, Writes};
use fjall::Slice;
use std::collections::{BTreeMap, btree_map};
use std::iter::Peekable;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

/// Something to read from.
pub(super) trait Reader {
    /// One value.
    fn get(&self, table: Table, key: &Slice) -> Option<Slice>;
    /// All keys with their values in a range, in order, as they are now.
    fn scan(&self, table: Table, range: Range<Slice>) -> Merged;
}

/// Unwritten values with the number of the batch that set them last. Bounded by the queue of the store thread.
type Layer = BTreeMap<(Table, Slice), (u64, Option<Slice>)>;

/// The database under its overlay.
pub(super) struct View {
    /// Below.
    pub(super) tables: Tables,
    overlay: Mutex<Layer>,
}

impl View {
    /// A view with nothing unwritten.
    pub(super) fn new(tables: Tables) -> Self {
        Self { tables, overlay: Mutex::default() }
    }
    /// Shows a batch's changes from now on.
    pub(super) fn lay(&self, number: u64, writes: &Writes) {
        let mut overlay = self.overlay();
        for (key, value) in writes {
            overlay.insert(key.clone(), (number, value.clone()));
        }
    }
    /// Forgets what the batches up to `number` set under these keys: it is in the database now.
    pub(super) fn retire<'a>(&self, number: u64, keys: impl Iterator<Item = &'a (Table, Slice)>) {
        let mut overlay = self.overlay();
        for key in keys {
            if overlay.get(key).is_some_and(|(set_by, _)| *set_by <= number) {
                overlay.remove(key);
            }
        }
    }
    fn overlay(&self) -> MutexGuard<'_, Layer> {
        self.overlay.lock().expect("nothing panics while it holds the overlay")
    }
}

impl Reader for View {
    fn get(&self, table: Table, key: &Slice) -> Option<Slice> {
        // A miss may be retired before the database is asked: then the database has it.
        let unwritten = self.overlay().get(&(table, key.clone())).map(|(_, value)| value.clone());
        unwritten.unwrap_or_else(|| self.tables.get(table, key))
    }
    fn scan(&self, table: Table, range: Range<Slice>) -> Merged {
        // The database's snapshot is taken under the lock, or what is retired in between would be in neither.
        let overlay = self.overlay();
        let unwritten = overlay
            .range((table, range.start.clone())..(table, range.end.clone()))
            .map(|((_, key), (_, value))| (key.clone(), value.clone()))
            .collect();
        Merged::new(Box::new(self.tables.scan(table, range)), unwritten)
    }
}

/// A scan of two layers, the upper one winning.
pub(super) struct Merged {
    below: Peekable<Box<dyn Iterator<Item = (Slice, Slice)>>>,
    above: Peekable<btree_map::IntoIter<Slice, Option<Slice>>>,
}

impl Merged {
    /// `above` over `below`; both in order of keys.
    pub(super) fn new(below: Box<dyn Iterator<Item = (Slice, Slice)>>, above: BTreeMap<Slice, Option<Slice>>) -> Self {
        Self { below: below.peekable(), above: above.into_iter().peekable() }
    }
}

impl Iterator for Merged {
    type Item = (Slice, Slice);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((upper, _)) = self.above.peek() else { return self.below.next() };
            match self.below.peek() {
                Some((lower, _)) if lower < upper => return self.below.next(),
                Some((lower, _)) if lower == upper => drop(self.below.next()),
                _ => {}
            }
            if let Some((key, Some(value))) = self.above.next() {
                return Some((key, value));
            }
        }
    }
}
