//! The leader's lock table. An operation takes the locks of all its paths at once or waits for all of them, first come,
//! first served: nobody ever holds one lock while waiting for another, so there is no deadlock.

use super::message::{Change, HeldLock};
use super::types::{Epoch, Micros, NodeId, OpId, Token};
use crate::path::FtpPath;
use std::collections::{BTreeMap, VecDeque};

/// A granted lock.
#[derive(Debug, Clone)]
pub(super) struct Holder {
    pub(super) front: NodeId,
    pub(super) token: Token,
    pub(super) change: Change,
    /// Where the operation stages, once there is a plan.
    pub(super) replicas: Vec<NodeId>,
    /// Replicas that failed it: not to be named again.
    pub(super) lost: Vec<NodeId>,
    /// When it was granted or last renewed.
    renewed: Micros,
    /// Its commit is logged: from here to the outcome it does not expire.
    pub(super) committing: bool,
}

#[derive(Debug)]
struct Waiter {
    op: OpId,
    front: NodeId,
    change: Change,
    replicas: Vec<NodeId>,
    since: Micros,
    refreshed: Micros,
}

/// Locks held and operations waiting.
#[derive(Debug)]
pub(super) struct LockTable {
    epoch: Epoch,
    next: u64,
    lease: Micros,
    wait: Micros,
    max_waiters: usize,
    held: BTreeMap<FtpPath, OpId>,
    holders: BTreeMap<OpId, Holder>,
    waiters: BTreeMap<u64, Waiter>,
    queues: BTreeMap<FtpPath, VecDeque<u64>>,
    next_waiter: u64,
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Requested {
    /// It waits; [`LockTable::grant`] says when its time has come.
    Queued,
    /// It holds the lock already: say so again.
    Held,
    /// Too many wait.
    Full,
}

impl LockTable {
    /// The table of a new epoch. Locks brought over by Collect are granted anew in the order of their tokens.
    pub(super) fn new(epoch: Epoch, lease: Micros, wait: Micros, max_waiters: usize) -> Self {
        Self {
            epoch,
            next: 0,
            lease,
            wait,
            max_waiters,
            held: BTreeMap::new(),
            holders: BTreeMap::new(),
            waiters: BTreeMap::new(),
            queues: BTreeMap::new(),
            next_waiter: 0,
        }
    }

    /// Queues the locks that fronts held under earlier leaders: of two holders of one path the smaller token goes first.
    pub(super) fn restore(&mut self, mut locks: Vec<(NodeId, HeldLock)>, now: Micros) {
        locks.sort_by_key(|(_, l)| l.token);
        for (front, lock) in locks {
            if !self.is_waiting(lock.op) {
                self.enqueue(front, lock.op, lock.change, lock.replicas, now);
            }
        }
    }

    pub(super) fn request(&mut self, front: NodeId, op: OpId, change: Change, now: Micros) -> Requested {
        if self.holders.get(&op).is_some_and(|h| h.front == front) {
            return Requested::Held;
        }
        if let Some(waiter) = self.waiters.values_mut().find(|w| w.op == op && w.front == front) {
            waiter.refreshed = now;
            return Requested::Queued;
        }
        if self.waiters.len() >= self.max_waiters {
            return Requested::Full;
        }
        self.enqueue(front, op, change, vec![], now);
        Requested::Queued
    }

    fn is_waiting(&self, op: OpId) -> bool {
        self.waiters.values().any(|w| w.op == op)
    }

    fn enqueue(&mut self, front: NodeId, op: OpId, change: Change, replicas: Vec<NodeId>, now: Micros) {
        let number = self.next_waiter;
        self.next_waiter += 1;
        for path in change.paths() {
            self.queues.entry(path.clone()).or_default().push_back(number);
        }
        self.waiters.insert(number, Waiter { op, front, change, replicas, since: now, refreshed: now });
    }

    fn dequeue(&mut self, number: u64) -> Option<Waiter> {
        let waiter = self.waiters.remove(&number)?;
        for path in waiter.change.paths() {
            if let Some(queue) = self.queues.get_mut(path) {
                queue.retain(|n| *n != number);
                if queue.is_empty() {
                    self.queues.remove(path);
                }
            }
        }
        Some(waiter)
    }

