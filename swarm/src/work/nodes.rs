//! Storage nodes: start, replace one after the other, drain, take away.

use super::{Work, until};
use crate::ask::{self, Output, View, exec};
use crate::engine::{is_there, unless_missing};
use crate::look::{by_cluster, look_at_nodes};
use crate::name::{self, NodeName};
use crate::observed::NodeSeen;
use crate::spec;
use anyhow::{Context, Result, anyhow, bail};
use bollard::models::ServiceSpec;
use bollard::query_parameters::{InspectServiceOptions, ListContainersOptionsBuilder, UpdateServiceOptionsBuilder};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

/// What the swarm says of nodes.
pub(super) type Nodes = BTreeMap<NodeName, NodeSeen>;

/// For containers to end, beyond what they are given to drain.
const END: Duration = Duration::from_secs(45);
/// For the cluster to see that a node is down, and log that it is forgotten.
const FORGET: Duration = Duration::from_secs(60);
/// For an order to a node that is just electing a leader.
const ORDER: Duration = Duration::from_secs(60);
/// For one more copy to leave a node that is drained.
const DRAIN: Duration = Duration::from_secs(600);

impl Work<'_> {
    /// What the nodes' containers do now.
    pub(super) async fn look(&self) -> Result<Nodes> {
        look_at_nodes(&self.wanted.cluster.name, self.engines.manager()).await
    }

    /// The service as it shall be, with what it was made from as a label.
    async fn service(&self, node: &NodeName) -> Result<ServiceSpec> {
        let ids = self.secret_ids().await?;
        if let Some((role, _)) = self.wanted.secrets.iter().find(|(_, name)| !ids.contains_key(*name)) {
            bail!("the secret {role} of cluster {} was removed meanwhile: run `up` again", self.wanted.cluster.name);
        }
        let mut service = spec::service(self.wanted, node, &ids);
        let print = (name::SPEC.to_owned(), self.wanted.fingerprint(node));
        service.labels.get_or_insert_default().extend([print.clone()]);
        let task = service.task_template.get_or_insert_default();
        task.force_update = (self.force > 0).then_some(self.force);
        task.container_spec.get_or_insert_default().labels.get_or_insert_default().extend([print]);
        Ok(service)
    }

    pub(super) async fn create_node(&self, node: &NodeName) -> Result<()> {
        let manager = self.engines.manager();
        match manager.docker.create_service(self.service(node).await?, None).await {
            Err(error) if is_there(&error) => {
                let name = name::service(&self.wanted.cluster.name, node);
                bail!("a service called {name} is there and is not this cluster's: name the cluster otherwise")
            }
            Err(error) => Err(manager.failed(&format!("start node {node}"), &error)),
            Ok(_) => Ok(()),
        }
    }

    /// Waits until nobody else is missing, replaces the container, and waits until the new one runs. A node that is down
    /// anyway is replaced at once.
    pub(super) async fn update_node(&self, node: &NodeName) -> Result<()> {
        let seen = self.look().await?;
        if seen.get(node).is_some_and(|seen| seen.task.is_healthy()) {
            let nodes = self.wanted.cluster.nodes();
            self.await_synchronised(&nodes).await.with_context(|| format!("node {node} is not replaced yet"))?;
        }
        let (manager, name) = (self.engines.manager(), name::service(&self.wanted.cluster.name, node));
        let failed = |error| manager.failed(&format!("replace node {node}"), &error);
        let current = manager.docker.inspect_service(&name, None::<InspectServiceOptions>).await.map_err(failed)?;
        let version = current.version.and_then(|version| version.index).unwrap_or_default();
        let mut service = self.service(node).await?;
        let forced = current.spec.and_then(|spec| spec.task_template).and_then(|task| task.force_update);
        let task = service.task_template.get_or_insert_default();
        task.force_update = task.force_update.max(forced);
        let options = UpdateServiceOptionsBuilder::default().version(i32::try_from(version)?).build();
        manager.docker.update_service(&name, service, options, None).await.map_err(failed)?;
        self.await_started(std::slice::from_ref(node)).await
    }

    pub(super) async fn remove_node(&self, service: &str) -> Result<()> {
        let manager = self.engines.manager();
        let removed = unless_missing(manager.docker.delete_service(service).await);
        removed.map_err(|error| manager.failed(&format!("remove the service {service}"), &error))
    }

    /// Until no container of these nodes is left, on any host.
    pub(super) async fn await_gone(&self, nodes: &[NodeName]) -> Result<()> {
        let cluster = &self.wanted.cluster;
        let names: Vec<String> = nodes.iter().map(ToString::to_string).collect();
        let left = RefCell::new(String::new());
        let gone = until(Duration::from_secs(cluster.drain_s()) + END, async || {
            for engine in self.engines.iter() {
                let options =
                    ListContainersOptionsBuilder::default().all(true).filters(&by_cluster(&cluster.name)).build();
                let containers = engine.docker.list_containers(Some(options)).await;
                let containers = containers.map_err(|error| engine.failed("list containers", &error))?;
                let node = containers.iter().find_map(|container| {
                    let node = container.labels.as_ref()?.get(name::NODE)?;
                    names.contains(node).then(|| node.clone())
                });
                if let Some(node) = node {
                    *left.borrow_mut() = format!("the container of node {node} on {} does not end", engine.host);
                    return Ok(None);
                }
            }
            Ok(Some(()))
        });
        gone.await?.ok_or_else(|| anyhow!("{}", left.into_inner()))
    }

    /// Runs `trebol …` in the first node that does what it is told; the last complaint if none does.
    async fn order(&self, but: &[NodeName], command: &[&str]) -> Result<Output> {
        self.order_one(&self.look().await?, but, command).await
    }

    async fn order_one(&self, seen: &Nodes, but: &[NodeName], command: &[&str]) -> Result<Output> {
        let mut complaint = anyhow!("no node of cluster {} is running", self.wanted.cluster.name);
        for (node, seen) in seen.iter().filter(|(node, seen)| !but.contains(node) && seen.task.is_healthy()) {
            let Some(container) = &seen.task.container else { continue };
            let output = exec(self.engines.of(&node.host)?, container, command).await;
            match output.and_then(|output| output.stdout_if_ok().map(drop).map(|()| output)) {
                Ok(output) => return Ok(output),
                Err(error) => complaint = error.context(format!("node {node}")),
            }
        }
        Err(complaint)
    }

    /// The cluster as its leader sees it, who alone knows how far behind each other node is; if that one does not answer, as
    /// another does. None of `but`.
    pub(super) async fn view(&self, but: &[NodeName]) -> Result<View> {
        let seen = self.look().await?;
        let view: View = self.order_one(&seen, but, &["trebol", "status", "--json"]).await?.stdout.parse()?;
        let leader = view.leader_name().and_then(|name| name.parse::<NodeName>().ok());
        if let Some(leader) = leader.filter(|leader| !but.contains(leader))
            && let Some(container) = seen.get(&leader).and_then(|seen| seen.task.container.as_ref())
            && let Ok(leaders) = ask::view(self.engines.of(&leader.host)?, container).await
        {
            return Ok(leaders);
        }
        Ok(view)
    }

    /// The same, again and again while there is no leader to take the order.
    async fn insist(&self, bound: Duration, but: &[NodeName], command: &[&str]) -> Result<()> {
        let last = RefCell::new(None);
        let done = until(bound, async || match self.order(but, command).await {
            Ok(_) => Ok(Some(())),
            // Nothing of that name is left to give orders about.
            Err(error) if format!("{error:#}").contains("no node is called") => Ok(Some(())),
            Err(error) => {
                *last.borrow_mut() = Some(error);
                Ok(None)
            }
        });
        match done.await? {
            Some(()) => Ok(()),
            None => Err(last.into_inner().unwrap_or_else(|| anyhow!("no node answers in time"))),
        }
    }

    pub(super) async fn keep_node(&self, node: &NodeName) -> Result<()> {
        let name = node.to_string();
        self.insist(ORDER, &[], &["trebol", "drain", &name, "--cancel"]).await
    }

    pub(super) async fn forget(&self, node: &NodeName) -> Result<()> {
        let name = node.to_string();
        let forgotten = self.insist(FORGET, std::slice::from_ref(node), &["trebol", "forget", &name]).await;
        forgotten.with_context(|| format!("the cluster does not forget {node}"))
    }

    /// Gives the order for all, so that none takes what another gives away, and waits while copies move.
    pub(super) async fn drain(&self, nodes: &[NodeName]) -> Result<()> {
        let others = self.wanted.cluster.nodes();
        self.await_synchronised(&others).await.context("nothing is drained yet")?;
        for node in nodes {
            let name = node.to_string();
            self.insist(ORDER, nodes, &["trebol", "drain", &name, "--detach"]).await?;
        }
        let mut left = u64::MAX;
        loop {
            let fewer = until(DRAIN, async || {
                // Between two leaders no node may answer; there is time.
                let Ok(view) = self.view(nodes).await else { return Ok(None) };
                let members: Vec<_> = nodes.iter().filter_map(|node| view.member(&node.to_string())).collect();
                let copies = members.iter().map(|member| member.copies).sum::<u64>();
                let empty = members.len() == nodes.len() && members.iter().all(|member| member.draining == "done");
                Ok((empty || copies < left).then_some((empty, copies)))
            });
            match fewer.await? {
                Some((true, _)) => return Ok(()),
                Some((false, copies)) => {
                    left = copies;
                    self.progress.step(&format!("drain: {copies} copies left"));
                }
                None => bail!(
                    "{left} copies stay on nodes that are drained, and none moved for {} s: `status` shows what is missing; `up` takes the drain back",
                    DRAIN.as_secs()
                ),
            }
        }
    }
}
