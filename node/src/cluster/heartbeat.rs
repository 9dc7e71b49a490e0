//! What is done at the pace of heartbeats: saying where we stand, hearing where others stand, acknowledging.

use super::info::{DiskReport, Info, RoleName};
use super::member::{Cx, Member, Role};
use super::message::Message;
use super::types::{MS, Micros, NodeId};
use super::version::PROTOCOL;

impl Member {
    /// What is done at the pace of heartbeats.
    pub(super) fn beat(&mut self, cx: Cx<'_>) {
        let now = cx.mono();
        if now - self.last_sync > 1000 * MS && self.log.pending.unsynced() {
            self.last_sync = now;
            self.log.pending.need_durable();
        }
        self.acknowledge(true, false); // a broken link may have lost the last one
        self.log.expire_outcomes(now, self.config.outcome_retention, cx.storage);
        self.tick_collector(cx);
        self.judge_clock(cx);
        self.tick_aging(cx);
        self.tick_truncation(cx);
        self.tick_repair(cx);
        self.tick_compaction(cx);
        self.tick_presence(cx);
        self.forget_absent(cx);
        let held =
            now < self.hold_until && self.leader.is_none_or(|(l, _)| l == self.me.node || self.peers.linked(l, now));
        let (role, committed) = self.role_name();
        let slowly = self.follows_in_a_crowd();
        let slow = |node: NodeId| slowly && self.leader.is_none_or(|(l, _)| l != node);
        let pace = |node: NodeId| if slow(node) { self.config.slow_heartbeat } else { 0 };
        let paces: Vec<(NodeId, Micros)> = self.peers.all.keys().map(|id| (*id, pace(*id))).collect();
        for (node, pace) in paces {
            let Some(echo) = self.peers.time_to_beat(node, now, pace) else { continue };
            let info = Info {
                role,
                promised: self.log.state.promised,
                leader: self.leader,
                held: held && self.hold_for != Some(node),
                pace,
                marks: self.log.state.logged.clone(),
                beyond_log: self.peers.said(node).is_some_and(|said| !self.log_reaches(&said.marks)),
                committed,
                disk: DiskReport { healthy: self.is_fit(), ..self.disk },
                wall: cx.now.wall,
                clock_ahead: self.clock_ahead,
                leaving: self.leaving,
                protocol: PROTOCOL,
            };
            self.send(node, Message::Heartbeat { sent: now, echo, info: Box::new(info) });
        }
    }

    /// Whether heartbeats to all others at the pace of an election would be too many.
    fn follows_in_a_crowd(&self) -> bool {
        let follows = self.leader.is_some_and(|(l, _)| l != self.me.node) && matches!(self.role, Role::Follow);
        follows && self.peers.all.len() >= self.config.mesh
    }

    pub(super) fn on_heartbeat(&mut self, cx: Cx<'_>, from: NodeId, sent: Micros, echo: Micros, info: Info) {
        let now = cx.mono();
        self.top = self.top.max(info.promised.0);
        if let Some((leader, epoch)) = self.leader
            && leader == from
        {
            if info.role == RoleName::Lead && info.promised == epoch && epoch == self.log.state.promised {
                (self.hold_for, self.hold_until) = (Some(from), now + self.config.suspect);
                self.learn_committed(cx, epoch, info.committed);
            } else if matches!(info.role, RoleName::Follow | RoleName::Elect) {
                self.lose_leader(cx, 200 * MS);
            }
        }
        self.lead_heartbeat(from, &info, echo);
        if self.peers.heartbeat(from, now, sent, echo, info) {
            self.last_heartbeat = 0;
        }
    }

    /// Tells our leader what we have of its epoch; without `always` only when there is something to say.
    pub(super) fn acknowledge(&mut self, always: bool, took: bool) {
        let epoch = self.log.state.promised;
        let logged = self.log.state.logged.count(epoch);
        let received = logged + self.log.arriving.count(epoch);
        let to = self.candidate.or(self.leader.map(|l| l.0)).filter(|to| *to != self.me.node);
        #[cfg(feature = "planted-bugs")]
        if self.config.planted == super::planted::Planted::AckBeforePersist {
            self.durable = logged;
        }
        // Said with nothing of the epoch, too: the frame may have been full of older records.
        if let Some(to) = to
            && (always || self.durable > self.acknowledged)
        {
            self.acknowledged = self.durable;
            self.send(to, Message::Ack { epoch, received, durable: self.durable, took });
        }
    }
}
