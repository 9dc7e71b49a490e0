//! The lock table: order, overlap of subtrees, leases, and the whole of it against its meaning.

use super::*;
use proptest::prelude::*;

const SECOND: Micros = 1_000_000;

fn path(text: &str) -> FtpPath {
    FtpPath::try_from(text.to_owned()).unwrap()
}
fn table() -> LockTable {
    LockTable::new(Epoch(1, 1), &Config { max_waiters: 8, ..Config::default() })
}
fn store(p: &str) -> Change {
    Change::Store { path: path(p), create_only: false }
}
fn granted(table: &mut LockTable, now: Micros) -> Vec<OpId> {
    table.grant(now).into_iter().map(|(op, _)| op).collect()
}

#[test]
fn one_holder_a_path_and_waiters_in_order() {
    let mut t = table();
    for n in 1..=3 {
        t.request(NodeId(1), OpId(n), store("/a"), 0);
    }
    assert_eq!(granted(&mut t, 0), [OpId(1)]);
    assert_eq!(granted(&mut t, 0), []);
    t.release(OpId(1));
    assert_eq!(granted(&mut t, 0), [OpId(2)]);
    t.release(OpId(2));
    assert_eq!(granted(&mut t, 0), [OpId(3)]);
    assert_eq!(t.holder(OpId(3)).map(|h| h.token.n), Some(3));
}

#[test]
fn two_paths_are_taken_together_and_cannot_deadlock() {
    let mut t = table();
    t.request(NodeId(1), OpId(1), Change::Rename { from: path("/a"), to: path("/b") }, 0);
    t.request(NodeId(2), OpId(2), Change::Rename { from: path("/b"), to: path("/a") }, 0);
    t.request(NodeId(2), OpId(3), store("/b"), 0);
    assert_eq!(granted(&mut t, 0), [OpId(1)]);
    t.release(OpId(1));
    assert_eq!(granted(&mut t, 0), [OpId(2)]);
    t.release(OpId(2));
    assert_eq!(granted(&mut t, 0), [OpId(3)]);
}

#[test]
fn a_dead_holder_is_freed_within_its_lease_and_a_renewed_one_is_not() {
    let mut t = table();
    t.request(NodeId(1), OpId(1), store("/a"), 0);
    let (_, holder) = t.grant(0).remove(0);
    assert!(t.renew(NodeId(1), OpId(1), holder.token, 9 * SECOND));
    t.expire(15 * SECOND);
    assert!(t.holder(OpId(1)).is_some());
    t.expire(20 * SECOND);
    assert!(t.holder(OpId(1)).is_none());
}

#[test]
fn a_lock_whose_commit_is_logged_does_not_expire() {
    let mut t = table();
    t.request(NodeId(1), OpId(1), store("/a"), 0);
    t.grant(0);
    t.holder_mut(OpId(1)).unwrap().committing = true;
    t.expire(100 * SECOND);
    assert!(t.holder(OpId(1)).is_some());
}

#[test]
fn an_old_token_neither_commits_nor_unlocks() {
    let mut t = table();
    t.request(NodeId(1), OpId(1), store("/a"), 0);
    t.grant(0);
    let old = Token { epoch: Epoch(0, 7), n: 1 };
    assert!(t.check(NodeId(1), OpId(1), old).is_none());
    t.unlock(NodeId(1), OpId(1), Some(old));
    assert!(t.holder(OpId(1)).is_some());
}

#[test]
fn waiters_are_bounded_and_time_out() {
    let mut t = table();
    for n in 0..9 {
        let _ = t.request(NodeId(1), OpId(n), store("/a"), 0);
    }
    assert_eq!(t.request(NodeId(1), OpId(99), store("/a"), 0), Requested::Full);
    t.grant(0);
    for n in 1..8 {
        t.request(NodeId(1), OpId(n), store("/a"), 29 * SECOND);
    }
    assert_eq!(t.expire(31 * SECOND).len(), 7);
}

#[test]
fn locks_brought_over_are_granted_in_the_order_of_their_tokens() {
    let mut t = table();
    let lock = |op, n| HeldLock {
        op: OpId(op),
        token: Token { epoch: Epoch(0, 1), n },
        change: store("/a"),
        replicas: vec![],
    };
    t.restore(vec![(NodeId(1), lock(1, 9)), (NodeId(2), lock(2, 3))], 0);
    assert_eq!(granted(&mut t, 0), [OpId(2)]);
}

