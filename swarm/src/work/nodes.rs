//! Storage nodes: start, replace one after the other, drain, take away.

use super::{Work, until};
use crate::ask::{self, Member, Output, View, exec};
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

/// How a complaint ends about a node that nobody has drained.
const NOT_DRAINED: &str = "and it was never drained";

/// Why a node that is gone is not empty.
fn full(member: &Member) -> Option<String> {
    let Member { info, copies, .. } = member;
    if !member.is_drained() {
        return Some(format!("{} may have copies of files, {NOT_DRAINED}", info.name));
    }
    (*copies > 0).then(|| format!("{copies} copies shall still be on {}", info.name))
}

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

    /// Of several nodes that went by one name, one whose volume was lost and its successor, all are forgotten that are gone.
    pub(super) async fn forget(&self, node: &NodeName) -> Result<()> {
        let (name, gone) = (node.to_string(), std::slice::from_ref(node));
        let last = RefCell::new(anyhow!("it still counts as there"));
        let forgotten = until(FORGET, async || {
            let members = match self.view(gone).await {
                Ok(view) => view.members.into_iter().filter(|member| member.info.name == name).collect::<Vec<_>>(),
                Err(error) => {
                    *last.borrow_mut() = error;
                    return Ok(None);
                }
            };
            for member in members.iter().filter(|member| member.liveness == "down") {
                if let Err(error) = self.order(gone, &["trebol", "forget", &member.info.node]).await {
                    *last.borrow_mut() = error;
                }
            }
            Ok(members.is_empty().then_some(()))
        });
        let why = || format!("the cluster does not forget {node}");
        forgotten.await?.map_or_else(|| Err(last.into_inner()).with_context(why), Ok)
    }

    /// Nobody's copies shall be on nodes that are gone, and all of them were drained: a volume that goes takes nothing along.
    /// A copy that came while they were drained moves on by itself.
    pub(super) async fn await_empty(&self, nodes: &[NodeName]) -> Result<()> {
        let last = RefCell::new(String::new());
        let empty = until(DRAIN, async || {
            let Ok(view) = self.view(nodes).await else { return Ok(None) };
            let names: Vec<String> = nodes.iter().map(ToString::to_string).collect();
            let full = view.members.iter().filter(|member| names.contains(&member.info.name)).find_map(full);
            *last.borrow_mut() = full.clone().unwrap_or_default();
            // Only what is drained ever gets empty.
            if let Some(never) = full.filter(|full| full.ends_with(NOT_DRAINED)) {
                bail!("{never}; `up` brings it back, then scale");
            }
            Ok(last.borrow().is_empty().then_some(()))
        });
        let why = || anyhow!("{}; nothing was removed: `up` brings it back", last.borrow());
        empty.await?.ok_or_else(why)
    }

    /// Takes back what an interrupted run has drained of nodes that shall stay.
    pub async fn keep_all(&self, nodes: &[NodeName]) -> Result<()> {
        let view = self.view(&[]).await?;
        for node in nodes.iter().filter(|node| view.member(&node.to_string()).is_some_and(Member::is_drained)) {
            self.keep_node(node).await?;
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_drained_node_without_copies_is_empty() {
        let said = |draining: &str, copies: u64| {
            let info = r#"{"node":"1","name":"h1-4"}"#;
            let json =
                format!(r#"{{"info":{info},"liveness":"down","behind":0,"draining":"{draining}","copies":{copies}}}"#);
            full(&serde_json::from_str(&json).unwrap())
        };
        assert_eq!(said("under_way", 0), None);
        assert!(said("under_way", 2).unwrap().contains("2 copies"));
        assert!(said("no", 0).unwrap().ends_with(NOT_DRAINED));
    }
}
