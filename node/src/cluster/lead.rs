//! Leading: the lease, the stream of records to all members, and the commit. A record is committed when its whole durability
//! set has fsynced it, in order of position, so that one number says what is committed.

use super::collect::COLLECT_AT_MOST;
use super::compact::Compaction;
use super::config::Config;
use super::frame;
use super::info::{Info, RoleName};
use super::io::Event;
use super::locks::LockTable;
use super::marks::Marks;
use super::member::{Cx, Member, Role};
use super::message::Message;
use super::placement::Dealt;
use super::recent::Recent;
use super::record::{Body, Record};
use super::repair::Repair;
use super::types::{Epoch, Hlc, MS, Micros, NodeId, OpId, Position};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// A member whose watermark stands still for this long while more was sent gets it again.
const RESEND: Micros = 500 * MS;
/// The same while the answer to a full frame is awaited, which may take long to arrive.
const RESEND_FULL: Micros = 10_000 * MS;

/// The leader's state of one epoch.
#[derive(Debug)]
pub(super) struct Lead {
    pub(super) members: Vec<NodeId>,
    pub(super) since: Micros,
    /// When a member last said that it had taken in a full frame.
    moved: Micros,
    /// The first record is committed.
    pub(super) serving: bool,
    /// Resigning in favour of this node, at the latest then.
    pub(super) stopping: Option<(NodeId, Micros)>,
    pub(super) committed: u64,
    pub(super) locks: LockTable,
    /// Who waits for which record.
    pub(super) waiters: BTreeMap<u64, Vec<(NodeId, OpId)>>,
    /// Rounds of reads that came while a merge record was on its way, and which: answered once it is committed.
    pub(super) readers: BTreeMap<NodeId, (u64, u64)>,
    /// When we sent the newest heartbeat that a member echoed naming this epoch.
    lease: BTreeMap<NodeId, Micros>,
    /// What each member was sent.
    sent: BTreeMap<NodeId, Sent>,
    /// How many of our records each member has on its disk.
    durable: BTreeMap<NodeId, u64>,
    received: BTreeMap<NodeId, u64>,
    /// Our records that are not committed.
    in_flight: VecDeque<Arc<Record>>,
    recent: Recent,
    pub(super) dealt: Dealt,
    pub(super) repair: Repair,
    pub(super) compaction: Compaction,
}

#[derive(Debug)]
struct Sent {
    marks: Marks,
    /// What the member had when we last looked, and since when it has not moved.
    had: u64,
    since: Micros,
    /// A full frame is on its way: the next one waits for its acknowledgement.
    full: bool,
}

impl Lead {
    pub(super) fn new(epoch: Epoch, members: Vec<NodeId>, now: Micros, config: &Config) -> Self {
        Self {
            members,
            since: now,
            moved: now,
            serving: false,
            stopping: None,
            committed: 0,
            locks: LockTable::new(epoch, config),
            waiters: BTreeMap::new(),
            readers: BTreeMap::new(),
            lease: BTreeMap::new(),
            sent: BTreeMap::new(),
            durable: BTreeMap::new(),
            received: BTreeMap::new(),
            in_flight: VecDeque::new(),
            recent: Recent::default(),
            dealt: Dealt::default(),
            repair: Repair::default(),
            compaction: Compaction::default(),
        }
    }
}

impl Lead {
    /// The last merge record on its way. This index shows what it merges, and refusals speak of it; the members' do not yet.
    pub(super) fn merging(&self) -> Option<u64> {
        self.in_flight.iter().rev().find(|r| r.cover().is_some()).map(|r| r.position.seq)
    }
}

impl Member {
    /// All members echoed a heartbeat of this epoch that we sent not long ago.
    pub(super) fn lease_ok(&self, cx: Cx<'_>) -> bool {
        let Role::Lead(lead) = &self.role else { return false };
        #[cfg(feature = "planted-bugs")]
        if self.config.planted == super::planted::Planted::StaleReads {
            return true;
        }
        let fresh = |m: &NodeId| cx.mono() - lead.lease.get(m).copied().unwrap_or(0).min(cx.mono()) <= self.lease();
        lead.members.iter().all(|m| *m == self.me.node || fresh(m))
    }

