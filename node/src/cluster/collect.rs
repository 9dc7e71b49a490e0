//! Collect as a promise: the winner gathers every log it can reach, and whoever answers has sworn to refuse every lower
//! epoch. The same first phase as in Paxos (Lamport, 1998), with all acceptors that live instead of a majority.

use super::frame;
use super::info::RoleName;
use super::io::Event;
use super::lead::Lead;
use super::marks::Marks;
use super::member::{Collect, Cx, Member, Role};
use super::message::{HeldLock, Message};
use super::record::{Body, Record};
use super::types::{Epoch, MS, Micros, NodeId};
use rand_chacha::rand_core::RngCore;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// However much there is to pull or to stream before the first commit, that ends.
pub(super) const COLLECT_AT_MOST: Micros = 30_000 * MS;
/// Merge records of others that change nothing, until they are merged all the same.
const UNMERGED: usize = 256;
/// Between two requests for records from one peer.
const PULL_AGAIN: Micros = 500 * MS;

impl Member {
    /// Takes a new epoch and asks every linked peer for its promise and its log.
    pub(super) fn collect(&mut self, cx: Cx<'_>) {
        let now = cx.mono();
        if matches!(self.role, Role::Lead(_)) && self.leader.is_some() {
            self.event(Event::Leaderless);
        }
        let epoch = Epoch(self.top.max(self.log.state.promised.0).saturating_add(1), self.rng.next_u64());
        self.promise(epoch);
        (self.leader, self.candidate, self.hold_for, self.hold_until) = (None, None, None, 0);
        self.calm_until = now + 1000 * MS + self.jitter(500 * MS);
        let able = self.peers.all_linked(now).filter(|(.., said)| said.disk.healthy);
        let asked: BTreeSet<NodeId> = able.map(|(id, ..)| id).collect();
        for peer in &asked {
            self.send_durable(*peer, Message::Collect { epoch, marks: self.log.state.logged.clone() });
        }
        let locks = self.held_locks(self.me.node).into_iter().map(|l| (self.me.node, l)).collect();
        let durable_at = self.log.pending.need_durable();
        let until = now + self.config.collect;
        let at_most_until = now + COLLECT_AT_MOST;
        let promised = BTreeMap::new();
        self.role = Role::Collect(Box::new(Collect { asked, promised, until, at_most_until, locks, durable_at }));
        self.collect_step(cx);
    }

    /// Takes over once everybody answered, or time is up, and all that was promised has been pulled.
    pub(super) fn collect_step(&mut self, cx: Cx<'_>) {
        let now = cx.mono();
        if matches!(self.role, Role::Collect(_)) && !self.could_lead() {
            return self.step_down(cx);
        }
        let Role::Collect(collect) = &mut self.role else { return };
        let peers = &self.peers;
        collect.asked.retain(|p| peers.linked(*p, now));
        let logged = &self.log.state.logged;
        // What is not in a log any more cannot be had by asking for it, nor what is of one who has promised to another since.
        let ours = |said: &super::Info| !said.beyond_log && said.promised <= self.log.state.promised;
        let can_be_had = |p: &NodeId| peers.linked(*p, now) && peers.said(*p).is_some_and(ours);
        let waiting = collect.promised.iter().any(|(p, marks)| can_be_had(p) && !logged.covers(marks));
        let answered = collect.asked.is_empty() && !waiting;
        let over = now >= collect.at_most_until || (now >= collect.until && !waiting);
        if (answered || over) && self.log.pending.durable() >= collect.durable_at {
            self.take_over(cx);
        } else if waiting {
            self.pull_promised(now);
        }
    }

    /// Asks those that promised more than came with their promise for the rest.
    fn pull_promised(&mut self, now: Micros) {
        let Role::Collect(collect) = &self.role else { return };
        let logged = &self.log.state.logged;
        let behind: Vec<NodeId> =
            collect.promised.iter().filter(|(_, marks)| !logged.covers(marks)).map(|(p, _)| *p).collect();
        for from in behind {
            self.pull(now, from, true);
        }
    }

    fn pull(&mut self, now: Micros, from: NodeId, all: bool) {
        let Some(peer) = self.peers.all.get_mut(&from) else { return };
        if now - peer.pulled.min(now) > PULL_AGAIN {
            peer.pulled = now;
            let collecting = all.then_some(self.log.state.promised);
            self.send(from, Message::Pull { marks: self.log.received(), collecting });
        }
    }

    fn take_over(&mut self, cx: Cx<'_>) {
        let Role::Collect(collect) = std::mem::replace(&mut self.role, Role::Follow) else { return };
        let logged = self.log.state.logged.clone();
        // Who promised but whose records could not be had is no member: what it acknowledged must not be forgotten.
        // Nor who lacks so much of ours that the epoch could not begin before it had it all: it pulls first, then joins.
        let fit = |marks: &Marks| logged.covers(marks) && self.could_follow(marks);
        let promised = collect.promised.iter().filter(|(_, marks)| fit(marks)).map(|(p, _)| *p);
        let mut members: Vec<NodeId> = promised.chain([self.me.node]).collect();
        members.sort();
        let epoch = self.log.state.promised;
        self.event(Event::TookOver { epoch, members: members.clone(), marks: logged });
        let mut lead = Lead::new(epoch, members.clone(), cx.mono(), &self.config);
        lead.locks.restore(collect.locks, cx.mono());
        self.role = Role::Lead(Box::new(lead));
        self.apply_committed(cx); // what was decided elsewhere is not decided again
        let cover = self.log.adopt_all(epoch, members, cx.storage);
        self.append(cx, Body::Cover(cover));
    }

