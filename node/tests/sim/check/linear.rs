//! I5, all of it: while one epoch is in force and none competes, one order explains everything that the clients of a path
//! saw. What is looked at are windows of time. One opens when an epoch serves and every other epoch is over: a member of it
//! has promised a higher one, or its leader is dead, so that by its lease it can neither commit nor answer any more. It
//! closes when that ceases, and when a merge record is committed, for then versions become visible that nobody wrote here.
//! Nothing is assumed of the state a window begins with; what reaches over its ends may take effect inside or not.
//!
//! Paths are checked each for itself, and only those with nothing below them: a directory may be there or not because of
//! what lies in it. Reads that no leader answered are not in it, they promise less. A rename is a delete of one path and, of
//! the other, a write of something unnamed.

use super::{Broken, Truth};
use crate::sim::disk::Tables;
use crate::sim::history::brief;
use crate::sim::process::index;
use crate::sim::world::Time;
use histories::{Act, Blocked, FileModel, Initially, Limits, Operation, Seeing, Seen, Verdict, Window, check, cut};
use node::cluster::{Change, Epoch, Event, Message, NodeId, OpId, Output, Position, Refusal, Version};
use node::path::FtpPath;
use std::collections::{BTreeMap, BTreeSet};

/// What this check says is broken.
const ONE_ORDER: &str = "I5 by one order";
/// Far more than the few dozen operations of a path in a run take.
const LIMITS: Limits = Limits { steps: 2_000_000, configurations: 200_000 };
/// Operations told of before the one that cannot be placed.
const TOLD: usize = 8;

/// A run of bytes as a client can tell it: whose it is. Or a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Piece {
    Bytes(OpId),
    Directory,
}

#[derive(Debug)]
struct Reign {
    leader: usize,
    members: Vec<NodeId>,
    serving: bool,
}

/// How an operation ended for its client. Without this it never did.
#[derive(Debug, Clone, Copy)]
enum End {
    Done,
    Refused(Refusal),
}

#[derive(Debug)]
struct Asked {
    change: Change,
    at: Time,
    end: Option<(Time, End)>,
}

#[derive(Debug)]
struct Looked {
    path: FtpPath,
    began: Time,
    ended: Time,
    seen: Seen<Piece>,
}

/// What happened as clients saw it, and when which epoch was in force.
#[derive(Debug, Default)]
pub(super) struct Linear {
    now: Time,
    /// Epochs that were taken and are not over.
    reigns: BTreeMap<Epoch, Reign>,
    open: Option<(Epoch, Time)>,
    windows: Vec<(Epoch, Window)>,
    asked: BTreeMap<OpId, Asked>,
    looked: Vec<Looked>,
}

/// One operation on one path, and where it comes from.
type Told = (Operation<Seeing<Piece>>, String);

/// How much was checked.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Coverage {
    /// Windows in which something was.
    pub(crate) windows: u64,
    /// Answered operations that had to find a place in the order of a window.
    pub(crate) placed: u64,
    /// Answered operations in all.
    pub(crate) answered: u64,
}

impl Linear {
    /// What a member put out.
    pub(super) fn saw(&mut self, now: Time, at: usize, output: &Output) {
        self.now = now;
        match output {
            Output::Send { message: Message::Promise { epoch, .. } | Message::Collect { epoch, .. }, .. } => {
                self.end(|e, reign| e < epoch && reign.members.iter().any(|m| index(*m) == at));
            }
            Output::Event(Event::TookOver { epoch, members, .. }) => {
                let reign = Reign { leader: at, members: members.clone(), serving: false };
                self.reigns.insert(*epoch, reign);
                self.look_who_rules();
            }
            Output::Event(Event::Serving { epoch }) => {
                if let Some(reign) = self.reigns.get_mut(epoch) {
                    reign.serving = true;
                }
                self.look_who_rules();
            }
            _ => {}
        }
    }
    pub(super) fn crashed(&mut self, now: Time, at: usize) {
        self.now = now;
        self.end(|_, reign| reign.leader == at);
    }
    /// A leader took over what another had committed.
    pub(super) fn merged(&mut self) {
        self.close();
        self.look_who_rules();
    }
    fn end(&mut self, over: impl Fn(&Epoch, &Reign) -> bool) {
        self.reigns.retain(|epoch, reign| !over(epoch, reign));
        self.look_who_rules();
    }
    fn look_who_rules(&mut self) {
        let alone = self.reigns.iter().next().filter(|(_, reign)| reign.serving && self.reigns.len() == 1);
        let alone = alone.map(|(epoch, _)| *epoch);
        if self.open.map(|(epoch, _)| epoch) != alone {
            self.close();
            self.open = alone.map(|epoch| (epoch, self.now));
        }
    }
    fn close(&mut self) {
        // A read of this very instant may show what closes the window already.
        if let Some((epoch, from)) = self.open.take().filter(|(_, from)| *from < self.now) {
            self.windows.push((epoch, Window { from, to: self.now - 1 }));
        }
    }