    /// Serving, with a lease, and not about to stop.
    pub(super) fn serves(&self) -> bool {
        matches!(&self.role, Role::Lead(l) if l.serving && l.stopping.is_none())
    }

    pub(super) fn tick_lead(&mut self, cx: Cx<'_>) {
        let now = cx.mono();
        if !self.could_lead() {
            return self.step_down(cx);
        }
        let Role::Lead(lead) = &self.role else { return };
        if let Some((successor, until)) = lead.stopping
            && (lead.in_flight.is_empty() || now >= until)
        {
            return self.resign(cx, successor);
        }
        if !lead.serving {
            // Whoever takes in what it lacked is waited for, as long as a winner waits for what others have.
            if now - lead.moved > self.config.collect || now - lead.since > COLLECT_AT_MOST {
                self.collect(cx);
            }
            return;
        }
        if self.is_cut_off(now) {
            return self.step_down(cx);
        }
        self.expire_locks(cx);
        if now >= self.calm_until && self.members_changed(now) {
            return self.collect(cx);
        }
        // A lower leader linked both ways hands over to us.
        let lower = self.peers.all_linked(now).filter(|(_, p, said)| {
            said.role == RoleName::Lead && p.precedence() < self.precedence() && now - p.asked.min(now) > 500 * MS
        });
        for leader in lower.map(|(id, ..)| id).collect::<Vec<_>>() {
            self.ask(cx, leader);
        }
    }

    /// A member is lost, sworn to somebody else or without a working disk, or a linked node wants to join.
    fn members_changed(&self, now: Micros) -> bool {
        let Role::Lead(lead) = &self.role else { return false };
        let mut members = lead.members.iter().filter(|m| **m != self.me.node);
        let gone = |m: &NodeId| {
            let useless = |i: &Info| (i.promised > self.log.state.promised && !i.held) || !i.disk.healthy;
            !self.peers.linked(*m, now) || self.peers.said(*m).is_some_and(useless)
        };
        members.any(gone)
            || self.peers.all_linked(now).any(|(id, _, said)| !lead.members.contains(&id) && self.is_joiner(said))
    }

    /// What a heartbeat says to a leader.
    pub(super) fn lead_heartbeat(&mut self, from: NodeId, info: &Info, echo: Micros) {
        let (me, promised) = (self.me.node, self.log.state.promised);
        let Role::Lead(lead) = &mut self.role else { return };
        lead.dealt.reported(from, info.disk.used);
        if !lead.members.contains(&from) {
            return;
        }
        if info.leader == Some((me, promised)) {
            let at = lead.lease.entry(from).or_insert(0);
            *at = (*at).max(echo);
        } else if info.promised == promised && lead.serving && info.role == RoleName::Follow && info.leader.is_none() {
            // It restarted, or missed it.
            let members = lead.members.clone();
            self.send(from, Message::Coordinator { epoch: promised, members });
        }
    }

    /// Logs a record of our own epoch; the next `settle` streams it while our disk is still at it.
    pub(super) fn append(&mut self, cx: Cx<'_>, body: Body) -> Position {
        let hlc = self.log.next_hlc(cx.now.wall, Hlc(0));
        self.append_stamped(cx, vec![body], hlc)
    }

    /// Logs all records of one operation together, with one clock and one durability set; where the last of them is.
    pub(super) fn append_stamped(&mut self, cx: Cx<'_>, bodies: Vec<Body>, hlc: Hlc) -> Position {
        let epoch = self.log.state.promised;
        let mut position = Position { epoch, seq: self.log.state.logged.count(epoch) };
        let durability = bodies.first().map(|body| self.durability_set(cx, body)).unwrap_or_default();
        for (seq, body) in (position.seq..).zip(bodies) {
            position = Position { epoch, seq };
            let record = Arc::new(Record { position, hlc, durability: durability.clone(), body });
            let fits = self.log.add(&record);
            debug_assert!(fits, "a leader's own record follows its last");
            if let Role::Lead(lead) = &mut self.role {
                lead.in_flight.push_back(record.clone());
                lead.recent.push(record);
            }
        }
        self.log.pending.need_durable();
        position
    }

