//! Fewer nodes: their copies move first, then they go, with their volumes, which hold nothing that anybody needs; a node
//! that came back with such a volume would be refused.

use super::Plan;
use crate::cluster::Cluster;
use crate::name::{self, Name, NodeName};
use crate::observed::Observed;
use crate::step::Step;
use crate::wanted::peer_role;
use anyhow::{Result, bail};

/// Nodes that a file's copies need.
const COPIES: usize = 3;

/// A cluster of another size, and what is to be taken away for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Shrunk {
    /// As it shall be.
    pub cluster: Cluster,
    /// Nodes that it has too many, the lowest rank first.
    pub surplus: Vec<NodeName>,
}

/// Spreads `total` nodes over the hosts, or over the one that is named: more go to the host with the fewest, fewer are taken
/// from the one with the most. What is there keeps its name.
pub fn spread(cluster: &Cluster, total: u16, only: Option<&Name>) -> Result<Shrunk> {
    let mut shrunk = cluster.clone();
    if let Some(only) = only {
        cluster.host(only)?;
    }
    let count = |cluster: &Cluster| cluster.hosts.iter().map(|host| host.nodes).sum::<u16>();
    while count(&shrunk) != total {
        let grows = count(&shrunk) < total;
        let places = shrunk.hosts.iter_mut().filter(|host| only.is_none_or(|only| host.name == *only));
        // Hosts without nodes only manage, unless they are named.
        let places = places.filter(|host| only.is_some() || host.nodes > 0);
        let place = if grows { places.min_by_key(|host| host.nodes) } else { places.max_by_key(|host| host.nodes) };
        match place {
            Some(host) if grows && host.nodes < name::NODES_PER_HOST => host.nodes += 1,
            Some(host) if !grows && host.nodes > 0 => host.nodes -= 1,
            _ => bail!("{total} nodes cannot be placed on these hosts"),
        }
    }
    shrunk.check()?;
    let kept = shrunk.nodes();
    let surplus = cluster.nodes().into_iter().rev().filter(|node| !kept.contains(node)).collect();
    Ok(Shrunk { cluster: shrunk, surplus })
}

/// The steps that take the surplus away.
pub fn shrink(shrunk: &Shrunk, observed: &Observed) -> Result<Plan> {
    let mut plan = Plan::default();
    let cluster = &shrunk.cluster.name;
    let there: Vec<NodeName> =
        shrunk.surplus.iter().filter(|node| observed.nodes.contains_key(node)).cloned().collect();
    let left = shrunk.cluster.nodes().len();
    if !there.is_empty() && left < COPIES {
        bail!(
            "{left} nodes cannot keep three copies of what is there: keep {COPIES} at least, or take the cluster down"
        );
    }
    if let Some(node) = there.iter().find(|node| !observed.nodes[*node].task.is_healthy()) {
        bail!("node {node} is not running, so nobody knows what it has: `swarm up` brings it back, then scale");
    }
    if !there.is_empty() {
        plan.steps.push(Step::Drain { nodes: there.clone() });
    }
    for node in &there {
        plan.steps.push(Step::RemoveNode { node: node.clone() });
    }
    // What an interrupted run has left of nodes without a service is taken away, too.
    if !shrunk.surplus.is_empty() {
        plan.steps.push(Step::AwaitGone { nodes: shrunk.surplus.clone() });
        // What was acknowledged since they were drained may be on them, and one without a service was perhaps never drained.
        plan.steps.push(Step::AwaitEmpty { nodes: shrunk.surplus.clone() });
    }
    for node in &shrunk.surplus {
        // The volume first: whoever starts the node again meanwhile gets a new one, and no node that was forgotten.
        let volume = name::service(cluster, node);
        if observed.hosts.get(&node.host).is_some_and(|host| there.contains(node) || host.volumes.contains(&volume)) {
            plan.steps.push(Step::RemoveVolume { host: node.host.clone(), volume });
        }
        plan.steps.push(Step::Forget { node: node.clone() });
        let prefix = format!("{cluster}-{}-", peer_role(node));
        let secrets = observed.secrets.iter().filter(|name| name.starts_with(&prefix));
        plan.steps.extend(secrets.map(|name| Step::RemoveSecret { name: name.clone() }));
    }
    Ok(plan)
}
