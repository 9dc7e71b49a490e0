//! The log of one member and its folding into the index. The tail (logged, not known to be committed) stays in memory; what
//! is committed is applied once, in the order of arrival, which is causal.

use super::fold::blobs;
use super::marks::Marks;
use super::message::VersionId;
use super::parts::Arriving;
use super::pending::{Pending, View};
use super::record::{Body, Cover, Head, Outcome, Record, Write};
use super::storage::{MemberState, Storage};
use super::types::{BlobId, Epoch, Hlc, Micros, NodeId, OpId, Position};
use crate::path::FtpPath;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Every file lives on this many nodes (specification 6.1).
pub(super) const COPIES: usize = 3;

/// Placed versions noted between two beats.
const PLACED: usize = 1024;
/// Outcomes forgotten at one beat: more than can come to be between two.
const EXPIRE_AT_ONCE: usize = 16_384;

/// The log and what it amounts to.
#[derive(Debug)]
pub(super) struct Log {
    /// What survives a crash.
    pub(super) state: MemberState,
    /// The batch being built.
    pub(super) pending: Pending,
    /// Logged, not applied, in order of arrival.
    pub(super) tail: VecDeque<Arc<Record>>,
    /// Parts of operations that are not logged yet.
    pub(super) arriving: Arriving,
    /// Which records of the tail touch a path, and which of their effects do.
    pub(super) touched: BTreeMap<FtpPath, Vec<(Arc<Record>, usize)>>,
    /// Positions and paths of heads that no epoch has confirmed.
    pub(super) unconfirmed: BTreeMap<Position, BTreeSet<FtpPath>>,
    /// Outcomes in the order in which they are to be forgotten.
    pub(super) outcomes: VecDeque<(Micros, OpId)>,
    /// Blobs whose last reference went, for the collector.
    pub(super) unreferenced: Vec<BlobId>,
    /// Blobs that came to be in the log, for the collector, and whether this node is to hold them.
    pub(super) logged_blobs: Vec<(BlobId, bool)>,
    /// Blobs that this node is to hold from now on, or not any more, though other heads still refer to them.
    pub(super) rehomed: BTreeSet<BlobId>,
    /// Blobs that paths began to refer to.
    pub(super) referred: Vec<BlobId>,
    /// Versions whose registers were set since this was last looked at, for repair.
    pub(super) placed: Placed,
    /// This node.
    pub(super) me: NodeId,
    /// Nodes that records forgot since this was last looked at.
    pub(super) forgot: Vec<NodeId>,
    /// What another epoch committed changed the index since this was last looked at.
    pub(super) news: bool,
    /// Covers of other epochs applied since the last merge.
    pub(super) unmerged: usize,
    /// A planted mistake in the fold.
    #[cfg(feature = "planted-bugs")]
    pub(super) planted: super::planted::Planted,
}

/// Versions with the nodes that their registers came to name; a bounded number of them.
#[derive(Debug, Default)]
pub(super) struct Placed {
    versions: Vec<(VersionId, Vec<NodeId>)>,
    /// There were more.
    lost: bool,
}

impl Placed {
    pub(super) fn note(&mut self, path: &FtpPath, head: &Head) {
        if head.location.nodes.len() < COPIES {
            return; // short ones are in a list of their own
        }
        if self.versions.len() >= PLACED {
            self.lost = true;
            return;
        }
        let what = VersionId { path: path.clone(), position: head.position };
        self.versions.push((what, head.location.nodes.clone()));
    }
    /// They, and whether there were more.
    pub(super) fn take(self) -> (Vec<(VersionId, Vec<NodeId>)>, bool) {
        (self.versions, self.lost)
    }
}

impl Log {
    pub(super) fn new(
        me: NodeId,
        state: MemberState,
        tail: Vec<Arc<Record>>,
        outcomes: Vec<OpId>,
        now: Micros,
    ) -> Self {
        let mut log = Self {
            state,
            pending: Pending::default(),
            tail: VecDeque::new(),
            arriving: Arriving::default(),
            touched: BTreeMap::new(),
            unconfirmed: BTreeMap::new(),
            outcomes: outcomes.into_iter().map(|op| (now, op)).collect(),
            unreferenced: vec![],
            logged_blobs: vec![],
            rehomed: BTreeSet::new(),
            referred: vec![],
            placed: Placed::default(),
            me,
            forgot: vec![],
            news: false,
            unmerged: 0,
            #[cfg(feature = "planted-bugs")]
            planted: super::planted::Planted::default(),
        };
        for record in tail {
            log.push_tail(record);
        }
        log
    }

