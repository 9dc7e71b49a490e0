//! Watermarks: how far into each epoch's records somebody's knowledge reaches. They never have holes, so one number an
//! epoch says everything, and their join is a set union (a join semilattice: commutative, associative, idempotent).

use super::types::{Epoch, Position};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Epoch → how many of its records, counted from its first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<(Epoch, u64)>", into = "Vec<(Epoch, u64)>")]
pub struct Marks(BTreeMap<Epoch, u64>);

impl Marks {
    /// The first `n` records of `epoch` and nothing else.
    pub fn of(epoch: Epoch, n: u64) -> Self {
        Self::from(vec![(epoch, n)])
    }
    /// How many records of `epoch` are covered.
    pub fn count(&self, epoch: Epoch) -> u64 {
        self.0.get(&epoch).copied().unwrap_or(0)
    }
    /// Whether the record at `position` is covered.
    pub fn has(&self, position: Position) -> bool {
        position.seq < self.count(position.epoch)
    }
    /// Whether all that `other` covers is covered here.
    pub fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|(e, n)| self.count(*e) >= *n)
    }
    /// Raises one epoch's mark; true when it grew.
    pub fn raise(&mut self, epoch: Epoch, n: u64) -> bool {
        let grows = n > self.count(epoch);
        if grows {
            self.0.insert(epoch, n);
        }
        grows
    }
    /// The union.
    pub fn join(&mut self, other: &Self) {
        for (epoch, n) in &other.0 {
            self.raise(*epoch, *n);
        }
    }
    /// What is covered here beyond `other`.
    pub fn beyond(&self, other: &Self) -> Self {
        Self(self.0.iter().filter(|(e, n)| other.count(**e) < **n).map(|(e, n)| (*e, *n)).collect())
    }
    /// How many records `other` covers that are not covered here.
    pub fn lacks(&self, other: &Self) -> u64 {
        other.0.iter().map(|(e, n)| n.saturating_sub(self.count(*e))).fold(0, u64::saturating_add)
    }
    /// The epochs with their marks, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Epoch, u64)> + '_ {
        self.0.iter().map(|(e, n)| (*e, *n))
    }
    /// Without one epoch; its mark, if there was one.
    pub fn remove(&mut self, epoch: Epoch) -> Option<u64> {
        self.0.remove(&epoch)
    }
    /// True when nothing is covered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Vec<(Epoch, u64)>> for Marks {
    fn from(pairs: Vec<(Epoch, u64)>) -> Self {
        Self(pairs.into_iter().filter(|(_, n)| *n > 0).collect())
    }
}

impl From<Marks> for Vec<(Epoch, u64)> {
    fn from(marks: Marks) -> Self {
        marks.0.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_marks() -> impl Strategy<Value = Marks> {
        prop::collection::vec(((0..4u64, 0..2u64).prop_map(|(c, n)| Epoch(c, n)), 0..5u64), 0..6).prop_map(Marks::from)
    }
    fn joined(a: &Marks, b: &Marks) -> Marks {
        let mut out = a.clone();
        out.join(b);
        out
    }

    proptest! {
        #[test]
        fn join_is_commutative_associative_and_idempotent(a in any_marks(), b in any_marks(), c in any_marks()) {
            prop_assert_eq!(joined(&a, &b), joined(&b, &a));
            prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
            prop_assert_eq!(joined(&a, &a), a.clone());
            prop_assert!(joined(&a, &b).covers(&a));
        }
        #[test]
        fn covers_means_lacks_nothing(a in any_marks(), b in any_marks()) {
            prop_assert_eq!(a.covers(&b), a.lacks(&b) == 0);
        }
    }
}
