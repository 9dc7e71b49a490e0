//! Everything away again. Volumes stay unless that is asked for: a cluster that is brought up again finds its files.

use super::Plan;
use crate::cluster::{Cluster, Host};
use crate::image;
use crate::observed::{Membership, Observed};
use crate::step::Step;
use anyhow::{Result, bail};
use std::collections::{BTreeMap, BTreeSet};

/// How far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TakeDown {
    /// The files of all users, and with them keys and passwords.
    pub volumes: bool,
    /// Images that this crate built.
    pub images: bool,
}

/// Files are removed only by who has the key of their cluster's authority. Without it the rest may be taken away; what nobody
/// claims any more then is anybody's.
pub fn check_owner(cluster: &Cluster, ours: Option<&String>, observed: &Observed) -> Result<()> {
    if observed.authority.is_some() && observed.authority.as_ref() != ours {
        bail!(
            "cluster {} is not that of the state directory: its files are removed from where it was made (--state); `down` \
             without --volumes takes the rest away",
            cluster.name
        );
    }
    Ok(())
}

/// The steps that leave nothing, or nothing but volumes. `images` are those that the cluster has had.
pub fn take_down(cluster: &Cluster, images: &BTreeSet<String>, observed: &Observed, how_far: TakeDown) -> Plan {
    let mut plan = Plan::default();
    let nodes: Vec<_> = observed.nodes.keys().cloned().collect();
    plan.steps.extend(nodes.iter().map(|node| Step::RemoveNode { node: node.clone() }));
    if observed.network || !nodes.is_empty() {
        plan.steps.push(Step::AwaitGone { nodes });
    }
    plan.steps.extend(observed.secrets.iter().map(|name| Step::RemoveSecret { name: name.clone() }));
    if observed.network {
        plan.steps.push(Step::RemoveNetwork);
    }
    for host in &cluster.hosts {
        let Some(seen) = observed.hosts.get(&host.name) else { continue };
        if how_far.volumes {
            let remove = |volume: &String| Step::RemoveVolume { host: host.name.clone(), volume: volume.clone() };
            plan.steps.extend(seen.volumes.iter().map(remove));
        }
        if how_far.images {
            let built = seen.images.iter().filter(|image| images.contains(*image) && image::is_local(image));
            let remove = |image: &String| Step::RemoveImage { host: host.name.clone(), image: image.clone() };
            plan.steps.extend(built.map(remove));
        }
    }
    plan.steps.extend(departures(cluster, observed));
    if how_far.volumes {
        plan.steps.push(Step::RemoveState);
    }
    plan
}

/// A swarm that was begun here ends once nobody else has anything in it and it has no other machines; the manager leaves last.
fn departures(cluster: &Cluster, observed: &Observed) -> Vec<Step> {
    let Some(swarm) = &observed.swarm else { return Vec::new() };
    let hosts = cluster.hosts.iter().rev().filter_map(|host| Some((host, observed.hosts.get(&host.name)?)));
    let inside: BTreeMap<&String, &Host> = hosts
        .clone()
        .filter_map(|(host, seen)| match &seen.membership {
            Membership::Manager(id) | Membership::Worker(id) => Some((id, host)),
            Membership::Outside | Membership::Unusable(_) => None,
        })
        .collect();
    // What left before stays listed as down.
    let alone = swarm.machines.iter().filter(|(_, heard)| **heard).all(|(id, _)| inside.contains_key(id));
    if swarm.ours && swarm.foreign == 0 && alone {
        let leaves = hosts.filter(|(host, _)| inside.values().any(|inside| inside.name == host.name));
        return leaves.map(|(host, _)| Step::LeaveSwarm { host: host.name.clone() }).collect();
    }
    hosts.filter(|(_, seen)| seen.labelled).map(|(host, _)| Step::UnlabelHost { host: host.name.clone() }).collect()
}
