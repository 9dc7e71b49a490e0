//! The leader's answers to fronts: locks with plans, replacements for lost replicas, commits.

use super::change::{Change, Refusal, Staged};
use super::decide::{admit, effects};
use super::frame;
use super::locks::Requested;
use super::log::COPIES;
use super::member::{Cx, Member, Role};
use super::message::Message;
use super::placement::Wanted;
use super::record::{Body, Part, Write};
use super::types::{Hlc, NodeId, OpId, Token};

/// A front's request to commit.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) op: OpId,
    pub(super) token: Token,
    pub(super) change: Change,
    pub(super) staged: Option<Staged>,
    pub(super) floor: Hlc,
}

impl Member {
    /// Few members: wait for those not yet Down; below `min_copies` not at all.
    pub(super) fn enough_members(&self, cx: Cx<'_>) -> bool {
        let Role::Lead(lead) = &self.role else { return false };
        !self.awaits_members(cx) && lead.members.len() >= self.config.min_copies
    }

    /// Whether peers that would make a difference are away and not yet Down: what lacks nodes now may not lack them soon.
    pub(super) fn awaits_members(&self, cx: Cx<'_>) -> bool {
        let Role::Lead(lead) = &self.role else { return false };
        let alive = 1 + self.peers.expected(cx.mono(), |said| self.could_be_member(said));
        lead.members.len() < alive.min(3)
    }

    /// Whether what lacks nodes now may have them before a front loses patience: a peer that is not Down is not linked, its
    /// disk hangs or it is catching up. A full disk is no such hope.
    fn may_have_more(&self, cx: Cx<'_>) -> bool {
        self.awaits_members(cx) || self.peers.recovering(cx.mono(), |said| self.could_be_member(said))
    }

    /// Answers a repeat from the outcome table; true when there was something to say.
    fn answer_repeat(&mut self, cx: Cx<'_>, front: NodeId, op: OpId) -> bool {
        #[cfg(feature = "planted-bugs")]
        if self.overlooks(cx, op) {
            return false;
        }
        let Some((position, outcome)) = self.log.outcome(op, cx.storage) else { return false };
        match outcome {
            // What a leader adopted alone is on one disk: only one that could commit now may answer.
            Some(outcome) => {
                let answer = self.lease_ok(cx) && self.enough_members(cx);
                self.send(front, if answer { Message::Done { op, outcome } } else { Message::NotLeader { op } });
                if answer && let Role::Lead(lead) = &mut self.role {
                    lead.locks.release(op);
                }
            }
            None => {
                if position.epoch != self.log.state.promised {
                    self.send(front, Message::NotLeader { op }); // part of a merge that is being committed
                    return true;
                }
                let Role::Lead(lead) = &mut self.role else { return true };
                let waiters = lead.waiters.entry(position.seq).or_default();
                if !waiters.contains(&(front, op)) {
                    waiters.push((front, op));
                }
            }
        }
        true
    }

    pub(super) fn on_lock_request(&mut self, cx: Cx<'_>, front: NodeId, op: OpId, change: Change) {
        if !self.serves() {
            return self.send(front, Message::NotLeader { op });
        }
        if self.answer_repeat(cx, front, op) {
            return self.grant_locks(cx);
        }
        match change {
            Change::Forget { node } => return self.on_forget(cx, front, op, node),
            Change::Drain(drain) => return self.on_drain(cx, front, op, drain),
            _ => {}
        }
        // What keeps a subtree waiting is not asked to when it cannot be done anyway, by all that is decided.
        if change.takes_subtrees()
            && self.lease_ok(cx)
            && !change.paths().iter().any(|path| self.log.touched.contains_key(*path))
            && !matches!(&self.role, Role::Lead(lead) if lead.locks.holder(op).is_some())
            && let Err(refusal) = admit(&self.sight(cx), &change)
        {
            return self.refuse_lock(cx, front, op, refusal);
        }
        let Role::Lead(lead) = &mut self.role else { return };
        match lead.locks.request(front, op, change, cx.mono()) {
            Requested::Queued => self.grant_locks(cx),
            Requested::Held => self.send_grant(cx, op),
            Requested::Full => self.send(front, Message::Refused { op, refusal: Refusal::Busy }),
        }
    }

