//! The services of nodes, and what their tasks do: the part of looking that waits repeat.

use crate::engine::Engine;
use crate::name::{self, Name, NodeName};
use crate::observed::{Failure, NodeSeen, TaskSeen};
use anyhow::Result;
use bollard::models::{Service, Task};
use bollard::query_parameters::{ListServicesOptions, ListTasksOptionsBuilder};
use std::collections::{BTreeMap, HashMap};

/// The nodes of a cluster, as the swarm's manager tells.
pub async fn look_at_nodes(cluster: &Name, manager: &Engine) -> Result<BTreeMap<NodeName, NodeSeen>> {
    let mut services = services(manager).await?;
    services.retain(|service| node_of(cluster, service).is_some());
    nodes_of(cluster, manager, &services).await
}

/// All services of the swarm.
pub(super) async fn services(manager: &Engine) -> Result<Vec<Service>> {
    let services = manager.docker.list_services(None::<ListServicesOptions>).await;
    services.map_err(|error| manager.failed("list services", &error))
}

/// The nodes of these services.
pub(super) async fn nodes_of(
    cluster: &Name,
    manager: &Engine,
    services: &[Service],
) -> Result<BTreeMap<NodeName, NodeSeen>> {
    let tasks = newest_tasks(manager, services).await?;
    let seen = services.iter().filter_map(|service| Some((node_of(cluster, service)?, node_seen(service, &tasks))));
    Ok(seen.collect())
}

/// The node whose service this is.
pub(super) fn node_of(cluster: &Name, service: &Service) -> Option<NodeName> {
    let spec = service.spec.as_ref()?;
    let labels = spec.labels.as_ref()?;
    if labels.get(name::CLUSTER)? != cluster.as_str() {
        return None;
    }
    name::node_of_service(cluster, spec.name.as_deref()?)
}

fn node_seen(service: &Service, tasks: &BTreeMap<String, TaskSeen>) -> NodeSeen {
    let spec = service.spec.clone().unwrap_or_default();
    let replicated = spec.mode.and_then(|mode| mode.replicated);
    let container = spec.task_template.and_then(|task| task.container_spec);
    let ports = spec.endpoint_spec.and_then(|endpoint| endpoint.ports).unwrap_or_default();
    NodeSeen {
        fingerprint: spec.labels.and_then(|mut labels| labels.remove(name::SPEC)).unwrap_or_default(),
        image: container.and_then(|container| container.image).unwrap_or_default(),
        replicas: replicated.and_then(|replicated| replicated.replicas).unwrap_or(0),
        task: service.id.as_ref().and_then(|id| tasks.get(id)).cloned().unwrap_or_default(),
        ports: ports.into_iter().filter_map(|port| u16::try_from(port.published_port?).ok()).collect(),
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
