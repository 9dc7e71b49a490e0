//! How a member's state is kept. Its watermarks have a row for each epoch, and only rows that changed are written: they grow
//! with every epoch there ever was, and the state goes into every batch. The rest is one small row.

use super::keys::{self, Table};
use super::overlay::Reader;
use crate::cluster::{Epoch, Marks, MemberState};
use fjall::Slice;

/// The watermarks of a state, as they are in their rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Written([Marks; 5]);

/// All watermarks of a state, each with a place of its own.
fn all(state: &mut MemberState) -> [&mut Marks; 5] {
    let MemberState { logged, applied, committed, truncated, borrowed, .. } = state;
    [logged, applied, committed, truncated, borrowed]
}

impl Written {
    /// What is in the rows.
    pub(super) fn read(reader: &impl Reader) -> Self {
        let mut written = Self::default();
        for (key, value) in reader.scan(Table::Marks, keys::all()) {
            let (kind, epoch) = keys::read_mark(&key);
            if let Some(marks) = written.0.get_mut(usize::from(kind)) {
                marks.raise(epoch, keys::decode(&value));
            }
        }
        written
    }

    /// The rows to write for a state, each with its key; notes them as written.
    pub(super) fn changes(&mut self, state: &MemberState) -> Vec<(Table, Slice, Option<Slice>)> {
        let mut rest = state.clone();
        let mut changes = vec![];
        for (kind, (before, after)) in self.0.iter_mut().zip(all(&mut rest)).enumerate() {
            let mut set = |epoch: Epoch, count: Option<u64>| {
                changes.push((Table::Marks, keys::mark(kind as u8, epoch), count.as_ref().map(keys::encode)));
            };
            before.iter().filter(|(e, _)| after.count(*e) == 0).for_each(|(e, _)| set(e, None));
            after.iter().filter(|(e, n)| before.count(*e) != *n).for_each(|(e, n)| set(e, Some(n)));
            *before = std::mem::take(after);
        }
        changes.push((Table::Meta, keys::state(), Some(keys::encode(&rest))));
        changes
    }
}

/// The state as it was written last.
pub(super) fn read(reader: &impl Reader) -> Option<MemberState> {
    let row = reader.get(Table::Meta, &keys::state())?;
    let mut state: MemberState = keys::decode(&row);
    for (marks, rows) in all(&mut state).into_iter().zip(Written::read(reader).0) {
        *marks = rows;
    }
    Some(state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::overlay::Merged;
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::ops::Range;

    /// Tables that are nothing but maps.
    #[derive(Default)]
    struct Maps(RefCell<BTreeMap<(Table, Slice), Slice>>);

    impl Reader for Maps {
        fn get(&self, table: Table, key: &Slice) -> Option<Slice> {
            self.0.borrow().get(&(table, key.clone())).cloned()
        }
        fn scan(&self, table: Table, range: Range<Slice>) -> Merged {
            let maps = self.0.borrow();
            let rows: Vec<_> =
                maps.range((table, range.start)..(table, range.end)).map(|(k, v)| (k.1.clone(), v.clone())).collect();
            Merged::new(Box::new(rows.into_iter()), BTreeMap::new())
        }
    }

    impl Maps {
        fn write(&self, written: &mut Written, state: &MemberState) -> usize {
            let changes = written.changes(state);
            let rows = changes.len();
            for (table, key, value) in changes {
                match value {
                    Some(value) => drop(self.0.borrow_mut().insert((table, key), value)),
                    None => drop(self.0.borrow_mut().remove(&(table, key))),
                }
            }
            rows
        }
    }

    fn state(epochs: u64) -> MemberState {
        let marks: Marks = (1..=epochs).map(|n| (Epoch(n, u64::MAX), n)).collect::<Vec<_>>().into();
        MemberState { logged: marks.clone(), applied: marks, files: epochs, ..MemberState::default() }
    }

    #[test]
    fn a_state_is_read_as_it_was_written_and_only_what_changed_is_written() {
        let (maps, mut written) = (Maps::default(), Written::default());
        let mut state = state(100);
        state.borrowed = Marks::of(Epoch(3, 3), 9);
        assert_eq!(maps.write(&mut written, &state), 202);
        assert_eq!(read(&maps), Some(state.clone()));
        state.logged.raise(Epoch(100, u64::MAX), 101);
        state.borrowed = Marks::default();
        assert_eq!(maps.write(&mut written, &state), 3);
        assert_eq!(read(&maps), Some(state));
        assert_eq!(Written::read(&maps), written);
    }
}
