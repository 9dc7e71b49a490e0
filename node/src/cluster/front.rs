//! The front: one client operation from its submission to its answer, across lost leaders, lost messages and lost replicas.
//! It keeps the operation's id for as long as it tries, so the leader's outcome table can answer repeats.

use super::change::{Change, Refusal, Staged};
use super::config::Config;
use super::io::{FrontEvent, Output};
use super::member::{Cx, Member};
use super::message::{HeldLock, Message};
use super::record::Outcome;
use super::types::{BlobId, Epoch, Hlc, MS, Micros, NodeId, OpId, Token};

/// After "not the leader".
const SOON: Micros = 150 * MS;
/// Between renewals of the lock's lease.
const RENEW: Micros = 2000 * MS;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Wants the lock.
    Wanting,
    /// Holds it; the session moves bytes.
    Staging,
    /// Waits for nodes in place of lost replicas.
    Replacing,
    /// Asks for the commit.
    Committing,
}

/// One operation.
#[derive(Debug)]
pub(super) struct Front {
    change: Change,
    patience: Micros,
    phase: Phase,
    token: Option<Token>,
    /// The attempt's name: the first token it was granted.
    blob: Option<BlobId>,
    replicas: Vec<NodeId>,
    staged: Option<Staged>,
    lost: Option<(Vec<NodeId>, Vec<NodeId>)>,
    /// A commit was asked for: the outcome may not be known at the end.
    doubtful: bool,
    /// Whom it was asked of first. Only that reign can say that it was not done: a later one may not know yet.
    first_asked: Option<(NodeId, Epoch)>,
    /// How far the fastest clock that granted it a lock was ahead of our monotonic one.
    ahead: Option<i128>,
    /// When to send again.
    again: Micros,
    until: Micros,
    started: Micros,
    bytes: u64,
    /// Bytes and time at the start of the stall window.
    window: (u64, Micros),
}

impl Front {
    fn new(change: Change, patience: Micros, now: Micros) -> Self {
        Self {
            change,
            patience,
            phase: Phase::Wanting,
            token: None,
            blob: None,
            replicas: vec![],
            staged: None,
            lost: None,
            doubtful: false,
            first_asked: None,
            ahead: None,
            again: now,
            until: now + patience,
            started: now,
            bytes: 0,
            window: (0, now),
        }
    }
    /// Why it must end now, if it must.
    fn too_late(&self, config: &Config, now: Micros) -> Option<Refusal> {
        let (late, why) = match self.phase {
            Phase::Staging => {
                let moved = self.bytes - self.window.0;
                let stalled = now - self.window.1 > config.stall_window && moved < config.stall_bytes;
                (stalled || now - self.started > config.max_upload, Refusal::Stalled)
            }
            _ => (now > self.until, Refusal::NoLeader),
        };
        late.then_some(if self.doubtful { Refusal::Unknown } else { why })
    }
    /// A stamp no earlier attempt of this front can have got.
    fn floor(&self, now: Micros) -> Hlc {
        Hlc(self.ahead.map_or(0, |ahead| (i128::from(now) + ahead).clamp(0, i128::from(u64::MAX)) as u64))
    }
    fn request(&self, op: OpId, now: Micros) -> Option<Message> {
        let change = self.change.clone();
        match (self.phase, self.token) {
            (Phase::Wanting, _) | (_, None) => Some(Message::LockRequest { op, change }),
            (Phase::Staging, Some(token)) => Some(Message::Renew { op, token }),
            (Phase::Replacing, Some(token)) => {
                self.lost.clone().map(|(kept, lost)| Message::Replace { op, token, kept, lost })
            }
            (Phase::Committing, Some(token)) => {
                Some(Message::Commit { op, token, change, staged: self.staged.clone(), floor: self.floor(now) })
            }
        }
    }
}

impl Member {
    pub(super) fn submit(&mut self, cx: Cx<'_>, op: OpId, change: Change, patience: Micros) {
        let now = cx.mono();
        let patience = patience.min(self.config.outcome_retention / 2);
        self.fronts.entry(op).or_insert_with(|| Front::new(change, patience, now));
        self.send_front(cx, op);
    }

