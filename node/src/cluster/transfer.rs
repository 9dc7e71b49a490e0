//! Taking over what another's index has: by whoever lacks records that are in no log any more. Ranges of paths are compared,
//! only what differs is sent. Two indexes merge by one rule: a head that one side lacks though it has covered it was replaced
//! or dropped there.
//!
//! It takes many messages, and the other index goes on changing. So the marks of the first answer are what counts as covered
//! in the end, and until all that any answer was made of is covered, this node leads nothing, is no member and shows nothing.

use super::comparison::{IndexAnswer, IndexAsk, IndexFound, IndexState, IndexWant};
use super::digest::Digests as _;
use super::info::RoleName;
use super::io::Event;
use super::log::Log;
use super::marks::Marks;
use super::member::{Cx, Member};
use super::message::Message;
use super::record::{Head, PathEntry};
use super::storage::{PathRange, Storage};
use super::types::{Digest, Micros, NodeId, Rank};
use crate::path::FtpPath;
use std::collections::{BTreeMap, VecDeque};

/// Paths that are sent rather than compared.
const FEW: usize = 16;
/// Times that one question is asked.
const TRIES: u32 = 4;

/// An index that is being taken over.
#[derive(Debug)]
pub(super) struct Transfer {
    source: NodeId,
    asked: IndexAsk,
    asked_at: Micros,
    tries: u32,
    /// What the index was made of at the first answer.
    began: Option<Marks>,
    /// Ranges that differ. At most the parts of one range, and what is left of them.
    differing: VecDeque<PathRange>,
    /// What is to be compared then.
    rest: Option<PathRange>,
    /// Paths that changed here.
    changed: u64,
}

impl Member {
    /// Whether part of another's index is in ours whose records are not all covered.
    pub(super) fn is_borrowing(&self) -> bool {
        !self.log.state.borrowed.is_empty()
    }

    /// Whether the index is this node's own, all of it.
    pub fn is_whole(&self) -> bool {
        self.transfer.is_none() && !self.is_borrowing()
    }

    /// Begins to take over an index when nothing else helps, and asks again for what was not answered.
    pub(super) fn tick_transfer(&mut self, cx: Cx<'_>) {
        let now = cx.mono();
        if let Some(transfer) = &mut self.transfer {
            let late = now.saturating_sub(transfer.asked_at) > self.config.rpc;
            if !self.peers.linked(transfer.source, now) || (late && transfer.tries >= TRIES) {
                self.transfer = None;
            } else if late {
                (transfer.asked_at, transfer.tries) = (now, transfer.tries + 1);
                let (to, ask) = (transfer.source, transfer.asked.clone());
                self.send(to, Message::IndexAsk(Box::new(ask)));
            }
            return;
        }
        let Some(source) = self.index_source(now) else { return };
        // Rarely that of an earlier transfer. Should it be: links keep the order, and the first question is always the same.
        let number = self.log.state.hlc.0.max(now);
        let asked = IndexAsk { number, range: PathRange::default(), want: IndexWant::Next };
        let transfer = Transfer {
            source,
            asked,
            asked_at: now,
            tries: 0,
            began: None,
            differing: VecDeque::new(),
            rest: None,
            changed: 0,
        };
        self.transfer = Some(transfer);
        self.ask_index(cx, PathRange::default(), IndexWant::Next);
    }

    /// A linked node whose log does not reach back to what we have, while it has all that we have committed. Where neither
    /// has all that the other has, those who follow the lower leader begin.
    fn index_source(&self, now: Micros) -> Option<NodeId> {
        let state = &self.log.state;
        let leader_of = |leader: Option<NodeId>, own: Rank| leader.and_then(|l| self.rank_of(l)).unwrap_or(own);
        let ours = leader_of(self.leader.map(|(l, _)| l), self.me.rank);
        let fits = |rank: Rank, said: &super::Info| {
            let theirs = leader_of(said.leader.map(|(l, _)| l), rank);
            let both_lack = !self.log_reaches(&said.marks) && theirs > ours;
            said.marks.covers(&state.applied) || both_lack
        };
        let able = self.peers.all_linked(now).filter(|(_, p, said)| {
            said.beyond_log && said.disk.healthy && !state.logged.covers(&said.marks) && fits(p.info.rank, said)
        });
        able.max_by_key(|(_, p, said)| (said.role == RoleName::Lead, p.info.rank)).map(|(id, ..)| id)
    }

