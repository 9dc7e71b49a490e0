//! Forgetting a node for good: by the operator's word, or after a long silence. From then on nothing waits for it, and it is
//! refused for ever: it would bring back what was collected without it.

use super::change::Refusal;
use super::io::Event;
use super::member::{Cx, Member, Role};
use super::message::Message;
use super::record::{Body, Write};
use super::types::{NodeId, OpId};
use rand_chacha::rand_core::RngCore;

impl Member {
    /// Whether this node may lead and be a member: its disk works, its index is whole, and nobody forgot it.
    pub(super) fn is_fit(&self) -> bool {
        self.disk.healthy && self.is_whole() && !self.log.state.forgotten.contains(&self.me.node)
    }

    /// A front asks to have a node forgotten.
    pub(super) fn on_forget(&mut self, cx: Cx<'_>, front: NodeId, op: OpId, node: NodeId) {
        if !self.lease_ok(cx) || !self.enough_members(cx) {
            return self.send(front, Message::NotLeader { op });
        }
        let state = &self.log.state;
        let refusal = if node == self.me.node || !self.peers.is_down(node, cx.mono()) {
            Some(Refusal::NodeAlive)
        } else if !state.known.contains(&node) && !self.peers.all.contains_key(&node) {
            // One that was forgotten before is not known any more, which is what was asked for.
            (!state.forgotten.contains(&node)).then_some(Refusal::NoSuchNode)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            return self.send(front, Message::Refused { op, refusal });
        }
        self.log_order(cx, front, Write { op, forget: Some(node), ..Write::default() });
    }

    /// Logs what is about a node, and not about files; the front hears of it once it is committed.
    pub(super) fn log_order(&mut self, cx: Cx<'_>, front: NodeId, write: Write) {
        let op = write.op;
        let position = self.append(cx, Body::Write(write));
        if let Role::Lead(lead) = &mut self.role {
            lead.waiters.entry(position.seq).or_default().push((front, op));
        }
    }

    /// Forgets nodes that have been silent for long. Never while half of the known nodes are away: that may be a partition,
    /// and the other side may hold what was acknowledged there.
    pub(super) fn forget_absent(&mut self, cx: Cx<'_>) {
        if !self.serves() || !self.lease_ok(cx) {
            return;
        }
        let (now, me, known) = (cx.mono(), self.me.node, &self.log.state.known);
        let here = known.iter().filter(|n| **n == me || self.peers.linked(**n, now)).count();
        // One of which others told us, and nothing else was ever heard, is as silent as we are old.
        let silent = |n: NodeId| self.peers.silent_for(n, now).unwrap_or_else(|| now.saturating_sub(self.started));
        let long = |n: &&NodeId| **n != me && silent(**n) > self.config.forget_after;
        let Some(node) = known.iter().find(long).copied().filter(|_| here * 2 > known.len()) else { return };
        let op = OpId(u128::from(self.rng.next_u64()) << 64 | u128::from(self.rng.next_u64()));
        self.append(cx, Body::Write(Write { op, forget: Some(node), ..Write::default() }));
    }

    /// Takes leave of the nodes that records forgot.
    pub(super) fn note_forgotten(&mut self) {
        for node in std::mem::take(&mut self.log.forgot) {
            self.peers.forget(node);
            self.log.pending.forgotten(node);
            self.event(Event::Forgot { node });
        }
    }
}
