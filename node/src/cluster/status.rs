//! The cluster as one node sees it, for people.

use super::info::RoleName;
use super::io::{Liveness, MemberStatus, Status};
use super::member::Member;
use super::storage::Storage;
use super::types::{Epoch, NodeId, Now};

impl Member {
    /// What it does, whom it follows (itself when it leads), and the epoch it promised to: the part of [`Self::status`] that
    /// costs nothing.
    pub fn standing(&self) -> (RoleName, Option<NodeId>, Epoch) {
        (self.role_name().0, self.leader.map(|l| l.0), self.log.state.promised)
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
                behind: p.said.as_ref().map_or(0, |i| i.marks.lacks(&self.log.state.logged)),
                disk: self.peers.disk(*id),
                clock_ahead: self.peers.said(*id).map_or(0, |i| i.clock_ahead),
                draining: self.draining(*id, now.mono, storage),
                copies: self.log.state.copies.get(id).copied().unwrap_or(0),
            })
            .collect();
        let role = self.role_name().0;
        let liveness = Liveness::Alive;
        let (info, clock_ahead) = (self.me.clone(), self.clock_ahead);
        let (draining, copies) =
            (self.draining(info.node, now.mono, storage), self.log.state.copies.get(&info.node).copied());
        let copies = copies.unwrap_or(0);
        members.push(MemberStatus { info, liveness, role, behind: 0, disk: self.disk, clock_ahead, draining, copies });
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
