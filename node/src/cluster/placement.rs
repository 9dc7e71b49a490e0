//! Which nodes get the copies: deterministic, fewest bytes first among the healthy, over as many zones as possible
//! (specification 6.1).

use super::info::DiskReport;
use super::member::{Cx, Member, Role};
use super::types::NodeId;

/// Disk use is compared in steps of this many bytes, so that nodes that are about equally full share the load.
const STEP: u64 = 64 * 1024 * 1024;

/// A node that could take a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) node: NodeId,
    pub(super) zone: String,
    /// Its clock is too far ahead of the others': it takes what nobody else can.
    pub(super) ahead: bool,
    /// Bytes used.
    pub(super) used: u64,
    /// Copies it was given since it last reported its use.
    pub(super) given: u64,
}

/// A node that could take copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) node: NodeId,
    pub(super) zone: String,
    /// Bytes.
    pub(super) free: u64,
}

/// What is to be placed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wanted<'a> {
    /// How many copies.
    pub(super) count: usize,
    /// The node the client is at.
    pub(super) near: Option<NodeId>,
    /// Their bytes, as far as they are known.
    pub(super) bytes: u64,
    /// If only these nodes will do.
    pub(super) among: Option<&'a [NodeId]>,
}

/// Up to `count` nodes. `near`, the node the client is at, is taken first while it is not fuller than the least full by
/// more than one step: its copy costs no network. `zones` are those of the copies that there are.
pub(super) fn choose(
    mut candidates: Vec<Candidate>,
    near: Option<NodeId>,
    count: usize,
    zones: &[String],
) -> Vec<NodeId> {
    let least = candidates.iter().map(|c| c.used / STEP).min().unwrap_or(0);
    candidates.sort_by_key(|c| {
        let is_near = Some(c.node) == near && c.used / STEP <= least + 1;
        (c.ahead, !is_near, c.used / STEP, c.given, c.node)
    });
    let mut chosen: Vec<Candidate> = vec![];
    while chosen.len() < count && !candidates.is_empty() {
        let fresh = candidates.iter().position(|c| chosen.iter().map(|x| &x.zone).chain(zones).all(|z| *z != c.zone));
        chosen.push(candidates.remove(fresh.unwrap_or(0)));
    }
    chosen.into_iter().map(|c| c.node).collect()
}

impl Member {
    pub(super) fn zone(&self, node: NodeId) -> Option<&String> {
        if node == self.me.node { Some(&self.me.zone) } else { self.peers.all.get(&node).map(|p| &p.info.zone) }
    }

    /// A node's disk, by its last word.
    pub(super) fn disk_of(&self, node: NodeId) -> DiskReport {
        if node == self.me.node { self.disk } else { self.peers.disk(node) }
    }

    /// A member that could take a copy of so many bytes now.
    fn candidate(&self, cx: Cx<'_>, node: NodeId, bytes: u64) -> Option<Candidate> {
        let Role::Lead(lead) = &self.role else { return None };
        let disk = self.disk_of(node);
        let said = self.peers.said(node);
        let behind = said.map_or(0, |i| i.marks.lacks(&self.log.state.logged));
        let live = node == self.me.node || (self.peers.linked(node, cx.mono()) && behind < 10_000);
        let ok = live && disk.healthy && disk.free.saturating_sub(self.config.disk_reserve) > bytes;
        ok.then(|| Candidate {
            node,
            zone: self.zone(node).cloned().unwrap_or_default(),
            ahead: said.is_some_and(|i| i.clock_ahead > 0),
            used: disk.used,
            given: lead.given.get(&node).map_or(0, |g| g.0),
        })
    }

    /// The members that could take copies and are to keep them.
    pub(super) fn room(&self, cx: Cx<'_>) -> Vec<Room> {
        let Role::Lead(lead) = &self.role else { return vec![] };
        let stay = lead.members.iter().filter(|m| !self.log.state.is_draining(**m));
        let free = |node| self.disk_of(node).free.saturating_sub(self.config.disk_reserve);
        let of = |c: Candidate| Room { node: c.node, free: free(c.node), zone: c.zone };
        stay.filter_map(|m| self.candidate(cx, *m, 0)).map(of).collect()
    }

