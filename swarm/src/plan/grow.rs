//! Steps that make and mend, and take away nothing but secrets that nobody uses any more.

use super::Plan;
use crate::cluster::{Cluster, Host};
use crate::image;
use crate::name::NodeName;
use crate::observed::{HostSeen, Membership, NodeSeen, Observed};
use crate::step::Step;
use crate::wanted::Wanted;
use anyhow::{Result, bail};
use std::collections::{BTreeMap, BTreeSet};

/// The cluster with as many nodes on each host as there are, where that is more than was asked for: a storage node is only
/// ever taken away by `scale`, which drains it. With a sentence if that made a difference.
pub fn effective(asked: &Cluster, observed: &Observed) -> Result<(Cluster, Option<String>)> {
    let mut cluster = asked.clone();
    let mut more = Vec::new();
    for node in observed.nodes.keys() {
        let Some(host) = cluster.hosts.iter_mut().find(|host| host.name == node.host) else {
            let (name, host) = (&asked.name, &node.host);
            bail!("cluster {name} has node {node} on host {host}, which is not among its hosts: name that host again");
        };
        if host.nodes < node.index {
            host.nodes = node.index;
            more.push(node.to_string());
        }
    }
    let sentence = "nodes are there that were not asked for, and stay; `swarm scale` drains and removes them";
    Ok((cluster, (!more.is_empty()).then(|| format!("{sentence}: {}", more.join(", ")))))
}

/// Whether there is a way at all, whatever the image; a sentence if not.
pub fn possible(wanted: &Wanted, observed: &Observed) -> Result<()> {
    check_authority(wanted, observed)?;
    swarm_steps(wanted, observed, &mut Plan::default())
}

/// The steps from what there is to what shall be.
pub fn grow(wanted: &Wanted, observed: &Observed) -> Result<Plan> {
    check_authority(wanted, observed)?;
    let mut plan = Plan::default();
    swarm_steps(wanted, observed, &mut plan)?;
    image_steps(wanted, observed, &mut plan)?;
    if !observed.network {
        plan.steps.push(Step::CreateNetwork);
    }
    for (role, name) in wanted.secrets.iter().filter(|(_, name)| !observed.secrets.contains(*name)) {
        plan.steps.push(Step::CreateSecret { role: role.clone(), name: name.clone() });
    }
    let nodes = wanted.cluster.nodes();
    for node in nodes.iter().filter(|node| !observed.nodes.contains_key(node)) {
        plan.steps.push(Step::CreateNode { node: node.clone() });
    }
    for node in nodes.iter().filter(|node| observed.nodes.get(node).is_some_and(|seen| seen.draining)) {
        plan.steps.push(Step::KeepNode { node: node.clone() });
    }
    plan.steps.extend(updates(wanted, observed, &nodes));
    check_ports(wanted, observed, &plan.steps)?;
    let used: Vec<&String> = wanted.secrets.values().collect();
    for name in observed.secrets.iter().filter(|name| !used.contains(name)) {
        plan.steps.push(Step::RemoveSecret { name: name.clone() });
    }
    Ok(plan)
}

/// Nodes with certificates of two authorities would be two clusters.
fn check_authority(wanted: &Wanted, observed: &Observed) -> Result<()> {
    let name = &wanted.cluster.name;
    match (&observed.authority, &wanted.authority) {
        (Some(_), None) => bail!(
            "cluster {name} is there and its certificate authority is not on this machine: bring its state directory here \
             (--state); if it is lost, `down` and `up` keep the files and make a new one"
        ),
        (Some(theirs), Some(ours)) if theirs != ours => bail!(
            "cluster {name} trusts another certificate authority than the one in the state directory: name the right \
             directory (--state); if it is lost, `down` and `up` keep the files and make a new one"
        ),
        _ => Ok(()),
    }
}

fn swarm_steps(wanted: &Wanted, observed: &Observed, plan: &mut Plan) -> Result<()> {
    let cluster = &wanted.cluster;
    let mut engines: BTreeMap<&str, &Host> = BTreeMap::new();
    for host in &cluster.hosts {
        let seen = seen(host, observed)?;
        if let Some(other) = engines.insert(&seen.engine, host) {
            bail!("hosts {} and {} are one engine: name a host once, and give it more nodes", other.name, host.name);
        }
        member_step(host, seen, cluster.manager().name == host.name, observed, plan)?;
    }
    if let Some(swarm) = &observed.swarm {
        match (swarm.patient, swarm.ours) {
            (false, true) => plan.steps.push(Step::BePatient),
            (false, false) => plan.notices.push(
                "this swarm declares a machine lost after some seconds and restarts its nodes when it is back; `docker swarm \
                 update --dispatcher-heartbeat 60s` lets short cuts of the network restart nothing"
                    .to_owned(),
            ),
            _ => {}
        }
    }
    for host in cluster.hosts.iter().filter(|host| host.nodes > 0) {
        if !seen(host, observed)?.labelled {
            plan.steps.push(Step::LabelHost { host: host.name.clone() });
        }
    }
    Ok(())
}

