//! Looks at the engines: what is there of a cluster. Changes nothing.

use crate::cluster::{Cluster, Host};
use crate::engine::{Engine, membership};
use crate::name::{self, Name, NodeName};
use crate::observed::{Failure, HostSeen, Membership, NodeSeen, Observed, SwarmSeen, TaskSeen};
use anyhow::{Context, Result};
use bollard::models::{NodeState, Service, Task};
use bollard::query_parameters::{
    ListImagesOptionsBuilder, ListNetworksOptionsBuilder, ListSecretsOptionsBuilder, ListServicesOptions,
    ListTasksOptionsBuilder, ListVolumesOptionsBuilder,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// From this on a machine is not lost by some missed heartbeats, in nanoseconds. Swarm's default is 5 s.
const PATIENT: i64 = 30_000_000_000;

/// The engines of a cluster, by host.
#[derive(Debug, Clone)]
pub struct Engines {
    all: BTreeMap<Name, Engine>,
    manager: Name,
}

impl Engines {
    /// Connects to all hosts of the cluster.
    pub async fn connect(cluster: &Cluster) -> Result<Self> {
        let mut all = BTreeMap::new();
        for host in &cluster.hosts {
            all.insert(host.name.clone(), Engine::connect(host).await?);
        }
        Ok(Self { all, manager: cluster.manager().name.clone() })
    }
    /// That of the swarm's manager.
    pub fn manager(&self) -> &Engine {
        &self.all[&self.manager]
    }
    /// That of a host.
    pub fn of(&self, host: &Name) -> Result<&Engine> {
        self.all.get(host).with_context(|| format!("there is no engine for host {host}"))
    }
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Engine> {
        self.all.values()
    }
}

/// A filter by the cluster's label.
pub fn by_cluster(cluster: &Name) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![format!("{}={cluster}", name::CLUSTER)])])
}

/// Everything of the cluster; `images` are those whose presence matters.
pub async fn look(cluster: &Cluster, engines: &Engines, images: &BTreeSet<String>) -> Result<Observed> {
    let mut observed = Observed::default();
    for host in &cluster.hosts {
        observed.hosts.insert(host.name.clone(), look_at_host(cluster, host, engines.of(&host.name)?).await?);
    }
    let manager = &observed.hosts[&cluster.manager().name];
    if matches!(manager.membership, Membership::Manager(_)) {
        look_at_swarm(cluster, engines.manager(), &mut observed).await?;
    }
    let running = observed.nodes.values().map(|node| node.image.clone());
    let images: BTreeSet<String> = images.iter().cloned().chain(running).collect();
    for (name, seen) in &mut observed.hosts {
        seen.images = images_there(engines.of(name)?, &images).await?;
    }
    Ok(observed)
}

async fn look_at_host(cluster: &Cluster, host: &Host, engine: &Engine) -> Result<HostSeen> {
    let info = engine.info().await?;
    let membership = membership(&info).unwrap_or_else(|error| Membership::Unusable(error.to_string()));
    let options = ListVolumesOptionsBuilder::default().filters(&by_cluster(&cluster.name)).build();
    let volumes = engine.docker.list_volumes(Some(options)).await;
    let volumes = volumes.map_err(|error| engine.failed("list volumes", &error))?;
    let volumes = volumes.volumes.unwrap_or_default().into_iter().map(|volume| volume.name).collect();
    let engine = info.id.unwrap_or_else(|| host.engine.clone());
    Ok(HostSeen { engine, membership, labelled: false, images: BTreeSet::new(), volumes })
}

/// Which of the images an engine has.
async fn images_there(engine: &Engine, images: &BTreeSet<String>) -> Result<BTreeSet<String>> {
    if images.is_empty() {
        return Ok(BTreeSet::new());
    }
    let list = engine.docker.list_images(Some(ListImagesOptionsBuilder::default().build())).await;
    let list = list.map_err(|error| engine.failed("list images", &error))?;
    let there: BTreeSet<String> = list.into_iter().flat_map(|image| image.repo_tags).collect();
    let with_tag = |image: &String| {
        if image.rsplit('/').next().is_some_and(|last| last.contains(':')) {
            image.clone()
        } else {
            format!("{image}:latest")
        }
    };
    Ok(images.iter().filter(|image| there.contains(&with_tag(image))).cloned().collect())
}

