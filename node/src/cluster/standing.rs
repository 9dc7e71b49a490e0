//! How the copies of a version stand, as the leader sees it: which are there to stay, which are to be replaced since their
//! node is drained or all are in one zone, and which are on nodes that may come back.

use super::log::COPIES;
use super::member::{Cx, Member, Role};
use super::record::Location;
use super::types::{Micros, NodeId};

/// How the nodes that a register names are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Standing {
    /// There, and to stay.
    pub(super) live: Vec<NodeId>,
    /// There, and to be replaced.
    pub(super) leaving: Vec<NodeId>,
    /// Away, but not for long enough to be given up; who has been away for the shortest time first.
    pub(super) awaited: Vec<NodeId>,
    /// The zone in which all are, while nodes of others could take one.
    pub(super) crowded: Option<String>,
}

impl Standing {
    /// Whoever has a copy to copy from.
    pub(super) fn sources(&self) -> Vec<NodeId> {
        self.live.iter().chain(&self.leaving).copied().collect()
    }
    /// Whether there are too few, wherever they are. With no live one there is nobody to copy from, but once all are given
    /// up a copy may be found where no register has one.
    pub(super) fn is_short(&self) -> bool {
        match self.live.len() + self.leaving.len() {
            0 => self.awaited.is_empty(),
            1 => true,
            copies => copies < COPIES && copies + self.awaited.len() < COPIES,
        }
    }
    /// Whether a copy is needed now. What is only in the wrong place waits until nobody is awaited: who comes back has one.
    pub(super) fn lacks_copies(&self) -> bool {
        let misplaced = !self.leaving.is_empty() && self.live.len() < COPIES;
        self.is_short() || (misplaced && self.awaited.is_empty())
    }
    /// Whose turn it is: last copies first, then what is misplaced or may be lost for good.
    pub(super) fn urgency(&self) -> usize {
        let copies = self.live.len() + self.leaving.len();
        if copies == 0 { COPIES } else { copies }
    }
    /// The register with a new copy. A copy that is there goes before one that may come back, wherever it is.
    pub(super) fn with(&self, target: NodeId) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> = vec![];
        for node in self.live.iter().chain([&target]).chain(&self.leaving).chain(&self.awaited) {
            if !nodes.contains(node) {
                nodes.push(*node);
            }
        }
        nodes.truncate(COPIES);
        nodes.sort();
        nodes
    }
}

impl Member {
    /// How long a node has been away, as far as this node knows; for ever when it was forgotten.
    pub(super) fn absence(&self, cx: Cx<'_>, node: NodeId) -> Micros {
        if node == self.me.node {
            return 0;
        }
        if self.log.state.forgotten.contains(&node) {
            return Micros::MAX;
        }
        self.peers.away_for(node, cx.mono())
    }

    /// Whether a linked peer is in another leader's epoch.
    pub(super) fn follows_another(&self, cx: Cx<'_>) -> bool {
        let led = |i: &super::Info| i.leader.is_some_and(|(_, epoch)| epoch != self.log.state.promised);
        self.peers.all_linked(cx.mono()).any(|(.., said)| led(said))
    }

    /// How the copies of a version of so many bytes stand.
    pub(super) fn copies_of(&self, cx: Cx<'_>, location: &Location, bytes: u64) -> Standing {
        let absent = |n: &NodeId| (self.absence(cx, *n), *n);
        let mut all: Vec<(Micros, NodeId)> = location.nodes.iter().map(absent).collect();
        all.sort();
        let named = |from: Micros, to: Micros| {
            let within = all.iter().filter(|(away, _)| (from..=to).contains(away));
            within.map(|(_, n)| *n).collect::<Vec<_>>()
        };
        let there = self.config.repair_last_copy;
        // Who is away from here may be with the other leader, who logs the same of our nodes: without this they would move
        // every version to and fro for as long as a bridge keeps them apart.
        let apart = self.follows_another(cx);
        let given_up = if apart { Micros::MAX - 1 } else { self.config.repair_after.max(there) };
        let (leaving, live): (Vec<NodeId>, Vec<NodeId>) =
            named(0, there).into_iter().partition(|n| !apart && self.log.state.is_draining(*n));
        #[cfg(feature = "planted-bugs")]
        let (leaving, live) = match self.config.planted {
            super::planted::Planted::DrainIgnored => (vec![], [live, leaving].concat()),
            _ => (leaving, live),
        };
        let mut standing = Standing { live, leaving, awaited: named(there + 1, given_up), crowded: None };
        if !apart && standing.awaited.is_empty() && standing.live.len() >= COPIES {
            self.spread(&mut standing, bytes);
        }
        standing
    }

    /// Where all copies are in one zone and another has room, the one on the fullest node is to be replaced.
    fn spread(&self, standing: &mut Standing, bytes: u64) {
        let Some(zone) = standing.live.first().and_then(|n| self.zone(*n)) else { return };
        #[cfg(feature = "planted-bugs")]
        if self.config.planted == super::planted::Planted::ZonesIgnored {
            return;
        }
        let Role::Lead(lead) = &self.role else { return };
        if standing.live.iter().any(|n| self.zone(*n) != Some(zone))
            || !lead.repair.search.has_room_outside(zone, bytes)
        {
            return;
        }
        standing.crowded = Some(zone.clone());
        standing.live.sort_by_key(|n| (self.disk_of(*n).used, *n));
        standing.leaving.extend(standing.live.pop());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(live: &[u128], leaving: &[u128], awaited: &[u128]) -> Standing {
        let nodes = |ids: &[u128]| ids.iter().map(|n| NodeId(*n)).collect();
        Standing { live: nodes(live), leaving: nodes(leaving), awaited: nodes(awaited), crowded: None }
    }

    #[test]
    fn who_may_come_back_is_waited_for_unless_one_copy_is_left() {
        assert!(!standing(&[1, 2, 3], &[], &[]).lacks_copies());
        assert!(!standing(&[1, 2], &[], &[3]).lacks_copies());
        assert!(standing(&[1, 2], &[], &[]).lacks_copies());
        assert!(standing(&[1], &[], &[2, 3]).lacks_copies());
        assert!(!standing(&[], &[], &[1]).lacks_copies(), "nobody to copy from");
        assert!(standing(&[], &[], &[]).lacks_copies(), "it may be found somewhere");
    }

    #[test]
    fn what_leaves_is_replaced_once_nobody_is_awaited() {
        assert!(standing(&[1, 2], &[3], &[]).lacks_copies());
        assert!(!standing(&[1], &[3], &[2]).lacks_copies());
        assert!(standing(&[], &[3], &[1, 2]).lacks_copies(), "it is the last one");
        assert!(!standing(&[1, 2, 3], &[4], &[]).lacks_copies());
    }

    #[test]
    fn copies_that_are_there_stay_in_the_register_until_three_are_to_stay() {
        let with = |s: Standing| s.with(NodeId(9)).into_iter().map(|n| n.0).collect::<Vec<_>>();
        assert_eq!(with(standing(&[1, 2], &[3], &[])), [1, 2, 9]);
        assert_eq!(with(standing(&[1], &[2, 3], &[])), [1, 2, 9]);
        assert_eq!(with(standing(&[], &[3], &[1, 2])), [1, 3, 9]);
        assert_eq!(with(standing(&[1], &[], &[2, 3])), [1, 2, 9]);
    }
}