    /// Refuses before a lock is held, and lets whoever waited behind go on.
    fn refuse_lock(&mut self, cx: Cx<'_>, front: NodeId, op: OpId, refusal: Refusal) {
        if let Role::Lead(lead) = &mut self.role {
            lead.locks.unlock(front, op, None);
        }
        self.send(front, Message::Refused { op, refusal });
        self.grant_locks(cx);
    }

    /// Grants what can be granted, with a plan, or refuses it.
    pub(super) fn grant_locks(&mut self, cx: Cx<'_>) {
        loop {
            if !self.serves() {
                return;
            }
            let Role::Lead(lead) = &mut self.role else { return };
            let granted = lead.locks.grant(cx.mono());
            if granted.is_empty() {
                return;
            }
            for (op, holder) in granted {
                // Brought over from an epoch in which it was logged already.
                if self.answer_repeat(cx, holder.front, op) {
                    continue;
                }
                // A lock brought over keeps its plan and was admitted then.
                if !holder.replicas.is_empty() {
                    self.announce_grant(op, holder.token, holder.change);
                    self.send_grant(cx, op);
                } else if let Err(refusal) = self.plan(cx, op) {
                    if let Role::Lead(lead) = &mut self.role {
                        lead.locks.release(op);
                    }
                    let soon = match refusal {
                        Refusal::TooFewCopies => self.may_have_more(cx) || self.base_will_move(cx, &holder.change, &[]),
                        Refusal::TooManyExtents => self.will_be_compacted(cx, &holder.change),
                        _ => false,
                    };
                    // A refusal says what is there, as a read does: a leader that may have been replaced says nothing.
                    let answer = if soon || !self.lease_ok(cx) {
                        Message::NotLeader { op }
                    } else {
                        Message::Refused { op, refusal }
                    };
                    self.send(holder.front, answer);
                } else {
                    self.announce_grant(op, holder.token, holder.change);
                    self.send_grant(cx, op);
                }
            }
        }
    }

    fn announce_grant(&mut self, op: OpId, token: Token, change: Change) {
        self.event(super::io::Event::Granted { token, op, change });
    }

    /// Admits the change and chooses where its bytes go.
    fn plan(&mut self, cx: Cx<'_>, op: OpId) -> Result<(), Refusal> {
        let Role::Lead(lead) = &self.role else { return Ok(()) };
        let Some(holder) = lead.locks.holder(op) else { return Ok(()) };
        let (front, change) = (holder.front, holder.change.clone());
        admit(&self.sight(cx), &change)?;
        if !change.has_bytes() {
            return Ok(());
        }
        let among = self.base_holders(cx, &change)?;
        let replicas =
            self.place(cx, Wanted { count: COPIES, near: Some(front), among: among.as_deref(), bytes: 0 }, &[], &[]);
        if replicas.len() < self.config.min_copies {
            return Err(Refusal::TooFewCopies);
        }
        if let Role::Lead(lead) = &mut self.role
            && let Some(holder) = lead.locks.holder_mut(op)
        {
            holder.replicas = replicas;
        }
        Ok(())
    }

    fn send_grant(&mut self, cx: Cx<'_>, op: OpId) {
        let Role::Lead(lead) = &self.role else { return };
        let Some(holder) = lead.locks.holder(op) else { return };
        let hlc = Hlc(self.log.state.hlc.0.max(cx.now.wall));
        let message = Message::Granted { op, token: holder.token, replicas: holder.replicas.clone(), hlc };
        self.send(holder.front, message);
    }

    /// Frees the locks of the dead, tells who waited too long, and grants what became free.
    pub(super) fn expire_locks(&mut self, cx: Cx<'_>) {
        let Role::Lead(lead) = &mut self.role else { return };
        for (front, op) in lead.locks.expire(cx.mono()) {
            self.send(front, Message::Refused { op, refusal: Refusal::LockWait });
        }
        self.grant_locks(cx);
    }