    /// Remembers the unconfirmed heads of a path that the store named at the start.
    pub(super) fn restore_unconfirmed(&mut self, path: &FtpPath, storage: &dyn Storage) {
        for head in storage.entry(path).iter().flat_map(|e| &e.heads).filter(|h| !h.confirmed) {
            self.unconfirmed.entry(head.position).or_default().insert(path.clone());
        }
    }

    pub(super) fn view<'a>(&'a self, storage: &'a dyn Storage) -> View<'a> {
        View { pending: &self.pending, storage }
    }

    /// Takes one record, or keeps a part until its operation is whole. False when it would leave a hole: whoever sent it
    /// sends it again.
    pub(super) fn add(&mut self, record: &Arc<Record>) -> bool {
        let (epoch, seq) = (record.position.epoch, record.position.seq);
        let have = self.state.logged.count(epoch) + self.arriving.count(epoch);
        if seq != have {
            return seq < have;
        }
        if let Body::Cover(cover) = &record.body
            && !self.state.logged.covers(&cover.marks)
        {
            return false;
        }
        #[cfg(feature = "planted-bugs")]
        if self.planted == super::planted::Planted::HalfRename {
            self.enter(record);
            return true;
        }
        let Some(whole) = self.arriving.take(record) else { return false };
        whole.iter().for_each(|record| self.enter(record));
        true
    }

    fn enter(&mut self, record: &Arc<Record>) {
        self.state.logged.raise(record.epoch(), record.position.seq + 1);
        self.state.hlc = self.state.hlc.max(record.hlc);
        self.pending.record(record.clone());
        if let Some(write) = record.write()
            && let Some(blob) = write.blob
        {
            self.logged_blobs.push((blob, write.replicas().any(|n| n == self.me)));
        }
        self.note_nodes(record);
        self.push_tail(record.clone());
    }

    /// What need not be sent to this node: the log, and parts that wait for the rest of their operation.
    pub(super) fn received(&self) -> Marks {
        self.arriving.raise(&self.state.logged)
    }

    /// Keeps the list of who must have covered what is collected. It is in the log, and not a matter of whom a node has met.
    fn note_nodes(&mut self, record: &Record) {
        match &record.body {
            Body::Write(Write { forget: Some(node), .. }) => self.note_known(&[], &[*node]),
            Body::Write(Write { drain: Some(drain), .. }) => self.note_drain(drain.node, drain.at(record.stamp())),
            Body::Cover(cover) => self.note_known(&cover.members, &[]),
            _ => {}
        }
    }

    /// Nodes that take part, and nodes that never will again.
    pub(super) fn note_known(&mut self, members: &[NodeId], forgotten: &[NodeId]) {
        let state = &mut self.state;
        for node in forgotten {
            if !state.forgotten.contains(node) {
                state.forgotten.push(*node);
                state.drains.remove(node);
                self.forgot.push(*node);
            }
        }
        let known: BTreeSet<NodeId> = state.known.iter().chain(members).copied().collect();
        state.known = known.into_iter().filter(|n| !state.forgotten.contains(n)).collect();
    }

    fn push_tail(&mut self, record: Arc<Record>) {
        for (n, path) in record.paths().enumerate() {
            self.touched.entry(path.clone()).or_default().push((record.clone(), n));
        }
        self.tail.push_back(record);
    }

    /// Notes how far an epoch's own leader has committed.
    pub(super) fn raise_committed(&mut self, epoch: Epoch, count: u64, storage: &dyn Storage) {
        if !self.state.committed.raise(epoch, count) {
            return;
        }
        self.pending.touch_state();
        // A confirmation made by the epoch itself beats a void made elsewhere.
        let from = Position { epoch, seq: 0 };
        let beaten: Vec<Position> =
            self.unconfirmed.range(from..Position { epoch, seq: count }).map(|(p, _)| *p).collect();
        for position in beaten {
            self.confirm(position, storage);
        }
    }

    /// Everything that `count` records of `epoch` stand on, and themselves, as far as it is not applied.
    fn closure(&self, epoch: Epoch, count: u64, into: &mut Marks) {
        let count = count.min(self.state.logged.count(epoch));
        for record in self.tail.iter().filter(|r| r.epoch() == epoch && r.position.seq < count) {
            if let Body::Cover(cover) = &record.body {
                into.join(&cover.marks);
            }
        }
        into.raise(epoch, count);
    }