    pub(super) fn submitted(&mut self, now: Time, op: OpId, change: &Change) {
        self.asked.insert(op, Asked { change: change.clone(), at: now, end: None });
    }
    pub(super) fn done(&mut self, op: OpId) {
        self.ended(op, End::Done);
    }
    pub(super) fn refused(&mut self, op: OpId, refusal: Refusal) {
        if refusal != Refusal::Unknown {
            self.ended(op, End::Refused(refusal));
        }
    }
    fn ended(&mut self, op: OpId, end: End) {
        if let Some(asked) = self.asked.get_mut(&op) {
            asked.end = Some((self.now, end));
        }
    }
    fn looked(&mut self, began: Time, path: &FtpPath, seen: Seen<Piece>) {
        self.looked.push(Looked { path: path.clone(), began, ended: self.now, seen });
    }

    /// Every path that something is done to, and nothing below. `written` are paths that anything was ever logged for:
    /// what a directory holds goes along with it.
    fn leaves(&self, written: &BTreeMap<FtpPath, Vec<Position>>) -> Vec<FtpPath> {
        let asked = self.asked.values().flat_map(|asked| asked.change.paths());
        let all: BTreeSet<&FtpPath> = asked.chain(self.looked.iter().map(|l| &l.path)).collect();
        let leaf = |path: &&&FtpPath| {
            path.below_in(written).next().is_none() && !all.iter().any(|other| other != *path && other.is_within(path))
        };
        all.iter().filter(leaf).map(|path| (*path).clone()).collect()
    }
    /// What clients did to a path and saw of it.
    fn history(&self, path: &FtpPath) -> Vec<Told> {
        let changes = self.asked.iter().filter_map(|(op, asked)| {
            let (seeing, returned) = match asked.end {
                Some((at, End::Done)) => (Some(effect(*op, &asked.change, path)?), Some(at)),
                Some((at, End::Refused(refusal))) => (shown(&asked.change, path, refusal), Some(at)),
                None => (effect(*op, &asked.change, path).filter(Seeing::changes), None),
            };
            let operation = Operation { op: seeing?, invoked: asked.at, returned };
            let ended = asked.end.map_or("never answered".into(), |(_, end)| format!("{end:?}"));
            Some((operation, format!("op {op:?} {} {ended}", brief(&asked.change))))
        });
        let reads = self.looked.iter().filter(|l| l.path == *path).map(|l| {
            let op = Act::Read.seeing(l.seen.clone());
            let told = format!("read of {:?}", l.seen);
            (Operation { op, invoked: l.began, returned: Some(l.ended) }, told)
        });
        changes.chain(reads).collect()
    }
    fn check(&self, written: &BTreeMap<FtpPath, Vec<Position>>) -> Result<Coverage, Broken> {
        let mut coverage = Coverage::default();
        let last = self.open.map(|(epoch, from)| (epoch, Window { from, to: self.now }));
        for path in self.leaves(written) {
            let history = self.history(&path);
            let operations: Vec<_> = history.iter().map(|(operation, _)| operation.clone()).collect();
            coverage.answered += operations.iter().filter(|o| o.returned.is_some()).count() as u64;
            for (epoch, window) in self.windows.iter().copied().chain(last) {
                let part = cut(&operations, window, Seeing::changes);
                let answered = part.iter().filter(|(_, o)| o.returned.is_some()).count() as u64;
                if answered == 0 {
                    continue;
                }
                coverage.windows += 1;
                coverage.placed += answered;
                let inside: Vec<_> = part.iter().map(|(_, operation)| operation.clone()).collect();
                let (model, reduced) = FileModel::of(&inside, Initially::Unknown);
                let what = match check(&model, &reduced, LIMITS).verdict {
                    Verdict::Linearizable(_) => continue,
                    Verdict::Broken(blocked) => {
                        let told: Vec<&Told> = part.iter().map(|(n, _)| &history[*n]).collect();
                        explain(&told, &blocked)
                    }
                    Verdict::GaveUp { limit } => {
                        format!("it is not known whether one order explains it: too many {limit}")
                    }
                };
                let (from, to) = (seconds(window.from), seconds(window.to));
                return Err(Broken::new(ONE_ORDER, format!("{path} in {epoch:?}, from {from} to {to}: {what}")));
            }
        }
        Ok(coverage)
    }
}

