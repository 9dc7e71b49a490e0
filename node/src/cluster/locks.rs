//! The leader's lock table. An operation takes the locks of all its paths at once or waits for all of them, first come,
//! first served. Removing a directory locks the whole subtree, and a rename, which may be one of a directory, those of both
//! its names: no holder below, and nobody below is granted while it is held or waits its turn.
//!
//! Deadlock is impossible by construction: nobody ever holds one lock while waiting for another, so the holders wait for
//! nobody and no circle of waiting can close. Nobody starves: whoever came first waits for holders alone, who end with their
//! lease or their commit, and later comers whose locks overlap wait behind, though they might be granted now.
//! A question costs the depth of a path, and for a subtree the holders or waiters in it; never all locks.

use super::change::Change;
use super::config::Config;
use super::message::HeldLock;
use super::types::{Epoch, Micros, NodeId, OpId, Token};
use crate::path::FtpPath;
use std::collections::{BTreeMap, BTreeSet};

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
    held: BTreeMap<FtpPath, (OpId, Reach)>,
    holders: BTreeMap<OpId, Holder>,
    /// By number, which is the order of arrival.
    waiters: BTreeMap<u64, Waiter>,
    /// Who waits for a path, by number.
    queues: BTreeMap<FtpPath, BTreeMap<u64, Reach>>,
    next_waiter: u64,
    /// Waiters whose time may have come since the last [`Self::grant`].
    stirred: BTreeSet<u64>,
    /// Planted: a subtree lock keeps nobody below out.
    #[cfg(feature = "planted-bugs")]
    flat: bool,
}

/// How far a lock reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// The path alone.
    Path,
    /// The path and everything below it.
    Subtree,
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
    pub(super) fn new(epoch: Epoch, config: &Config) -> Self {
        Self {
            epoch,
            next: 0,
            lease: config.lock_lease,
            wait: config.lock_wait,
            max_waiters: config.max_waiters,
            held: BTreeMap::new(),
            holders: BTreeMap::new(),
            waiters: BTreeMap::new(),
            queues: BTreeMap::new(),
            next_waiter: 0,
            stirred: BTreeSet::new(),
            #[cfg(feature = "planted-bugs")]
            flat: config.planted == super::planted::Planted::FlatLocks,
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
        for (path, reach) in locks(&change) {
            self.queues.entry(path.clone()).or_default().insert(number, reach);
        }
        self.stirred.insert(number);
        self.waiters.insert(number, Waiter { op, front, change, replicas, since: now, refreshed: now });
    }

    fn dequeue(&mut self, number: u64) -> Option<Waiter> {
        let waiter = self.waiters.remove(&number)?;
        self.stirred.remove(&number);
        for (path, reach) in locks(&waiter.change) {
            if let Some(queue) = self.queues.get_mut(path) {
                queue.remove(&number);
                if queue.is_empty() {
                    self.queues.remove(path);
                }
            }
            self.stir(path, reach);
        }
        Some(waiter)
    }

    /// Somebody left `path`: who waits first there, above and, when the whole subtree was taken, below may be granted now.
    fn stir(&mut self, path: &FtpPath, reach: Reach) {
        let first = |queue: &BTreeMap<u64, Reach>| queue.keys().next().copied();
        let mut stirred: Vec<u64> = self.queues.get(path).and_then(first).into_iter().collect();
        stirred.extend(ancestors(path).filter_map(|above| self.queues.get(&above).and_then(first)));
        if reach == Reach::Subtree {
            stirred.extend(path.below_in(&self.queues).filter_map(|(_, queue)| first(queue)));
        }
        self.stirred.extend(stirred);
    }

    /// Grants every lock whose time has come, in the order in which they were asked for.
    pub(super) fn grant(&mut self, now: Micros) -> Vec<(OpId, Holder)> {
        let mut granted = vec![];
        while let Some(number) = self.stirred.pop_first() {
            let Some(waiter) = self.waiters.get(&number) else { continue };
            if !locks(&waiter.change).into_iter().all(|(path, reach)| self.is_free(path, reach, number)) {
                continue;
            }
            let Some(waiter) = self.dequeue(number) else { continue };
            self.next += 1;
            let token = Token { epoch: self.epoch, n: self.next };
            for (path, reach) in locks(&waiter.change) {
                self.held.insert(path.clone(), (waiter.op, reach));
            }
            let Waiter { op, front, change, replicas, .. } = waiter;
            let holder = Holder { front, token, change, replicas, lost: vec![], renewed: now, committing: false };
            self.holders.insert(op, holder.clone());
            granted.push((op, holder));
        }
        granted
    }

    /// Whether neither a holder nor anybody who came before waiter `number` stands in the way of a lock.
    fn is_free(&self, path: &FtpPath, reach: Reach, number: u64) -> bool {
        let before = |queue: &BTreeMap<u64, Reach>| queue.keys().next().is_some_and(|first| *first < number);
        if self.held.contains_key(path) || self.queues.get(path).is_some_and(before) {
            return false;
        }
        #[cfg(feature = "planted-bugs")]
        if self.flat {
            return true;
        }
        let taken = ancestors(path).any(|above| {
            let held = self.held.get(&above).is_some_and(|(_, reach)| *reach == Reach::Subtree);
            let queue = self.queues.get(&above).into_iter().flatten().take_while(|(n, _)| **n < number);
            held || queue.into_iter().any(|(_, reach)| *reach == Reach::Subtree)
        });
        let below = || {
            path.below_in(&self.held).next().is_some() || path.below_in(&self.queues).any(|(_, queue)| before(queue))
        };
        !taken && (reach == Reach::Path || !below())
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
            for (path, reach) in locks(&holder.change) {
                self.held.remove(path);
                self.stir(path, reach);
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
}

/// What a change locks. Removing or renaming a directory keeps everybody out of it, or a file could come to be in what is
/// gone when its bytes are there.
fn locks(change: &Change) -> Vec<(&FtpPath, Reach)> {
    let reach = if change.takes_subtrees() { Reach::Subtree } else { Reach::Path };
    change.paths().into_iter().map(|path| (path, reach)).collect()
}

/// The directories a path is in, the nearest first.
fn ancestors(path: &FtpPath) -> impl Iterator<Item = FtpPath> {
    std::iter::successors(path.split().map(|(parent, _)| parent), |path| path.split().map(|(parent, _)| parent))
}

#[cfg(test)]
mod tests;
