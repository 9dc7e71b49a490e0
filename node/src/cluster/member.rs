//! One node's part in the cluster protocol: takes inputs, keeps the state, hands out what is to be done. The parts are in
//! `election`, `collect`, `lead`, `grant`, `front`, `read` and `collector`; `../../../ARCHITECTURE.md` tells their story.

use super::aging::AgingSeen;
use super::collector::Collector;
use super::config::Config;
use super::front::Front;
use super::info::{DiskReport, RoleName};
use super::io::{Event, Input, Output};
use super::lead::Lead;
use super::log::Log;
use super::message::{HeldLock, Message};
use super::peers::Peers;
use super::presence::Presence;
use super::read::{LOCAL_AFTER, Reads};
use super::storage::{Batch, Restored, Storage};
use super::transfer::Transfer;
use super::types::{Epoch, MS, Micros, NodeId, Now, OpId, PeerInfo};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How often a leader that is its own front answers itself within one `settle`: lock, plan, commit take three rounds.
const OWN_ROUNDS: usize = 16;

/// Both clocks and the disk, as they are while one input is handled.
#[derive(Clone, Copy)]
pub(super) struct Cx<'a> {
    pub(super) now: Now,
    pub(super) storage: &'a dyn Storage,
}

impl Cx<'_> {
    pub(super) fn mono(&self) -> Micros {
        self.now.mono
    }
}

/// What a member is doing.
#[derive(Debug)]
pub(super) enum Role {
    Follow,
    Elect { since: Micros, answered: bool },
    Collect(Box<Collect>),
    Lead(Box<Lead>),
}

/// A winner that asks for promises.
#[derive(Debug)]
pub(super) struct Collect {
    /// Who has not answered yet.
    pub(super) asked: BTreeSet<NodeId>,
    /// Who promised, and what each has.
    pub(super) promised: BTreeMap<NodeId, super::Marks>,
    pub(super) until: Micros,
    /// However much there is to pull, not longer than this.
    pub(super) at_most_until: Micros,
    pub(super) locks: Vec<(NodeId, HeldLock)>,
    /// The promise to ourselves is on the disk.
    pub(super) durable_at: u64,
}

/// An output that waits for a batch.
#[derive(Debug)]
struct Kept {
    batch: u64,
    output: Output,
}

/// One node's part in the cluster protocol.
#[derive(Debug)]
pub struct Member {
    pub(super) config: Config,
    pub(super) me: PeerInfo,
    pub(super) rng: ChaCha8Rng,
    pub(super) log: Log,
    pub(super) peers: Peers,
    pub(super) role: Role,
    /// Whom we follow, ourselves included once we serve.
    pub(super) leader: Option<(NodeId, Epoch)>,
    /// To whom we promised, until its Coordinator comes.
    pub(super) candidate: Option<NodeId>,
    /// The lease we gave: until then no other epoch, except for this node.
    pub(super) hold_for: Option<NodeId>,
    pub(super) hold_until: Micros,
    /// No election of our own before.
    pub(super) wait_until: Micros,
    /// No new collect before: epochs change once a second at most.
    pub(super) calm_until: Micros,
    /// The greatest epoch counter seen.
    pub(super) top: u64,
    pub(super) fronts: BTreeMap<OpId, Front>,
    pub(super) reads: Reads,
    pub(super) collector: Collector,
    pub(super) aging: AgingSeen,
    pub(super) transfer: Option<Transfer>,
    pub(super) presence: Presence,
    pub(super) disk: DiskReport,
    /// How far our wall clock is ahead of the others', when that bars us from leading; else 0.
    pub(super) clock_ahead: Micros,
    /// It is about to stop.
    pub(super) leaving: bool,
    /// How many records of the promised epoch were logged up to which batch.
    logged_at: VecDeque<(u64, u64)>,
    /// How many records of the promised epoch are on the disk.
    pub(super) durable: u64,
    /// What we last acknowledged as durable.
    pub(super) acknowledged: u64,
    pub(super) started: Micros,
    /// When it last followed somebody, or led.
    led_at: Micros,
    last_tick: Micros,
    pub(super) last_heartbeat: Micros,
    pub(super) last_sync: Micros,
    kept: VecDeque<Kept>,
    own_mail: Vec<Message>,
    pub(super) out: Vec<Output>,
}

