//! How a session stages bytes: streams to every replica in parallel, confirmations, replicas that fail on the way and those
//! that take their place. Never content: an operation's bytes are its id.

use crate::sim::process::{id, index};
use crate::sim::world::{self, SECOND, Time, World};
use node::cluster::{BlobId, Extent, Hash, Input, MS, NodeId, OpId, Staged};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// The last byte reaches a replica that was at this start when the stream began.
    Arrives {
        op: OpId,
        round: u32,
        target: usize,
        boot: u32,
    },
    /// The replica's word, that it is durable or that it failed, reaches the front.
    Heard {
        op: OpId,
        round: u32,
        target: usize,
        good: bool,
    },
    Progress {
        op: OpId,
    },
    Cancel {
        op: OpId,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// Under way since this round.
    Streaming(u32),
    Confirmed,
    Lost,
}

#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) blob: BlobId,
    size: u64,
    targets: BTreeMap<usize, Target>,
    /// Whoever ever confirmed.
    have: BTreeSet<usize>,
    round: u32,
    /// Replicas were reported lost, and the plan for them is not here yet.
    awaits: bool,
    /// Reports a lost replica at once, not at the end of the stream.
    eager: bool,
    /// Can send the bytes again.
    rereads: bool,
    moved: u64,
}

impl Upload {
    pub(crate) fn concerns(&self, target: usize) -> bool {
        self.targets.contains_key(&target) || self.have.contains(&target)
    }
    fn nodes(&self, which: impl Fn(Target) -> bool) -> Vec<NodeId> {
        self.targets.iter().filter(|(_, t)| which(**t)).map(|(n, _)| id(*n)).collect()
    }
    fn streams(&self) -> bool {
        self.targets.values().any(|t| matches!(t, Target::Streaming(_)))
    }
}