    /// The members in other zones.
    pub(super) fn members_outside(&self, zone: &str) -> Vec<NodeId> {
        let Role::Lead(lead) = &self.role else { return vec![] };
        lead.members.iter().copied().filter(|n| self.zone(*n).is_some_and(|z| z != zone)).collect()
    }

    /// Where copies of a blob go, beside those that there are. To a node that is being drained only when there would be fewer
    /// otherwise.
    pub(super) fn place(
        &mut self,
        cx: Cx<'_>,
        Wanted { count, near, bytes, among }: Wanted<'_>,
        kept: &[NodeId],
        exclude: &[NodeId],
    ) -> Vec<NodeId> {
        let Role::Lead(lead) = &self.role else { return vec![] };
        let may = |m: &NodeId| !kept.contains(m) && !exclude.contains(m) && among.is_none_or(|nodes| nodes.contains(m));
        let (drained, stay): (Vec<Candidate>, Vec<Candidate>) = (lead.members.iter().copied().filter(may))
            .filter_map(|m| self.candidate(cx, m, bytes))
            .partition(|c| self.log.state.is_draining(c.node));
        let mut chosen = vec![];
        for candidates in [stay, drained] {
            let zones: Vec<String> = kept.iter().chain(&chosen).filter_map(|n| self.zone(*n).cloned()).collect();
            chosen.extend(choose(candidates, near, count - chosen.len(), &zones));
        }
        let used: Vec<u64> = chosen.iter().map(|n| self.disk_of(*n).used).collect();
        if let Role::Lead(lead) = &mut self.role {
            for (node, used) in chosen.iter().zip(used) {
                let given = lead.given.entry(*node).or_insert((0, used));
                given.0 += 1;
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u128, zone: &str, used: u64) -> Candidate {
        Candidate { node: NodeId(id), zone: zone.into(), ahead: false, used: used * STEP, given: 0 }
    }

    #[test]
    fn the_least_full_are_chosen() {
        let all = vec![node(1, "a", 5), node(2, "a", 1), node(3, "a", 3), node(4, "a", 0)];
        assert_eq!(choose(all, None, 3, &[]), [NodeId(4), NodeId(2), NodeId(3)]);
    }

    #[test]
    fn zones_come_before_fullness() {
        let all = vec![node(1, "a", 0), node(2, "a", 0), node(3, "a", 0), node(4, "b", 9)];
        assert!(choose(all, None, 3, &[]).contains(&NodeId(4)));
    }

    #[test]
    fn copies_that_there_are_leave_their_zones_to_others_last() {
        let all = || vec![node(1, "a", 0), node(2, "a", 0), node(4, "b", 9)];
        assert_eq!(choose(all(), None, 1, &["a".into()]), [NodeId(4)]);
        assert_eq!(choose(all(), None, 1, &["a".into(), "b".into()]), [NodeId(1)]);
    }

    #[test]
    fn the_near_node_is_preferred_until_it_is_fuller() {
        let all = |used| vec![node(1, "a", 0), node(2, "a", 0), node(3, "a", 0), node(9, "a", used)];
        assert_eq!(choose(all(1), Some(NodeId(9)), 3, &[])[0], NodeId(9));
        assert!(!choose(all(2), Some(NodeId(9)), 3, &[]).contains(&NodeId(9)));
    }

    #[test]
    fn those_given_less_go_first_among_equals() {
        let mut all = vec![node(1, "a", 0), node(2, "a", 0), node(3, "a", 0), node(4, "a", 0)];
        all[0].given = 7;
        assert_eq!(choose(all, None, 3, &[]), [NodeId(2), NodeId(3), NodeId(4)]);
    }

    #[test]
    fn a_clock_that_is_ahead_comes_last_but_before_too_few_copies() {
        let mut all = vec![node(1, "a", 0), node(2, "b", 5), node(3, "c", 5), node(4, "d", 5)];
        all[0].ahead = true;
        assert!(!choose(all.clone(), Some(NodeId(1)), 3, &[]).contains(&NodeId(1)));
        assert_eq!(choose(all, None, 4, &[])[3], NodeId(1));
    }

    #[test]
    fn too_few_nodes_give_what_there_is() {
        assert_eq!(choose(vec![node(1, "a", 0)], None, 3, &[]), [NodeId(1)]);
    }
}