    fn rank_of(&self, node: NodeId) -> Option<Rank> {
        if node == self.me.node { Some(self.me.rank) } else { self.peers.all.get(&node).map(|p| p.info.rank) }
    }

    fn ask_index(&mut self, cx: Cx<'_>, range: PathRange, want: IndexWant) {
        let Some(transfer) = &mut self.transfer else { return };
        transfer.asked = IndexAsk { number: transfer.asked.number + 1, range, want };
        (transfer.asked_at, transfer.tries) = (cx.mono(), 1);
        let (to, ask) = (transfer.source, transfer.asked.clone());
        self.send(to, Message::IndexAsk(Box::new(ask)));
    }

    pub(super) fn on_index_answer(&mut self, cx: Cx<'_>, from: NodeId, answer: IndexAnswer) {
        let Some(transfer) = &mut self.transfer else { return };
        if from != transfer.source || answer.number != transfer.asked.number {
            return;
        }
        transfer.began.get_or_insert_with(|| answer.state.applied.clone());
        match answer.found {
            IndexFound::Digests(digests) => self.compare(cx, &digests),
            IndexFound::Entries { range, entries } => self.merge_range(cx, &answer.state, range, entries),
            IndexFound::Outcomes { outcomes, more } => {
                let last = outcomes.last().map(|(op, _)| *op);
                self.log.adopt_outcomes(cx.mono(), outcomes, cx.storage);
                if more {
                    return self.ask_index(cx, PathRange::default(), IndexWant::Outcomes(last));
                }
                return self.finish_transfer(cx, &answer.state);
            }
        }
        self.go_on(cx);
    }

    /// The next question, unless one was just asked.
    fn go_on(&mut self, cx: Cx<'_>) {
        let Some(transfer) = &mut self.transfer else { return };
        if let Some(range) = transfer.differing.pop_front() {
            // Which part of a range differs is worth a question where there is something here that may not.
            let compares = transfer.asked.want == IndexWant::Next
                && self.config.index_range > FEW
                && !self.log.view(cx.storage).entries(&range, 1).is_empty();
            return self.ask_index(cx, range, if compares { IndexWant::Parts } else { IndexWant::Entries });
        }
        match transfer.rest.take() {
            Some(rest) => self.ask_index(cx, rest, IndexWant::Next),
            None => self.ask_index(cx, PathRange::default(), IndexWant::Outcomes(None)),
        }
    }

    /// Notes which ranges differ, and where to go on behind them.
    fn compare(&mut self, cx: Cx<'_>, digests: &[(PathRange, Digest)]) {
        let Some((last, _)) = digests.last() else { return };
        let most = 2 * self.config.index_range;
        let view = self.log.view(cx.storage);
        let same = |(range, digest): &&(PathRange, Digest)| {
            let mine = view.entries(range, most + 1);
            mine.len() <= most && mine.digest() == *digest
        };
        let differing = digests.iter().filter(|d| !same(d)).map(|(range, _)| range.clone()).collect();
        if let Some(transfer) = &mut self.transfer {
            transfer.differing = differing;
            transfer.rest = last.upto.clone().map(|upto| PathRange { after: Some(upto), upto: None });
        }
    }

    /// Merges what another has in a range into what is here, in bounded steps.
    fn merge_range(&mut self, cx: Cx<'_>, state: &IndexState, range: PathRange, entries: Vec<(FtpPath, PathEntry)>) {
        let most = self.config.index_range;
        let mine = self.log.view(cx.storage).entries(&range, most);
        let asked = self.transfer.as_ref().and_then(|t| t.asked.range.upto.clone());
        let mut upto = range.upto.clone();
        if mine.len() == most {
            upto = mine.last().map(|(path, _)| path.clone());
        }
        let within = |path: &FtpPath| upto.as_ref().is_none_or(|upto| path <= upto);
        let mut theirs: BTreeMap<FtpPath, PathEntry> = entries.into_iter().filter(|(path, _)| within(path)).collect();
        for (path, _) in mine {
            theirs.entry(path).or_default();
        }
        #[cfg(feature = "planted-bugs")]
        if self.config.planted == super::planted::Planted::TransferKeepsAll {
            theirs.retain(|_, entry| !entry.heads.is_empty());
        }
        self.log.borrow(&state.applied);
        let mut changed = 0;
        for (path, entry) in &theirs {
            changed += u64::from(self.log.merge_entry(path, entry, &state.applied, cx.storage));
        }
        if let Some(transfer) = &mut self.transfer {
            transfer.changed += changed;
            if upto.is_some() && upto != asked {
                transfer.differing.push_front(PathRange { after: upto, upto: asked });
            }
        }
    }

