//! Which nodes get the copies: deterministic, fewest bytes first among the healthy, over as many zones as possible
//! (specification 6.1).

use super::member::{Cx, Member, Role};
use super::types::NodeId;

/// Disk use is compared in steps of this many bytes, so that nodes that are about equally full share the load.
const STEP: u64 = 64 * 1024 * 1024;

/// A node that could take a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) node: NodeId,
    pub(super) zone: String,
    /// Bytes used.
    pub(super) used: u64,
    /// Copies it was given since it last reported its use.
    pub(super) given: u64,
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
        (!is_near, c.used / STEP, c.given, c.node)
    });
    let mut chosen: Vec<Candidate> = vec![];
    while chosen.len() < count && !candidates.is_empty() {
        let fresh = candidates.iter().position(|c| chosen.iter().map(|x| &x.zone).chain(zones).all(|z| *z != c.zone));
        chosen.push(candidates.remove(fresh.unwrap_or(0)));
    }
    chosen.into_iter().map(|c| c.node).collect()
}

impl Member {
    fn zone(&self, node: NodeId) -> Option<&String> {
        if node == self.me.node { Some(&self.me.zone) } else { self.peers.all.get(&node).map(|p| &p.info.zone) }
    }

    /// Where copies of a blob go, beside those that there are; `among` these, if only they will do.
    pub(super) fn place(
        &mut self,
        cx: Cx<'_>,
        near: Option<NodeId>,
        count: usize,
        kept: &[NodeId],
        exclude: &[NodeId],
        among: Option<&[NodeId]>,
    ) -> Vec<NodeId> {
        let now = cx.mono();
        let Role::Lead(lead) = &self.role else { return vec![] };
        let fit = |m: &NodeId| -> Option<Candidate> {
            let mine = *m == self.me.node;
            let disk = if mine { self.disk } else { self.peers.disk(*m) };
            let zone = self.zone(*m);
            let behind = self.peers.said(*m).map_or(0, |i| i.marks.lacks(&self.log.state.logged));
            let live = mine || (self.peers.linked(*m, now) && behind < 10_000);
            let taken = kept.contains(m) || exclude.contains(m);
            let ok = live && disk.healthy && disk.free > self.config.disk_reserve && !taken;
            let given = lead.given.get(m).map_or(0, |g| g.0);
            ok.then(|| Candidate { node: *m, zone: zone.cloned().unwrap_or_default(), used: disk.used, given })
        };
        // A node whose clock is ahead gets nothing while there are enough others.
        let sound = |m: &&NodeId| self.peers.said(**m).is_none_or(|i| i.clock_ahead == 0);
        let eligible = || lead.members.iter().filter(|m| among.is_none_or(|nodes| nodes.contains(m)));
        let enough = eligible().filter(sound).count() >= self.config.min_copies;
        let candidates: Vec<Candidate> = eligible().filter(|m| !enough || sound(m)).filter_map(fit).collect();
        let zones: Vec<String> = kept.iter().filter_map(|n| self.zone(*n).cloned()).collect();
        let chosen = choose(candidates, near, count, &zones);
        let used: Vec<u64> = chosen.iter().map(|n| self.peers.disk(*n).used).collect();
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
        Candidate { node: NodeId(id), zone: zone.into(), used: used * STEP, given: 0 }
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
    fn too_few_nodes_give_what_there_is() {
        assert_eq!(choose(vec![node(1, "a", 0)], None, 3, &[]), [NodeId(1)]);
    }
}
