//! At rest, everything healed: I2 all indexes are equal, and what they should be; I1 every acknowledged write is accounted
//! for and has its bytes; I9 nothing took effect twice; and nothing grew without bound.

use super::records::stamp;
use super::{Broken, Truth};
use crate::sim::disk::Tables;
use crate::sim::process::{Process, index};
use node::cluster::{Digest, Epoch, Head, Marks, OpId, Position, Refusal, Version};
use node::path::FtpPath;
use std::collections::BTreeSet;

/// More reigns than this in a run of about 100 s are no rest.
const MOST_EPOCHS: usize = 150;

impl Truth {
    /// How many heads are stale twins: see [`Truth::twin_replaced`].
    pub(crate) fn at_rest(&self, processes: &[Process]) -> Result<u64, Broken> {
        let Some(first) = processes.iter().find(|p| !p.gone).map(|p| &p.disk.shown) else { return Ok(0) };
        let epoch = first.state.promised;
        if self.served.iter().all(|(served, _)| *served != epoch) {
            return Err(Broken::new("I4", format!("all follow {epoch:?}, which never served")));
        }
        let scope = self.closure(epoch, self.reigns[&epoch].committed);
        Self::equal(first, processes)?;
        let paths: BTreeSet<&FtpPath> = self.by_path.keys().chain(first.entries.keys()).collect();
        for path in paths {
            self.heads_right(path, &scope, epoch, first)?;
            self.none_resurrected(path, &scope, epoch, first)?;
        }
        for (op, asked) in &self.ops {
            self.accounted(*op, asked.done.map(|o| o.position), asked.refused, &scope, epoch)?;
            self.once(*op)?;
        }
        let stale = self.bytes(&scope, epoch, first, processes)?;
        let merges = self.merges();
        // Where a bridge keeps leaders apart, each takes over what every other logs.
        let logged = self.by_op.len() + self.moves.len();
        if self.served.len() > MOST_EPOCHS || merges > logged * (processes.len() - 1) {
            let (reigns, moves, ops) = (self.served.len(), self.moves.len(), self.by_op.len());
            let what = format!("{reigns} reigns and {merges} merge records for {ops} operations and {moves} moves");
            return Err(Broken::new("I4", what));
        }
        Ok(stale)
    }
    /// Records by which a leader took over what another had logged meanwhile.
    pub(crate) fn merges(&self) -> usize {
        self.covers.iter().filter(|p| p.seq > 0).count()
    }