    /// Sends what the front wants now, if there is a leader.
    fn send_front(&mut self, cx: Cx<'_>, op: OpId) {
        let now = cx.mono();
        let Some((leader, epoch)) = self.leader else { return };
        let Some(front) = self.fronts.get(&op) else { return };
        match self.judges(leader, &front.change) {
            Some(true) => {}
            // Its port refused us: it is about to be leader no more, and the front is due again at the next tick.
            None => return,
            Some(false) => {
                // An earlier leader, which knew it, may have done it.
                let why = if front.doubtful { Refusal::Unknown } else { Refusal::NotYet };
                return self.give_up(op, why);
            }
        }
        let Some(front) = self.fronts.get_mut(&op) else { return };
        front.again = now + if front.phase == Phase::Staging { RENEW } else { self.config.rpc };
        if front.phase == Phase::Committing || front.change.is_order() {
            front.doubtful = true;
            front.first_asked = front.first_asked.or(Some((leader, epoch)));
        }
        if let Some(message) = front.request(op, now) {
            self.send(leader, message);
        }
    }

    pub(super) fn tick_fronts(&mut self, cx: Cx<'_>) {
        let now = cx.mono();
        let late: Vec<(OpId, Refusal)> =
            self.fronts.iter().filter_map(|(op, f)| Some((*op, f.too_late(&self.config, now)?))).collect();
        for (op, why) in late {
            self.give_up(op, why);
        }
        let due: Vec<OpId> = self.fronts.iter().filter(|(_, f)| now >= f.again).map(|(op, _)| *op).collect();
        for op in due {
            self.send_front(cx, op);
        }
    }

    fn give_up(&mut self, op: OpId, refusal: Refusal) {
        let Some(front) = self.fronts.remove(&op) else { return };
        if let Some((leader, _)) = self.leader {
            self.send(leader, Message::Unlock { op, token: front.token });
        }
        self.tell(op, FrontEvent::Refused(refusal));
    }

    fn tell(&mut self, op: OpId, event: FrontEvent) {
        self.out.push(Output::Front { op, event });
    }

    /// A new leader: everybody says again what they want.
    pub(super) fn fronts_see_leader(&mut self, cx: Cx<'_>) {
        let ops: Vec<OpId> = self.fronts.keys().copied().collect();
        for op in ops {
            self.send_front(cx, op);
        }
    }

    /// The locks our fronts hold, for `to`, which is about to lead.
    pub(super) fn held_locks(&self, to: NodeId) -> Vec<HeldLock> {
        let known = |(_, f): &(&OpId, &Front)| self.judges(to, &f.change) == Some(true);
        let held = |(op, f): (&OpId, &Front)| {
            let (token, change, replicas) = (f.token?, f.change.clone(), f.replicas.clone());
            Some(HeldLock { op: *op, token, change, replicas })
        };
        self.fronts.iter().filter(known).filter_map(held).collect()
    }

    /// The lock with its plan, or the same lock under a new leader's token.
    pub(super) fn on_granted(&mut self, cx: Cx<'_>, op: OpId, token: Token, replicas: Vec<NodeId>, hlc: Hlc) {
        let now = cx.mono();
        let Some((leader, _)) = self.leader else { return };
        let Some(front) = self.fronts.get_mut(&op) else {
            // Done through another leader, or given up: return it at once.
            return self.send(leader, Message::Unlock { op, token: Some(token) });
        };
        let ahead = i128::from(hlc.0) - i128::from(now);
        front.ahead = Some(front.ahead.map_or(ahead, |a| a.max(ahead)));
        if front.token.is_some_and(|t| t >= token) {
            return;
        }
        front.token = Some(token);
        if !front.change.has_bytes() {
            return self.enter(cx, op, Phase::Committing);
        }
        match front.phase {
            Phase::Wanting if front.staged.is_some() => self.enter(cx, op, Phase::Committing),
            Phase::Wanting if front.lost.is_some() => self.enter(cx, op, Phase::Replacing),
            Phase::Wanting if front.blob.is_some() => front.phase = Phase::Staging,
            Phase::Wanting => {
                let blob = BlobId { op, token };
                (front.phase, front.blob, front.replicas) = (Phase::Staging, Some(blob), replicas.clone());
                (front.window, front.again) = ((front.bytes, now), now + RENEW);
                self.tell(op, FrontEvent::Stage { blob, replicas });
            }
            Phase::Staging => {}
            Phase::Replacing | Phase::Committing => self.send_front(cx, op),
        }
    }

    fn enter(&mut self, cx: Cx<'_>, op: OpId, phase: Phase) {
        if let Some(front) = self.fronts.get_mut(&op) {
            if phase != front.phase {
                front.until = cx.mono() + front.patience;
            }
            front.phase = phase;
            self.send_front(cx, op);
        }
    }

