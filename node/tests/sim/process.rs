//! One node: a member with its disk, clocks and inbox. It starts, crashes, pauses, stalls, moves to another address, joins
//! late or is lost for good; the world says when.

use crate::sim::disk::Disk;
use crate::sim::plan::Plan;
use crate::sim::rng::Rng;
use crate::sim::world::{SECOND, Step, Time, World};
use node::cluster::{BlobId, DiskReport, Holding, Input, MS, Member, NodeId, Now, PeerInfo, Position, Rank, Storage};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// Room on every disk, in bytes.
const CAPACITY: u64 = 1 << 40;
/// A write that takes longer than this makes a disk unhealthy.
const STALL: Time = 2 * SECOND;

pub(crate) struct Process {
    pub(crate) info: PeerInfo,
    pub(crate) disk: Disk,
    /// Counts starts. What was planned for an earlier one does not concern this one.
    pub(crate) boot: u32,
    /// None while it is dead.
    pub(crate) member: Option<Member>,
    /// Dead with its machine: its port does not even refuse.
    pub(crate) silent: bool,
    /// No part of the cluster: not yet, or not any more.
    pub(crate) gone: bool,
    /// When its disk was lost, or something on it.
    pub(crate) lost: Option<Time>,
    /// Blobs that its disk lost and has not got again.
    pub(crate) rotten: BTreeSet<BlobId>,
    /// Blobs that ever were on its disk.
    pub(crate) had: BTreeSet<BlobId>,
    /// Will start under another address.
    pub(crate) moves: bool,
    pub(crate) inbox: Vec<Input>,
    woken: bool,
    pub(crate) paused_until: Time,
    pub(crate) slow_disk_until: Time,
    /// When the write under way began.
    writing: Option<Time>,
    /// How far its wall clock is off, in microseconds.
    pub(crate) skew: i64,
    /// How much faster its clocks run than the world's, in parts per million: the wall clock and the monotonic one.
    drift: (i64, i64),
    /// Where its monotonic clock began: anew when its machine starts.
    clock: Time,
}

/// Where a node is reached. The higher the network, the higher its rank.
fn address(network: u8, index: usize, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, network, index as u8 + 1], port))
}

impl Process {
    pub(crate) fn new(index: usize, plan: &Plan, rng: &mut Rng) -> Self {
        let node = id(index);
        let priority = if rng.chance(10) { rng.range(0, 3) as i64 } else { 0 };
        let info = PeerInfo {
            node,
            rank: Rank { priority, address: address(0, index, 2123), node },
            raw: address(0, index, 2124),
            ftp: address(0, index, 21).to_string(),
            name: format!("n{index}"),
            zone: format!("z{}", index % plan.zones),
        };
        Self {
            info,
            disk: Disk::default(),
            boot: 0,
            member: None,
            silent: false,
            gone: index >= plan.nodes,
            lost: None,
            rotten: BTreeSet::new(),
            had: BTreeSet::new(),
            moves: false,
            inbox: vec![],
            woken: false,
            paused_until: 0,
            slow_disk_until: 0,
            writing: None,
            skew: rng.range(0, 2 * plan.skew) as i64 - plan.skew as i64,
            drift: (rng.range(0, 2 * plan.drift) as i64 - plan.drift as i64, rng.range(0, 20_000) as i64 - 10_000),
            clock: rng.range(1, 50) * 3600 * SECOND,
        }
    }
    pub(crate) fn clocks(&self, now: Time) -> Now {
        let drifted = |ppm: i64| now.saturating_add_signed(now as i64 * ppm / 1_000_000);
        let wall = 1_700_000_000 * SECOND + drifted(self.drift.0);
        Now { mono: self.clock + drifted(self.drift.1), wall: wall.saturating_add_signed(self.skew) }
    }
    /// Its next start finds another address, and with it another rank and perhaps another zone.
    fn readdress(&mut self, index: usize, network: u8, zone: u64) {
        self.moves = false;
        self.info.rank.address = address(network, index, 2123);
        self.info.raw = address(network, index, 2124);
        self.info.ftp = address(network, index, 21).to_string();
        self.info.zone = format!("z{zone}");
    }
    pub(crate) fn runs(&self, now: Time) -> bool {
        self.member.is_some() && self.paused_until <= now
    }
}

/// The identity of the `index`-th node.
pub(crate) fn id(index: usize) -> NodeId {
    NodeId((index as u128 + 1) << 96)
}

/// Which node an identity is. Members name no others.
pub(crate) fn index(node: NodeId) -> usize {
    (node.0 >> 96) as usize - 1
}

