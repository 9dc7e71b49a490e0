//! Bully (Garcia-Molina, 1982): who suspects the leader asks every higher rank; no answer means it takes over. And the
//! handover: to a higher rank that came back, and from a leader that is about to stop, which counts as the lowest of all.

use super::info::RoleName;
use super::io::Event;
use super::member::{Cx, Member, Role};
use super::message::Message;
use super::peers::{Peer, Precedence};
use super::types::{Epoch, MS, Micros, NodeId};

/// Between two requests to hand over.
const ASK_AGAIN: Micros = 1000 * MS;

impl Member {
    /// Drops a leader that is no longer linked, or that a better one outranks.
    pub(super) fn watch_leader(&mut self, cx: Cx<'_>) {
        let now = cx.mono();
        let Some((leader, _)) = self.leader.filter(|(l, _)| *l != self.me.node) else { return };
        let ours = self.peers.all.get(&leader).map(Peer::precedence);
        let better =
            self.peers.all_linked(now).any(|(_, p, said)| said.role == RoleName::Lead && Some(p.precedence()) > ours);
        if better || !self.peers.linked(leader, now) {
            self.lose_leader(cx, 200 * MS);
        }
    }

    /// Follows nobody, and waits up to `within` before an election of its own.
    pub(super) fn lose_leader(&mut self, cx: Cx<'_>, within: Micros) {
        self.leader = None;
        self.wait_until = cx.mono() + self.jitter(within);
        self.last_heartbeat = 0; // where heartbeats were few, all are wanted now
        self.event(Event::Leaderless);
    }

    pub(super) fn tick_role(&mut self, cx: Cx<'_>) {
        let now = cx.mono();
        match &self.role {
            Role::Follow => self.tick_follow(cx),
            Role::Elect { since, answered: false } if now - since >= self.config.answer => self.collect(cx),
            Role::Elect { answered: false, .. } => {}
            Role::Elect { .. } => {
                self.role = Role::Follow;
                self.wait_until = now + self.config.rpc;
            }
            Role::Collect(_) => self.collect_step(cx),
            Role::Lead(_) => self.tick_lead(cx),
        }
    }

    fn tick_follow(&mut self, cx: Cx<'_>) {
        let now = cx.mono();
        if let Some((leader, epoch)) = self.leader {
            return self.ask_for_handover(cx, leader, epoch);
        }
        if now < self.wait_until || self.is_held(now) || !self.could_lead() {
            return;
        }
        // A linked leader will collect again to include us.
        let leads = |said: &super::Info| said.could_lead() && matches!(said.role, RoleName::Collect | RoleName::Lead);
        let led = self.peers.all_linked(now).any(|(.., said)| leads(said));
        if led || self.is_behind(now) {
            return;
        }
        let higher: Vec<NodeId> = self.higher(now).collect();
        if higher.is_empty() {
            return self.collect(cx);
        }
        self.role = Role::Elect { since: now, answered: false };
        for peer in higher {
            self.send(peer, Message::Election);
        }
    }