impl Member {
    /// A member as its disk left it. `seed` feeds the jitter and the nonces of its epochs, and must differ between starts.
    pub fn new(now: Now, config: Config, me: PeerInfo, restored: Restored, storage: &dyn Storage, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mono = now.mono;
        let mut log = Log::new(me.node, restored.state, restored.tail, restored.outcomes, mono);
        #[cfg(feature = "planted-bugs")]
        {
            log.planted = config.planted;
            if config.planted == super::planted::Planted::EpochNotPersisted {
                log.state.promised = Epoch::default();
            }
        }
        for path in &restored.unconfirmed {
            log.restore_unconfirmed(path, storage);
        }
        let durable = log.state.logged.count(log.state.promised);
        let wait = 300 * MS + rng.next_u64() % (300 * MS);
        Self {
            peers: Peers::new(restored.met, me.node, mono, config.suspect, config.down),
            collector: Collector::new(restored.unreferenced, mono),
            role: Role::Follow,
            leader: None,
            candidate: None,
            hold_for: None,
            // It may have echoed a heartbeat just before it stopped.
            hold_until: mono + config.suspect,
            wait_until: mono + wait,
            calm_until: 0,
            top: log.state.promised.0,
            fronts: BTreeMap::new(),
            reads: Reads::default(),
            aging: AgingSeen::default(),
            transfer: None,
            presence: Presence::new(restored.astray, mono),
            disk: DiskReport::default(),
            clock_ahead: 0,
            leaving: false,
            logged_at: VecDeque::new(),
            durable,
            acknowledged: 0,
            started: mono,
            led_at: mono,
            last_tick: mono,
            last_heartbeat: 0,
            last_sync: mono,
            kept: VecDeque::new(),
            own_mail: vec![],
            out: vec![],
            config,
            me,
            rng,
            log,
        }
    }

    /// Takes one input. What it wants done is then in [`Self::take_outputs`] and [`Self::take_batch`].
    pub fn handle(&mut self, now: Now, input: Input, storage: &dyn Storage) {
        let cx = Cx { now, storage };
        match input {
            Input::Tick => self.tick(cx),
            Input::LinkUp(info) => self.link_up(cx, info),
            Input::LinkDown(node) => self.forget_sent(node),
            Input::PortRefused(node) => self.peers.port_refused(node),
            Input::Received { from, message } => self.receive(cx, from, message),
            Input::Persisted { batch } => self.persisted(cx, batch),
            Input::Disk(report) => self.disk = report,
            Input::Submit { op, change, patience } => self.submit(cx, op, change, patience),
            Input::Staged { op, staged } => self.front_staged(cx, op, staged),
            Input::Progress { op, bytes } => self.front_progress(op, bytes),
            Input::ReplicaLost { op, kept, lost } => self.front_replica_lost(cx, op, kept, lost),
            Input::Cancel { op } => self.front_cancel(op),
            Input::Read { id } => self.reads.wait(id, cx.mono()),
            Input::BlobStaged(blob) | Input::BlobKept(blob) => self.blob_kept(cx, blob),
            Input::Fetched { id, good } => self.fetch_ended(cx, id, good),
            Input::Merged { blob, hash } => self.merge_ended(cx, blob, hash),
            Input::BlobsDropped(blobs) => self.blobs_dropped(cx, &blobs),
            Input::Leave => self.leave(),
            Input::Damaged(blob) => self.look_after(blob, cx.mono()),
        }
    }

    /// To be called once everything queued was handled: appends, acknowledgements and answers that one round of inputs
    /// caused are gathered here (this is the group commit).
    pub fn settle(&mut self, now: Now, storage: &dyn Storage) {
        let cx = Cx { now, storage };
        self.settle_repair(cx);
        for _ in 0..OWN_ROUNDS {
            self.advance(cx);
            self.tick_reads(cx);
            let mail = std::mem::take(&mut self.own_mail);
            if mail.is_empty() {
                break;
            }
            for message in mail {
                self.dispatch(cx, self.me.node, message);
            }
        }
        self.stream(cx);
        self.note_blobs(cx);
        self.note_forgotten();
    }

