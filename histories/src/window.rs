//! A part of a history: what a span of time says for itself, when nothing is known of the time around it.

use crate::history::{Operation, Time};

/// A span of time, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its first instant.
    pub from: Time,
    /// Its last.
    pub to: Time,
}

/// The operations that concern a window, to be checked from an unknown state. What was answered before it or asked after it
/// is left out. What reaches over an end of it may take effect inside, outside or never, so its outcome becomes unknown;
/// `changes` says whether it can do anything at all, else it is left out, too. With each comes its index.
pub fn cut<O: Clone>(
    operations: &[Operation<O>],
    window: Window,
    changes: impl Fn(&O) -> bool,
) -> Vec<(usize, Operation<O>)> {
    let mut kept = Vec::new();
    for (index, operation) in operations.iter().enumerate() {
        if operation.invoked > window.to || operation.returned.is_some_and(|at| at < window.from) {
            continue;
        }
        let inside = operation.invoked >= window.from && operation.returned.is_some_and(|at| at <= window.to);
        if inside {
            kept.push((index, operation.clone()));
        } else if changes(&operation.op) {
            kept.push((index, Operation { returned: None, ..operation.clone() }));
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reaches_over_an_end_becomes_unknown() {
        let operation = |op, invoked, returned| Operation { op, invoked, returned };
        let all = [
            operation('w', 1, Some(9)),   // before
            operation('w', 2, Some(10)),  // answered at the first instant: it may have taken effect then
            operation('r', 3, Some(15)),  // a read that began before
            operation('w', 4, None),      // never answered
            operation('w', 11, Some(19)), // inside
            operation('r', 12, Some(20)), // inside
            operation('w', 13, Some(21)), // answered after the end
            operation('w', 21, Some(30)), // after
        ];
        let kept = cut(&all, Window { from: 10, to: 20 }, |op| *op == 'w');
        let brief: Vec<_> = kept.iter().map(|(index, o)| (*index, o.returned)).collect();
        assert_eq!(brief, [(1, None), (3, None), (4, Some(19)), (5, Some(20)), (6, None)]);
    }
}
