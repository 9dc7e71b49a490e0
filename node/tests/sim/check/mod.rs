//! The checkers: what really happened, against what the invariants of DESIGN §10 allow. They know every record ever logged,
//! every promise given and every lock granted, and compute what the index should be as a set, from first principles; they
//! ask no member what it thinks.

mod commits;
mod conflicts;
pub(crate) mod copies;
mod drops;
mod epochs;
mod extents;
mod index;
mod linear;
mod locks;
mod reads;
mod records;
mod rest;

use crate::sim::process::Process;
use crate::sim::world::Time;
pub(crate) use linear::Coverage;
use linear::Linear;
use locks::Locks;
use node::cluster::{
    Batch, BlobId, Change, Epoch, Event, Extent, Mutation, NodeId, OpId, Outcome, Output, Position, Record, Refusal,
};
use node::path::FtpPath;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A broken invariant.
#[derive(Debug, Clone)]
pub(crate) struct Broken {
    /// As DESIGN §10 numbers it.
    pub(crate) invariant: &'static str,
    pub(crate) what: String,
}

impl Broken {
    pub(crate) fn new(invariant: &'static str, what: String) -> Self {
        Self { invariant, what }
    }
}

/// The disk model complains of holes and repeats in what it is asked to write.
impl From<String> for Broken {
    fn from(what: String) -> Self {
        Self::new("I11", what)
    }
}

/// One epoch's leader.
#[derive(Debug)]
struct Reign {
    node: usize,
    members: Vec<NodeId>,
    committed: u64,
}

/// One operation as its client knows it.
#[derive(Debug)]
struct Asked {
    change: Change,
    done: Option<Outcome>,
    refused: Option<Refusal>,
}

#[derive(Debug, Default)]
pub(crate) struct Truth {
    records: BTreeMap<Position, Arc<Record>>,
    covers: Vec<Position>,
    /// Records that say where versions live.
    moves: Vec<Position>,
    /// By which records a head of a path was dropped.
    drops: BTreeMap<(FtpPath, Position), Vec<Position>>,
    /// Writes that their leader said it logged.
    logged: BTreeSet<Position>,
    by_path: BTreeMap<FtpPath, Vec<Position>>,
    /// Where each copy of an operation ends: an operation of several parts is there when its last part is.
    by_op: BTreeMap<OpId, Vec<Position>>,
    /// Records by the blobs of the versions that they log or move.
    by_blob: BTreeMap<BlobId, BTreeSet<Position>>,
    /// What blobs were made of that are others merged.
    merged: BTreeMap<BlobId, Vec<Extent>>,
    reigns: BTreeMap<Epoch, Reign>,
    /// Reigns in the order in which they began to serve.
    served: Vec<(Epoch, usize)>,
    /// What is committed, by its own leader or by a later epoch's first record, and since when.
    committed: BTreeMap<Position, Time>,
    /// Who had each of these on its disk when it was committed, or covered by a record that was; the first epoch and the
    /// first time of each.
    holders: BTreeMap<Position, BTreeMap<NodeId, (Epoch, Time)>>,
    ops: BTreeMap<OpId, Asked>,
    /// What was acknowledged on each path, in that order.
    acked: BTreeMap<FtpPath, Vec<Position>>,
    /// The highest epoch each node ever promised.
    promised: BTreeMap<usize, Epoch>,
    locks: Locks,
    linear: Linear,
    /// Whether stale reads are left to the check of whole histories.
    reads_unjudged: bool,
}

impl Truth {
    /// With or without its own judgement of each read: see [`Plan::reads_unjudged`](crate::sim::plan::Plan).
    pub(crate) fn new(reads_unjudged: bool) -> Self {
        Self { reads_unjudged, ..Self::default() }
    }
    pub(crate) fn submitted(&mut self, now: Time, op: OpId, change: &Change) {
        self.linear.submitted(now, op, change);
        self.ops.insert(op, Asked { change: change.clone(), done: None, refused: None });
    }
    pub(crate) fn refused(&mut self, op: OpId, refusal: Refusal) {
        self.linear.refused(op, refusal);
        if let Some(asked) = self.ops.get_mut(&op) {
            asked.refused = Some(refusal);
        }
    }
    /// Given up: like a refusal that does not say whether anything happened.
    pub(crate) fn cancelled(&mut self, op: OpId) {
        self.refused(op, Refusal::Unknown);
    }
    pub(crate) fn crashed(&mut self, now: Time, at: usize) {
        self.linear.crashed(now, at);
    }