impl World {
    pub(crate) fn stage(&mut self, op: OpId, blob: BlobId, replicas: &[NodeId]) {
        let size = self.rng.pick(&[0, 700, 64 * 1024, 3 << 20]);
        let upload = Upload {
            blob,
            size,
            targets: BTreeMap::new(),
            have: BTreeSet::new(),
            round: 0,
            awaits: false,
            eager: self.rng.chance(30),
            rereads: self.rng.chance(70),
            moved: 0,
        };
        let takes = match self.rng.below(100) {
            _ if self.calm => self.rng.range(1, 30) * MS,
            0 => 25 * SECOND, // and says nothing meanwhile
            1..=4 => {
                self.plan(300 * MS, world::Step::Upload(Step::Progress { op }));
                self.rng.range(1, 14) * SECOND
            }
            _ => self.rng.range(1, 30) * MS,
        };
        if let Some(session) = self.sessions.get_mut(&op) {
            session.upload = Some(upload);
            self.stream(op, &replicas.iter().map(|r| index(*r)).collect::<Vec<_>>(), takes);
        }
    }
    fn stream(&mut self, op: OpId, to: &[usize], takes: Time) {
        let Some(upload) = self.sessions.get_mut(&op).and_then(|s| s.upload.as_mut()) else { return };
        upload.round += 1;
        let round = upload.round;
        for target in to {
            upload.targets.insert(*target, Target::Streaming(round));
        }
        for target in to {
            let target = *target;
            let boot = self.processes[target].boot;
            let slow = if self.processes[target].slow_disk_until > self.now { 1500 * MS } else { 5 * MS };
            let wait = takes + self.rng.below(slow);
            self.plan(wait, world::Step::Upload(Step::Arrives { op, round, target, boot }));
        }
    }
    pub(crate) fn upload(&mut self, step: Step) {
        match step {
            Step::Arrives { op, round, target, boot } => self.arrives(op, round, target, boot),
            Step::Heard { op, round, target, good } => self.heard(op, round, target, good),
            Step::Progress { op } => {
                let Some(session) = self.sessions.get_mut(&op) else { return };
                let (at, Some(upload)) = (session.at, session.upload.as_mut()) else { return };
                if upload.streams() {
                    upload.moved += 64 * 1024;
                    let bytes = upload.moved;
                    self.push(at, Input::Progress { op, bytes });
                    self.plan(300 * MS, world::Step::Upload(Step::Progress { op }));
                }
            }
            Step::Cancel { op } => self.cancel(op),
        }
    }
    fn cancel(&mut self, op: OpId) {
        if let Some(session) = self.sessions.get(&op) {
            let at = session.at;
            self.history.note(self.now, || format!("{at} <- op {op:?} cancelled"));
            self.truth.cancelled(op);
            self.push(at, Input::Cancel { op });
            self.close(op);
        }
    }
    fn arrives(&mut self, op: OpId, round: u32, target: usize, boot: u32) {
        let Some(session) = self.sessions.get(&op) else { return };
        let (front, Some(upload)) = (session.at, session.upload.as_ref()) else { return };
        let (blob, size) = (upload.blob, upload.size);
        let process = &self.processes[target];
        let lives = process.boot == boot && process.member.is_some();
        if self.net.cut(front, target) {
            let wait = self.rng.range(500, 2500) * MS;
            return self.plan(wait, world::Step::Upload(Step::Heard { op, round, target, good: false }));
        }
        if lives && process.paused_until > self.now && self.rng.chance(60) {
            let until = process.paused_until;
            return self.plan_at(until, world::Step::Upload(Step::Arrives { op, round, target, boot }));
        }
        let good = lives && process.paused_until <= self.now;
        if good {
            self.processes[target].disk.put(blob, size);
            self.processes[target].rotten.remove(&blob);
            self.history.note(self.now, || format!("{target} has the bytes of {blob:?}"));
            self.push(target, Input::BlobStaged(blob));
        }
        // The bytes came, the word about them does not.
        let heard = !self.net.cut(target, front);
        let silent = (!good && (process_silent(self, target) || lives)) || !heard;
        let good = good && heard;
        let wait = if silent { self.rng.range(500, 2500) * MS } else { self.rng.range(200, 3000) };
        self.plan(wait, world::Step::Upload(Step::Heard { op, round, target, good }));
    }
    fn heard(&mut self, op: OpId, round: u32, target: usize, good: bool) {
        let Some(session) = self.sessions.get_mut(&op) else { return };
        let front = session.at;
        let until = self.processes[front].paused_until;
        if until > self.now {
            return self.plan_at(until, world::Step::Upload(Step::Heard { op, round, target, good }));
        }
        let Some(upload) = session.upload.as_mut() else { return };
        if good {
            upload.have.insert(target);
        }
        if upload.targets.get(&target) == Some(&Target::Streaming(round)) {
            upload.targets.insert(target, if good { Target::Confirmed } else { Target::Lost });
            self.advance(op);
        }
    }
    /// Reports what is lost, or that all is staged.
    fn advance(&mut self, op: OpId) {
        let Some(session) = self.sessions.get_mut(&op) else { return };
        let (at, Some(upload)) = (session.at, session.upload.as_mut()) else { return };
        let lost = upload.nodes(|t| t == Target::Lost);
        if upload.streams() && (lost.is_empty() || !upload.eager) {
            return;
        }
        if !lost.is_empty() {
            let kept = upload.nodes(|t| t != Target::Lost);
            upload.targets.retain(|_, t| *t != Target::Lost);
            upload.awaits = true;
            self.history.note(self.now, || format!("{at} <- op {op:?} lost {lost:?}, kept {kept:?}"));
            return self.push(at, Input::ReplicaLost { op, kept, lost });
        }
        if !upload.awaits {
            let hash = Hash([(op.0 >> 96) as u8; 32]);
            let extent = Extent { blob: upload.blob, offset: 0, length: upload.size, hash };
            let confirmed = upload.nodes(|t| t == Target::Confirmed);
            self.history.note(self.now, || format!("{at} <- op {op:?} staged on {confirmed:?}"));
            self.push(at, Input::Staged { op, staged: Staged { extent, confirmed } });
        }
    }
    pub(crate) fn replace(&mut self, op: OpId, kept: &[NodeId], nodes: &[NodeId]) {
        self.totals.replacements += 1;
        let Some(upload) = self.sessions.get_mut(&op).and_then(|s| s.upload.as_mut()) else { return };
        upload.awaits = false;
        let before = std::mem::take(&mut upload.targets);
        let mut fresh: Vec<usize> = nodes.iter().map(|n| index(*n)).collect();
        for node in kept.iter().map(|n| index(*n)) {
            match before.get(&node) {
                _ if upload.have.contains(&node) => drop(upload.targets.insert(node, Target::Confirmed)),
                Some(Target::Streaming(round)) => drop(upload.targets.insert(node, Target::Streaming(*round))),
                _ => fresh.push(node),
            }
        }
        if upload.targets.is_empty() && (fresh.is_empty() || !upload.rereads) {
            return self.cancel(op); // nothing to copy from
        }
        let takes = self.rng.range(1, 40) * MS;
        self.stream(op, &fresh, takes);
        self.advance(op);
    }
}

/// Whether nobody would say that the process is gone.
fn process_silent(world: &World, target: usize) -> bool {
    world.processes[target].silent
}
