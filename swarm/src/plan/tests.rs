//! Every rule of planning, without an engine. `settle` does to what was seen what performing a step does to engines, so that
//! "a second run changes nothing" and "an interrupted run is gone on with" are shown for every place to stop at.
//! Longer than 400 lines because all plans are tried out on one model of what engines do.

use super::*;
use crate::cluster::Cluster;
use crate::name::{self, NodeName};
use crate::observed::{HostSeen, Membership, NodeSeen, Observed, SwarmSeen, TaskSeen};
use crate::wanted::{Wanted, roles};
use std::collections::{BTreeMap, BTreeSet};

const IMAGE: &str = "localhost/trebol-node:1-a";

fn cluster(nodes: &[u16]) -> Cluster {
    let host = |(at, nodes): (usize, &u16)| {
        let n = at + 1;
        format!("[[host]]\nname = \"h{n}\"\naddress = \"192.0.2.{n}\"\nnodes = {nodes}\n")
    };
    let hosts: String = nodes.iter().enumerate().map(host).collect();
    Cluster::parse(&format!("name = \"demo\"\n{hosts}"), "c.toml").unwrap()
}

fn wanted(cluster: &Cluster, image: &str) -> Wanted {
    let contents = roles(cluster).into_iter().map(|role| (role.clone(), role.into_bytes())).collect();
    Wanted::new(cluster.clone(), image.to_owned(), &contents)
}