    /// What is known to be committed, in whatever epoch.
    pub(super) fn known_committed(&self) -> Marks {
        let mut scope = self.state.applied.clone();
        for (epoch, count) in self.state.committed.iter() {
            if count.min(self.state.logged.count(epoch)) > self.state.applied.count(epoch) {
                self.closure(epoch, count, &mut scope);
            }
        }
        scope
    }

    /// What may show. Who follows an epoch shows what that epoch stands on: what others committed comes into view with its
    /// leader's merge record, for all that follow it alike, and not for each as soon as it has heard of it.
    fn scope(&self, followed: Option<Epoch>) -> Marks {
        let Some(epoch) = followed else { return self.known_committed() };
        let mut scope = self.state.applied.clone();
        self.closure(epoch, self.state.committed.count(epoch), &mut scope);
        // No merge record names a foreign one that changes nothing.
        for record in &self.tail {
            let p = record.position;
            let next = self.state.committed.has(p) && p.seq == scope.count(p.epoch);
            if next && record.cover().is_some_and(|cover| scope.covers(&cover.marks) && !self.confirms(cover)) {
                scope.raise(p.epoch, p.seq + 1);
            }
        }
        scope
    }

    /// Whether a cover makes a head of what was none.
    fn confirms(&self, cover: &Cover) -> bool {
        self.unconfirmed.keys().any(|p| cover.marks.has(*p) && !cover.voids.contains(p))
    }

    /// Applies what is known to be committed, and of another epoch than the one that is followed what that one stands on.
    pub(super) fn apply_committed(&mut self, now: Micros, followed: Option<Epoch>, storage: &dyn Storage) {
        if self.tail.is_empty() {
            return;
        }
        let scope = self.scope(followed);
        if self.state.applied.covers(&scope) {
            return;
        }
        let covers = self.tail.iter().filter(|r| scope.has(r.position)).filter_map(|r| r.cover());
        let voids: BTreeSet<Position> = covers.flat_map(|c| c.voids.iter().copied()).collect();
        let mut rest = VecDeque::new();
        while let Some(record) = self.tail.pop_front() {
            if scope.has(record.position) {
                self.apply(now, &record, voids.contains(&record.position), storage);
            } else {
                rest.push_back(record);
            }
        }
        self.tail = rest;
        self.repay();
    }

    /// Whether a record that is not applied yet refers to a blob.
    pub(super) fn is_in_tail(&self, blob: BlobId) -> bool {
        let of = |w: &Write| w.blob == Some(blob) || w.effects.iter().any(|e| blobs(&e.what).any(|b| b == blob));
        let merged = |r: &Record| r.moved().iter().flat_map(|v| &v.extents).any(|e| e.blob == blob);
        self.tail.iter().any(|r| r.write().is_some_and(of) || merged(r))
    }

    /// What an operation came to: where it is logged and whether that is committed. Of several copies a committed one counts,
    /// but for one on its way in the running epoch: until that is decided, its lock is not free.
    pub(super) fn outcome(&self, op: OpId, storage: &dyn Storage) -> Option<(Position, Option<Outcome>)> {
        let of_op = |r: &&Arc<Record>| r.write().is_some_and(|w| w.op == op);
        let own = |r: &&Arc<Record>| r.epoch() == self.state.promised;
        if let Some(on_its_way) = self.tail.iter().rev().filter(own).find(of_op) {
            return Some((on_its_way.position, None));
        }
        if let Some(outcome) = self.view(storage).outcome(op) {
            return Some((outcome.position, Some(outcome)));
        }
        let logged = self.tail.iter().rev().find(of_op);
        logged.map(|r| (r.position, None))
    }

    /// A clock greater than all that was seen, not below the wall clock nor `floor`.
    pub(super) fn next_hlc(&mut self, wall: Micros, floor: Hlc) -> Hlc {
        self.state.hlc = Hlc(wall.max(self.state.hlc.0.saturating_add(1)).max(floor.0));
        self.state.hlc
    }

    /// Forgets outcomes that are older than `retention`.
    pub(super) fn expire_outcomes(&mut self, now: Micros, retention: Micros, storage: &dyn Storage) {
        for _ in 0..EXPIRE_AT_ONCE {
            let Some((since, op)) = self.outcomes.front().copied() else { return };
            if now.saturating_sub(since) <= retention {
                return;
            }
            self.outcomes.pop_front();
            if self.view(storage).outcome(op).is_some() {
                self.pending.outcome(op, None);
            }
        }
    }
}
