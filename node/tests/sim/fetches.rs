//! Copies that members have made to their own disks: blobs come from the first source that has them and can be reached, late,
//! or not at all. And blobs that they have made of others. Never content: a blob is its name and its length.

use crate::sim::process::index;
use crate::sim::world::{SECOND, Step, World};
use node::cluster::{BlobId, Extent, Hash, Input, MS, NodeId, Storage};

/// The end of a copy that a start of a node asked for.
#[derive(Debug)]
pub(crate) struct Fetch {
    at: usize,
    boot: u32,
    id: u64,
    blobs: Vec<BlobId>,
    sources: Vec<usize>,
}

/// The end of a merge that a start of a node asked for.
#[derive(Debug)]
pub(crate) struct Merge {
    at: usize,
    boot: u32,
    blob: BlobId,
    run: Vec<Extent>,
}

impl World {
    pub(crate) fn have_merged(&mut self, at: usize, blob: BlobId, run: Vec<Extent>) {
        let slow = if self.processes[at].slow_disk_until > self.now { 1500 * MS } else { 5 * MS };
        let late = if !self.calm && self.rng.chance(5) { self.rng.range(5, 20) * SECOND } else { 0 };
        let wait = late + self.rng.below(slow) + MS;
        let boot = self.processes[at].boot;
        self.history.note(self.now, || format!("{at} makes {blob:?} of {run:?}"));
        self.plan(wait, Step::Merge(Merge { at, boot, blob, run }));
    }
    pub(crate) fn merge(&mut self, merge: Merge) {
        let Merge { at, boot, blob, .. } = merge;
        let process = &self.processes[at];
        if process.boot != boot || process.member.is_none() {
            return;
        }
        if process.paused_until > self.now {
            let until = process.paused_until;
            return self.plan_at(until, Step::Merge(merge));
        }
        let here = merge.run.iter().all(|e| process.disk.has_good(e.blob));
        let good = here && (self.calm || self.rng.chance(95));
        if good {
            self.totals.merged += 1;
            self.history.note(self.now, || format!("{at} has made {blob:?}"));
            self.gets(at, blob, merge.run.iter().map(|e| e.length).sum());
        }
        let hash = good.then_some(Hash([(blob.op.0 >> 96) as u8; 32]));
        self.push(at, Input::Merged { blob, hash });
    }
    pub(crate) fn order(&mut self, at: usize, id: u64, extents: Vec<Extent>, sources: &[NodeId]) {
        let blobs = extents.into_iter().map(|e| e.blob).collect();
        let sources = sources.iter().map(|n| index(*n)).collect();
        let slow = if self.processes[at].slow_disk_until > self.now { 1500 * MS } else { 5 * MS };
        let wait = self.rng.below(slow)
            + match self.rng.below(100) {
                0..=4 if !self.calm => self.rng.range(5, 20) * SECOND,
                _ => self.rng.range(1, 60) * MS,
            };
        let boot = self.processes[at].boot;
        self.history.note(self.now, || format!("{at} fetches {id}, {blobs:?} from {sources:?}"));
        self.plan(wait, Step::Fetch(Fetch { at, boot, id, blobs, sources }));
    }
    pub(crate) fn fetch(&mut self, fetch: Fetch) {
        let Fetch { at, boot, id, .. } = fetch;
        let process = &self.processes[at];
        if process.boot != boot || process.member.is_none() {
            return;
        }
        if process.paused_until > self.now {
            return self.plan_at(process.paused_until, Step::Fetch(fetch));
        }
        let mut good = self.calm || self.rng.chance(95);
        for blob in fetch.blobs {
            let there = |n: &usize| {
                let source = &self.processes[*n];
                source.runs(self.now) && self.net.joined(at, *n) && source.disk.has_blob(blob)
            };
            let sources: Vec<usize> = fetch.sources.iter().copied().filter(there).collect();
            let from = sources.iter().copied().find(|n| self.processes[*n].disk.has_good(blob)).filter(|_| good);
            // Those that come before it sent other bytes than were stored, and are told.
            for source in sources.into_iter().take_while(|n| Some(*n) != from) {
                if self.processes[source].disk.bad.contains(&blob) && self.rng.chance(70) {
                    self.condemn(source, blob);
                }
            }
            good &= from.is_some();
            let Some(size) = from.and_then(|n| self.processes[n].disk.blobs.get(&blob).copied()) else { break };
            self.totals.fetched += 1;
            self.history.note(self.now, || format!("{at} has a copy of {blob:?}"));
            self.gets(at, blob, size);
        }
        if !good {
            self.history.note(self.now, || format!("{at} could not fetch {id}"));
        }
        self.push(at, Input::Fetched { id, good });
    }
}
