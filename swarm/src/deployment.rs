//! A cluster and the engines it is on: what the commands do, for those who call them from a program (tests, chaos runs).
//! Each changes as little as it can, may be interrupted anywhere, and goes on from there when it is called again.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use swarm::{Choice, Cluster, Deployment, Progress, Source, TakeDown, state};
//! let cluster = Cluster { labels: [("run".to_owned(), "17".to_owned())].into(), ..Cluster::default() };
//! let deployment = Deployment::connect(cluster, &state::default_directory(), Progress::on_stderr()).await?;
//! let up = deployment.up(&Choice::Build(Source::release()?)).await?;
//! println!("{:?}, {:?}", up.endpoints, deployment.passwords()?);
//! let status = deployment.exec(&"h1-1".parse().expect("a node"), &["trebol", "status"]).await?;
//! println!("{}", status.stdout);
//! deployment.down(TakeDown { volumes: true, images: true }).await?;
//! # Ok(()) }
//! ```

mod change;
mod report;

pub use report::{NodeReport, Report};

use crate::ask::{self, Output, View};
use crate::cluster::Cluster;
use crate::image::Source;
use crate::look::{Engines, look_at_nodes};
use crate::name::NodeName;
use crate::observed::Observed;
use crate::progress::Progress;
use crate::state::{Password, State};
use anyhow::{Context, Result};
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};

/// Which image nodes shall have.
#[derive(Debug, Clone)]
pub enum Choice {
    /// The one that most of them have; where there are none, the one that is built from this workspace.
    AsItRuns(Option<Source>),
    /// One that is built now.
    Build(Source),
    /// This one.
    Named(String),
}

/// A cluster, with its engines connected.
#[derive(Debug, Clone)]
pub struct Deployment {
    cluster: Cluster,
    engines: Engines,
    state: State,
    progress: Progress,
}

/// Where clients reach a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name.
    pub node: NodeName,
    /// FTP with explicit TLS.
    pub ftp: SocketAddrV4,
}

/// What `up`, `scale` and `update` came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Steps that were done; 0: everything was as it shall be.
    pub changes: usize,
    /// All nodes, the highest rank first.
    pub endpoints: Vec<Endpoint>,
}

impl Deployment {
    /// Connects to the engines of a cluster's hosts. What this machine keeps of it lies below `base`.
    pub async fn connect(cluster: Cluster, base: &Path, progress: Progress) -> Result<Self> {
        cluster.check()?;
        let state = State::of(base, &cluster.name);
        let engines = Engines::connect(&cluster).await?;
        Ok(Self { cluster, engines, state, progress })
    }
    /// The same with those hosts that answer, the first among them: to look at a cluster of which a machine is lost. Nothing
    /// can be changed that way.
    pub async fn connect_to_some(cluster: Cluster, base: &Path, progress: Progress) -> Result<Self> {
        cluster.check()?;
        let state = State::of(base, &cluster.name);
        let engines = Engines::connect_to_some(&cluster).await?;
        Ok(Self { cluster, engines, state, progress })
    }
    /// As it was asked for.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }
    /// Its engines.
    pub fn engines(&self) -> &Engines {
        &self.engines
    }
    /// What clients verify nodes with: a PEM file.
    pub fn authority_file(&self) -> PathBuf {
        self.state.authority_file()
    }
    /// The passwords that were made for its first users.
    pub fn passwords(&self) -> Result<Vec<Password>> {
        self.state.passwords(&self.cluster)
    }
    /// Where clients reach the nodes that were asked for.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        endpoints(&self.cluster)
    }

    /// Runs a command in a node's container, such as `["trebol", "status", "--json"]`; there is no shell in it.
    pub async fn exec(&self, node: &NodeName, command: &[&str]) -> Result<Output> {
        let container = self.container(node).await?;
        ask::exec(self.engines.of(&node.host)?, &container, command).await
    }
    /// The container that a node runs in now, on its host's engine.
    pub async fn container(&self, node: &NodeName) -> Result<String> {
        self.cluster.host(&node.host)?;
        let seen = look_at_nodes(&self.cluster.name, self.engines.manager()).await?;
        let task = seen.get(node).map(|seen| &seen.task);
        let task = task.with_context(|| format!("cluster {} has no node {node}", self.cluster.name))?;
        task.container.clone().filter(|_| task.is_healthy()).with_context(|| format!("node {node} is not running"))
    }
    /// The cluster as one of its running nodes sees it, if one answers.
    async fn view(&self, seen: &Observed) -> Option<View> {
        for (node, seen) in seen.nodes.iter().filter(|(_, seen)| seen.task.is_healthy()) {
            let (Some(container), Ok(engine)) = (&seen.task.container, self.engines.of(&node.host)) else { continue };
            // One that does not answer is passed over: the next one may.
            if let Ok(view) = ask::view(engine, container).await {
                return Some(view);
            }
        }
        None
    }
}

fn endpoints(cluster: &Cluster) -> Vec<Endpoint> {
    let endpoint = |node: NodeName| {
        let host = cluster.host(&node.host).ok()?;
        Some(Endpoint { ftp: SocketAddrV4::new(host.address, cluster.ftp_port(&node)), node })
    };
    cluster.nodes().into_iter().filter_map(endpoint).collect()
}