    /// The leader, all replicas of the bytes, and who lacks least up to min(3, members).
    fn durability_set(&self, cx: Cx<'_>, body: &Body) -> Vec<NodeId> {
        let Role::Lead(lead) = &self.role else { return vec![self.me.node] };
        #[cfg(feature = "planted-bugs")]
        if self.config.planted == super::planted::Planted::LeaderAloneCommits {
            return vec![self.me.node];
        }
        let mut set = BTreeSet::from([self.me.node]);
        if let Body::Write(write) = body {
            set.extend(write.replicas());
        }
        let lag = |m: &NodeId| self.peers.said(*m).map_or(u64::MAX, |i| i.marks.lacks(&self.log.state.logged));
        let mut others: Vec<NodeId> = lead.members.iter().copied().filter(|m| *m != self.me.node).collect();
        others.sort_by_key(|m| (!self.peers.linked(*m, cx.mono()), lag(m) / 64, *m));
        for other in others {
            if set.len() < lead.members.len().min(3) {
                set.insert(other);
            }
        }
        set.into_iter().collect()
    }

    /// Sends every member what it lacks, one frame at a time.
    pub(super) fn stream(&mut self, cx: Cx<'_>) {
        let (now, epoch) = (cx.mono(), self.log.state.promised);
        let Role::Lead(lead) = &mut self.role else { return };
        let logged = &self.log.state.logged;
        let (own, limit) = (logged.count(epoch), self.config.records_per_frame);
        let mut mail = vec![];
        for member in lead.members.iter().filter(|m| **m != self.me.node) {
            let Some(said) = self.peers.said(*member) else { continue };
            let has = said.marks.count(epoch).max(lead.received.get(member).copied().unwrap_or(0));
            let fresh = || Sent { marks: said.marks.clone(), had: has, since: now, full: false };
            let sent = lead.sent.entry(*member).or_insert_with(fresh);
            let total = |marks: &Marks| marks.iter().map(|(_, n)| n).fold(0, u64::saturating_add);
            let has = total(&said.marks).saturating_add(has);
            let arrived = said.marks.covers(&sent.marks);
            if has != sent.had || arrived {
                (sent.had, sent.since) = (has, now);
                sent.full &= !arrived; // the acknowledgement of a full frame was lost
            } else if now - sent.since > if sent.full { RESEND_FULL } else { RESEND } {
                *sent = Sent { had: has, ..fresh() };
            }
            // It may have got an index from somebody else.
            sent.marks.join(&said.marks);
            let behind = !sent.marks.covers(logged) && !sent.full;
            if !behind || !sent.marks.covers(&self.log.state.truncated) {
                continue;
            }
            let from = sent.marks.count(epoch);
            let recent = lead.recent.from(from).filter(|_| sent.marks.lacks(logged) == own - from);
            let (records, more) = match recent {
                Some(records) => frame::fill(records, limit),
                None => frame::read(self.log.view(cx.storage), &sent.marks, limit),
            };
            sent.full = more;
            for record in &records {
                sent.marks.raise(record.epoch(), record.position.seq + 1);
            }
            mail.push((*member, Message::Append { epoch, records, committed: lead.committed, more }));
        }
        for (member, message) in mail {
            self.send(member, message);
        }
    }

    /// The link to a member broke: what was sent may be lost.
    pub(super) fn forget_sent(&mut self, node: NodeId) {
        if let Role::Lead(lead) = &mut self.role {
            lead.sent.remove(&node);
        }
    }

