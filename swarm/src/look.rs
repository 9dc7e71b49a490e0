//! Looks at the engines: what is there of a cluster. Changes nothing.

mod nodes;

pub use nodes::look_at_nodes;

use crate::cluster::{Cluster, Host};
use crate::engine::{Engine, membership};
use crate::name::{self, Name};
use crate::observed::{HostSeen, Membership, Observed, SwarmSeen};
use anyhow::{Context, Result};
use bollard::models::{NodeState, Service};
use bollard::query_parameters::{
    ListConfigsOptions, ListImagesOptionsBuilder, ListNetworksOptions, ListNetworksOptionsBuilder, ListSecretsOptions,
    ListSecretsOptionsBuilder, ListServicesOptions, ListVolumesOptionsBuilder,
};
use nodes::{node_of, nodes_of, services};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// From this on a machine is not lost by some missed heartbeats, in nanoseconds. Swarm's default is 5 s.
const PATIENT: i64 = 30_000_000_000;

/// The engines of a cluster, by host.
#[derive(Debug, Clone)]
pub struct Engines {
    all: BTreeMap<Name, Engine>,
    manager: Name,
    /// Why the others are not among them.
    silent: Vec<String>,
}

impl Engines {
    /// Connects to all hosts of the cluster.
    pub async fn connect(cluster: &Cluster) -> Result<Self> {
        let mut all = BTreeMap::new();
        for host in &cluster.hosts {
            all.insert(host.name.clone(), Engine::connect(host).await?);
        }
        Ok(Self { all, manager: cluster.manager().name.clone(), silent: Vec::new() })
    }
    /// Connects to the manager and to those hosts that answer, for who only looks.
    pub async fn connect_to_some(cluster: &Cluster) -> Result<Self> {
        let (mut all, mut silent, manager) = (BTreeMap::new(), Vec::new(), cluster.manager().name.clone());
        for host in &cluster.hosts {
            match Engine::connect(host).await {
                Ok(engine) => {
                    all.insert(host.name.clone(), engine);
                }
                Err(error) if host.name == manager => return Err(error),
                Err(error) => silent.push(format!("{error:#}")),
            }
        }
        Ok(Self { all, manager, silent })
    }
    /// Why hosts of the cluster are not among them, one sentence each.
    pub fn silent(&self) -> &[String] {
        &self.silent
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
    // Of a host that does not answer nothing is known.
    for (host, engine) in cluster.hosts.iter().filter_map(|host| Some((host, engines.of(&host.name).ok()?))) {
        observed.hosts.insert(host.name.clone(), look_at_host(cluster, host, engine).await?);
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
    let ours = spec.labels.unwrap_or_default().contains_key(name::CLUSTER);
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

    let services = services(engine).await?;
    let own: Vec<Service> = services.into_iter().filter(|service| node_of(&cluster.name, service).is_some()).collect();
    seen.foreign = others(engine, &|labels| name::is_of(&cluster.name, labels)).await?;
    observed.swarm = Some(seen);
    observed.nodes = nodes_of(&cluster.name, engine, &own).await?;
    Ok(())
}

/// How many services, secrets, configurations and networks a swarm has whose labels are not `own`: they would end with it.
pub async fn others(manager: &Engine, own: &dyn Fn(&HashMap<String, String>) -> bool) -> Result<usize> {
    let docker = &manager.docker;
    let services = docker.list_services(None::<ListServicesOptions>).await;
    let services = services.map_err(|error| manager.failed("list services", &error))?;
    let secrets = docker.list_secrets(None::<ListSecretsOptions>).await;
    let secrets = secrets.map_err(|error| manager.failed("list secrets", &error))?;
    let configs = docker.list_configs(None::<ListConfigsOptions>).await;
    let configs = configs.map_err(|error| manager.failed("list configurations", &error))?;
    let networks = docker.list_networks(None::<ListNetworksOptions>).await;
    let mut networks = networks.map_err(|error| manager.failed("list networks", &error))?;
    // The swarm's own network for published ports, and those of single machines, are nobody's.
    networks.retain(|network| network.scope.as_deref() == Some("swarm") && network.ingress != Some(true));
    let labels = services.into_iter().map(|service| service.spec.and_then(|spec| spec.labels));
    let labels = labels.chain(secrets.into_iter().map(|secret| secret.spec.and_then(|spec| spec.labels)));
    let labels = labels.chain(configs.into_iter().map(|config| config.spec.and_then(|spec| spec.labels)));
    let labels = labels.chain(networks.into_iter().map(|network| network.labels));
    Ok(labels.filter(|labels| !labels.as_ref().is_some_and(own)).count())
}