    fn finish_transfer(&mut self, cx: Cx<'_>, state: &IndexState) {
        let Some(transfer) = self.transfer.take() else { return };
        self.log.adopt(&transfer.began.unwrap_or_default(), state, cx.storage);
        self.apply_committed(cx);
        // What they said of their logs was about what we had before.
        self.peers.all.values_mut().filter_map(|p| p.said.as_mut()).for_each(|said| said.beyond_log = false);
        self.last_heartbeat = 0;
        self.event(Event::TookIndex { from: transfer.source, paths: transfer.changed });
    }
}

impl Log {
    /// Part of an index that was made of these records comes into ours.
    fn borrow(&mut self, applied: &Marks) {
        self.state.borrowed.join(applied);
        self.repay();
        self.pending.touch_state();
    }

    /// All that was taken over is covered, perhaps.
    pub(super) fn repay(&mut self) {
        if self.state.applied.covers(&self.state.borrowed) {
            self.state.borrowed = Marks::default();
        }
    }

    /// Merges a path's heads with those of an index made of `covered`; true when something changed.
    fn merge_entry(&mut self, path: &FtpPath, theirs: &PathEntry, covered: &Marks, storage: &dyn Storage) -> bool {
        let applied = self.state.applied.clone();
        let of = |entry: &PathEntry, head: &Head| entry.heads.iter().any(|h| h.position == head.position);
        let mut changed = false;
        self.change(path, storage, |entry| {
            let before = entry.clone();
            entry.heads.retain(|mine| !covered.has(mine.position) || of(theirs, mine));
            for their in &theirs.heads {
                match entry.heads.iter_mut().find(|mine| mine.position == their.position) {
                    Some(mine) => {
                        mine.confirmed |= their.confirmed;
                        if their.location.stamp > mine.location.stamp {
                            (mine.location, mine.what) = (their.location.clone(), their.what.clone());
                        }
                    }
                    None if applied.has(their.position) => {}
                    None => entry.heads.push(their.clone()),
                }
            }
            super::fold::sort(entry);
            changed = *entry != before;
        });
        changed
    }

    fn adopt_outcomes(
        &mut self,
        now: Micros,
        outcomes: Vec<(super::types::OpId, super::record::Outcome)>,
        storage: &dyn Storage,
    ) {
        for (op, outcome) in outcomes {
            if self.view(storage).outcome(op).is_none() {
                self.pending.outcome(op, Some(outcome));
                self.outcomes.push_back((now, op));
            }
        }
    }

    /// The index is made of these records, too, from now on. Those that are not in our log never will be.
    fn adopt(&mut self, began: &Marks, state: &IndexState, storage: &dyn Storage) {
        // Parts that wait would not follow the log any more.
        self.arriving.clear();
        for (epoch, count) in began.iter() {
            if self.state.logged.raise(epoch, count) {
                self.state.truncated.raise(epoch, count);
            }
        }
        self.state.applied.join(began);
        self.state.hlc = self.state.hlc.max(state.hlc);
        self.forget_applied(storage);
        self.repay();
        for (epoch, count) in state.committed.iter() {
            self.raise_committed(epoch, count, storage);
        }
        self.note_known(&state.known, &state.forgotten);
        state.drains.iter().for_each(|(node, said)| self.note_drain(*node, *said));
        self.pending.touch_state();
    }

    /// What is applied is no tail any more. Where its bytes belong the heads say that were taken over, or nobody.
    fn forget_applied(&mut self, storage: &dyn Storage) {
        let tail = std::mem::take(&mut self.tail);
        for record in tail {
            if self.state.applied.has(record.position) {
                record.paths().for_each(|path| self.untouch(path, record.position));
                if let Some(blob) = record.write().and_then(|w| w.blob) {
                    if self.view(storage).referrers(blob).is_empty() {
                        self.unreferenced.push(blob);
                    } else {
                        self.rehomed.insert(blob);
                    }
                }
            } else {
                self.tail.push_back(record);
            }
        }
    }
}
