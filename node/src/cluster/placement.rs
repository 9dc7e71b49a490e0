//! Which nodes get the copies: deterministic, fewest bytes first among the healthy, over as many zones as possible
//! (specification 6.1). A node that is much emptier than most, as a new one is, fills up gradually.

use super::info::DiskReport;
use super::member::{Cx, Member, Role};
use super::types::NodeId;
use std::collections::BTreeMap;

/// Disk use is compared in steps of this many bytes, so that nodes that are about equally full share the load.
const STEP: u64 = 64 * 1024 * 1024;
/// A node that has less than the middle one by more steps than this gets its share more often than others, but not of all.
const EMPTY: u64 = 16;

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

/// What a leader has placed.
#[derive(Debug, Default)]
pub(super) struct Dealt {
    /// How often.
    plans: u64,
    /// Copies given to a node since it last reported its use, and that use.
    given: BTreeMap<NodeId, (u64, u64)>,
}

impl Dealt {
    /// A node says how many bytes it has.
    pub(super) fn reported(&mut self, node: NodeId, used: u64) {
        if let Some(given) = self.given.get_mut(&node).filter(|given| given.1 != used) {
            *given = (0, used);
        }
    }
}

/// Up to `count` nodes. `near`, the node the client is at, is taken first while it is not fuller than the least full by
/// more than one step: its copy costs no network. `zones` are those of the copies that there are. `turn` counts plans: in some
/// of them nodes that are much emptier than most come last, for whoever has every new file has all the load.
pub(super) fn choose(
    mut candidates: Vec<Candidate>,
    near: Option<NodeId>,
    count: usize,
    zones: &[String],
    turn: u64,
) -> Vec<NodeId> {
    let middle = middle(&candidates);
    let is_empty = |c: &Candidate| c.used / STEP + EMPTY < middle;
    let rest = !takes_empty(candidates.len(), count, turn);
    // An empty one is no measure for the others: a client's own node would be too full beside it.
    let least = candidates.iter().filter(|c| !is_empty(c)).map(|c| c.used / STEP).min().unwrap_or(0);
    candidates.sort_by_key(|c| {
        let is_near = Some(c.node) == near && c.used / STEP <= least + 1;
        (c.ahead, !is_near, rest && is_empty(c), c.used / STEP, c.given, c.node)
    });
    let mut chosen: Vec<Candidate> = vec![];
    while chosen.len() < count && !candidates.is_empty() {
        let fresh = candidates.iter().position(|c| chosen.iter().map(|x| &x.zone).chain(zones).all(|z| *z != c.zone));
        chosen.push(candidates.remove(fresh.unwrap_or(0)));
    }
    chosen.into_iter().map(|c| c.node).collect()
}

/// The use of the middle one of all, in steps; of two middle ones the fuller's.
fn middle(candidates: &[Candidate]) -> u64 {
    let mut used: Vec<u64> = candidates.iter().map(|c| c.used / STEP).collect();
    used.sort_unstable();
    used.get(used.len() / 2).copied().unwrap_or(0)
}