    /// Grants every lock whose time has come.
    pub(super) fn grant(&mut self, now: Micros) -> Vec<(OpId, Holder)> {
        let ready: Vec<u64> = self.queues.values().filter_map(|q| q.front().copied()).collect();
        let mut granted = vec![];
        for number in ready {
            let Some(waiter) = self.waiters.get(&number) else { continue };
            let mut paths = waiter.change.paths().into_iter();
            let free = paths
                .all(|p| !self.held.contains_key(p) && self.queues.get(p).and_then(|q| q.front()) == Some(&number));
            if !free {
                continue;
            }
            let Some(waiter) = self.dequeue(number) else { continue };
            self.next += 1;
            let token = Token { epoch: self.epoch, n: self.next };
            for path in waiter.change.paths() {
                self.held.insert(path.clone(), waiter.op);
            }
            let Waiter { op, front, change, replicas, .. } = waiter;
            let holder = Holder { front, token, change, replicas, lost: vec![], renewed: now, committing: false };
            self.holders.insert(op, holder.clone());
            granted.push((op, holder));
        }
        granted
    }

    pub(super) fn holder(&self, op: OpId) -> Option<&Holder> {
        self.holders.get(&op)
    }
    pub(super) fn holder_mut(&mut self, op: OpId) -> Option<&mut Holder> {
        self.holders.get_mut(&op)
    }

    /// The holder, if `token` is the one it was granted.
    pub(super) fn check(&self, front: NodeId, op: OpId, token: Token) -> Option<&Holder> {
        self.holders.get(&op).filter(|h| h.front == front && h.token == token)
    }

    pub(super) fn renew(&mut self, front: NodeId, op: OpId, token: Token, now: Micros) -> bool {
        let holder = self.holders.get_mut(&op).filter(|h| h.front == front && h.token == token);
        holder.map(|h| h.renewed = now).is_some()
    }

    /// Frees an operation's locks and its place in the queue.
    pub(super) fn release(&mut self, op: OpId) {
        if let Some(holder) = self.holders.remove(&op) {
            for path in holder.change.paths() {
                self.held.remove(path);
            }
        }
        if let Some(number) = self.waiters.iter().find(|(_, w)| w.op == op).map(|(n, _)| *n) {
            self.dequeue(number);
        }
    }

    /// Frees what a front wants no more: a lock by its token, unless its commit is logged, or a place in the queue.
    pub(super) fn unlock(&mut self, front: NodeId, op: OpId, token: Option<Token>) {
        let held = self.holders.get(&op).is_some_and(|h| h.front == front && Some(h.token) == token && !h.committing);
        let waits = self.waiters.values().any(|w| w.op == op && w.front == front);
        if held || waits {
            self.release(op);
        }
    }

    /// Frees the locks of holders that died, and the places of waiters that did; the operations that waited too long.
    pub(super) fn expire(&mut self, now: Micros) -> Vec<(NodeId, OpId)> {
        let lease = self.lease;
        let late = |since: Micros, limit: Micros| now.saturating_sub(since) > limit;
        let dead: Vec<OpId> =
            self.holders.iter().filter(|(_, h)| !h.committing && late(h.renewed, lease)).map(|(op, _)| *op).collect();
        for op in dead {
            self.release(op);
        }
        let gone: Vec<u64> = self
            .waiters
            .iter()
            .filter(|(_, w)| late(w.refreshed, lease) || late(w.since, self.wait))
            .map(|(n, _)| *n)
            .collect();
        gone.into_iter().filter_map(|n| self.dequeue(n)).map(|w| (w.front, w.op)).collect()
    }

    /// Whether somebody else holds a lock on something below `dir`.
    pub(super) fn held_below(&self, dir: &FtpPath) -> bool {
        let later = self.held.range((std::ops::Bound::Excluded(dir.clone()), std::ops::Bound::Unbounded));
        later.take_while(|(p, _)| p.as_str().starts_with(dir.as_str())).any(|(p, _)| p.is_within(dir))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Micros = 1_000_000;

    fn path(text: &str) -> FtpPath {
        FtpPath::try_from(text.to_owned()).unwrap()
    }
    fn table() -> LockTable {
        LockTable::new(Epoch(1, 1), 10 * SECOND, 30 * SECOND, 8)
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

    #[test]
    fn a_directory_with_a_writer_below_is_seen() {
        let mut t = table();
        t.request(NodeId(1), OpId(1), store("/a/b/c"), 0);
        t.request(NodeId(1), OpId(2), store("/a-x"), 0);
        t.grant(0);
        assert!(
            t.held_below(&path("/a"))
                && t.held_below(&path("/"))
                && !t.held_below(&path("/a-x"))
                && !t.held_below(&path("/b"))
        );
    }
}
