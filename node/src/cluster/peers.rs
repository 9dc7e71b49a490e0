//! Who is alive: heartbeats echoed both ways, and what each peer last said of itself (Chandra and Toueg's eventually
//! perfect detector, by timeouts).

use super::info::{DiskReport, Info, RoleName};
use super::io::Liveness;
use super::marks::Marks;
use super::skew::Readings;
use super::types::{Micros, NodeId, PeerInfo, Rank};
use std::collections::BTreeMap;

/// One peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) info: PeerInfo,
    /// When its last heartbeat came.
    heard: Micros,
    /// When we sent the newest heartbeat that it echoed.
    pub(super) echoed: Micros,
    /// The clock of its newest heartbeat, which we echo.
    pub(super) to_echo: Micros,
    /// When we last sent it one, and how much more slowly than usual they go.
    beaten: Micros,
    pace: Micros,
    /// Its port refused us since its last heartbeat.
    refused: bool,
    /// What its last heartbeat said; `None` until one came.
    pub(super) said: Option<Info>,
    /// All it ever said to have in its log, since our start.
    pub(super) covered: Marks,
    /// When we last asked it for records.
    pub(super) pulled: Micros,
    /// When we last asked it to hand over.
    pub(super) asked: Micros,
    /// When we last complained of what it says.
    pub(super) complained: Option<Micros>,
    /// Its clocks.
    pub(super) readings: Readings,
    shown: Liveness,
}

/// Who leads: of those that could, whoever stays rather than who is about to stop, and of several the highest rank.
pub(super) type Precedence = (bool, Rank);

impl Peer {
    /// Against [`Member::precedence`](super::Member): as far as it said.
    pub(super) fn precedence(&self) -> Precedence {
        (!self.said.as_ref().is_some_and(|said| said.leaving), self.info.rank)
    }
}

/// All peers ever met.
#[derive(Debug, Default)]
pub(super) struct Peers {
    pub(super) all: BTreeMap<NodeId, Peer>,
    /// Nodes that records name, and since when this process knows.
    named: BTreeMap<NodeId, Micros>,
    suspect: Micros,
    down: Micros,
}

impl Peers {
    /// Peers met before a start: not Down before their time.
    pub(super) fn new(met: Vec<PeerInfo>, me: NodeId, now: Micros, suspect: Micros, down: Micros) -> Self {
        let mut peers = Self { all: BTreeMap::new(), named: BTreeMap::new(), suspect, down };
        for info in met.into_iter().filter(|i| i.node != me) {
            peers.meet(info, now);
        }
        peers
    }

    /// Notes a peer, or what is new about it; true when there was something new.
    pub(super) fn meet(&mut self, info: PeerInfo, now: Micros) -> bool {
        if let Some(peer) = self.all.get_mut(&info.node) {
            let changed = peer.info != info;
            peer.info = info;
            return changed;
        }
        let shown = Liveness::Suspect;
        let peer = Peer {
            info,
            heard: now,
            echoed: now,
            to_echo: 0,
            beaten: 0,
            pace: 0,
            refused: false,
            said: None,
            covered: Marks::default(),
            pulled: 0,
            asked: 0,
            complained: None,
            readings: Readings::default(),
            shown,
        };
        self.all.insert(peer.info.node, peer);
        true
    }

    pub(super) fn port_refused(&mut self, node: NodeId) {
        if let Some(peer) = self.all.get_mut(&node) {
            peer.refused = true;
            peer.said = None;
        }
    }

    /// Notes a heartbeat; true when it is the first since the link came up.
    pub(super) fn heartbeat(&mut self, node: NodeId, now: Micros, sent: Micros, echo: Micros, info: Info) -> bool {
        let Some(peer) = self.all.get_mut(&node) else { return false };
        peer.heard = now;
        peer.to_echo = sent;
        if info.wall > 0 {
            peer.readings.take(now, sent, info.wall);
        }
        peer.refused = false;
        // A clock of ours from the future is one from before our restart.
        if echo <= now {
            peer.echoed = peer.echoed.max(echo);
        }
        if peer.said.as_ref().is_none_or(|said| said.marks != info.marks) {
            peer.covered.join(&info.marks);
        }
        peer.said.replace(info).is_none()
    }

    /// What to echo to a peer, when the next heartbeat to it is due at this pace.
    pub(super) fn time_to_beat(&mut self, node: NodeId, now: Micros, pace: Micros) -> Option<Micros> {
        let peer = self.all.get_mut(&node)?;
        if pace > 0 && peer.pace == pace && now.saturating_sub(peer.beaten) < pace {
            return None;
        }
        (peer.beaten, peer.pace) = (now, pace);
        Some(peer.to_echo)
    }