    pub(super) fn front_staged(&mut self, cx: Cx<'_>, op: OpId, staged: Staged) {
        let Some(front) = self.fronts.get_mut(&op) else { return };
        (front.staged, front.lost) = (Some(staged), None);
        // Without the lock it is asked for first, as it was being done.
        if front.phase != Phase::Wanting {
            self.enter(cx, op, Phase::Committing);
        }
    }

    pub(super) fn front_progress(&mut self, op: OpId, bytes: u64) {
        let now = self.last_tick();
        if let Some(front) = self.fronts.get_mut(&op) {
            front.bytes = front.bytes.max(bytes);
            // The stall window begins anew as often as enough has moved.
            if front.bytes - front.window.0 >= self.config.stall_bytes {
                front.window = (front.bytes, now);
            }
        }
    }

    pub(super) fn front_replica_lost(&mut self, cx: Cx<'_>, op: OpId, kept: Vec<NodeId>, lost: Vec<NodeId>) {
        let Some(front) = self.fronts.get_mut(&op) else { return };
        (front.lost, front.staged) = (Some((kept, lost)), None);
        if front.phase != Phase::Wanting {
            self.enter(cx, op, Phase::Replacing);
        }
    }

    pub(super) fn on_replacement(&mut self, op: OpId, token: Token, kept: Vec<NodeId>, nodes: Vec<NodeId>) {
        let now = self.last_tick();
        let Some(front) = self.fronts.get_mut(&op).filter(|f| f.token == Some(token)) else { return };
        if !matches!(front.phase, Phase::Replacing | Phase::Committing) || front.blob.is_none() {
            return;
        }
        (front.phase, front.lost, front.staged) = (Phase::Staging, None, None);
        (front.window, front.again) = ((front.bytes, now), now + RENEW);
        front.replicas = kept.iter().chain(&nodes).copied().collect();
        self.tell(op, FrontEvent::Replacement { kept, nodes });
    }

    pub(super) fn front_cancel(&mut self, op: OpId) {
        let Some(front) = self.fronts.get(&op) else { return };
        if front.doubtful && matches!(front.phase, Phase::Committing | Phase::Wanting) {
            return; // the commit is on its way; its end frees the lock
        }
        let token = front.token;
        self.fronts.remove(&op);
        if let Some((leader, _)) = self.leader {
            self.send(leader, Message::Unlock { op, token });
        }
    }

    pub(super) fn on_done(&mut self, op: OpId, outcome: Outcome) {
        if self.fronts.remove(&op).is_some() {
            self.tell(op, FrontEvent::Done(outcome));
        }
    }

    pub(super) fn on_refused(&mut self, from: NodeId, op: OpId, refusal: Refusal) {
        let Some(front) = self.fronts.get(&op) else { return };
        let refusal = match (front.first_asked, self.leader) {
            (None, _) => refusal,
            (first, leader) if first == leader && leader.is_some_and(|l| l.0 == from) => refusal,
            (_, Some((leader, _))) if leader == from => Refusal::Unknown,
            _ => return, // of a leader that was, about an attempt that was
        };
        self.fronts.remove(&op);
        self.tell(op, FrontEvent::Refused(refusal));
    }

    pub(super) fn on_stale(&mut self, cx: Cx<'_>, op: OpId, token: Token) {
        let Some(front) = self.fronts.get_mut(&op) else { return };
        // An answer about an earlier token says nothing about a newer one.
        if front.token == Some(token) && front.phase != Phase::Wanting {
            self.enter(cx, op, Phase::Wanting);
        }
    }

    pub(super) fn on_not_leader(&mut self, cx: Cx<'_>, op: OpId) {
        if let Some(front) = self.fronts.get_mut(&op) {
            front.again = cx.mono() + SOON;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::FtpPath;

    #[test]
    fn an_end_after_a_commit_was_asked_for_is_never_called_a_refusal() {
        let config = Config::default();
        let path = FtpPath::root().join("f").unwrap();
        let mut front = Front::new(Change::Store { path, create_only: false }, 1000 * MS, 0);
        let late = config.max_upload + 1;
        for (phase, why) in [(Phase::Wanting, Refusal::NoLeader), (Phase::Staging, Refusal::Stalled)] {
            front.phase = phase;
            assert_eq!(front.too_late(&config, MS), None);
            front.doubtful = false;
            assert_eq!(front.too_late(&config, late), Some(why));
            // As after a replacement of copies that a commit was asked for.
            front.doubtful = true;
            assert_eq!(front.too_late(&config, late), Some(Refusal::Unknown));
        }
    }
}
