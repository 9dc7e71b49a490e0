//! Which nodes get the copies: deterministic, fewest bytes first among the healthy, over as many zones as possible
//! (specification 6.1).

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
/// more than one step: its copy costs no network.
pub(super) fn choose(mut candidates: Vec<Candidate>, near: Option<NodeId>, count: usize) -> Vec<NodeId> {
    let least = candidates.iter().map(|c| c.used / STEP).min().unwrap_or(0);
    candidates.sort_by_key(|c| {
        let is_near = Some(c.node) == near && c.used / STEP <= least + 1;
        (!is_near, c.used / STEP, c.given, c.node)
    });
    let mut chosen: Vec<Candidate> = vec![];
    while chosen.len() < count && !candidates.is_empty() {
        let fresh = candidates.iter().position(|c| chosen.iter().all(|x| x.zone != c.zone));
        chosen.push(candidates.remove(fresh.unwrap_or(0)));
    }
    chosen.into_iter().map(|c| c.node).collect()
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
        assert_eq!(choose(all, None, 3), [NodeId(4), NodeId(2), NodeId(3)]);
    }

    #[test]
    fn zones_come_before_fullness() {
        let all = vec![node(1, "a", 0), node(2, "a", 0), node(3, "a", 0), node(4, "b", 9)];
        assert!(choose(all, None, 3).contains(&NodeId(4)));
    }

    #[test]
    fn the_near_node_is_preferred_until_it_is_fuller() {
        let all = |used| vec![node(1, "a", 0), node(2, "a", 0), node(3, "a", 0), node(9, "a", used)];
        assert_eq!(choose(all(1), Some(NodeId(9)), 3)[0], NodeId(9));
        assert!(!choose(all(2), Some(NodeId(9)), 3).contains(&NodeId(9)));
    }

    #[test]
    fn those_given_less_go_first_among_equals() {
        let mut all = vec![node(1, "a", 0), node(2, "a", 0), node(3, "a", 0), node(4, "a", 0)];
        all[0].given = 7;
        assert_eq!(choose(all, None, 3), [NodeId(2), NodeId(3), NodeId(4)]);
    }

    #[test]
    fn too_few_nodes_give_what_there_is() {
        assert_eq!(choose(vec![node(1, "a", 0)], None, 3), [NodeId(1)]);
    }
}