    /// Heads, locations, references, rows and counts are the same everywhere, and in step with each other.
    fn equal(first: &Tables, processes: &[Process]) -> Result<(), Broken> {
        for (at, process) in processes.iter().enumerate().filter(|(_, p)| !p.gone) {
            let tables = &process.disk.shown;
            if let Some((path, entry)) = tables.entries.iter().find(|(p, e)| first.entries.get(*p) != Some(*e)) {
                let what = format!("{path} is {entry:?} at {at} and {:?} elsewhere", first.entries.get(path));
                return Err(Broken::new("I2", what));
            }
            if tables.entries.len() != first.entries.len() || tables.marks() != first.marks() {
                return Err(Broken::new("I2", format!("the index or log of {at} differs from another")));
            }
            if tables.state.drains != first.state.drains {
                let (here, there) = (&tables.state.drains, &first.state.drains);
                return Err(Broken::new("I2", format!("{at} has {here:?} as drained, another {there:?}")));
            }
            let (referrers, held) = tables.counted();
            if tables.referrers != referrers || tables.held != held {
                let what = format!(
                    "{at} has {:?} and {:?}, by its heads {referrers:?} and {held:?}",
                    tables.referrers, tables.held
                );
                return Err(Broken::new("I2", what));
            }
            let visible = tables.entries.values().filter_map(|e| e.visible());
            let files = visible.filter(|h| matches!(h.what, Version::File(_))).count() as u64;
            let digest: Digest = tables.entries.iter().map(|(path, entry)| Digest::of(path, entry)).sum();
            if tables.state.digest.unwrap_or_default() != digest {
                return Err(Broken::new(
                    "I2",
                    format!("{at} keeps another digest than {digest:?}, which its index has"),
                ));
            }
            if files != tables.state.files {
                return Err(Broken::new(
                    "I2",
                    format!("{at} counts {} files, {files} are visible", tables.state.files),
                ));
            }
        }
        Ok(())
    }
    fn heads_right(&self, path: &FtpPath, scope: &Marks, epoch: Epoch, first: &Tables) -> Result<(), Broken> {
        let due = self.heads(path, scope, epoch);
        let entry = first.entries.get(path);
        let kept: Vec<Position> =
            entry.into_iter().flat_map(|e| &e.heads).filter(|h| h.confirmed).map(|h| h.position).collect();
        if kept != due {
            return Err(Broken::new("I2", format!("{path} has heads {kept:?}, by all records they are {due:?}")));
        }
        for head in entry.into_iter().flat_map(|e| &e.heads) {
            let Version::File(file) = &head.what else { continue };
            let (due, is) = (self.location(path, head.position, scope), (&head.location, &file.extents));
            if due.as_ref().map(|(location, extents)| (location, extents)) != Some(is) {
                let what = format!("{path} {:?} is at {is:?}, by all records at {due:?}", head.position);
                return Err(Broken::new("I2", what));
            }
        }
        Ok(())
    }
    /// I8: nothing that a delete came after is visible, unless something else came after that.
    fn none_resurrected(&self, path: &FtpPath, scope: &Marks, epoch: Epoch, first: &Tables) -> Result<(), Broken> {
        let Some(winner) = first.entries.get(path).and_then(|e| e.visible()).map(Head::stamp) else { return Ok(()) };
        for position in self.by_path.get(path).into_iter().flatten().filter(|p| scope.has(self.last(**p))) {
            let deletes = Self::effect(&self.records[position], path).is_some_and(|e| e.what == Version::Deleted);
            let after = deletes && stamp(&self.records[position]) > winner && self.confirmed(*position, scope, epoch);
            if after && self.replaced_by(*position, path, scope).is_none() {
                let what = format!("{path} shows {winner:?}, older than its delete at {position:?}");
                return Err(Broken::new("I8", what));
            }
        }
        Ok(())
    }
    /// An acknowledged write survives; one that was refused never happened.
    fn accounted(
        &self,
        op: OpId,
        done: Option<Position>,
        refused: Option<Refusal>,
        scope: &Marks,
        epoch: Epoch,
    ) -> Result<(), Broken> {
        let copies = self.by_op.get(&op).into_iter().flatten();
        let live: Vec<Position> =
            copies.copied().filter(|p| scope.has(*p) && self.confirmed(*p, scope, epoch)).collect();
        if let Some(refusal) = refused.filter(|r| *r != Refusal::Unknown)
            && let Some(at) = live.first()
        {
            return Err(Broken::new("I9", format!("op {op:?} was refused ({refusal:?}) and took effect at {at:?}")));
        }
        let Some(done) = done else { return Ok(()) };
        if live.is_empty() {
            return Err(Broken::new("I1", format!("op {op:?}, acknowledged at {done:?}, is gone")));
        }
        for (position, write) in live.iter().flat_map(|p| self.parts(*p)).filter_map(|r| Some((r.position, r.write()?)))
        {
            for path in write.effects.iter().map(|e| &e.path) {
                let head = self.heads(path, scope, epoch).contains(&position);
                let gone = self.replaced_by(position, path, scope).is_some() || self.is_dropped(path, position, scope);
                if !head && !gone {
                    let what = format!("op {op:?} at {position:?} is neither a head of {path} nor replaced");
                    return Err(Broken::new("I1", what));
                }
            }
        }
        Ok(())
    }
    /// No copy of an operation was logged where another was in the history and counted.
    fn once(&self, op: OpId) -> Result<(), Broken> {
        let copies = self.by_op.get(&op).map(Vec::as_slice).unwrap_or_default();
        for later in copies {
            let before = self.closure(later.epoch, later.seq);
            let counted = |p: &&Position| *p != later && before.has(**p) && self.confirmed(**p, &before, later.epoch);
            if let Some(first) = copies.iter().find(counted) {
                return Err(Broken::new("I9", format!("op {op:?} took effect at {first:?} and at {later:?}")));
            }
        }
        Ok(())
    }
    /// Every head's bytes are where its location says. Stale twins are counted.
    fn bytes(&self, scope: &Marks, epoch: Epoch, first: &Tables, processes: &[Process]) -> Result<u64, Broken> {
        let mut stale = 0;
        let entries = &first.entries;
        for (path, head) in entries.iter().flat_map(|(p, e)| e.heads.iter().map(move |h| (p, h))) {
            let Version::File(file) = &head.what else { continue };
            stale += u64::from(self.twin_replaced(head.position, path, scope, epoch));
            let mut living = head.location.nodes.iter().filter(|n| !processes[index(**n)].gone).peekable();
            if living.peek().is_none() {
                return Err(Broken::new("I1", format!("{path} {:?} is nowhere", head.position)));
            }
            for node in living.filter(|_| head.confirmed) {
                let disk = &processes[index(*node)].disk;
                if let Some(lost) = file.extents.iter().find(|e| !disk.has_good(e.blob)) {
                    let what = format!("{path} {:?} lost its bytes {:?} on {node:?}", head.position, lost.blob);
                    return Err(Broken::new("I1", what));
                }
            }
        }
        Ok(stale)
    }
    /// Whether another copy of the same operation was committed apart and replaced since: then this one says nothing new.
    /// The model of the protocol allows and counts such stale twins, too.
    fn twin_replaced(&self, position: Position, path: &FtpPath, scope: &Marks, epoch: Epoch) -> bool {
        let op = self.records.get(&position).and_then(|r| r.write()).map(|w| w.op);
        let copies = op.and_then(|op| self.by_op.get(&op)).into_iter().flatten();
        let own = self.last(position);
        let mut twins = copies.filter(|p| **p != own && scope.has(**p) && self.confirmed(**p, scope, epoch));
        twins.any(|p| self.parts(*p).any(|r| self.replaced_by(r.position, path, scope).is_some()))
    }
}