    pub(super) fn on_append(
        &mut self,
        cx: Cx<'_>,
        from: NodeId,
        epoch: Epoch,
        records: &[Arc<Record>],
        committed: u64,
    ) {
        let ours = self.candidate == Some(from) || self.leader == Some((from, epoch));
        let bound = matches!(self.role, Role::Lead(_) | Role::Collect(_));
        #[cfg(feature = "planted-bugs")]
        let lax = self.config.planted == super::planted::Planted::NoPromise;
        #[cfg(not(feature = "planted-bugs"))]
        let lax = false;
        if (epoch != self.log.state.promised && !lax) || (bound && !ours) {
            return;
        }
        let me = self.me.node;
        self.take_records(cx, records, &Marks::of(epoch, committed));
        if records.iter().any(|r| r.durability.contains(&me)) {
            // Somebody waits for our fsync; the others get theirs with the next batch that needs one.
            self.log.pending.need_durable();
        }
        if lax && epoch != self.log.state.promised {
            let received = self.log.state.logged.count(epoch);
            self.send_durable(from, Message::Ack { epoch, received, durable: received, took: false });
        }
    }

    pub(super) fn on_ack(
        &mut self,
        cx: Cx<'_>,
        from: NodeId,
        epoch: Epoch,
        (received, durable): (u64, u64),
        took: bool,
    ) {
        let now = cx.mono();
        if epoch != self.log.state.promised {
            return;
        }
        if let Role::Lead(lead) = &mut self.role {
            let mark = lead.durable.entry(from).or_insert(0);
            *mark = (*mark).max(durable);
            let mark = lead.received.entry(from).or_insert(0);
            *mark = (*mark).max(received);
            if let Some(sent) = lead.sent.get_mut(&from).filter(|_| took)
                && std::mem::take(&mut sent.full)
            {
                sent.since = now; // it takes them in, whatever its log says: parts of a rename wait for the last
                lead.moved = now;
            }
        }
    }

    /// Commits what the durability sets have on their disks.
    pub(super) fn advance(&mut self, cx: Cx<'_>) {
        let lease = self.lease_ok(cx);
        let (me, epoch) = (self.me.node, self.log.state.promised);
        let own = self.own_durable();
        let Role::Lead(lead) = &mut self.role else { return };
        let before = lead.committed;
        let mut answers = vec![];
        while let Some(record) = lead.in_flight.front() {
            let seq = record.position.seq;
            let durable = |m: &NodeId| if *m == me { own } else { lead.durable.get(m).copied().unwrap_or(0) };
            let allowed = seq == 0 || (lease && lead.serving);
            if !allowed || !record.durability.iter().all(|m| durable(m) > seq) {
                break;
            }
            let outcome = record.outcome();
            answers.extend(lead.waiters.remove(&seq).unwrap_or_default().into_iter().map(|w| (w, outcome)));
            if let Some(write) = record.write() {
                lead.locks.release(write.op);
            }
            lead.committed += 1;
            lead.in_flight.pop_front();
        }
        let committed = lead.committed;
        if committed == before {
            return;
        }
        let starts = !lead.serving;
        lead.serving = true;
        let members = lead.members.clone();
        self.learn_committed(cx, epoch, committed);
        self.event(Event::Committed { epoch, count: committed });
        if starts {
            self.start_serving(cx, epoch, members);
        }
        for ((front, op), outcome) in answers {
            self.send(front, Message::Done { op, outcome });
        }
        self.answer_readers(cx);
        self.grant_locks(cx);
    }

    /// How many of our own records are on our own disk.
    fn own_durable(&self) -> u64 {
        #[cfg(feature = "planted-bugs")]
        if self.config.planted == super::planted::Planted::AckBeforePersist {
            return self.log.state.logged.count(self.log.state.promised);
        }
        self.durable
    }

    fn start_serving(&mut self, cx: Cx<'_>, epoch: Epoch, members: Vec<NodeId>) {
        let me = self.me.node;
        self.event(Event::Serving { epoch });
        self.event(Event::Follows { leader: me, epoch });
        self.leader = Some((me, epoch));
        for member in members.iter().filter(|m| **m != me) {
            self.send(*member, Message::Coordinator { epoch, members: members.clone() });
        }
        self.last_heartbeat = 0; // the next tick says so
        self.fronts_see_leader(cx);
        self.reads.ask_again();
    }
}