/// How a host comes into the swarm.
fn member_step(host: &Host, seen: &HostSeen, manages: bool, observed: &Observed, plan: &mut Plan) -> Result<()> {
    let name = &host.name;
    match (&seen.membership, &observed.swarm) {
        (Membership::Unusable(says), _) => bail!("host {name}: its engine cannot take part in a swarm: {says}"),
        (Membership::Worker(_), _) if manages => {
            bail!(
                "host {name}: its engine is a worker of a swarm, which may change nothing: name a manager as the first host"
            )
        }
        (Membership::Outside, _) => {
            let host = name.clone();
            plan.steps.push(if manages { Step::InitSwarm { host } } else { Step::JoinSwarm { host } });
        }
        (Membership::Manager(id) | Membership::Worker(id), Some(swarm)) => match swarm.machines.get(id) {
            None => bail!("host {name}: its engine is in another swarm: have it leave (`docker swarm leave` there)"),
            Some(false) => {
                bail!("host {name}: the swarm's manager does not hear it: mend the network between them (port 2377)")
            }
            Some(true) => {}
        },
        (Membership::Manager(_) | Membership::Worker(_), None) => {
            bail!(
                "host {name}: its engine is in a swarm and the first host's is not: have it leave (`docker swarm leave` there)"
            )
        }
    }
    Ok(())
}

/// The image comes from an engine that has it, else from its registry, to all that have nodes.
fn image_steps(wanted: &Wanted, observed: &Observed, plan: &mut Plan) -> Result<()> {
    let image = &wanted.image;
    let has = |host: &&Host| observed.hosts.get(&host.name).is_some_and(|seen| seen.images.contains(image));
    let cluster = &wanted.cluster;
    let source = match cluster.hosts.iter().find(has) {
        Some(host) => host,
        None if image::is_local(image) => {
            bail!(
                "image {image} is on none of the hosts: build it again (`swarm update`), or name another with --image"
            )
        }
        None => {
            plan.steps.push(Step::PullImage { host: cluster.manager().name.clone() });
            cluster.manager()
        }
    };
    for host in cluster.hosts.iter().filter(|host| host.nodes > 0 && host.name != source.name && !has(host)) {
        plan.steps.push(Step::CarryImage { from: source.name.clone(), to: host.name.clone() });
    }
    Ok(())
}

/// Nodes that are down anyway first, then from the lowest rank to the leader's: so leadership moves once.
fn updates(wanted: &Wanted, observed: &Observed, nodes: &[NodeName]) -> Vec<Step> {
    let mut changed: Vec<(bool, &NodeName, String)> = nodes
        .iter()
        .rev()
        .filter_map(|node| {
            let seen = observed.nodes.get(node)?;
            Some((seen.task.is_healthy(), node, difference(wanted, node, seen)?))
        })
        .collect();
    changed.sort_by_key(|(healthy, _, _)| *healthy);
    changed.into_iter().map(|(_, node, why)| Step::UpdateNode { node: node.clone(), why }).collect()
}

/// Ports move node by node, so none may have to wait for one that another node gives up later.
fn check_ports(wanted: &Wanted, observed: &Observed, steps: &[Step]) -> Result<()> {
    let mut held: BTreeMap<&NodeName, BTreeSet<u16>> =
        observed.nodes.iter().map(|(node, seen)| (node, seen.ports.clone())).collect();
    for step in steps {
        let (Step::CreateNode { node } | Step::UpdateNode { node, .. }) = step else { continue };
        let own: BTreeSet<u16> = wanted.cluster.ports(node).collect();
        let other =
            held.iter().find(|(other, ports)| **other != node && other.host == node.host && !ports.is_disjoint(&own));
        if let Some((other, _)) = other {
            bail!(
                "node {node} would need a port that {other} has until later: move ftp_port and passive_port by more than all \
                 nodes of a host have, or take the cluster down first, which keeps the files"
            );
        }
        held.insert(node, own);
    }
    Ok(())
}

/// Adds the replacement of all other nodes, in the same order.
pub fn restart(wanted: &Wanted, plan: &mut Plan) {
    for node in wanted.cluster.nodes().into_iter().rev() {
        let planned = |step: &Step| match step {
            Step::UpdateNode { node: other, .. } | Step::CreateNode { node: other } => *other == node,
            _ => false,
        };
        if !plan.steps.iter().any(planned) {
            plan.steps.push(Step::UpdateNode { node, why: "a restart was asked for".to_owned() });
        }
    }
}

/// Why a node has to be replaced.
fn difference(wanted: &Wanted, node: &NodeName, seen: &NodeSeen) -> Option<String> {
    let fingerprint = wanted.fingerprint(node);
    if seen.image != wanted.image {
        Some(format!("image {}", wanted.image))
    } else if seen.fingerprint != fingerprint {
        Some("its settings, users or certificates".to_owned())
    } else if seen.replicas != 1 {
        Some(format!("it shall run once and not {} times", seen.replicas))
    } else if seen.task.is_healthy() && seen.task.fingerprint != fingerprint {
        Some("an update was not finished".to_owned())
    } else {
        None
    }
}

fn seen<'a>(host: &Host, observed: &'a Observed) -> Result<&'a HostSeen> {
    match observed.hosts.get(&host.name) {
        Some(seen) => Ok(seen),
        None => bail!("host {} was not looked at", host.name),
    }
}