    pub(super) fn on_renew(&mut self, cx: Cx<'_>, front: NodeId, op: OpId, token: Token) {
        let renewed = match &mut self.role {
            Role::Lead(lead) => lead.locks.renew(front, op, token, cx.mono()),
            _ => return,
        };
        if !renewed && self.serves() {
            self.send(front, Message::Stale { op, token });
        }
    }

    pub(super) fn on_unlock(&mut self, cx: Cx<'_>, front: NodeId, op: OpId, token: Option<Token>) {
        if let Role::Lead(lead) = &mut self.role {
            lead.locks.unlock(front, op, token);
            self.grant_locks(cx);
        }
    }

    pub(super) fn on_replace(
        &mut self,
        cx: Cx<'_>,
        front: NodeId,
        op: OpId,
        token: Token,
        kept: &[NodeId],
        lost: &[NodeId],
    ) {
        if !self.serves() {
            return self.send(front, Message::NotLeader { op });
        }
        if self.answer_repeat(cx, front, op) {
            return self.grant_locks(cx);
        }
        let Role::Lead(lead) = &mut self.role else { return };
        if lead.locks.check(front, op, token).is_none() {
            return self.send(front, Message::Stale { op, token });
        }
        lead.locks.renew(front, op, token, cx.mono());
        let Some(holder) = lead.locks.holder_mut(op) else { return };
        let new = lost.iter().filter(|n| !holder.lost.contains(n)).copied().collect::<Vec<_>>();
        holder.lost.extend(new);
        let change = holder.change.clone();
        match self.base_holders(cx, &change) {
            Ok(among) => self.replace(cx, (front, op, token), &change, kept, among.as_deref()),
            Err(refusal) => self.refuse_held(cx, front, op, refusal),
        }
    }

    /// Names nodes in place of replicas that are lost, that are no members any more, or that do not hold the base (`among`).
    fn replace(
        &mut self,
        cx: Cx<'_>,
        (front, op, token): (NodeId, OpId, Token),
        change: &Change,
        kept: &[NodeId],
        among: Option<&[NodeId]>,
    ) {
        let Role::Lead(lead) = &self.role else { return };
        let counts = |n: &NodeId| lead.members.contains(n) && among.is_none_or(|nodes| nodes.contains(n));
        let kept: Vec<NodeId> = kept.iter().copied().filter(counts).collect();
        let failed = lead.locks.holder(op).map_or(vec![], |h| h.lost.clone());
        let nodes = self.place(
            cx,
            Wanted { count: COPIES.saturating_sub(kept.len()), near: Some(front), among, bytes: 0 },
            &kept,
            &failed,
        );
        if kept.len() + nodes.len() < self.config.min_copies {
            if self.may_have_more(cx) || self.base_will_move(cx, change, &failed) {
                return self.send(front, Message::NotLeader { op });
            }
            return self.refuse_held(cx, front, op, Refusal::TooFewCopies);
        }
        self.send(front, Message::Replacement { op, token, kept, nodes });
    }

    /// Refuses what holds its locks, and lets others have them.
    fn refuse_held(&mut self, cx: Cx<'_>, front: NodeId, op: OpId, refusal: Refusal) {
        if let Role::Lead(lead) = &mut self.role {
            lead.locks.release(op);
        }
        self.send(front, Message::Refused { op, refusal });
        self.grant_locks(cx);
    }