/// What a change does to a path once it takes effect.
fn effect(op: OpId, change: &Change, path: &FtpPath) -> Option<Seeing<Piece>> {
    Some(match change {
        Change::Store { path: at, create_only } if at == path => {
            Act::Put(vec![Piece::Bytes(op)]).seeing(if *create_only { Seen::Absent } else { Seen::Nothing })
        }
        Change::Append { path: at, .. } if at == path => Act::Append(Piece::Bytes(op)).seeing(Seen::Nothing),
        Change::Delete { path: at } | Change::RemoveDirectory { path: at } if at == path => {
            Act::Delete.seeing(Seen::Present)
        }
        Change::MakeDirectory { path: at } if at == path => Act::Put(vec![Piece::Directory]).seeing(Seen::Absent),
        Change::SetModified { path: at, .. } if at == path => Act::Read.seeing(Seen::Present),
        #[cfg(feature = "next-protocol")]
        Change::SetMode { path: at, .. } if at == path => Act::Read.seeing(Seen::Present),
        Change::Rename { from, to } if from == to && to == path => Act::Read.seeing(Seen::Present),
        Change::Rename { from, .. } if from == path => Act::Delete.seeing(Seen::Present),
        Change::Rename { to, .. } if to == path => Act::Place.seeing(Seen::Nothing),
        // A directory above it is moved, or comes here with whatever it holds.
        Change::Rename { from, to } if path.is_within(from) || path.is_within(to) => Act::Disturb.seeing(Seen::Nothing),
        // Losers of a conflict: this history does not say what they are.
        Change::Resolve { path: at, .. } if at == path => Act::Disturb.seeing(Seen::Nothing),
        Change::Recover { path: at, to, .. } if at == path || to == path => Act::Disturb.seeing(Seen::Nothing),
        _ => return None,
    })
}

/// What a refusal shows of a path.
fn shown(change: &Change, path: &FtpPath, refusal: Refusal) -> Option<Seeing<Piece>> {
    let at = match change {
        Change::Rename { from, .. } => from,
        Change::Store { path, .. }
        | Change::Append { path, .. }
        | Change::Delete { path }
        | Change::MakeDirectory { path }
        | Change::RemoveDirectory { path }
        | Change::SetModified { path, .. } => path,
        #[cfg(feature = "next-protocol")]
        Change::SetMode { path, .. } => path,
        Change::Resolve { .. } | Change::Recover { .. } | Change::Forget { .. } | Change::Drain(_) => return None,
    };
    let seen = match refusal {
        Refusal::NotFound => Seen::Absent,
        Refusal::TooManyExtents => Seen::Present,
        Refusal::Exists if !matches!(change, Change::Rename { .. }) => Seen::Present,
        _ => return None,
    };
    (at == path).then(|| Act::Read.seeing(seen))
}

fn explain(told: &[&Told], blocked: &Blocked) -> String {
    let line = |n: usize| {
        let (operation, what) = told[n];
        let until = operation.returned.map_or("?".into(), seconds);
        format!("{what} ({} to {until})", seconds(operation.invoked))
    };
    let skipped = blocked.order.len().saturating_sub(TOLD);
    let before: Vec<String> = blocked.order[skipped..].iter().map(|n| line(*n)).collect();
    format!("no order has a place for {} after {}: {}", line(blocked.operation), before.join(", then "), blocked.state)
}

fn seconds(time: Time) -> String {
    format!("{:.4}", time as f64 / 1e6)
}

impl Truth {
    /// A session that began to read at `began` sees `path` in its node's index, as a leader allowed it.
    pub(crate) fn looked(&mut self, began: Time, path: &FtpPath, tables: &Tables) {
        let seen = match tables.entries.get(path).and_then(|e| e.visible()).map(|head| &head.what) {
            Some(Version::File(file)) => {
                Seen::Content(self.unmerged(&file.extents).iter().map(|e| Piece::Bytes(e.blob.op)).collect())
            }
            Some(_) => Seen::Content(vec![Piece::Directory]),
            None => Seen::Absent,
        };
        self.linear.looked(began, path, seen);
    }
    /// Whether one order explains what clients saw of each path; how much of it was checked.
    pub(crate) fn linearizable(&self) -> Result<Coverage, Broken> {
        self.linear.check(&self.by_path)
    }
}
