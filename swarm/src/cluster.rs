//! A cluster as somebody asks for it: the short TOML file, and what must hold for it. It is also what is remembered of a
//! cluster, so that later commands need no file. Only looks at values; reads no engine and resolves no name.
//!
//! ```toml
//! name = "demo"
//! zones = 2                    # hosts that copies are spread over at least
//!
//! [[host]]                     # the first one is the swarm's manager
//! name = "h1"
//! engine = "ssh://ops@192.0.2.1"
//! address = "192.0.2.1"
//! nodes = 3
//!
//! [[host]]
//! name = "h2"
//! engine = "ssh://ops@192.0.2.2"
//! address = "192.0.2.2"
//! nodes = 2
//!
//! [[user]]
//! name = "ana"                 # without a password one is made, kept in the state directory, and shown
//! ```

mod settings;

use crate::name::{NODES_PER_HOST, Name, NodeName};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

/// Where the engine of this machine listens unless `DOCKER_HOST` says otherwise.
const LOCAL_ENGINE: &str = "unix:///var/run/docker.sock";
/// Ports that Swarm itself needs on every host.
const SWARM_PORTS: [u16; 3] = [2377, 4789, 7946];
/// Hosts of one cluster.
const HOSTS: usize = 100;

/// A cluster as asked for. The fields without a default are checked by [`Cluster::check`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Its name; peers of another name are refused.
    #[serde(default = "default_name")]
    pub name: Name,
    /// The image of its nodes. Unless set: the one that runs, or one built from this workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Hosts that copies are to be spread over, at least.
    #[serde(default = "default_zones")]
    pub zones: usize,
    /// Where clients connect to the first node of each host; the next ones follow.
    #[serde(default = "default_ftp_port")]
    pub ftp_port: u16,
    /// The first port for data connections of the first node of each host.
    #[serde(default = "default_passive_port")]
    pub passive_port: u16,
    /// How many ports for data connections each node has: as many transfers at once.
    #[serde(default = "default_passive_per_node")]
    pub passive_per_node: u16,
    /// What nodes log, as in "info,node=debug".
    #[serde(default = "default_log")]
    pub log: String,
    /// More labels for everything that is made.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Settings of the nodes, as `trebol serve --help` names them: `[settings.core]`, `repair_after_s = 30`.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    pub settings: toml::Table,
    /// Where it runs. Unless set: on this machine.
    #[serde(default, rename = "host")]
    pub hosts: Vec<Host>,
    /// Who may log in at first. Unless set: `demo`.
    #[serde(default, rename = "user")]
    pub users: Vec<User>,
}

/// A machine with an engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Its name, which is the zone of its nodes.
    pub name: Name,
    /// Its engine: `unix:///…`, `ssh://user@host` or `tcp://host:port`. Unless set: that of this machine.
    #[serde(default = "local_engine")]
    pub engine: String,
    /// Where clients and the other hosts reach it.
    #[serde(default = "default_address")]
    pub address: Ipv4Addr,
    /// More names under which clients reach it, for its certificate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// How many storage nodes.
    pub nodes: u16,
}

/// Somebody who may log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// As typed.
    pub name: String,
    /// An Argon2id hash, which `trebol passwd` prints. Unless set: a password is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// What the user sees as `/`.
    #[serde(default = "default_home")]
    pub home: String,
    /// Whether every change is refused.
    #[serde(default)]
    pub read_only: bool,
}

fn default_name() -> Name {
    "trebol".parse().expect("letters")
}
fn default_zones() -> usize {
    1
}
fn default_ftp_port() -> u16 {
    2121
}
/// Below the ports of outgoing connections, any of which may be taken for a while.
fn default_passive_port() -> u16 {
    21_000
}
fn default_passive_per_node() -> u16 {
    8
}
fn default_log() -> String {
    "info".to_owned()
}
fn default_address() -> Ipv4Addr {
    Ipv4Addr::LOCALHOST
}
fn default_home() -> String {
    "/".to_owned()
}
fn local_engine() -> String {
    std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()).unwrap_or_else(|| LOCAL_ENGINE.to_owned())
}