/// Whether much emptier nodes are chosen in this turn: so often that one gets twice the share of a node among so many, and
/// half way from that share to all where that is less. The turns are spread evenly.
fn takes_empty(nodes: usize, count: usize, turn: u64) -> bool {
    let (nodes, count) = (nodes as u64, count as u64);
    let (most, of) = ((4 * count).min(nodes + count), 2 * nodes);
    turn % of.max(1) * most % of.max(1) < most
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
            given: lead.dealt.given.get(&node).map_or(0, |g| g.0),
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
        let (mut chosen, turn) = (vec![], lead.dealt.plans);
        for candidates in [stay, drained] {
            let zones: Vec<String> = kept.iter().chain(&chosen).filter_map(|n| self.zone(*n).cloned()).collect();
            chosen.extend(choose(candidates, near, count - chosen.len(), &zones, turn));
        }
        let used: Vec<u64> = chosen.iter().map(|n| self.disk_of(*n).used).collect();
        if let Role::Lead(lead) = &mut self.role {
            // Those of repair, too: else its turn would stand still while nobody uploads.
            lead.dealt.plans += 1;
            for (node, used) in chosen.iter().zip(used) {
                let given = lead.dealt.given.entry(*node).or_insert((0, used));
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
        assert_eq!(choose(all, None, 3, &[], 0), [NodeId(4), NodeId(2), NodeId(3)]);
    }

    #[test]
    fn zones_come_before_fullness() {
        let all = vec![node(1, "a", 0), node(2, "a", 0), node(3, "a", 0), node(4, "b", 9)];
        assert!(choose(all, None, 3, &[], 0).contains(&NodeId(4)));
    }

    #[test]
    fn copies_that_there_are_leave_their_zones_to_others_last() {
        let all = || vec![node(1, "a", 0), node(2, "a", 0), node(4, "b", 9)];
        assert_eq!(choose(all(), None, 1, &["a".into()], 0), [NodeId(4)]);
        assert_eq!(choose(all(), None, 1, &["a".into(), "b".into()], 0), [NodeId(1)]);
    }

    #[test]
    fn the_near_node_is_preferred_until_it_is_fuller() {
        let all = |used| vec![node(1, "a", 0), node(2, "a", 0), node(3, "a", 0), node(9, "a", used)];
        assert_eq!(choose(all(1), Some(NodeId(9)), 3, &[], 0)[0], NodeId(9));
        assert!(!choose(all(2), Some(NodeId(9)), 3, &[], 0).contains(&NodeId(9)));
    }

    #[test]
    fn those_given_less_go_first_among_equals() {
        let mut all = vec![node(1, "a", 0), node(2, "a", 0), node(3, "a", 0), node(4, "a", 0)];
        all[0].given = 7;
        assert_eq!(choose(all, None, 3, &[], 0), [NodeId(2), NodeId(3), NodeId(4)]);
    }

    #[test]
    fn a_clock_that_is_ahead_comes_last_but_before_too_few_copies() {
        let mut all = vec![node(1, "a", 0), node(2, "b", 5), node(3, "c", 5), node(4, "d", 5)];
        all[0].ahead = true;
        assert!(!choose(all.clone(), Some(NodeId(1)), 3, &[], 0).contains(&NodeId(1)));
        assert_eq!(choose(all, None, 4, &[], 0)[3], NodeId(1));
    }

    #[test]
    fn too_few_nodes_give_what_there_is() {
        assert_eq!(choose(vec![node(1, "a", 0)], None, 3, &[], 0), [NodeId(1)]);
    }

    /// Places so many files, each of a fraction of a step, and counts the copies that each node got.
    fn place(nodes: &mut [Candidate], files: u64, size: u64, near: Option<NodeId>) -> Vec<u64> {
        let mut got = vec![0; nodes.len()];
        for turn in 0..files {
            for chosen in choose(nodes.to_vec(), near, 3, &[], turn) {
                let at = nodes.iter().position(|n| n.node == chosen).unwrap();
                (got[at], nodes[at].used, nodes[at].given) = (got[at] + 1, nodes[at].used + size, nodes[at].given + 1);
            }
        }
        got
    }
    fn one_empty(nodes: u64, used: u64) -> Vec<Candidate> {
        (1..=nodes).map(|n| node(n.into(), "a", if n == nodes { 0 } else { used })).collect()
    }

    #[test]
    fn an_empty_node_gets_more_than_its_share_and_not_every_file() {
        for (nodes, expected) in [(3, 1000), (4, 875), (5, 800), (6, 750), (10, 600), (100, 60)] {
            let got = place(&mut one_empty(nodes, 1000), 1000, 0, None);
            assert_eq!(*got.last().unwrap(), expected, "of {nodes} nodes: {got:?}");
            assert!(nodes == 3 || expected > 3 * 1000 / nodes, "less than its share");
            let others = &got[..got.len() - 1];
            assert!(others.iter().max().unwrap() - others.iter().min().unwrap() <= 1, "{got:?}");
        }
    }

    #[test]
    fn an_empty_node_is_never_left_out_twice_while_it_has_more_than_half() {
        let mut left_out = 0;
        for turn in 0..100 {
            let takes = choose(one_empty(5, 1000), None, 3, &[], turn).contains(&NodeId(5));
            left_out = if takes { 0 } else { left_out + 1 };
            assert!(left_out < 2, "in turn {turn}");
        }
    }

    #[test]
    fn an_empty_node_becomes_level_and_then_gets_its_share() {
        let mut nodes = one_empty(5, 100);
        place(&mut nodes, 4000, STEP / 4, None);
        let used: Vec<u64> = nodes.iter().map(|n| n.used / STEP).collect();
        assert!(used.iter().max().unwrap() - used.iter().min().unwrap() <= 1, "{used:?}");
        let got = place(&mut nodes, 1000, STEP / 4, None);
        assert!(got.iter().all(|copies| copies.abs_diff(600) <= 8), "{got:?}");
    }

    #[test]
    fn beside_an_empty_node_a_clients_own_is_still_preferred() {
        let got = place(&mut one_empty(5, 100), 100, 0, Some(NodeId(2)));
        assert_eq!((got[1], got[4]), (100, 80), "{got:?}");
    }

    #[test]
    fn an_empty_node_that_is_alone_in_its_zone_is_in_every_plan() {
        for turn in 0..10 {
            let mut nodes = one_empty(5, 1000);
            nodes[4].zone = "b".into();
            assert!(choose(nodes, None, 3, &[], turn).contains(&NodeId(5)), "in turn {turn}");
        }
    }

    #[test]
    fn emptier_ones_are_in_every_plan_while_they_are_not_much_emptier() {
        for turn in 0..10 {
            assert!(choose(one_empty(5, EMPTY), None, 3, &[], turn).contains(&NodeId(5)), "in turn {turn}");
        }
    }
}
