//! Draining a node before it is taken away: its copies move to others, and it gets new ones only while fewer than three
//! others could take them. It serves, votes and may lead as before. What was said last counts, on both sides of a partition.

use super::change::Refusal;
use super::io::Draining;
use super::log::Log;
use super::member::{Cx, Member};
use super::message::Message;
use super::record::{Drain, Write};
use super::storage::{Drained, Holding, MemberState, Storage};
use super::types::{Micros, NodeId, OpId, Stamp};

impl Member {
    /// A front asks to have a node drained, or to take that back.
    pub(super) fn on_drain(&mut self, cx: Cx<'_>, front: NodeId, op: OpId, drain: Drain) {
        if !self.lease_ok(cx) || !self.enough_members(cx) {
            return self.send(front, Message::NotLeader { op });
        }
        let met = drain.node == self.me.node || self.peers.all.contains_key(&drain.node);
        if !met && !self.log.state.known.contains(&drain.node) {
            return self.send(front, Message::Refused { op, refusal: Refusal::NoSuchNode });
        }
        self.log_order(cx, front, Write { op, drain: Some(drain), ..Write::default() });
    }

    /// How far the draining of a node is, by this node's index. Of one that is not there nobody can say that it is empty: it
    /// may have taken files on the other side of a cut.
    pub(super) fn draining(&self, node: NodeId, now: Micros, storage: &dyn Storage) -> Draining {
        let state = &self.log.state;
        let said = self.peers.said(node).filter(|_| self.peers.linked(node, now));
        let logged = if node == self.me.node { Some(&state.logged) } else { said.map(|i| &i.marks) };
        let known = logged.is_some_and(|marks| state.applied.covers(marks));
        let copies = state.copies.get(&node).copied().unwrap_or(0);
        if !state.is_draining(node) {
            Draining::No
        } else if known && copies == 0 && storage.held(Holding::Node(node), None, 1).is_empty() {
            Draining::Done
        } else {
            Draining::UnderWay
        }
    }
}

impl Log {
    /// Keeps the registers of which nodes are being drained.
    pub(super) fn note_drain(&mut self, node: NodeId, said: Drained) {
        if self.state.forgotten.contains(&node) {
            return;
        }
        let register = self.state.drains.entry(node).or_default();
        if said.stamp > register.stamp {
            *register = said;
            self.pending.touch_state();
        }
    }
}

impl Drain {
    /// The register that a record with this stamp makes of it.
    pub(super) fn at(self, stamp: Stamp) -> Drained {
        Drained { stamp, draining: self.draining }
    }
}

impl MemberState {
    /// Whether a node is to hold nothing in the end.
    pub fn is_draining(&self, node: NodeId) -> bool {
        self.drains.get(&node).is_some_and(|register| register.draining)
    }
}