fn remove(p: &str) -> Change {
    Change::RemoveDirectory { path: path(p) }
}
fn ask(t: &mut LockTable, op: u128, change: Change) {
    assert_eq!(t.request(NodeId(1), OpId(op), change, 0), Requested::Queued);
}

#[test]
fn a_subtree_waits_for_holders_below_and_keeps_later_ones_out() {
    let mut t = table();
    ask(&mut t, 1, store("/a/b/c"));
    ask(&mut t, 2, store("/a-x"));
    assert_eq!(granted(&mut t, 0), [OpId(1), OpId(2)]);
    ask(&mut t, 3, remove("/a"));
    ask(&mut t, 4, store("/a/d"));
    ask(&mut t, 5, store("/a0"));
    // 4 could be granted now, and 3 would wait for ever if such as it were.
    assert_eq!(granted(&mut t, 0), [OpId(5)]);
    t.release(OpId(1));
    assert_eq!(granted(&mut t, 0), [OpId(3)]);
    assert_eq!(granted(&mut t, 0), []);
    t.release(OpId(3));
    assert_eq!(granted(&mut t, 0), [OpId(4)]);
}

#[test]
fn a_subtree_within_a_subtree_waits_its_turn_and_who_gives_up_lets_the_next_in() {
    let mut t = table();
    ask(&mut t, 1, remove("/a/b"));
    ask(&mut t, 2, remove("/a"));
    ask(&mut t, 3, store("/a/b/c"));
    ask(&mut t, 4, store("/"));
    assert_eq!(granted(&mut t, 0), [OpId(1), OpId(4)]);
    t.unlock(NodeId(1), OpId(2), None);
    assert_eq!(granted(&mut t, 0), []);
    t.release(OpId(1));
    assert_eq!(granted(&mut t, 0), [OpId(3)]);
}

fn any_change() -> impl Strategy<Value = Change> {
    let any_path = || prop::sample::select(vec!["/", "/a", "/a/b", "/a/b/c", "/a-b", "/a/d", "/e"]).prop_map(path);
    prop_oneof![
        any_path().prop_map(|path| Change::Store { path, create_only: false }),
        any_path().prop_map(|path| Change::RemoveDirectory { path }),
        (any_path(), any_path()).prop_map(|(from, to)| Change::Rename { from, to }),
    ]
}
fn overlap(a: &Change, b: &Change) -> bool {
    let pairs = locks(a).into_iter().flat_map(|a| locks(b).into_iter().map(move |b| (a, b)));
    pairs.into_iter().any(|((a, over_a), (b, over_b))| {
        a == b || (over_a == Reach::Subtree && b.is_within(a)) || (over_b == Reach::Subtree && a.is_within(b))
    })
}

proptest! {
    /// The table against its meaning: a waiter is granted exactly when no holder and no earlier waiter overlaps with it.
    #[test]
    fn grants_are_those_that_nothing_before_them_overlaps(
        steps in prop::collection::vec((any_change(), any::<bool>(), any::<prop::sample::Index>()), 1..40)
    ) {
        let mut t = LockTable::new(Epoch(1, 1), &Config::default());
        let (mut held, mut waiting) = (Vec::<(OpId, Change)>::new(), Vec::<(OpId, Change)>::new());
        for (n, (change, leave, who)) in steps.into_iter().enumerate() {
            if leave && held.len() + waiting.len() > 0 {
                let at = who.index(held.len() + waiting.len());
                let (op, _) = if at < held.len() { held.remove(at) } else { waiting.remove(at - held.len()) };
                t.release(op);
            } else {
                ask(&mut t, n as u128 + 1, change.clone());
                waiting.push((OpId(n as u128 + 1), change));
            }
            let mut due = vec![];
            let mut left: Vec<(OpId, Change)> = vec![];
            for (op, change) in waiting {
                if held.iter().chain(&left).any(|(_, other)| overlap(other, &change)) {
                    left.push((op, change));
                } else {
                    due.push(op);
                    held.push((op, change));
                }
            }
            waiting = left;
            prop_assert_eq!(granted(&mut t, 0), due);
        }
    }
}