impl Default for Cluster {
    /// Five nodes on this machine.
    fn default() -> Self {
        let empty: Self = toml::from_str("").expect("every field has a default");
        empty.filled()
    }
}

impl Host {
    /// On this machine.
    pub fn local(name: Name, nodes: u16) -> Self {
        Self { name, engine: local_engine(), address: default_address(), names: vec![], nodes }
    }
    /// Its nodes, in order.
    pub fn nodes(&self) -> impl Iterator<Item = NodeName> + '_ {
        (1..=self.nodes).map(|index| NodeName { host: self.name.clone(), index })
    }
}

impl Cluster {
    /// From a file's text; `place` names it in errors. Checked.
    pub fn parse(text: &str, place: &str) -> Result<Self> {
        let read: Self = toml::from_str(text).map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            let message = error.message().lines().collect::<Vec<_>>().join("; ");
            anyhow::anyhow!("{place}, line {line}: {message}")
        })?;
        let cluster = read.filled();
        cluster.check().with_context(|| place.to_owned())?;
        Ok(cluster)
    }
    /// With what stands for nothing said.
    fn filled(mut self) -> Self {
        if self.hosts.is_empty() {
            self.hosts.push(Host::local("h1".parse().expect("a letter and a digit"), 5));
        }
        if self.users.is_empty() {
            self.users.push(User { name: "demo".to_owned(), password: None, home: default_home(), read_only: false });
        }
        self
    }
    /// All nodes, the highest rank first.
    pub fn nodes(&self) -> Vec<NodeName> {
        let mut all: Vec<NodeName> = self.hosts.iter().flat_map(Host::nodes).collect();
        all.sort_by_key(|node| std::cmp::Reverse(self.priority(node)));
        all
    }
    /// The host of that name; a sentence with those there are.
    pub fn host(&self, name: &Name) -> Result<&Host> {
        let found = self.hosts.iter().find(|host| host.name == *name);
        found.with_context(|| {
            let known: Vec<&str> = self.hosts.iter().map(|host| host.name.as_str()).collect();
            format!("there is no host {name}: the hosts of {} are {}", self.name, known.join(", "))
        })
    }
    /// The first host, which manages the swarm.
    pub fn manager(&self) -> &Host {
        self.hosts.first().expect("checked: there is a host")
    }
    /// Who leads: the first node of the first host, then the first ones of the others. It depends on nothing that scaling
    /// changes, for another priority is a restart.
    pub fn priority(&self, node: &NodeName) -> i64 {
        let place = self.hosts.iter().position(|host| host.name == node.host).unwrap_or(HOSTS);
        let place = i64::try_from(place).unwrap_or(i64::MAX).min(100);
        10_000 - i64::from(node.index) * 101 - place
    }
    /// Where clients connect to a node.
    pub fn ftp_port(&self, node: &NodeName) -> u16 {
        self.ftp_port + (node.index - 1)
    }
    /// A node's ports for data connections.
    pub fn passive_ports(&self, node: &NodeName) -> RangeInclusive<u16> {
        let first = self.passive_port + (node.index - 1) * self.passive_per_node;
        first..=first + (self.passive_per_node - 1)
    }
    /// All ports of its host that a node has, that for clients first.
    pub fn ports(&self, node: &NodeName) -> impl Iterator<Item = u16> + use<> {
        std::iter::once(self.ftp_port(node)).chain(self.passive_ports(node))
    }
    /// What cannot work, in a sentence.
    pub fn check(&self) -> Result<()> {
        self.check_hosts()?;
        self.check_ports()?;
        let mut names = BTreeSet::new();
        for user in &self.users {
            if user.name.is_empty() || user.name.chars().any(char::is_control) || !names.insert(&user.name) {
                bail!("the user name {:?} is there twice, empty, or holds control characters", user.name);
            }
            if user.password.as_ref().is_some_and(|hash| !hash.starts_with("$argon2id$")) {
                bail!("the password of user {} is no Argon2id hash: make one with `trebol passwd`", user.name);
            }
        }
        self.variables().map(drop)
    }
    fn check_hosts(&self) -> Result<()> {
        if self.hosts.is_empty() || self.hosts.len() > HOSTS {
            bail!("{} hosts are named: a cluster has 1 to {HOSTS}", self.hosts.len());
        }
        let mut names = BTreeSet::new();
        for host in &self.hosts {
            if !names.insert(&host.name) {
                bail!("host {} is named twice", host.name);
            }
            if host.nodes > NODES_PER_HOST {
                bail!("host {} is to have {} nodes: {NODES_PER_HOST} is the most", host.name, host.nodes);
            }
            let known = ["unix://", "ssh://", "tcp://"].iter().any(|scheme| host.engine.starts_with(scheme));
            if !known {
                let (name, engine) = (&host.name, &host.engine);
                bail!("host {name}: {engine:?} is no engine: write unix:///PATH, ssh://USER@HOST or tcp://HOST:PORT");
            }
            if self.hosts.len() > 1 && (host.address.is_loopback() || host.address.is_unspecified()) {
                let (name, address) = (&host.name, host.address);
                bail!("host {name}: the other hosts cannot reach it at {address}; set its address");
            }
        }
        let used = self.hosts.iter().filter(|host| host.nodes > 0).count();
        if used == 0 {
            bail!("no host is to have a node");
        }
        if used < self.zones {
            let (zones, used) = (self.zones, counted(used, "host has", "hosts have"));
            bail!("copies are to be spread over {zones} hosts and only {used} nodes: add hosts, or lower zones");
        }
        Ok(())
    }
    /// Ports for the nodes there are on the fullest host: within range, and none twice.
    fn check_ports(&self) -> Result<()> {
        let most = self.hosts.iter().map(|host| host.nodes).max().unwrap_or(0).max(1);
        if self.ftp_port == 0 || self.passive_port == 0 || self.passive_per_node == 0 {
            bail!("ftp_port, passive_port and passive_per_node must not be 0: clients have to know the ports");
        }
        let last = |first: u16, count: u32| {
            let last = u32::from(first) + count - 1;
            u16::try_from(last).with_context(|| format!("ports from {first} for {most} nodes end beyond 65535"))
        };
        let ftp = self.ftp_port..=last(self.ftp_port, most.into())?;
        let wanted = u32::from(most) * u32::from(self.passive_per_node);
        let passive = self.passive_port..=last(self.passive_port, wanted)?;
        if ftp.start() <= passive.end() && passive.start() <= ftp.end() {
            bail!(
                "ports {ftp:?} for clients and {passive:?} for data connections overlap: move ftp_port or passive_port"
            );
        }
        if let Some(port) = SWARM_PORTS.iter().find(|port| ftp.contains(port) || passive.contains(port)) {
            bail!("port {port} is one of Swarm's own: move ftp_port or passive_port");
        }
        Ok(())
    }
    /// What is at risk with this many nodes on so many hosts, one sentence each.
    pub fn risks(&self) -> Vec<String> {
        let total = self.hosts.iter().map(|host| usize::from(host.nodes)).sum::<usize>();
        let used = self.hosts.iter().filter(|host| host.nodes > 0).count();
        let mut risks = Vec::new();
        match total {
            1 => risks.push("one node keeps one copy: files are lost with it".to_owned()),
            2 => risks.push("two nodes keep two copies, and writes are refused while one is down".to_owned()),
            3 => {
                risks.push("three nodes keep three copies, and a lost one has no place until a node is back".to_owned())
            }
            4 => risks
                .push("four nodes: after the loss of two, files have two copies and no place for a third".to_owned()),
            _ => {}
        }
        if used == 1 {
            risks.push(
                "all nodes are on one host: files are out of reach while it is down, and lost with its disk".to_owned(),
            );
        } else if !self.hosts.iter().any(|host| host.nodes >= 3) {
            risks.push("no host has three nodes: while the others are cut off, none can keep three copies".to_owned());
        }
        risks
    }
}

fn counted(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
