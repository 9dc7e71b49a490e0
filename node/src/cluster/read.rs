//! Reads: the leader's committed position now, then the local index once it has that (a read index, as in Raft §6.4). All
//! reads that wait while one round is under way share the next.

use super::io::{Output, Shows};
use super::member::{Cx, Member, Role};
use super::message::Message;
use super::types::{MS, Micros, NodeId, Position};
use std::collections::{BTreeMap, VecDeque};

/// Between two requests of one round.
const ASK_AGAIN: Micros = 250 * MS;
/// Without a leader for this long, the local index has to do.
pub(super) const LOCAL_AFTER: Micros = 3000 * MS;
/// However many leaders there were, a read does not wait longer; with one that cannot be caught up with it is refused.
const AT_MOST: Micros = 10_000 * MS;

/// Reads under way.
#[derive(Debug, Default)]
pub(super) struct Reads {
    waiting: VecDeque<(u64, Micros)>,
    round: u64,
    in_round: VecDeque<(u64, Micros)>,
    asked: Option<Micros>,
    position: Option<Position>,
}

impl Reads {
    pub(super) fn wait(&mut self, id: u64, now: Micros) {
        self.waiting.push_back((id, now));
    }
    /// There is a new leader: what an earlier one said is no answer.
    pub(super) fn ask_again(&mut self) {
        (self.asked, self.position) = (None, None);
    }
}

impl Member {
    pub(super) fn tick_reads(&mut self, cx: Cx<'_>) {
        let now = cx.mono();
        if self.reads.in_round.is_empty() {
            if self.reads.waiting.is_empty() {
                return;
            }
            self.reads.in_round = std::mem::take(&mut self.reads.waiting);
            self.reads.round += 1;
            self.reads.ask_again();
        }
        if let Some(position) = self.reads.position {
            if self.log.state.applied.has(position) {
                self.finish_round(Shows::Committed(position));
                return self.tick_reads(cx);
            }
        } else if self.leader.is_some() && self.reads.asked.is_none_or(|at| now - at > ASK_AGAIN) {
            self.ask_position(cx);
            if self.reads.position.is_some() {
                return self.tick_reads(cx);
            }
        }
        let oldest = self.reads.in_round.front().map_or(now, |(_, since)| *since);
        let waited = now - oldest;
        if waited > LOCAL_AFTER && self.leader.is_none() {
            self.finish_round(if self.is_borrowing() { Shows::Behind } else { Shows::Local });
        } else if waited > AT_MOST {
            self.finish_round(Shows::Behind);
        }
    }

    fn ask_position(&mut self, cx: Cx<'_>) {
        self.reads.asked = Some(cx.mono());
        let round = self.reads.round;
        match self.leader {
            Some((leader, _)) if leader == self.me.node => {
                let Role::Lead(lead) = &self.role else { return };
                let merging = lead.merging().unwrap_or(0); // ours shows it already
                self.reads.position = self.read_position(cx).map(|p| Position { seq: p.seq.max(merging), ..p });
            }
            Some((leader, _)) => self.send(leader, Message::ReadRequest { round }),
            None => {}
        }
    }

    /// The last committed record, if we may speak for the cluster.
    fn read_position(&self, cx: Cx<'_>) -> Option<Position> {
        let Role::Lead(lead) = &self.role else { return None };
        let may = lead.serving && self.lease_ok(cx);
        may.then(|| Position { epoch: self.log.state.promised, seq: lead.committed.saturating_sub(1) })
    }

    pub(super) fn on_read_request(&mut self, cx: Cx<'_>, from: NodeId, round: u64) {
        let Role::Lead(lead) = &mut self.role else { return };
        if let Some(seq) = lead.merging() {
            if lead.readers.get(&from).is_none_or(|(asked, _)| *asked != round) {
                lead.readers.insert(from, (round, seq));
            }
        } else if let Some(position) = self.read_position(cx) {
            self.send(from, Message::ReadPosition { round, position });
        }
    }

    /// Answers those who asked before a merge record that is committed now.
    pub(super) fn answer_readers(&mut self, cx: Cx<'_>) {
        let Some(position) = self.read_position(cx) else { return };
        let Role::Lead(lead) = &mut self.role else { return };
        let (ready, waiting) =
            std::mem::take(&mut lead.readers).into_iter().partition(|(_, (_, seq))| *seq <= position.seq);
        lead.readers = waiting;
        let ready: BTreeMap<NodeId, (u64, u64)> = ready;
        for (node, (round, _)) in ready {
            self.send(node, Message::ReadPosition { round, position });
        }
    }

    pub(super) fn on_read_position(&mut self, cx: Cx<'_>, round: u64, position: Position) {
        let of_ours = self.leader.is_some_and(|(_, epoch)| epoch == position.epoch);
        if of_ours && round == self.reads.round && !self.reads.in_round.is_empty() {
            self.reads.position = Some(position);
            self.learn_committed(cx, position.epoch, position.seq + 1);
        }
    }

    fn finish_round(&mut self, shows: Shows) {
        for (id, _) in std::mem::take(&mut self.reads.in_round) {
            self.out.push(Output::ReadReady { id, shows });
        }
        self.reads.position = None;
    }
}
