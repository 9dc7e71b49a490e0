//! The cluster as one node sees it, for people.

use super::info::RoleName;
use super::io::{Liveness, MemberStatus, Status};
use super::member::Member;
use super::peers::Peer;
use super::storage::Storage;
use super::types::{Epoch, NodeId, Now};
use super::version::PROTOCOL;

impl Member {
    /// What it does, whom it follows (itself when it leads), and the epoch it promised to: the part of [`Self::status`] that
    /// costs nothing.
    pub fn standing(&self) -> (RoleName, Option<NodeId>, Epoch) {
        (self.role_name().0, self.leader.map(|l| l.0), self.log.state.promised)
    }

    /// How many records of our log a peer lacks: as it says, or, of one that is away, as it last said. Of one that was never
    /// heard nobody knows, and 0 is shown.
    fn behind(&self, peer: &Peer) -> u64 {
        let marks = peer.said.as_ref().map(|said| &said.marks);
        let last = Some(&peer.covered).filter(|marks| !marks.is_empty());
        marks.or(last).map_or(0, |marks| marks.lacks(&self.log.state.logged))
    }

    /// For people.
    pub fn status(&self, now: Now, storage: &dyn Storage) -> Status {
        let mut members: Vec<MemberStatus> = self
            .peers
            .all
            .iter()
            .map(|(id, p)| MemberStatus {
                info: p.info.clone(),
                liveness: self.peers.liveness(*id, now.mono),
                role: self.peers.role(*id),
                behind: self.behind(p),
                disk: self.peers.disk(*id),
                clock_ahead: self.peers.said(*id).map_or(0, |i| i.clock_ahead),
                draining: self.draining(*id, now.mono, storage),
                copies: self.log.state.copies.get(id).copied().unwrap_or(0),
                leaving: self.peers.said(*id).is_some_and(|i| i.leaving),
                protocol: self.peers.said(*id).map_or(0, |i| i.protocol),
            })
            .collect();
        let role = self.role_name().0;
        members.push(MemberStatus {
            info: self.me.clone(),
            liveness: Liveness::Alive,
            role,
            behind: 0,
            disk: self.disk,
            clock_ahead: self.clock_ahead,
            draining: self.draining(self.me.node, now.mono, storage),
            copies: self.log.state.copies.get(&self.me.node).copied().unwrap_or(0),
            leaving: self.leaving,
            protocol: PROTOCOL,
        });
        members.sort_by(|a, b| a.info.name.cmp(&b.info.name));
        let state = &self.log.state;
        let is_down = |node: &NodeId| *node != self.me.node && self.peers.is_down(*node, now.mono);
        let on_down: u64 = state.copies.iter().filter(|(node, _)| is_down(node)).map(|(_, n)| n).sum();
        Status {
            node: self.me.node,
            role,
            leader: self.leader.map(|l| l.0),
            epoch: self.log.state.promised,
            members,
            digest: state.digest.unwrap_or_default(),
            files: state.files,
            missing_copies: state.shortfall + on_down,
            applied: self.log.state.applied.iter().map(|(_, n)| n).sum(),
        }
    }
}