/// Engines with the image on the first, and nothing else.
fn bare(cluster: &Cluster) -> Observed {
    let mut observed = Observed::default();
    for (at, host) in cluster.hosts.iter().enumerate() {
        let images = if at == 0 { BTreeSet::from([IMAGE.to_owned()]) } else { BTreeSet::new() };
        let (engine, membership) = (format!("engine {}", host.name), Membership::Outside);
        let seen = HostSeen { engine, membership, labelled: false, images, volumes: BTreeSet::new() };
        observed.hosts.insert(host.name.clone(), seen);
    }
    observed
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn node_seen(wanted: &Wanted, node: &NodeName) -> NodeSeen {
    let fingerprint = wanted.fingerprint(node);
    let task = TaskSeen { state: "running".to_owned(), fingerprint: fingerprint.clone(), ..TaskSeen::default() };
    let ports = wanted.cluster.ports(node).collect();
    NodeSeen { fingerprint, image: wanted.image.clone(), replicas: 1, task, ports, draining: false }
}

/// What performing a step leaves to be seen.
fn settle(step: &Step, wanted: &Wanted, observed: &mut Observed) {
    let service = |node: &NodeName| name::service(&wanted.cluster.name, node);
    match step {
        Step::InitSwarm { host } => {
            let id = format!("machine {host}");
            observed.hosts.get_mut(host).unwrap().membership = Membership::Manager(id.clone());
            let machines = BTreeMap::from([(id, true)]);
            observed.swarm = Some(SwarmSeen { machines, ours: true, patient: true, foreign: 0 });
        }
        Step::JoinSwarm { host } => {
            let id = format!("machine {host}");
            observed.hosts.get_mut(host).unwrap().membership = Membership::Worker(id.clone());
            observed.swarm.as_mut().unwrap().machines.insert(id, true);
        }
        Step::BePatient => observed.swarm.as_mut().unwrap().patient = true,
        Step::LabelHost { host } => observed.hosts.get_mut(host).unwrap().labelled = true,
        Step::UnlabelHost { host } => observed.hosts.get_mut(host).unwrap().labelled = false,
        Step::PullImage { host } | Step::CarryImage { to: host, .. } => {
            observed.hosts.get_mut(host).unwrap().images.insert(wanted.image.clone());
        }
        Step::RemoveImage { host, image } => drop(observed.hosts.get_mut(host).unwrap().images.remove(image)),
        Step::CreateNetwork => observed.network = true,
        Step::RemoveNetwork => observed.network = false,
        Step::CreateSecret { name, role } => {
            observed.secrets.insert(name.clone());
            if role == "ca" {
                observed.authority.clone_from(&wanted.authority);
            }
        }
        Step::RemoveSecret { name } => drop(observed.secrets.remove(name)),
        Step::CreateNode { node } | Step::UpdateNode { node, .. } => {
            observed.hosts.get_mut(&node.host).unwrap().volumes.insert(service(node));
            observed.nodes.insert(node.clone(), node_seen(wanted, node));
        }
        Step::KeepNode { node } => observed.nodes.get_mut(node).unwrap().draining = false,
        Step::Drain { nodes } => {
            nodes.iter().for_each(|node| observed.nodes.get_mut(node).unwrap().draining = true);
        }
        Step::RemoveNode { node } => drop(observed.nodes.remove(node)),
        Step::RemoveVolume { host, volume } => drop(observed.hosts.get_mut(host).unwrap().volumes.remove(volume)),
        Step::LeaveSwarm { host } => {
            let seen = observed.hosts.get_mut(host).unwrap();
            seen.membership = Membership::Outside;
            seen.labelled = false;
            if *host == wanted.cluster.manager().name {
                observed.swarm = None;
            }
        }
        Step::AwaitGone { .. } | Step::AwaitEmpty { .. } | Step::Forget { .. } | Step::RemoveState => {}
    }
}

fn settled(plan: &Plan, wanted: &Wanted, observed: &mut Observed) {
    plan.steps.iter().for_each(|step| settle(step, wanted, observed));
}

/// A cluster that is up.
fn up(wanted: &Wanted) -> Observed {
    let mut observed = bare(&wanted.cluster);
    settled(&grow(wanted, &observed).unwrap(), wanted, &mut observed);
    observed
}

fn lines(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(ToString::to_string).collect()
}

fn refusal(wanted: &Wanted, observed: &Observed) -> String {
    grow(wanted, observed).unwrap_err().to_string()
}

#[test]
fn two_bare_engines_become_a_cluster() {
    let wanted = wanted(&cluster(&[2, 1]), IMAGE);
    let plan = grow(&wanted, &bare(&wanted.cluster)).unwrap();
    let lines = lines(&plan);
    let begin = [
        "begin a swarm on h1",
        "take h2 into the swarm",
        "label h1 in the swarm",
        "label h2 in the swarm",
        "carry the image from h1 to h2",
        "create the network",
        "create the secret ca",
    ];
    assert_eq!(lines[..begin.len()], begin);
    assert_eq!(lines[lines.len() - 3..], ["start node h1-1", "start node h2-1", "start node h1-2"]);
    assert_eq!(lines.iter().filter(|line| line.contains("secret")).count(), 7);
}

#[test]
fn what_is_up_is_left_alone_and_an_interrupted_run_is_gone_on_with() {
    let wanted = wanted(&cluster(&[3, 2]), IMAGE);
    let whole = grow(&wanted, &bare(&wanted.cluster)).unwrap();
    for done in 0..=whole.steps.len() {
        let mut observed = bare(&wanted.cluster);
        whole.steps[..done].iter().for_each(|step| settle(step, &wanted, &mut observed));
        let rest = grow(&wanted, &observed).unwrap();
        assert_eq!(rest.steps, whole.steps[done..], "after {done} steps");
    }
    assert_eq!(grow(&wanted, &up(&wanted)).unwrap(), Plan::default());
}

#[test]
fn from_every_half_finished_state_down_leaves_nothing() {
    let wanted = wanted(&cluster(&[3, 2]), IMAGE);
    let whole = grow(&wanted, &bare(&wanted.cluster)).unwrap();
    let images = BTreeSet::from([IMAGE.to_owned()]);
    for done in 0..=whole.steps.len() {
        let mut observed = bare(&wanted.cluster);
        whole.steps[..done].iter().for_each(|step| settle(step, &wanted, &mut observed));
        let plan = take_down(&wanted.cluster, &images, &observed, TakeDown { volumes: true, images: true });
        settled(&plan, &wanted, &mut observed);
        let mut nothing = bare(&wanted.cluster);
        nothing.hosts.values_mut().for_each(|host| host.images.clear());
        nothing.authority.clone_from(&observed.authority);
        assert_eq!(observed, nothing, "after {done} steps");
    }
}

#[test]
fn files_stay_unless_that_is_asked_for() {
    let wanted = wanted(&cluster(&[3]), IMAGE);
    let mut observed = up(&wanted);
    let images = BTreeSet::from([IMAGE.to_owned()]);
    let plan = take_down(&wanted.cluster, &images, &observed, TakeDown::default());
    assert!(
        !lines(&plan).iter().any(|line| line.contains("volume") || line.contains("image") || line.contains("keys"))
    );
    settled(&plan, &wanted, &mut observed);
    assert_eq!(observed.hosts.values().next().unwrap().volumes.len(), 3);
}

#[test]
fn a_swarm_that_others_use_stays() {
    let wanted = wanted(&cluster(&[3]), IMAGE);
    let foreign = |swarm: &mut SwarmSeen| swarm.ours = false;
    let served = |swarm: &mut SwarmSeen| swarm.foreign = 1;
    let larger = |swarm: &mut SwarmSeen| _ = swarm.machines.insert("another".to_owned(), true);
    for change in [&foreign as &dyn Fn(&mut SwarmSeen), &served, &larger] {
        let mut observed = up(&wanted);
        change(observed.swarm.as_mut().unwrap());
        let plan = take_down(&wanted.cluster, &BTreeSet::new(), &observed, TakeDown::default());
        assert!(plan.steps.contains(&Step::UnlabelHost { host: "h1".parse().unwrap() }));
        assert!(!plan.steps.iter().any(|step| matches!(step, Step::LeaveSwarm { .. })));
    }
}

#[test]
fn another_image_is_rolled_out_from_the_lowest_rank_to_the_leader() {
    let old = wanted(&cluster(&[2, 2]), IMAGE);
    let mut observed = up(&old);
    observed.nodes.get_mut(&node("h1-1")).unwrap().task.state = "failed".to_owned();
    let new = wanted(&cluster(&[2, 2]), "localhost/trebol-node:1-b");
    assert!(refusal(&new, &observed).contains("on none of the hosts"));
    observed.hosts.get_mut(&"h2".parse().unwrap()).unwrap().images.insert(new.image.clone());
    let plan = grow(&new, &observed).unwrap();
    let image = "(image localhost/trebol-node:1-b)";
    let order = ["h1-1", "h2-2", "h1-2", "h2-1"].map(|node| format!("replace node {node} {image}"));
    let lines = lines(&plan);
    assert_eq!(lines[0], "carry the image from h2 to h1");
    assert_eq!(lines[1..], order, "who is down anyway goes first");
    settled(&plan, &new, &mut observed);
    assert_eq!(grow(&new, &observed).unwrap(), Plan::default());
}

#[test]
fn an_image_in_a_registry_is_pulled_once() {
    let wanted = wanted(&cluster(&[1, 2]), "registry.example/trebol:2");
    let plan = grow(&wanted, &bare(&wanted.cluster)).unwrap();
    let about: Vec<String> = lines(&plan).into_iter().filter(|line| line.contains("image")).collect();
    assert_eq!(about, ["pull the image on h1", "carry the image from h1 to h2"]);
}

#[test]
fn drift_is_mended() {
    let wanted = wanted(&cluster(&[3]), IMAGE);
    let mend = |change: &dyn Fn(&mut Observed)| {
        let mut observed = up(&wanted);
        change(&mut observed);
        lines(&grow(&wanted, &observed).unwrap())
    };
    let h1 = || "h1".parse().unwrap();
    assert_eq!(mend(&|o| o.hosts.get_mut(&h1()).unwrap().labelled = false), ["label h1 in the swarm"]);
    assert_eq!(mend(&|o| drop(o.nodes.remove(&node("h1-2")))), ["start node h1-2"]);
    assert_eq!(mend(&|o| o.swarm.as_mut().unwrap().patient = false).len(), 1);
    assert_eq!(
        mend(&|o| {
            o.secrets.insert("demo-users-old".to_owned());
        }),
        ["remove the secret demo-users-old"]
    );
    let scaled = mend(&|o| o.nodes.get_mut(&node("h1-2")).unwrap().replicas = 0);
    assert_eq!(scaled, ["replace node h1-2 (it shall run once and not 0 times)"]);
    let half = mend(&|o| o.nodes.get_mut(&node("h1-3")).unwrap().task.fingerprint = "old".to_owned());
    assert_eq!(half, ["replace node h1-3 (an update was not finished)"]);
    let drained = mend(&|o| o.nodes.get_mut(&node("h1-3")).unwrap().draining = true);
    assert_eq!(drained, ["let node h1-3 keep and take copies again"]);
}

#[test]
fn a_foreign_swarm_is_used_and_not_changed() {
    let wanted = wanted(&cluster(&[3]), IMAGE);
    let mut observed = up(&wanted);
    *observed.swarm.as_mut().unwrap() = SwarmSeen { ours: false, patient: false, ..observed.swarm.clone().unwrap() };
    let plan = grow(&wanted, &observed).unwrap();
    assert!(plan.steps.is_empty() && plan.notices[0].contains("--dispatcher-heartbeat"), "{plan:?}");
}

#[test]
fn engines_that_cannot_be_used_are_refused_in_a_sentence() {
    let wanted = wanted(&cluster(&[2, 1]), IMAGE);
    let said = |change: &dyn Fn(&mut Observed)| {
        let mut observed = up(&wanted);
        change(&mut observed);
        refusal(&wanted, &observed)
    };
    let set = |o: &mut Observed, host: &str, membership: Membership| {
        o.hosts.get_mut(&host.parse().unwrap()).unwrap().membership = membership;
    };
    let worker = || Membership::Worker("machine h1".to_owned());
    assert!(said(&|o| set(o, "h1", worker())).contains("name a manager as the first host"));
    assert!(said(&|o| set(o, "h2", Membership::Worker("elsewhere".to_owned()))).contains("another swarm"));
    assert!(said(&|o| set(o, "h2", Membership::Unusable("it is locked".to_owned()))).contains("it is locked"));
    let deaf = said(&|o| {
        o.swarm.as_mut().unwrap().machines.insert("machine h2".to_owned(), false);
    });
    assert!(deaf.contains("does not hear it"), "{deaf}");
    let mut alone = bare(&wanted.cluster);
    set(&mut alone, "h2", Membership::Manager("other".to_owned()));
    assert!(refusal(&wanted, &alone).contains("the first host's is not"));
    let twice = said(&|o| o.hosts.get_mut(&"h2".parse().unwrap()).unwrap().engine = "engine h1".to_owned());
    assert!(twice.contains("are one engine"), "{twice}");
}

#[test]
fn a_cluster_of_another_authority_is_not_touched() {
    let wanted = wanted(&cluster(&[3]), IMAGE);
    let observed = up(&wanted);
    let lost = Wanted { authority: None, ..wanted.clone() };
    assert!(refusal(&lost, &observed).contains("bring its state directory here"));
    assert!(possible(&lost, &observed).is_err());
    let other = Wanted { authority: Some("other".to_owned()), ..wanted };
    assert!(refusal(&other, &observed).contains("another certificate authority"));
}

#[test]
fn up_takes_no_node_away() {
    let observed = up(&wanted(&cluster(&[5]), IMAGE));
    let (effective, notice) = effective(&cluster(&[3]), &observed).unwrap();
    assert_eq!(effective.hosts[0].nodes, 5);
    assert!(notice.unwrap().ends_with("h1-4, h1-5"));
    let unknown = super::effective(&cluster(&[3]), &up(&wanted(&cluster(&[3, 1]), IMAGE))).unwrap_err().to_string();
    assert!(unknown.contains("h2-1 on host h2, which is not among its hosts"), "{unknown}");
}

#[test]
fn scaling_keeps_hosts_even_and_names_as_they_are() {
    let start = cluster(&[3, 2]);
    let counts = |total, only: Option<&str>| {
        let only = only.map(|name| name.parse().unwrap());
        let shrunk = spread(&start, total, only.as_ref())?;
        anyhow::Ok(shrunk.cluster.hosts.iter().map(|host| host.nodes).collect::<Vec<_>>())
    };
    assert_eq!(counts(7, None).unwrap(), [4, 3]);
    assert_eq!(counts(4, None).unwrap(), [2, 2]);
    assert_eq!(counts(8, Some("h2")).unwrap(), [3, 5]);
    assert!(counts(9, Some("h9")).unwrap_err().to_string().contains("the hosts of demo are h1, h2"));
    assert!(counts(1, Some("h2")).unwrap_err().to_string().contains("cannot be placed"));
    assert!(counts(101, None).unwrap_err().to_string().contains("cannot be placed"));
}

#[test]
fn nodes_that_go_are_drained_first_and_leave_nothing() {
    let before = wanted(&cluster(&[4, 3]), IMAGE);
    let shrunk = spread(&before.cluster, 5, None).unwrap();
    assert_eq!(shrunk.surplus, [node("h1-4"), node("h2-3")]);
    let observed = up(&before);
    let whole = shrink(&shrunk, &observed).unwrap();
    let lines = lines(&whole);
    assert_eq!(lines[0], "drain h1-4, h2-3");
    assert_eq!(lines[1..4], ["stop node h1-4", "stop node h2-3", "wait for the containers of h1-4, h2-3 to end"]);
    assert_eq!(lines[4], "see whether any copy shall still be on h1-4, h2-3");
    assert_eq!(lines[5..7], ["remove the volume demo-h1-4 on h1", "have the cluster forget h1-4"]);
    for done in 0..=whole.steps.len() {
        let mut observed = up(&before);
        whole.steps[..done].iter().for_each(|step| settle(step, &before, &mut observed));
        // An interrupted run is planned anew from what was remembered, the larger cluster.
        let rest = shrink(&shrunk, &observed).unwrap();
        settled(&rest, &before, &mut observed);
        let after = wanted(&shrunk.cluster, IMAGE);
        let mut expected = up(&after);
        expected.authority.clone_from(&observed.authority);
        assert_eq!(observed, expected, "after {done} steps");
    }
}

#[test]
fn no_volume_goes_before_somebody_looked_whether_it_is_empty() {
    // Taken down without its volumes and only begun to be brought up again: what is in them nobody has drained.
    let before = wanted(&cluster(&[7]), IMAGE);
    let mut observed = up(&before);
    observed.nodes.retain(|node, _| node.index <= 3);
    let plan = shrink(&spread(&before.cluster, 4, None).unwrap(), &observed).unwrap();
    let looks = plan.steps.iter().position(|step| matches!(step, Step::AwaitEmpty { .. })).unwrap();
    let removes = plan.steps.iter().position(|step| matches!(step, Step::RemoveVolume { .. })).unwrap();
    assert!(looks < removes, "{:?}", lines(&plan));
}

#[test]
fn files_are_removed_by_their_owner_only() {
    let ours = wanted(&cluster(&[3]), IMAGE);
    let mut observed = up(&ours);
    check_owner(&ours.cluster, ours.authority.as_ref(), &observed).unwrap();
    observed.authority = Some("another".to_owned());
    for mine in [ours.authority.as_ref(), None] {
        let refusal = check_owner(&ours.cluster, mine, &observed).unwrap_err().to_string();
        assert!(refusal.contains("not that of the state directory"), "{refusal}");
    }
    observed.authority = None;
    check_owner(&ours.cluster, None, &observed).unwrap();
}

#[test]
fn a_cluster_is_not_scaled_below_what_its_files_need() {
    let before = wanted(&cluster(&[4]), IMAGE);
    let observed = up(&before);
    let refusal = shrink(&spread(&before.cluster, 2, None).unwrap(), &observed).unwrap_err().to_string();
    assert!(refusal.contains("keep 3 at least"), "{refusal}");
    let mut ill = observed.clone();
    ill.nodes.get_mut(&node("h1-4")).unwrap().task.state = "failed".to_owned();
    let refusal = shrink(&spread(&before.cluster, 3, None).unwrap(), &ill).unwrap_err().to_string();
    assert!(refusal.contains("h1-4 is not running"), "{refusal}");
    let zones = Cluster { zones: 2, ..cluster(&[1, 1]) };
    assert!(spread(&zones, 1, None).is_err(), "zones are kept");
}

#[test]
fn ports_move_up_and_not_into_each_other() {
    let moved = |ftp_port: u16| {
        let mut cluster = cluster(&[3]);
        let observed = up(&wanted(&cluster, IMAGE));
        cluster.ftp_port = ftp_port;
        grow(&wanted(&cluster, IMAGE), &observed)
    };
    assert_eq!(moved(2200).unwrap().steps.len(), 3);
    assert_eq!(moved(2122).unwrap().steps.len(), 3, "the last node gives way first");
    let refusal = moved(2120).unwrap_err().to_string();
    assert!(refusal.starts_with("node h1-3 would need a port that h1-2 has until later"), "{refusal}");
}

#[test]
fn a_restart_replaces_everyone_once() {
    let wanted = wanted(&cluster(&[3]), IMAGE);
    let mut plan = grow(&wanted, &up(&wanted)).unwrap();
    restart(&wanted, &mut plan);
    let order = ["h1-3", "h1-2", "h1-1"].map(|node| format!("replace node {node} (a restart was asked for)"));
    assert_eq!(lines(&plan), order);
    restart(&wanted, &mut plan);
    assert_eq!(plan.steps.len(), 3);
}
