//! Shapes of broken networks, by the names Jepsen gives them: which directions between nodes nothing passes. Pure; the
//! world cuts and mends them.

use crate::sim::rng::Rng;

/// Directions, from and to.
pub(crate) type Pairs = Vec<(usize, usize)>;

/// A shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topology {
    /// Two groups that do not see each other.
    Halves,
    /// Three.
    Thirds,
    /// One node sees nobody.
    Isolated,
    /// Nothing passes from some nodes to others, the other way everything does.
    OneWay,
    /// One node sees two groups that do not see each other.
    Bridge,
    /// One node sees only one other, which sees everybody.
    Hinge,
    /// Everybody sees two neighbours.
    Ring,
    /// Some links are gone, some in one direction.
    Random,
}

impl Topology {
    pub(crate) const ALL: [Self; 8] =
        [Self::Halves, Self::Thirds, Self::Isolated, Self::OneWay, Self::Bridge, Self::Hinge, Self::Ring, Self::Random];

    /// What is cut among `nodes` nodes; `at` is the one that a shape turns on, if it turns on one.
    pub(crate) fn pairs(self, nodes: usize, at: usize, rng: &mut Rng) -> Pairs {
        match self {
            Self::Halves => apart(nodes, &groups(nodes, 2, rng)),
            Self::Thirds => apart(nodes, &groups(nodes, 3, rng)),
            Self::Isolated => apart(nodes, &(0..nodes).map(|n| usize::from(n == at)).collect::<Vec<_>>()),
            Self::OneWay => one_way(nodes, at, rng),
            Self::Bridge => {
                let group = groups(nodes, 2, rng);
                apart(nodes, &group).into_iter().filter(|(from, to)| *from != at && *to != at).collect()
            }
            Self::Hinge => {
                let hinge = (at + 1 + rng.below(nodes as u64 - 1) as usize) % nodes;
                all(nodes).filter(|(a, b)| (*a == at && *b != hinge) || (*b == at && *a != hinge)).collect()
            }
            Self::Ring => {
                let order = shuffled((0..nodes).collect(), rng);
                let place = |node: usize| order.iter().position(|n| *n == node).unwrap_or(0);
                let near =
                    |a: usize, b: usize| matches!((place(a) + nodes - place(b)) % nodes, d if d == 1 || d == nodes - 1);
                all(nodes).filter(|(from, to)| !near(*from, *to)).collect()
            }
            Self::Random => {
                let mut pairs = vec![];
                for (from, to) in all(nodes) {
                    if from < to && rng.chance(35) {
                        pairs.extend([(from, to), (to, from)]);
                    } else if rng.chance(8) {
                        pairs.push((from, to));
                    }
                }
                pairs.sort_unstable();
                pairs.dedup();
                pairs
            }
        }
    }
}

/// All directions.
pub(crate) fn all(nodes: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..nodes).flat_map(move |from| (0..nodes).map(move |to| (from, to))).filter(|(from, to)| from != to)
}

pub(crate) fn shuffled<T>(mut list: Vec<T>, rng: &mut Rng) -> Vec<T> {
    for at in (1..list.len()).rev() {
        list.swap(at, rng.below(at as u64 + 1) as usize);
    }
    list
}

/// The group of each node; none is empty, and where there are two the larger has at most one node more in half of the cases.
fn groups(nodes: usize, many: usize, rng: &mut Rng) -> Vec<usize> {
    let mut group: Vec<usize> = (0..nodes).map(|n| n % many).collect();
    if rng.chance(50) {
        for of in group.iter_mut().skip(many) {
            *of = rng.below(many as u64) as usize;
        }
    }
    shuffled(group, rng)
}

/// What is cut between groups.
fn apart(nodes: usize, group: &[usize]) -> Pairs {
    all(nodes).filter(|(from, to)| group[*from] != group[*to]).collect()
}

fn one_way(nodes: usize, at: usize, rng: &mut Rng) -> Pairs {
    let group = groups(nodes, 2, rng);
    match rng.below(4) {
        0 => all(nodes).filter(|(from, to)| group[*from] < group[*to]).collect(),
        1 => all(nodes).filter(|(from, _)| *from == at).collect(),
        2 => all(nodes).filter(|(_, to)| *to == at).collect(),
        _ => vec![(at, (at + 1 + rng.below(nodes as u64 - 1) as usize) % nodes)],
    }
}

/// The groups that see each other, when every node sees all of its group both ways and none of the others at all.
pub(crate) fn cliques(
    nodes: &[usize],
    joined: impl Fn(usize, usize) -> bool,
    apart: impl Fn(usize, usize) -> bool,
) -> Option<Vec<Vec<usize>>> {
    let mut found: Vec<Vec<usize>> = vec![];
    for node in nodes.iter().copied() {
        let mut mine: Vec<usize> = vec![];
        for (n, group) in found.iter().enumerate() {
            let sees = group.iter().filter(|other| joined(node, **other)).count();
            if sees == group.len() {
                mine.push(n);
            } else if sees > 0 || !group.iter().all(|other| apart(node, *other)) {
                return None;
            }
        }
        match mine.as_slice() {
            [] => found.push(vec![node]),
            [one] => found[*one].push(node),
            _ => return None,
        }
    }
    Some(found)
}
