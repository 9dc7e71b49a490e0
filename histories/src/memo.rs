//! What was tried already. A configuration is which operations have taken effect and the state they left; trying the same
//! one twice finds nothing new (Lowe, 2017). Nor does one in which, besides, more operations of unknown outcome are used up:
//! they need not take effect, so whatever can follow it can follow the other.

use std::collections::HashMap;
use std::hash::Hash;

/// A set of operations of unknown outcome, one bit each.
pub(crate) type Used = Box<[u64]>;

/// Which operations with an outcome have taken effect, briefly: all that returned before event `until`, and of those open
/// at that event the ones in `open`, by slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Taken {
    pub(crate) until: u32,
    pub(crate) open: u128,
}

#[derive(Debug)]
pub(crate) struct Memo<S> {
    /// By what has taken effect and the state left: the smallest sets of unknown operations it took.
    tried: HashMap<(Taken, S), Vec<Used>>,
    kept: usize,
    /// Comparisons made, for the count of steps.
    pub(crate) compared: u64,
}

impl<S: Eq + Hash> Memo<S> {
    pub(crate) fn new() -> Self {
        Self { tried: HashMap::new(), kept: 0, compared: 0 }
    }
    /// Configurations remembered.
    pub(crate) fn kept(&self) -> usize {
        self.kept
    }
    /// Notes a configuration; false if it, or one that can do all it can, was noted before.
    pub(crate) fn note(&mut self, taken: Taken, state: S, used: &[u64]) -> bool {
        let tried = self.tried.entry((taken, state)).or_default();
        self.compared += tried.len() as u64;
        if tried.iter().any(|known| within(known, used)) {
            return false;
        }
        let before = tried.len();
        tried.retain(|known| !within(used, known));
        tried.push(used.into());
        self.kept = self.kept + tried.len() - before;
        true
    }
}

/// Whether every bit of one set is in the other.
fn within(one: &[u64], other: &[u64]) -> bool {
    one.iter().zip(other).all(|(one, other)| one & !other == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_smaller_set_of_unknown_operations_is_new() {
        let mut memo = Memo::new();
        let taken = Taken { until: 3, open: 1 };
        assert!(memo.note(taken, 'a', &[0b0110]));
        assert!(!memo.note(taken, 'a', &[0b0110]));
        assert!(!memo.note(taken, 'a', &[0b1110]));
        assert!(memo.note(taken, 'a', &[0b1001]));
        assert!(memo.note(taken, 'a', &[0b0010]), "fewer are used up");
        assert_eq!(memo.kept(), 2, "the larger set is forgotten");
        assert!(memo.note(taken, 'b', &[0b0110]), "another state");
        assert!(memo.note(Taken { until: 4, ..taken }, 'a', &[0b0110]), "other operations took effect");
    }
}