    /// Learns the records of a batch. Two different ones at one position are two leaders of one epoch.
    pub(crate) fn records(&mut self, batch: &Batch) -> Result<(), Broken> {
        for mutation in &batch.mutations {
            let Mutation::Record(record) = mutation else { continue };
            if let Some(known) = self.records.get(&record.position) {
                if known != record {
                    return Err(Broken::new(
                        "I4",
                        format!("two records at {:?}: {known:?} and {record:?}", record.position),
                    ));
                }
                continue;
            }
            if record.cover().is_some() {
                self.covers.push(record.position);
            }
            if let Some(write) = record.write() {
                if write.is_last() {
                    self.by_op.entry(write.op).or_default().push(record.position);
                }
                for effect in &write.effects {
                    self.by_path.entry(effect.path.clone()).or_default().push(record.position);
                    self.learn_extents(record.position, &effect.what)?;
                }
            }
            self.learn_moves(record)?;
            if !record.moved().is_empty() {
                self.moves.push(record.position);
            }
            self.drop_allowed(record)?;
            for (path, head) in record.dropped() {
                self.drops.entry((path.clone(), *head)).or_default().push(record.position);
            }
            self.records.insert(record.position, record.clone());
        }
        Ok(())
    }

    /// One round of the member at `at`: what it put out, and what it changed in its index.
    pub(crate) fn round(
        &mut self,
        now: Time,
        at: usize,
        outputs: &[Output],
        changes: &[Mutation],
        processes: &[Process],
    ) -> Result<(), Broken> {
        for output in outputs {
            self.linear.saw(now, at, output);
            match output {
                Output::Send { message, .. } => {
                    self.sent(at, message, &processes[at].disk)?;
                    Self::vouched(now, at, message, &processes[at].disk)?;
                }
                Output::Event(event) => self.event(now, at, event, processes)?,
                Output::Merge { blob, run } => self.merges_blobs(*blob, run)?,
                _ => {}
            }
        }
        let tables = &processes[at].disk.shown;
        changes.iter().try_for_each(|mutation| self.changed(at, mutation, tables))
    }

    fn event(&mut self, now: Time, at: usize, event: &Event, processes: &[Process]) -> Result<(), Broken> {
        match event {
            Event::TookOver { epoch, members, marks } => self.took_over(at, *epoch, members, marks, processes),
            Event::Serving { epoch } => self.serving(at, *epoch),
            Event::Granted { token, op, change } => {
                let last = |path: &FtpPath| self.last_uncommitted(token.epoch, path);
                if let Some(open) = change.paths().into_iter().find_map(last) {
                    return Err(Broken::new(
                        "I6",
                        format!("{token:?} granted to {op:?} while {open:?} is not decided"),
                    ));
                }
                self.locks.granted(*token, *op, change)
            }
            Event::Logged { position, op, token } => self.logged(at, *position, *op, *token, processes),
            Event::Committed { epoch, count } => self.commits(now, at, *epoch, *count, processes),
            Event::Implausible { from, counter } => {
                Err(Broken::new("I4", format!("epoch {counter} from {from:?}, which nobody forged")))
            }
            Event::Follows { .. }
            | Event::Leaderless
            | Event::Forgot { .. }
            | Event::TookIndex { .. }
            | Event::Liveness { .. }
            | Event::ClockAhead { .. } => Ok(()),
        }
    }

    /// Who served last.
    pub(crate) fn leader(&self) -> Option<usize> {
        self.served.last().map(|(_, node)| *node)
    }
    /// Whether this event began a reign of another node than the one before.
    pub(crate) fn new_leader(&self, event: &Event) -> bool {
        let Event::Serving { epoch } = event else { return false };
        let at = self.served.iter().position(|(e, _)| e == epoch);
        at.is_some_and(|at| at > 0 && self.served[at - 1].1 != self.served[at].1)
    }
    /// Epochs that served, and how often the leader changed.
    pub(crate) fn reigns(&self) -> (u64, u64) {
        let changes = self.served.windows(2).filter(|pair| pair[0].1 != pair[1].1).count();
        (self.served.len() as u64, changes as u64)
    }
    /// How many epochs were ever taken.
    pub(crate) fn takeovers(&self) -> u64 {
        self.reigns.len() as u64
    }
    /// Notes a record as committed by a record of `epoch`, and who holds both.
    fn commit(&mut self, now: Time, position: Position, epoch: Epoch, holders: &[NodeId]) {
        self.committed.entry(position).or_insert(now);
        let known = self.holders.entry(position).or_default();
        for node in holders {
            known.entry(*node).and_modify(|(e, _)| *e = epoch.min(*e)).or_insert((epoch, now));
        }
    }
    /// Whether any committed record is such.
    pub(crate) fn has_committed(&self, is: impl Fn(Position) -> bool) -> bool {
        self.committed.keys().any(|p| is(*p))
    }
    /// Who held a committed record in an epoch below this one.
    fn held_below(&self, position: Position, epoch: Epoch) -> BTreeSet<NodeId> {
        let known = self.holders.get(&position).into_iter().flatten();
        known.filter(|(_, (e, _))| *e < epoch).map(|(node, _)| *node).collect()
    }
}