    pub(super) fn on_commit(&mut self, cx: Cx<'_>, front: NodeId, mut asked: Asked) {
        let op = asked.op;
        if !self.serves() || !self.lease_ok(cx) || !self.enough_members(cx) {
            return self.send(front, Message::NotLeader { op });
        }
        if self.answer_repeat(cx, front, op) {
            return self.grant_locks(cx);
        }
        let Role::Lead(lead) = &mut self.role else { return };
        lead.locks.renew(front, op, asked.token, cx.mono());
        let holds = lead.locks.check(front, op, asked.token).is_some_and(|h| h.change == asked.change);
        #[cfg(feature = "planted-bugs")]
        let holds = holds || self.config.planted == super::planted::Planted::NoFencing;
        if !holds {
            return self.send(front, Message::Stale { op, token: asked.token });
        }
        let among = match self.base_holders(cx, &asked.change) {
            Ok(among) => among,
            Err(refusal) => return self.refuse_held(cx, front, op, refusal),
        };
        if let Some(staged) = &mut asked.staged {
            // The base may have been moved, or be another one than when this was planned.
            staged.confirmed.retain(|n| among.as_ref().is_none_or(|nodes| nodes.contains(n)));
            if !self.copies_suffice(cx, op, staged, among.as_deref()) {
                return self.replace(cx, (front, op, asked.token), &asked.change, &staged.confirmed, among.as_deref());
            }
        }
        #[cfg(feature = "planted-bugs")]
        let asked = self.with_planned_replicas(asked);
        match effects(&self.sight(cx), &asked.change, asked.staged.as_ref(), cx.now.wall) {
            Ok(effects) => self.log_write(cx, front, asked, effects),
            Err(refusal) => self.refuse_held(cx, front, op, refusal),
        }
    }

    /// Whether the bytes are on enough members: three, or as many as could take them.
    fn copies_suffice(&mut self, cx: Cx<'_>, op: OpId, staged: &Staged, among: Option<&[NodeId]>) -> bool {
        #[cfg(feature = "planted-bugs")]
        if self.config.planted == super::planted::Planted::CommitWithoutAll {
            return true;
        }
        let Role::Lead(lead) = &self.role else { return false };
        let confirmed = &staged.confirmed;
        if !confirmed.iter().all(|n| lead.members.contains(n)) || confirmed.len() < self.config.min_copies {
            return false;
        }
        if confirmed.len() >= COPIES {
            return true;
        }
        // Nodes that failed this operation before are not asked again.
        let lost = lead.locks.holder(op).map_or(vec![], |h| h.lost.clone());
        self.place(cx, Wanted { count: 1, among, ..Wanted::default() }, confirmed, &lost).is_empty()
    }

    /// Planted: names the replicas of the plan, whoever confirmed.
    #[cfg(feature = "planted-bugs")]
    fn with_planned_replicas(&self, mut asked: Asked) -> Asked {
        if self.config.planted == super::planted::Planted::CommitWithoutAll
            && let Role::Lead(lead) = &self.role
            && let (Some(staged), Some(holder)) = (&mut asked.staged, lead.locks.holder(asked.op))
        {
            staged.confirmed.clone_from(&holder.replicas);
        }
        asked
    }

    fn log_write(&mut self, cx: Cx<'_>, front: NodeId, asked: Asked, effects: Vec<super::Effect>) {
        let Asked { op, token, staged, floor, .. } = asked;
        let wall = cx.now.wall;
        let hlc = self.log.next_hlc(wall, floor);
        #[cfg(feature = "planted-bugs")]
        let hlc = if self.config.planted == super::planted::Planted::WallClock { Hlc(wall) } else { hlc };
        let blob = staged.as_ref().map(Staged::blob);
        self.note_extents(cx, &effects);
        let parts = frame::cut(effects, self.config.effects_per_record);
        let count = parts.len() as u64;
        let part = |index| (count > 1).then_some(Part { index, count });
        let write = |(index, effects)| Write { op, blob, effects, part: part(index), ..Write::default() };
        let bodies = (0..).zip(parts).map(write).map(Body::Write).collect();
        let position = self.append_stamped(cx, bodies, hlc);
        let Role::Lead(lead) = &mut self.role else { return };
        if let Some(holder) = lead.locks.holder_mut(op) {
            holder.committing = true;
        }
        lead.waiters.entry(position.seq).or_default().push((front, op));
        self.event(super::io::Event::Logged { position, op, token });
    }
}
