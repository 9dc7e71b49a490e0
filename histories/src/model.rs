//! What the checker needs to know of the thing whose histories it checks: a deterministic machine of states and operations.

use std::fmt::Debug;
use std::hash::Hash;

/// A sequential specification. One value of it judges one history: it may know that history in advance and keep only what
/// matters to it.
pub trait Model {
    /// An operation with all that its client learnt from it.
    type Op;
    /// Everything that later operations can tell apart, and better nothing else: the checker remembers what it tried by
    /// state.
    type State: Clone + Eq + Hash + Debug;

    /// The state before the first operation.
    fn initial(&self) -> Self::State;

    /// The state after `op`, or `None` if `op` cannot take effect in `state` and show its client what it showed.
    fn step(&self, state: &Self::State, op: &Self::Op) -> Option<Self::State>;

    /// Whether `op` changes nothing in any state, a read for instance; at most it tells more of what the state was. Where such
    /// an operation fits and leaves the very state it found, nothing else needs a try. `false` is always right.
    fn observes(&self, _op: &Self::Op) -> bool {
        false
    }

    /// Whether two operations do the same in every state. Of those whose outcome is unknown only the first needs a try then.
    /// `false` is always right.
    fn alike(&self, _one: &Self::Op, _other: &Self::Op) -> bool {
        false
    }
}