    /// The linked peers that outrank us and could lead.
    fn higher(&self, now: Micros) -> impl Iterator<Item = NodeId> + '_ {
        let able = self.peers.all_linked(now).filter(|(.., said)| said.could_lead());
        able.filter(|(_, p, _)| p.precedence() > self.precedence()).map(|(id, ..)| id)
    }

    /// This node is about to stop: all others go before it, and the highest of them asks for the leadership as it would had it
    /// just come back. While nobody else could lead, it goes on.
    pub(super) fn leave(&mut self) {
        self.leaving = true;
        self.last_heartbeat = 0; // the next tick says so
    }

    /// This node's place among those that could lead.
    pub(super) fn precedence(&self) -> Precedence {
        (!self.leaving, self.me.rank)
    }

    /// Leads and collects no more: a node whose disk hangs can neither commit nor promise, and stamps of a clock that is
    /// ahead would win over all others. Its heartbeats say so.
    pub(super) fn step_down(&mut self, cx: Cx<'_>) {
        self.role = Role::Follow;
        self.lose_leader(cx, 200 * MS);
        self.last_heartbeat = 0;
    }

    /// Whether a lease we gave still runs. A holder whose port refuses is dead, and its lease with it.
    fn is_held(&self, now: Micros) -> bool {
        now < self.hold_until && !self.hold_for.is_some_and(|h| self.peers.has_refused(h))
    }

    /// Far behind a linked node that covers all we have: it is the better leader, if it can lead at all.
    fn is_behind(&self, now: Micros) -> bool {
        let logged = &self.log.state.logged;
        self.peers.all_linked(now).filter(|(_, _, said)| said.could_lead()).any(|(_, _, said)| {
            let far = logged.lacks(&said.marks) > self.config.far_behind && said.marks.covers(logged);
            far || (said.beyond_log && said.marks.covers(&self.log.state.applied))
        }) || self.is_cut_off(now)
    }

    /// Whether a linked node has what is in no log any more, and can have all that we have from ours: it leads, and we take
    /// over its index once it has caught up, which it never does while we go on writing.
    pub(super) fn is_cut_off(&self, now: Micros) -> bool {
        let lacks = |said: &super::Info| said.beyond_log && !self.log.state.logged.covers(&said.marks);
        self.peers.all_linked(now).any(|(.., said)| said.could_lead() && lacks(said) && self.log_reaches(&said.marks))
    }

    /// The highest rank asks a lower leader to hand over once it has caught up with it.
    fn ask_for_handover(&mut self, cx: Cx<'_>, leader: NodeId, epoch: Epoch) {
        let now = cx.mono();
        let Some(peer) = self.peers.all.get(&leader) else { return };
        let caught_up = peer.said.as_ref().is_some_and(|i| self.log.state.logged.covers(&i.marks));
        let lower = peer.precedence() < self.precedence();
        let highest = self.higher(now).next().is_none() && self.could_lead() && !self.is_cut_off(now);
        if lower && highest && caught_up && epoch == self.log.state.promised && now - peer.asked.min(now) > ASK_AGAIN {
            self.ask(cx, leader);
        }
    }

    /// Asks a leader to hand over to us.
    pub(super) fn ask(&mut self, cx: Cx<'_>, leader: NodeId) {
        if let Some(peer) = self.peers.all.get_mut(&leader) {
            peer.asked = cx.mono();
        }
        self.send(leader, Message::HandoverAsk);
    }

    pub(super) fn on_election(&mut self, cx: Cx<'_>, from: NodeId) {
        let now = cx.mono();
        let following = matches!(self.role, Role::Follow);
        // Who follows a live leader leaves the asker alone: that leader will find it, or it has none.
        if following && (self.leader.is_some() || self.is_behind(now) || !self.could_lead()) {
            return;
        }
        self.send(from, Message::Answer);
        if following && !self.is_held(now) && self.candidate.is_none() {
            self.wait_until = self.wait_until.min(now);
            self.tick_follow(cx);
        }
    }

    pub(super) fn on_answer(&mut self) {
        if let Role::Elect { answered, .. } = &mut self.role {
            *answered = true;
        }
    }

    pub(super) fn on_handover_ask(&mut self, cx: Cx<'_>, from: NodeId) {
        let now = cx.mono();
        let able = self.peers.said(from).is_some_and(super::Info::could_lead);
        let better = self.outranks_us(from) && self.peers.linked(from, now) && able;
        if let Role::Lead(lead) = &mut self.role
            && lead.serving
            && better
            && lead.stopping.is_none()
        {
            lead.stopping = Some((from, now + 500 * MS));
        }
    }

    /// Stops leading and frees the members, the successor last.
    pub(super) fn resign(&mut self, cx: Cx<'_>, successor: NodeId) {
        let Role::Lead(lead) = std::mem::replace(&mut self.role, Role::Follow) else { return };
        let epoch = self.log.state.promised;
        let others = lead.members.into_iter().filter(|m| *m != self.me.node && *m != successor);
        for member in others.chain([successor]).collect::<Vec<_>>() {
            self.send(member, Message::Release { epoch });
        }
        self.lose_leader(cx, 1);
        self.wait_until = cx.mono() + self.config.rpc;
        self.hold_until = 0;
    }

    pub(super) fn on_release(&mut self, cx: Cx<'_>, from: NodeId, epoch: Epoch) {
        let now = cx.mono();
        let bound = matches!(self.role, Role::Follow) && now < self.hold_until && self.hold_for != Some(from);
        if self.hold_for == Some(from) {
            self.hold_until = 0;
        }
        if self.leader == Some((from, epoch)) {
            self.lose_leader(cx, 1);
            self.wait_until = now + self.config.rpc;
        }
        let lower = !self.outranks_us(from);
        let Some(peer) = self.peers.all.get_mut(&from) else { return };
        if let Some(said) = &mut peer.said {
            said.role = RoleName::Follow;
        }
        let asked = peer.asked != 0 && now - peer.asked.min(now) < self.config.rpc;
        let idle = match &self.role {
            Role::Follow | Role::Elect { .. } => true,
            Role::Lead(lead) => lead.serving,
            Role::Collect(_) => false,
        };
        // What was asked for long ago, or while another leader's lease binds us, is ignored.
        if lower && asked && idle && !bound {
            self.collect(cx);
        }
    }
}