    pub(super) fn on_collect(&mut self, cx: Cx<'_>, from: NodeId, epoch: Epoch, marks: &Marks) {
        let now = cx.mono();
        self.top = self.top.max(epoch.0);
        let free = match &self.role {
            Role::Lead(_) => self.outranks_us(from) && !self.lease_ok(cx),
            Role::Collect(_) => self.outranks_us(from),
            Role::Follow | Role::Elect { .. } => self.is_free_for(from, now),
        };
        let promised = self.log.state.promised;
        if epoch <= promised || !free || !self.peers.linked(from, now) {
            if free && matches!(self.role, Role::Collect(_)) {
                self.role = Role::Follow;
                self.wait_until = now + self.config.rpc;
            }
            return self.send(from, Message::Refuse { epoch, promised, held: !free });
        }
        #[cfg(feature = "planted-bugs")]
        let lax = self.config.planted == super::planted::Planted::NoPromise && matches!(self.role, Role::Follow);
        #[cfg(not(feature = "planted-bugs"))]
        let lax = false;
        if !lax {
            self.promise(epoch);
            self.role = Role::Follow;
            if self.leader.is_some() {
                self.event(Event::Leaderless);
            }
            (self.leader, self.candidate, self.hold_for, self.hold_until) = (None, Some(from), None, 0);
            self.wait_until = now + self.config.collect + 500 * MS;
        }
        let records = self.frame_beyond(cx, marks);
        let promise = Message::Promise {
            epoch,
            marks: self.log.state.logged.clone(),
            records,
            committed: self.log.state.committed.clone(),
            locks: self.held_locks(from),
        };
        self.send_durable(from, promise);
    }

