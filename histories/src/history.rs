//! Operations with their times, gathered by key. Linearizability is local (Herlihy and Wing, 1990, theorem 1): a history is
//! linearizable if and only if that of every key is, so each key is checked for itself.

use crate::check::{Checked, Limits, check};
use crate::file::{FileModel, Initially, Seeing};
use std::collections::BTreeMap;

/// A reading of whatever clock the history was recorded with; only the order of readings counts.
pub type Time = u64;

/// One operation, between its invocation and its response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation<O> {
    /// What was asked, and what the client learnt.
    pub op: O,
    /// When it was asked. It took no effect before.
    pub invoked: Time,
    /// When it was answered: it took effect by then. `None` if that is not known: it may take effect at any time after its
    /// invocation, or never. An operation that surely took no effect and showed nothing does not belong into a history.
    pub returned: Option<Time>,
}

/// What clients did to the contents of many keys.
#[derive(Debug, Clone)]
pub struct History<K, V> {
    keys: BTreeMap<K, Vec<Operation<Seeing<V>>>>,
}

impl<K, V> Default for History<K, V> {
    fn default() -> Self {
        Self { keys: BTreeMap::new() }
    }
}

impl<K: Ord, V: Ord + Clone> History<K, V> {
    /// Adds an operation; the order of calls does not matter. An operation on two keys (a rename) is added to each of them:
    /// that the two effects come together is not checked.
    ///
    /// # Panics
    /// If it returned before it was invoked.
    pub fn add(&mut self, key: K, op: Seeing<V>, invoked: Time, returned: Option<Time>) {
        assert!(returned.is_none_or(|at| at >= invoked), "answered at {returned:?}, asked at {invoked}");
        self.keys.entry(key).or_default().push(Operation { op, invoked, returned });
    }
    /// Every key with its operations, in the order they were added.
    pub fn keys(&self) -> impl Iterator<Item = (&K, &[Operation<Seeing<V>>])> {
        self.keys.iter().map(|(key, operations)| (key, operations.as_slice()))
    }
    /// Checks every key for itself. Indices in the verdicts count the operations of that key.
    pub fn check(&self, initially: Initially, limits: Limits) -> Vec<(&K, Checked)> {
        let one = |operations: &[Operation<Seeing<V>>]| {
            let (model, abstracted) = FileModel::of(operations, initially);
            check(&model, &abstracted, limits)
        };
        self.keys().map(|(key, operations)| (key, one(operations))).collect()
    }
}
