//! What things are called: clusters, hosts, nodes, and everything that is made for them on an engine. Parsed once; the
//! lengths add up to what Swarm takes (63 bytes for a service, 64 for a secret).

use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

/// The label on everything that is made for a cluster; its value is the cluster's name.
pub const CLUSTER: &str = "trebol.cluster";
/// The label on what belongs to one node; its value is the node's name.
pub const NODE: &str = "trebol.node";
/// The label on services and their containers that says what they were made from ([`crate::spec`]).
pub const SPEC: &str = "trebol.spec";
/// The label on secrets that says what they hold, such as `ca` or `h1-1-peer`.
pub const SECRET: &str = "trebol.secret";
/// The label on the secret with the authority's certificate: how it is recognised.
pub const AUTHORITY: &str = "trebol.authority";

/// Longest name of a cluster or host.
const LONGEST: usize = 20;
/// Nodes on one host.
pub const NODES_PER_HOST: u16 = 50;

/// The name of a cluster or a host: lower-case letters, digits and hyphens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoName(String);

impl Name {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NoName;
    fn from_str(text: &str) -> Result<Self, NoName> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let fits = (1..=LONGEST).contains(&text.len()) && text.bytes().all(plain);
        let framed = text.starts_with(|c: char| c.is_ascii_lowercase()) && !text.ends_with('-');
        if fits && framed { Ok(Self(text.to_owned())) } else { Err(NoName(text.to_owned())) }
    }
}

impl TryFrom<String> for Name {
    type Error = NoName;
    fn try_from(text: String) -> Result<Self, NoName> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for NoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no name for a cluster or host: use lower-case letters, digits and hyphens, {LONGEST} at most, a letter \
             first",
            self.0
        )
    }
}

impl std::error::Error for NoName {}

/// A storage node: the how manieth of which host, from 1. Its name, `h1-3`, never changes, so its volume stays its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeName {
    /// Where it runs.
    pub host: Name,
    /// From 1.
    pub index: u16,
}

impl FromStr for NodeName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no name of a node: they are called HOST-NUMBER, such as h1-3");
        let (host, index) = text.rsplit_once('-').ok_or_else(wrong)?;
        let number = index.parse().ok().filter(|number| (1..=NODES_PER_HOST).contains(number));
        // "01" would be a second name for the same node.
        let index = number.filter(|number: &u16| number.to_string() == index).ok_or_else(wrong)?;
        Ok(Self { host: host.parse().map_err(|_| wrong())?, index })
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}-{}", self.host, self.index))
    }
}

/// Whether these are the labels of something that is the cluster's.
pub fn is_of(cluster: &Name, labels: &HashMap<String, String>) -> bool {
    labels.get(CLUSTER).is_some_and(|of| of == cluster.as_str())
}

/// Of a cluster's network.
pub fn network(cluster: &Name) -> String {
    cluster.to_string()
}

/// The name in the network's DNS that stands for all nodes.
pub fn alias(cluster: &Name) -> String {
    format!("{cluster}-nodes")
}

/// Of a node's service, and of its volume.
pub fn service(cluster: &Name, node: &NodeName) -> String {
    format!("{cluster}-{node}")
}

/// The node of a service or volume of the cluster.
pub fn node_of_service(cluster: &Name, service: &str) -> Option<NodeName> {
    service.strip_prefix(cluster.as_str())?.strip_prefix('-')?.parse().ok()
}

/// The label of a machine in the swarm that says which host of the cluster it is.
pub fn host_label(cluster: &Name) -> String {
    format!("trebol.host.{cluster}")
}

/// Of a secret: what it holds, and which edition, for a secret never changes.
pub fn secret(cluster: &Name, role: &str, content: &[u8]) -> String {
    format!("{cluster}-{role}-{}", &blake3::hash(content).to_hex()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels_of_some_length() {
        for good in ["a", "trebol", "h1", "rack-7-b", &"x".repeat(LONGEST)] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a-", "A", "1a", "a_b", "a.b", "ñ", &"x".repeat(LONGEST + 1)] {
            let refusal = bad.parse::<Name>().unwrap_err().to_string();
            assert!(refusal.contains("lower-case letters"), "{refusal}");
        }
    }

    #[test]
    fn nodes_are_named_after_their_host() {
        let node: NodeName = "rack-7-12".parse().unwrap();
        assert_eq!((node.host.as_str(), node.index, node.to_string()), ("rack-7", 12, "rack-7-12".to_owned()));
        for bad in ["h1", "h1-", "h1-0", "h1-51", "h1-01", "-1", "h1-x"] {
            assert!(bad.parse::<NodeName>().unwrap_err().contains("h1-3"), "{bad}");
        }
        let cluster: Name = "demo".parse().unwrap();
        assert_eq!(node_of_service(&cluster, &service(&cluster, &node)), Some(node));
        assert_eq!(node_of_service(&cluster, "demon-h1-1"), None);
        assert_eq!(node_of_service(&cluster, "demo-h1"), None);
    }

    #[test]
    fn the_longest_names_fit() {
        let long: Name = "x".repeat(LONGEST).parse().unwrap();
        let node = NodeName { host: long.clone(), index: NODES_PER_HOST };
        assert!(service(&long, &node).len() <= 63);
        assert!(secret(&long, &format!("{node}-peer"), b"").len() <= 64);
    }
}