    /// What to do now, in order. Call it after [`Self::take_batch`].
    pub fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.out)
    }

    /// What to write, if anything. [`Storage`] must show it from here on, written or not.
    pub fn take_batch(&mut self) -> Option<Batch> {
        let batch = self.log.pending.take(&self.log.state)?;
        let count = self.log.state.logged.count(self.log.state.promised);
        self.logged_at.push_back((batch.number, count));
        Some(batch)
    }

    fn link_up(&mut self, cx: Cx<'_>, info: PeerInfo) {
        if info.node == self.me.node || self.log.state.forgotten.contains(&info.node) {
            return;
        }
        let node = info.node;
        if self.peers.meet(info.clone(), cx.mono()) {
            self.log.pending.met(info);
        }
        self.forget_sent(node);
        self.last_heartbeat = 0; // a new link: both ways at once
    }

    fn persisted(&mut self, cx: Cx<'_>, batch: u64) {
        self.log.pending.persisted(batch);
        let durable = self.log.pending.durable();
        while let Some((_, count)) = self.logged_at.front().copied().filter(|(b, _)| *b <= durable) {
            self.durable = self.durable.max(count);
            self.logged_at.pop_front();
        }
        while let Some(kept) = self.kept.front() {
            if kept.batch > durable {
                break;
            }
            if let Some(kept) = self.kept.pop_front() {
                self.release(kept.output);
            }
        }
        if self.durable > self.acknowledged {
            self.acknowledge(false, false);
        }
        self.collect_step(cx);
    }

    fn tick(&mut self, cx: Cx<'_>) {
        let now = cx.mono();
        let stalled = now - self.last_tick.min(now);
        self.last_tick = now;
        if self.leader.is_some() {
            self.led_at = now;
        }
        if stalled > self.config.suspect {
            // It was deaf, they need not be dumb: it listens before it takes itself for the only one left, and leads.
            self.step_down(cx);
            self.wait_until = now + self.config.suspect;
        } else if stalled > self.lease() && matches!(self.role, Role::Lead(_)) {
            self.collect(cx); // a leader that stalled collects again first
        }
        for (node, liveness) in self.peers.changes(now) {
            self.event(Event::Liveness { node, liveness });
        }
        self.tick_transfer(cx);
        self.watch_leader(cx);
        if self.leader.is_none() {
            self.apply_committed(cx); // what waited for a leader waits no longer
        }
        self.tick_role(cx);
        self.tick_fronts(cx);
        self.exchange(cx);
        if now - self.last_heartbeat >= self.config.heartbeat {
            self.last_heartbeat = now;
            self.beat(cx);
        }
    }

    // ---- words used by all parts ----

    /// A leader serves while the echoes of its members are younger than this: three quarters of `suspect`.
    pub(super) fn lease(&self) -> Micros {
        self.config.suspect / 4 * 3
    }
    pub(super) fn event(&mut self, event: Event) {
        self.out.push(Output::Event(event));
    }
    /// Sends; what we send to ourselves (a leader is a front, too) is taken up by the next `settle`.
    pub(super) fn send(&mut self, to: NodeId, message: Message) {
        if to == self.me.node {
            self.own_mail.push(message);
        } else {
            self.out.push(Output::Send { to, message });
        }
    }
    /// The time of the last tick, for inputs that need no better.
    pub(super) fn last_tick(&self) -> Micros {
        self.last_tick
    }
    /// Done only when all that happened so far is on the disk.
    pub(super) fn when_durable(&mut self, output: Output) {
        let batch = self.log.pending.need_durable();
        if self.kept.is_empty() && batch <= self.log.pending.durable() {
            self.release(output);
        } else {
            self.kept.push_back(Kept { batch, output });
        }
    }
    fn release(&mut self, output: Output) {
        match output {
            Output::Send { to, message } => self.send(to, message),
            output => self.out.push(output),
        }
    }
    pub(super) fn send_durable(&mut self, to: NodeId, message: Message) {
        self.when_durable(Output::Send { to, message });
    }
    /// A random time below `bound`, in microseconds.
    pub(super) fn jitter(&mut self, bound: Micros) -> Micros {
        self.rng.next_u64() % bound.max(1)
    }
    pub(super) fn outranks_us(&self, node: NodeId) -> bool {
        self.peers.all.get(&node).is_some_and(|p| p.precedence() > self.precedence())
    }
    /// Enters an epoch: it is persisted before anything that says so is sent.
    pub(super) fn promise(&mut self, epoch: Epoch) {
        self.log.state.promised = epoch;
        self.log.arriving.clear();
        self.log.pending.touch_state();
        self.log.pending.need_durable();
        let count = self.log.state.logged.count(epoch);
        self.logged_at.clear();
        self.logged_at.push_back((self.log.pending.next_number(), count));
        (self.durable, self.acknowledged) = (0, 0);
        self.top = self.top.max(epoch.0);
    }
    /// Notes how far an epoch is committed, and applies it.
    pub(super) fn learn_committed(&mut self, cx: Cx<'_>, epoch: Epoch, count: u64) {
        self.log.raise_committed(epoch, count, cx.storage);
        self.apply_committed(cx);
    }
    /// Folds what is known to be committed into the index, unless that is being taken over from another. A leader is ahead
    /// of its members by what its merge record on the way to its commit is about to show them.
    pub(super) fn apply_committed(&mut self, cx: Cx<'_>) {
        if self.transfer.is_none() {
            self.log.apply_committed(cx.mono(), self.followed(cx), cx.storage);
        }
    }
    /// Whose merge records say what comes into view here. Without a leader still those of the epoch that was promised, until
    /// reads do without one, too; of an epoch that its leader has left for another none will come.
    fn followed(&self, cx: Cx<'_>) -> Option<Epoch> {
        let promised = self.log.state.promised;
        let follows = match self.leader {
            Some((leader, epoch)) => {
                epoch == promised && self.peers.said(leader).is_none_or(|said| said.promised == epoch)
            }
            None => cx.mono().saturating_sub(self.led_at) < LOCAL_AFTER,
        };
        // What is borrowed shows nothing anyway, and is to be paid back.
        Some(promised).filter(|_| follows && matches!(self.role, Role::Follow) && !self.is_borrowing())
    }
    pub(super) fn role_name(&self) -> (RoleName, u64) {
        match &self.role {
            Role::Follow => (RoleName::Follow, 0),
            Role::Elect { .. } => (RoleName::Elect, 0),
            Role::Collect(_) => (RoleName::Collect, 0),
            Role::Lead(l) if l.serving => (RoleName::Lead, l.committed),
            Role::Lead(_) => (RoleName::Collect, 0),
        }
    }
}
