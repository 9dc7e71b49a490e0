//! What there is on the engines, as far as planning needs to know. Filled by [`crate::look`]; tests make it by hand.

use crate::name::{Name, NodeName};
use std::collections::{BTreeMap, BTreeSet};

/// Everything of one cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// The engines that the cluster file names.
    pub hosts: BTreeMap<Name, HostSeen>,
    /// The swarm, as its manager tells.
    pub swarm: Option<SwarmSeen>,
    /// Whether the cluster's network is there.
    pub network: bool,
    /// Names of the cluster's secrets.
    pub secrets: BTreeSet<String>,
    /// Which authority its nodes trust.
    pub authority: Option<String>,
    /// The services of its nodes.
    pub nodes: BTreeMap<NodeName, NodeSeen>,
}

/// One engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSeen {
    /// The engine's own id: two hosts are two engines.
    pub engine: String,
    /// Its part in a swarm.
    pub membership: Membership,
    /// Whether the swarm's label for this host is on it.
    pub labelled: bool,
    /// The images that are asked about and there.
    pub images: BTreeSet<String>,
    /// The cluster's volumes on it.
    pub volumes: BTreeSet<String>,
}

/// An engine's part in a swarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Membership {
    /// In none.
    Outside,
    /// It answers questions about the swarm; with its id there.
    Manager(String),
    /// It only runs tasks.
    Worker(String),
    /// Something that a person has to look at, in the engine's words.
    Unusable(String),
}

/// The swarm of the cluster's manager.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SwarmSeen {
    /// The machines that are in it, and whether the manager hears them.
    pub machines: BTreeMap<String, bool>,
    /// Whether this crate began it, for this cluster or another.
    pub ours: bool,
    /// Whether lost heartbeats of a machine count only after minutes.
    pub patient: bool,
    /// What others have in it: services, secrets, configurations, networks.
    pub foreign: usize,
}

/// The service of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeSeen {
    /// What it was made from.
    pub fingerprint: String,
    /// Its image.
    pub image: String,
    /// Tasks it shall have.
    pub replicas: i64,
    /// What its newest task does.
    pub task: TaskSeen,
    /// The ports of its host that it has.
    pub ports: BTreeSet<u16>,
    /// Whether the cluster is moving its copies away.
    pub draining: bool,
}

/// The newest task of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskSeen {
    /// In the engine's word: `running` means healthy.
    pub state: String,
    /// Why it does not run, in the engine's words.
    pub error: Option<String>,
    /// The newest one that was made alike and failed.
    pub failure: Option<Failure>,
    /// Its container.
    pub container: Option<String>,
    /// What its service was made from when it was started.
    pub fingerprint: String,
    /// Started by this many forced updates.
    pub force: u64,
}

/// A task that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its id: another one has failed again.
    pub task: String,
    /// Why, in the engine's words.
    pub error: String,
}

impl TaskSeen {
    /// Why it does not run: its own words, else those of the one before it.
    pub fn complaint(&self) -> Option<&str> {
        self.error.as_deref().or_else(|| self.failure.as_ref().map(|failure| failure.error.as_str()))
    }
    /// Running, which on a swarm means that its health check has succeeded.
    pub fn is_healthy(&self) -> bool {
        self.state == "running"
    }
}