    /// What a node ever said to have in its log, since our start.
    pub(super) fn covered(&self, node: NodeId) -> Option<&Marks> {
        self.all.get(&node).map(|p| &p.covered)
    }
    /// How long a node that was met has been silent.
    pub(super) fn silent_for(&self, node: NodeId, now: Micros) -> Option<Micros> {
        self.all.get(&node).map(|p| now.saturating_sub(p.heard))
    }
    /// How long a node has not been heard, or has not heard us. One that was never met has been away since records first
    /// named it here, and not only since we lead: leaders may change often.
    pub(super) fn away_for(&self, node: NodeId, now: Micros) -> Micros {
        let met = self.all.get(&node).map(|p| p.echoed.min(p.heard));
        now.saturating_sub(met.or(self.named.get(&node).copied()).unwrap_or(now))
    }
    /// Nodes that records name.
    pub(super) fn note_named(&mut self, known: &[NodeId], now: Micros) {
        if self.named.len() != known.len() || !known.iter().all(|n| self.named.contains_key(n)) {
            self.named = known.iter().map(|n| (*n, self.named.get(n).copied().unwrap_or(now))).collect();
        }
    }
    /// Removes a node for good.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.all.remove(&node);
    }

    /// Linked both ways, not long ago.
    pub(super) fn linked(&self, node: NodeId, now: Micros) -> bool {
        self.all.get(&node).is_some_and(|p| self.is_linked(p, now))
    }
    fn is_linked(&self, p: &Peer, now: Micros) -> bool {
        !p.refused && p.said.is_some() && self.silence(p, now) <= self.suspect
    }
    /// For how much longer than their pace allows its heartbeats, or echoes of ours, have not come.
    fn silence(&self, p: &Peer, now: Micros) -> Micros {
        let theirs = p.said.as_ref().map_or(0, |said| said.pace.min(self.down));
        let unheard = now.saturating_sub(p.heard).saturating_sub(theirs);
        let unechoed = now.saturating_sub(p.echoed).saturating_sub(theirs).saturating_sub(p.pace);
        unheard.max(unechoed)
    }

    /// All peers linked both ways.
    pub(super) fn all_linked(&self, now: Micros) -> impl Iterator<Item = (NodeId, &Peer, &Info)> + '_ {
        let linked = self.all.iter().filter(move |(_, p)| self.is_linked(p, now));
        linked.filter_map(|(id, p)| p.said.as_ref().map(|said| (*id, p, said)))
    }

    /// Whether its port refused us since its last heartbeat: its process is gone, and with it what it could still do.
    pub(super) fn has_refused(&self, node: NodeId) -> bool {
        self.all.get(&node).is_some_and(|p| p.refused)
    }

    pub(super) fn is_down(&self, node: NodeId, now: Micros) -> bool {
        self.all.get(&node).is_none_or(|p| self.silence(p, now) > self.down)
    }

    /// How many peers are, or may soon be again, members: not Down, and not known as unfit.
    pub(super) fn expected(&self, now: Micros, is_fit: impl Fn(&Info) -> bool) -> usize {
        let counts = |(id, p): &(&NodeId, &Peer)| !self.is_down(**id, now) && p.said.as_ref().is_none_or(&is_fit);
        self.all.iter().filter(counts).count()
    }

    /// Whether a peer that is not Down is away or not fit to be a member, which may pass.
    pub(super) fn recovering(&self, now: Micros, is_fit: impl Fn(&Info) -> bool) -> bool {
        let fit = |p: &Peer| self.is_linked(p, now) && p.said.as_ref().is_some_and(&is_fit);
        self.all.iter().any(|(id, p)| !self.is_down(*id, now) && !fit(p))
    }

    /// What those that are not Down last said to have.
    pub(super) fn marks_of_live(&self, now: Micros) -> impl Iterator<Item = &Marks> + '_ {
        let live = self.all.iter().filter(move |(id, _)| !self.is_down(**id, now));
        live.filter_map(|(_, p)| p.said.as_ref().map(|said| &said.marks))
    }

    pub(super) fn said(&self, node: NodeId) -> Option<&Info> {
        self.all.get(&node).and_then(|p| p.said.as_ref())
    }
    pub(super) fn role(&self, node: NodeId) -> RoleName {
        self.said(node).map_or(RoleName::Follow, |i| i.role)
    }
    pub(super) fn disk(&self, node: NodeId) -> DiskReport {
        self.said(node).map_or(DiskReport::default(), |i| i.disk)
    }

    pub(super) fn liveness(&self, node: NodeId, now: Micros) -> Liveness {
        if self.is_down(node, now) {
            Liveness::Down
        } else if self.linked(node, now) {
            Liveness::Alive
        } else {
            Liveness::Suspect
        }
    }

    /// The peers whose liveness changed since the last call.
    pub(super) fn changes(&mut self, now: Micros) -> Vec<(NodeId, Liveness)> {
        let ids: Vec<NodeId> = self.all.keys().copied().collect();
        let mut changed = vec![];
        for id in ids {
            let liveness = self.liveness(id, now);
            if let Some(peer) = self.all.get_mut(&id).filter(|p| p.shown != liveness) {
                peer.shown = liveness;
                changed.push((id, liveness));
            }
        }
        changed
    }
}
