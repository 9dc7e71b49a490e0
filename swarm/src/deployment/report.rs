//! How a cluster is: what the engines say of its containers, and what its nodes say of each other. And what they log.

use super::Deployment;
use crate::engine::words;
use crate::look::look;
use crate::name::{self, NodeName};
use crate::work::synchronised;
use anyhow::{Result, anyhow, bail};
use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::{Stream, StreamExt};
use serde::Serialize;

/// A cluster at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Its name.
    pub cluster: String,
    /// Who leads.
    pub leader: Option<String>,
    /// Visible files.
    pub files: u64,
    /// Copies that are missing.
    pub missing_copies: u64,
    /// Its nodes, the highest rank first.
    pub nodes: Vec<NodeReport>,
    /// What is wrong now, one sentence each; nothing when all is well.
    pub faults: Vec<String>,
    /// What would be at risk, one sentence each.
    pub risks: Vec<String>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeReport {
    /// Its name.
    pub node: String,
    /// Its host.
    pub host: String,
    /// Where clients reach it.
    pub ftp: String,
    /// Its container, in the engine's word: `running` is healthy.
    pub task: String,
    /// As the others see it: `alive`, `suspect`, `down`; `unknown` if nobody does.
    pub liveness: String,
    /// Records that it lacks.
    pub behind: u64,
    /// Copies that shall be on it.
    pub copies: u64,
    /// Its image.
    pub image: String,
}

impl Deployment {
    /// How the cluster is now.
    pub async fn status(&self) -> Result<Report> {
        let seen = look(&self.cluster, &self.engines, &Default::default()).await?;
        if seen.nodes.is_empty() {
            bail!("there is no cluster {} on these engines: `up` makes it", self.cluster.name);
        }
        let view = self.view(&seen).await;
        let mut faults = self.engines.silent().to_vec();
        let mut nodes = Vec::new();
        let mut names: Vec<NodeName> = seen.nodes.keys().cloned().collect();
        names.sort_by_key(|node| std::cmp::Reverse(self.cluster.priority(node)));
        for node in &names {
            let there = &seen.nodes[node];
            let member = view.as_ref().and_then(|view| view.member(&node.to_string()));
            if !there.task.is_healthy() {
                let why = there.task.complaint().map(|error| format!(": {error}")).unwrap_or_default();
                faults.push(format!("node {node} is not running{why}"));
            }
            let address = self.cluster.host(&node.host).map(|host| host.address.to_string()).unwrap_or_default();
            nodes.push(NodeReport {
                node: node.to_string(),
                host: node.host.to_string(),
                ftp: format!("{address}:{}", self.cluster.ftp_port(node)),
                task: there.task.state.clone(),
                liveness: member.map_or("unknown", |member| &member.liveness).to_owned(),
                behind: member.map_or(0, |member| member.behind),
                copies: member.map_or(0, |member| member.copies),
                image: there.image.clone(),
            });
        }
        match &view {
            None => faults.push("no node answers".to_owned()),
            Some(view) => faults.extend(synchronised(view, &names).err()),
        }
        let asked = self.cluster.nodes();
        faults
            .extend(asked.iter().filter(|node| !names.contains(node)).map(|node| format!("node {node} is not there")));
        Ok(Report {
            cluster: self.cluster.name.to_string(),
            leader: view.as_ref().and_then(|view| view.leader_name()).map(str::to_owned),
            files: view.as_ref().map_or(0, |view| view.files),
            missing_copies: view.as_ref().map_or(0, |view| view.missing_copies),
            nodes,
            faults,
            risks: self.cluster.risks(),
        })
    }

    /// What a node logs: its last `tail` lines, and what comes, if `follow`.
    pub fn logs(&self, node: &NodeName, tail: u32, follow: bool) -> impl Stream<Item = Result<String>> + 'static {
        let options =
            LogsOptionsBuilder::default().stdout(true).stderr(true).follow(follow).tail(&tail.to_string()).build();
        let name = name::service(&self.cluster.name, node);
        let node = node.clone();
        let lines = self.engines.manager().docker.service_logs(&name, Some(options));
        lines.map(move |line| match line {
            Ok(line) => Ok(text(line)),
            Err(error) => Err(anyhow!("node {node} has no log: {}", words(&error))),
        })
    }
}

fn text(line: LogOutput) -> String {
    String::from_utf8_lossy(&line.into_bytes()).trim_end().to_owned()
}