    /// Whether no lease given to another leader stands in the way.
    fn is_free_for(&self, from: NodeId, now: Micros) -> bool {
        #[cfg(feature = "planted-bugs")]
        if self.config.planted == super::planted::Planted::NoPromise {
            return true;
        }
        self.leader.is_some_and(|l| l.0 == from)
            || now >= self.hold_until
            || self.hold_for == Some(from)
            || self.hold_for.is_some_and(|h| self.peers.has_refused(h))
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(super) fn on_promise(
        &mut self,
        cx: Cx<'_>,
        from: NodeId,
        epoch: Epoch,
        marks: Marks,
        records: &[Arc<Record>],
        committed: &Marks,
        locks: Vec<HeldLock>,
    ) {
        self.top = self.top.max(epoch.0);
        if epoch != self.log.state.promised || !matches!(self.role, Role::Collect(_)) {
            return;
        }
        self.take_records(cx, records, committed);
        if let Role::Collect(collect) = &mut self.role {
            collect.asked.remove(&from);
            collect.promised.insert(from, marks);
            collect.locks.extend(locks.into_iter().map(|l| (from, l)));
        }
        self.collect_step(cx);
    }

    pub(super) fn on_refuse(&mut self, cx: Cx<'_>, from: NodeId, epoch: Epoch, promised: Epoch, held: bool) {
        self.top = self.top.max(promised.0);
        if epoch != self.log.state.promised {
            return;
        }
        let Role::Collect(collect) = &mut self.role else { return };
        collect.asked.remove(&from);
        if !held && promised > epoch {
            // Outbid, and nobody live behind it: again, higher, a little later.
            self.role = Role::Follow;
            self.wait_until = cx.mono() + 50 * MS + self.jitter(250 * MS);
        } else {
            self.collect_step(cx);
        }
    }

    pub(super) fn on_coordinator(&mut self, cx: Cx<'_>, from: NodeId, epoch: Epoch) {
        #[cfg(feature = "planted-bugs")]
        if self.config.planted == super::planted::Planted::NoPromise && epoch > self.log.state.promised {
            self.promise(epoch);
        }
        if epoch != self.log.state.promised || !matches!(self.role, Role::Follow) {
            return;
        }
        let now = cx.mono();
        if self.leader != Some((from, epoch)) {
            self.event(Event::Follows { leader: from, epoch });
        }
        self.leader = Some((from, epoch));
        (self.candidate, self.hold_for, self.hold_until) = (None, Some(from), now + self.config.suspect);
        self.learn_committed(cx, epoch, 1);
        self.fronts_see_leader(cx);
        self.reads.ask_again();
    }

    /// Takes records that somebody sent, in their order, and what is known to be committed.
    pub(super) fn take_records(&mut self, cx: Cx<'_>, records: &[Arc<Record>], committed: &Marks) {
        // While an index is taken over the log stands still: a head whose range was merged already would come into ours, and
        // never go, when the record that replaces it is one of those that count as applied in the end.
        let records = if self.transfer.is_none() { records } else { &[] };
        for record in records {
            if !self.log.add(record) {
                break; // a hole: it is sent again
            }
        }
        for (epoch, count) in committed.iter() {
            self.log.raise_committed(epoch, count, cx.storage);
        }
        self.apply_committed(cx);
    }

    // ---- bridges: logs exchanged with followers of another leader ----

    /// Pulls the committed records of whoever follows another epoch: nobody steps down, the logs meet.
    pub(super) fn exchange(&mut self, cx: Cx<'_>) {
        let now = cx.mono();
        let (mine, leads) = match &self.role {
            // One merge record at a time: reads wait for the one that is on its way.
            Role::Lead(lead) if lead.serving && lead.merging().is_none() => (Some(self.log.state.promised), true),
            Role::Follow => match self.leader {
                Some((_, epoch)) => (Some(epoch), false),
                None => (None, false),
            },
            _ => return,
        };
        let logged = &self.log.state.logged;
        // Who follows nobody pulls from whoever leads: too far behind to be a member, it catches up first.
        let foreign = |said: &super::Info| match mine {
            Some(mine) => said.promised != mine || leads,
            // And who took over part of an index is fit for nothing before it has the records: nobody else may lead.
            None => said.role == RoleName::Lead || self.is_cut_off(now) || self.is_borrowing(),
        };
        let ahead: Vec<NodeId> = self
            .peers
            .all_linked(now)
            .filter(|(_, _, said)| foreign(said) && !said.beyond_log && !logged.covers(&said.marks))
            .map(|(id, ..)| id)
            .collect();
        for from in ahead {
            self.pull(now, from, false);
        }
    }

    /// One frame of the records beyond `marks`; none where the log does not reach so far back.
    fn frame_beyond(&self, cx: Cx<'_>, marks: &Marks) -> Vec<Arc<Record>> {
        if !self.log_reaches(marks) {
            return vec![];
        }
        frame::read(self.log.view(cx.storage), marks, self.config.records_per_frame).0
    }

    pub(super) fn on_pull(&mut self, cx: Cx<'_>, from: NodeId, marks: &Marks, collecting: Option<Epoch>) {
        // Only a winner to whom we promised may see what is not known to be committed.
        let all = collecting == Some(self.log.state.promised);
        let mut records = self.frame_beyond(cx, marks);
        if !all {
            let known = self.log.known_committed();
            records.retain(|r| known.has(r.position));
        }
        if !records.is_empty() {
            self.send_durable(from, Message::Pulled { records, committed: self.log.state.committed.clone() });
        }
    }

    pub(super) fn on_pulled(&mut self, cx: Cx<'_>, from: NodeId, records: &[Arc<Record>], committed: &Marks) {
        match &mut self.role {
            Role::Collect(collect) => {
                collect.until = collect.until.max(cx.mono() + self.config.collect);
                self.take_records(cx, records, committed);
                if let Some(peer) = self.peers.all.get_mut(&from) {
                    peer.pulled = 0; // the next frame at once
                }
                self.collect_step(cx);
            }
            // What it stands on is what its first record says. Before that one is committed no merge record can tell the members
            // of more, and what builds on more must not come to them first. It is pulled again.
            // Nor can one that is about to stop, or has just logged one.
            Role::Lead(lead) if !lead.serving || lead.stopping.is_some() || lead.merging().is_some() => {}
            Role::Follow | Role::Lead(_) => {
                let received = self.log.received();
                self.log.news = false;
                self.take_records(cx, records, committed);
                if self.log.received() != received
                    && let Some(peer) = self.peers.all.get_mut(&from)
                {
                    peer.pulled = 0; // the next frame at once
                }
                // Another's merge record is no news unless it confirms what is void here: were every one merged, two leaders
                // that a bridge keeps apart would merge each other's for ever. But the members keep them in memory until one is.
                if let Role::Lead(lead) = &self.role
                    && (self.log.news || self.log.unmerged >= UNMERGED)
                {
                    self.log.unmerged = 0;
                    let cover = self.log.merge(self.log.state.promised, lead.members.clone());
                    self.append(cx, Body::Cover(cover));
                }
            }
            Role::Elect { .. } => {}
        }
    }

    /// Whether a linked peer waits to become a member.
    pub(super) fn is_joiner(&self, said: &super::Info) -> bool {
        let follows_us = said.leader.is_none_or(|(l, _)| l == self.me.node);
        said.role == RoleName::Follow && !said.held && follows_us && self.could_be_member(said)
    }

    /// Whether a peer is fit to be a member.
    pub(super) fn could_be_member(&self, said: &super::Info) -> bool {
        said.disk.healthy && self.could_follow(&said.marks)
    }

    /// Whether whoever has this much could be a member: the rest is little, and in our log.
    pub(super) fn could_follow(&self, marks: &Marks) -> bool {
        marks.lacks(&self.log.state.logged) <= self.config.far_behind && self.log_reaches(marks)
    }
}