/// What only the manager knows.
async fn look_at_swarm(cluster: &Cluster, engine: &Engine, observed: &mut Observed) -> Result<()> {
    let docker = &engine.docker;
    let swarm = docker.inspect_swarm().await.map_err(|error| engine.failed("look at the swarm", &error))?;
    let spec = swarm.spec.unwrap_or_default();
    let ours = spec.labels.unwrap_or_default().get(name::CLUSTER).is_some_and(|label| *label == cluster.name.as_str());
    let patient = spec.dispatcher.and_then(|dispatcher| dispatcher.heartbeat_period).is_some_and(|ns| ns >= PATIENT);
    let mut seen = SwarmSeen { ours, patient, ..SwarmSeen::default() };

    let label = name::host_label(&cluster.name);
    let machines = docker.list_nodes(None::<bollard::query_parameters::ListNodesOptions>).await;
    for machine in machines.map_err(|error| engine.failed("list the swarm's machines", &error))? {
        let id = machine.id.unwrap_or_default();
        let labels = machine.spec.and_then(|spec| spec.labels).unwrap_or_default();
        let member = |host: &HostSeen| match &host.membership {
            Membership::Manager(node) | Membership::Worker(node) => *node == id,
            Membership::Outside | Membership::Unusable(_) => false,
        };
        if let Some((name, host)) = observed.hosts.iter_mut().find(|(_, host)| member(host)) {
            host.labelled = labels.get(&label).is_some_and(|value| *value == name.as_str());
        }
        seen.machines.insert(id, machine.status.and_then(|status| status.state) == Some(NodeState::READY));
    }
    let secrets = ListSecretsOptionsBuilder::default().filters(&by_cluster(&cluster.name)).build();
    let secrets = docker.list_secrets(Some(secrets)).await;
    for secret in secrets.map_err(|error| engine.failed("list secrets", &error))? {
        let spec = secret.spec.unwrap_or_default();
        let authority = spec.labels.unwrap_or_default().remove(name::AUTHORITY);
        observed.authority = authority.or(observed.authority.take());
        observed.secrets.extend(spec.name);
    }
    let networks = ListNetworksOptionsBuilder::default().filters(&by_cluster(&cluster.name)).build();
    let networks = docker.list_networks(Some(networks)).await;
    let networks = networks.map_err(|error| engine.failed("list networks", &error))?;
    observed.network = networks.iter().any(|network| network.name.as_deref() == Some(&name::network(&cluster.name)));

    let services = docker.list_services(None::<ListServicesOptions>).await;
    let services = services.map_err(|error| engine.failed("list services", &error))?;
    let (own, foreign): (Vec<Service>, Vec<Service>) =
        services.into_iter().partition(|service| node_of(cluster, service).is_some());
    seen.foreign_services = foreign.len();
    observed.swarm = Some(seen);
    let tasks = newest_tasks(engine, &own).await?;
    for service in own {
        let Some(node) = node_of(cluster, &service) else { continue };
        observed.nodes.insert(node, node_seen(&service, &tasks));
    }
    Ok(())
}

/// The node whose service this is.
fn node_of(cluster: &Cluster, service: &Service) -> Option<NodeName> {
    let spec = service.spec.as_ref()?;
    let labels = spec.labels.as_ref()?;
    if labels.get(name::CLUSTER)? != cluster.name.as_str() {
        return None;
    }
    name::node_of_service(&cluster.name, spec.name.as_deref()?)
}

fn node_seen(service: &Service, tasks: &BTreeMap<String, TaskSeen>) -> NodeSeen {
    let spec = service.spec.clone().unwrap_or_default();
    let replicated = spec.mode.and_then(|mode| mode.replicated);
    let container = spec.task_template.and_then(|task| task.container_spec);
    NodeSeen {
        fingerprint: spec.labels.and_then(|mut labels| labels.remove(name::SPEC)).unwrap_or_default(),
        image: container.and_then(|container| container.image).unwrap_or_default(),
        replicas: replicated.and_then(|replicated| replicated.replicas).unwrap_or(0),
        task: service.id.as_ref().and_then(|id| tasks.get(id)).cloned().unwrap_or_default(),
        draining: false,
    }
}

/// The task of each service that shall run, or else its newest.
async fn newest_tasks(engine: &Engine, services: &[Service]) -> Result<BTreeMap<String, TaskSeen>> {
    if services.is_empty() {
        return Ok(BTreeMap::new());
    }
    let ids: Vec<String> = services.iter().filter_map(|service| service.id.clone()).collect();
    let options = ListTasksOptionsBuilder::default().filters(&HashMap::from([("service", ids)])).build();
    let tasks = engine.docker.list_tasks(Some(options)).await;
    let mut tasks = tasks.map_err(|error| engine.failed("list tasks", &error))?;
    // The last one of a service wins: those that shall run, the newest of them.
    let wanted = |task: &Task| task.desired_state.as_ref().is_some_and(|state| state.to_string() == "running");
    tasks.sort_by(|a, b| (wanted(a), &a.created_at).cmp(&(wanted(b), &b.created_at)));
    let mut newest: BTreeMap<String, TaskSeen> = BTreeMap::new();
    for task in tasks {
        let mut seen = task_seen(&task);
        let before = task.service_id.as_ref().and_then(|service| newest.get(service));
        if let Some(before) = before.filter(|before| before.fingerprint == seen.fingerprint) {
            seen.failure = seen.failure.or_else(|| before.failure.clone());
        }
        newest.insert(task.service_id.unwrap_or_default(), seen);
    }
    Ok(newest)
}

fn task_seen(task: &Task) -> TaskSeen {
    let status = task.status.clone().unwrap_or_default();
    let spec = task.spec.clone().unwrap_or_default();
    let labels = spec.container_spec.and_then(|container| container.labels).unwrap_or_default();
    let state = status.state.map(|state| state.to_string()).unwrap_or_default();
    // A task that waits for a place says so in its error; one that runs may still carry a remark.
    let error = status.err.filter(|error| !error.is_empty() && state != "running");
    let failed = ["failed", "rejected"].contains(&state.as_str());
    let failure = error.clone().filter(|_| failed).zip(task.id.clone()).map(|(error, task)| Failure { task, error });
    TaskSeen {
        state,
        error,
        failure,
        container: status.container_status.and_then(|container| container.container_id).filter(|id| !id.is_empty()),
        fingerprint: labels.get(name::SPEC).cloned().unwrap_or_default(),
        force: spec.force_update.unwrap_or(0),
    }
}