impl World {
    pub(crate) fn start(&mut self, at: usize) {
        if self.processes[at].member.is_some() || self.processes[at].gone {
            return;
        }
        self.disturb(0);
        let seed = self.rng.next();
        let now = self.now;
        let p = &mut self.processes[at];
        if p.moves {
            p.readdress(at, self.rng.below(256) as u8, self.rng.below(self.plan.zones as u64));
        }
        self.history.note(now, || format!("START {at} as {:?}", p.info.rank));
        p.boot += 1;
        if p.silent {
            p.clock = self.rng.range(1, 50) * 3600 * SECOND;
        }
        (p.silent, p.woken, p.writing, p.paused_until) = (false, false, None, 0);
        p.inbox.clear();
        let (restored, clocks) = (p.disk.restored(p.info.node), p.clocks(now));
        let config = self.plan.config.clone();
        p.member = Some(Member::new(clocks, config, p.info.clone(), restored, &p.disk, seed));
        let boot = p.boot;
        self.plan(1, Step::Tick { at, boot });
        self.plan(10 * MS, Step::Report { at, boot });
        for peer in (0..self.processes.len()).filter(|p| *p != at) {
            let wait = self.rng.range(1, 50) * MS;
            self.plan(wait, Step::Dial { at, boot, peer });
        }
    }
    /// The process dies, with its machine or without; `back` later it starts again.
    pub(crate) fn crash(&mut self, at: usize, power: bool, back: Time) -> Result<(), String> {
        if self.processes[at].member.is_none() {
            return Ok(());
        }
        self.history.note(self.now, || format!("CRASH {at}{}", if power { " with its machine" } else { "" }));
        self.disturb(0);
        let p = &mut self.processes[at];
        (p.member, p.silent) = (None, power);
        p.disk.crash(power, &mut self.rng)?;
        self.truth.crashed(self.now, at);
        self.hang_up(at, power);
        self.orphan(at);
        self.plan(back, Step::Start { at });
        Ok(())
    }
    /// The operator stops the process: it says that it leaves, ends within seconds, and is started again. Where faults are over
    /// before that, it goes on for ever as one that leaves.
    pub(crate) fn leave(&mut self, at: usize, span: Time) {
        self.history.note(self.now, || format!("LEAVE {at}, to end in {} ms", span.min(4 * SECOND) / MS));
        self.push(at, Input::Leave);
        self.plan(span.min(4 * SECOND), Step::Stop(at, self.processes[at].boot));
    }
    /// A node that was not there joins with nothing; false when there is none left.
    pub(crate) fn join(&mut self, wait: Time) -> bool {
        let Some(spare) = (0..self.processes.len()).find(|n| self.processes[*n].gone && self.processes[*n].boot == 0)
        else {
            return false;
        };
        self.history.note(self.now, || format!("JOIN {spare} in {} ms", wait / MS));
        self.processes[spare].gone = false;
        self.plan(wait, Step::Start { at: spare });
        true
    }
    /// Whether a disk may be lost: each of its blobs that anybody's heads need, or a record that is not everywhere applied, is
    /// on others, on `least` of them.
    pub(crate) fn spare(&self, at: usize, blobs: impl Iterator<Item = BlobId>, least: usize) -> bool {
        let living = || self.living().into_iter().map(|n| &self.processes[n].disk);
        let others = || self.living().into_iter().filter(|n| *n != at).map(|n| &self.processes[n].disk);
        let unapplied = |p: Position| living().any(|disk| !disk.shown.state.applied.has(p));
        let needed = |blob: &BlobId| {
            living().any(|disk| !disk.referrers(*blob).is_empty()) || self.truth.logged_with(*blob).any(&unapplied)
        };
        let mut needed = blobs.filter(needed);
        needed.all(|blob| others().filter(|disk| disk.has_good(blob)).count() >= least)
    }
    /// Some blob is not on a disk any more when its process comes back from the dead; or its bytes change while that runs.
    pub(crate) fn rot(&mut self, at: usize, span: Time, rng: &mut Rng) -> Result<(), String> {
        // What is only staged is its front's to keep safe.
        let kept = self.processes[at].disk.held(Holding::Node(id(at)), None, usize::MAX);
        let kept = kept.into_iter().filter(|b| self.processes[at].disk.has_blob(*b));
        let spare: Vec<BlobId> = kept.filter(|b| self.spare(at, [*b].into_iter(), 2)).collect();
        if !spare.is_empty() && rng.chance(60) {
            for blob in (0..rng.range(1, 4)).map(|_| rng.pick(&spare)) {
                self.history.note(self.now, || format!("ROT {at} has other bytes for {blob:?}"));
                self.processes[at].disk.bad.insert(blob);
            }
            return Ok(());
        }
        self.crash(at, false, span)?;
        if !spare.is_empty() {
            let blob = rng.pick(&spare);
            self.history.note(self.now, || format!("ROT {at} lost {blob:?}"));
            self.processes[at].disk.take(blob);
            self.processes[at].rotten.insert(blob);
            self.processes[at].lost = Some(self.now);
        }
        Ok(())
    }
    /// A node read its copy again and found it bad.
    pub(crate) fn condemn(&mut self, at: usize, blob: BlobId) {
        self.history.note(self.now, || format!("{at} condemns its copy of {blob:?}"));
        self.totals.condemned += 1;
        self.processes[at].disk.condemned.insert(blob, self.now);
        self.processes[at].lost = Some(self.now);
        self.push(at, Input::Damaged(blob));
    }
    /// A disk is lost for good. What comes in its place is another node.
    pub(crate) fn wipe(&mut self, at: usize) -> Result<(), String> {
        self.history.note(self.now, || format!("WIPE {at}"));
        self.crash(at, true, 0)?;
        let p = &mut self.processes[at];
        (p.gone, p.lost, p.disk) = (true, Some(self.now), Disk::default());
        p.boot += 1; // if it never started, nobody else comes to be this node
        Ok(())
    }
    pub(crate) fn pause(&mut self, at: usize, span: Time) {
        self.history.note(self.now, || format!("PAUSE {at} for {} ms", span / MS));
        self.disturb(span);
        let boot = self.processes[at].boot;
        self.processes[at].paused_until = self.now + span;
        self.plan(span, Step::Wake { at, boot });
    }
    /// Something for a member to handle.
    pub(crate) fn push(&mut self, at: usize, input: Input) {
        let gather = self.rng.below(self.plan.gather);
        let p = &mut self.processes[at];
        if p.member.is_none() {
            return;
        }
        p.inbox.push(input);
        if !p.woken && p.paused_until <= self.now {
            p.woken = true;
            let boot = p.boot;
            self.plan(gather, Step::Wake { at, boot });
        }
    }
    /// A blob comes to be on its disk.
    pub(crate) fn gets(&mut self, at: usize, blob: BlobId, size: u64) {
        let p = &mut self.processes[at];
        p.disk.put(blob, size);
        p.rotten.remove(&blob);
        p.had.insert(blob);
        self.push(at, Input::BlobStaged(blob));
    }
    /// One round of a member: everything queued, then what it wants done.
    pub(crate) fn wake(&mut self, at: usize) -> Result<(), crate::sim::check::Broken> {
        let now = self.now;
        let p = &mut self.processes[at];
        p.woken = false;
        if !p.runs(now) {
            return Ok(());
        }
        let clocks = p.clocks(now);
        let inputs = std::mem::take(&mut p.inbox);
        let Some(member) = &mut p.member else { return Ok(()) };
        self.handled += inputs.len() as u64;
        for input in inputs {
            member.handle(clocks, input, &p.disk);
        }
        member.settle(clocks, &p.disk);
        let batch = member.take_batch();
        let outputs = member.take_outputs();
        let changes = batch.as_ref().map(|b| b.mutations.clone()).unwrap_or_default();
        if let Some(batch) = batch {
            self.truth.records(&batch)?;
            self.processes[at].disk.submit(batch)?;
        }
        self.truth.round(now, at, &outputs, &changes, &self.processes)?;
        self.write(at);
        self.carry_out(at, outputs)
    }
    /// The store takes everything handed over as one group.
    fn write(&mut self, at: usize) {
        let now = self.now;
        let p = &mut self.processes[at];
        if p.writing.is_some() || p.disk.unwritten() == 0 {
            return;
        }
        p.writing = Some(now);
        let slow = p.slow_disk_until > now;
        let (boot, batch) = (p.boot, p.disk.submitted());
        let scale = self.plan.disk_scale;
        let takes = match self.rng.below(100) {
            // Longer than the node stays healthy with.
            0..=9 if slow => self.rng.range(2500, 5000) * MS,
            _ if slow => self.rng.range(200, 2600) * MS,
            0..=89 => self.rng.range(200, 2500) * scale,
            90..=97 => self.rng.range(4, 30) * MS,
            _ => self.rng.range(30, 150) * MS,
        };
        self.plan(takes, Step::Written { at, boot, batch });
    }
    pub(crate) fn written(&mut self, at: usize, batch: u64) -> Result<(), String> {
        let p = &mut self.processes[at];
        p.disk.written(batch)?;
        p.writing = None;
        self.push(at, Input::Persisted { batch });
        self.write(at);
        Ok(())
    }
    /// The store's report on itself, the raw port's on the fronts whose blobs it keeps, and the scrubber's on bad copies.
    pub(crate) fn report(&mut self, at: usize) {
        let p = &self.processes[at];
        let healthy = p.writing.is_none_or(|since| self.now - since < STALL);
        let used = p.disk.used();
        let report = DiskReport { used, free: CAPACITY - used, healthy };
        let boot = p.boot;
        self.push(at, Input::Disk(report));
        for blob in self.kept_blobs(at) {
            self.push(at, Input::BlobKept(blob));
        }
        let chance = if self.calm { 100 } else { 8 };
        for blob in self.processes[at].disk.unknown_bad() {
            if self.processes[at].runs(self.now) && self.rng.chance(chance) {
                self.condemn(at, blob);
            }
        }
        self.plan(SECOND, Step::Report { at, boot });
    }
}
