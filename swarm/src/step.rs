//! One thing that is done to an engine. Each is small, can be repeated, and reads as a line of a plan.

use crate::name::{Name, NodeName};
use std::fmt;

/// What is to be done. Where a step names a host, it is done on that host's engine; else by the manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Begin a swarm.
    InitSwarm {
        /// Its first manager.
        host: Name,
    },
    /// Take a host into the swarm.
    JoinSwarm {
        /// Which.
        host: Name,
    },
    /// Let lost heartbeats of a machine count only after minutes.
    BePatient,
    /// Say in the swarm which host a machine is.
    LabelHost {
        /// Which.
        host: Name,
    },
    /// Have an engine fetch the image from its registry.
    PullImage {
        /// Where.
        host: Name,
    },
    /// Copy the image between engines.
    CarryImage {
        /// Whose engine has it.
        from: Name,
        /// Whose lacks it.
        to: Name,
    },
    /// Make the overlay network.
    CreateNetwork,
    /// Make a secret.
    CreateSecret {
        /// What it holds.
        role: String,
        /// Its name.
        name: String,
    },
    /// Start a storage node.
    CreateNode {
        /// Which.
        node: NodeName,
    },
    /// Replace a node's container, once no other node is missing.
    UpdateNode {
        /// Which.
        node: NodeName,
        /// What differs.
        why: String,
    },
    /// Take back a drain.
    KeepNode {
        /// Which.
        node: NodeName,
    },
    /// Have nodes' copies move to the others, and wait until none is left.
    Drain {
        /// Which.
        nodes: Vec<NodeName>,
    },
    /// Remove a node's service.
    RemoveNode {
        /// Which.
        node: NodeName,
    },
    /// Wait until no container of these nodes is left on the hosts.
    AwaitGone {
        /// Which.
        nodes: Vec<NodeName>,
    },
    /// See to it that these nodes were drained and no copy shall be on them, now that they are gone: their volumes go next.
    AwaitEmpty {
        /// Which.
        nodes: Vec<NodeName>,
    },
    /// Have the cluster forget a node that is gone.
    Forget {
        /// Which.
        node: NodeName,
    },
    /// Remove a volume, and what is in it.
    RemoveVolume {
        /// Where.
        host: Name,
        /// Its name.
        volume: String,
    },
    /// Remove a secret that nobody uses.
    RemoveSecret {
        /// Its name.
        name: String,
    },
    /// Remove the overlay network.
    RemoveNetwork,
    /// Take a host's label back.
    UnlabelHost {
        /// Whose.
        host: Name,
    },
    /// Take a host out of the swarm.
    LeaveSwarm {
        /// Which.
        host: Name,
    },
    /// Remove an image that this crate built, unless something else uses it.
    RemoveImage {
        /// Where.
        host: Name,
        /// Its name.
        image: String,
    },
    /// Remove what is kept of the cluster on this machine: its authority's key, users, passwords.
    RemoveState,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InitSwarm { host } => write!(f, "begin a swarm on {host}"),
            Self::JoinSwarm { host } => write!(f, "take {host} into the swarm"),
            Self::BePatient => f.write_str("let the swarm wait minutes before it declares a machine lost"),
            Self::LabelHost { host } => write!(f, "label {host} in the swarm"),
            Self::PullImage { host } => write!(f, "pull the image on {host}"),
            Self::CarryImage { from, to } => write!(f, "carry the image from {from} to {to}"),
            Self::CreateNetwork => f.write_str("create the network"),
            Self::CreateSecret { role, .. } => write!(f, "create the secret {role}"),
            Self::CreateNode { node } => write!(f, "start node {node}"),
            Self::UpdateNode { node, why } => write!(f, "replace node {node} ({why})"),
            Self::KeepNode { node } => write!(f, "let node {node} keep and take copies again"),
            Self::Drain { nodes } => write!(f, "drain {}", list(nodes)),
            Self::RemoveNode { node } => write!(f, "stop node {node}"),
            Self::AwaitGone { nodes } => write!(f, "wait for the containers of {} to end", list(nodes)),
            Self::AwaitEmpty { nodes } => write!(f, "see whether any copy shall still be on {}", list(nodes)),
            Self::Forget { node } => write!(f, "have the cluster forget {node}"),
            Self::RemoveVolume { host, volume } => write!(f, "remove the volume {volume} on {host}"),
            Self::RemoveSecret { name } => write!(f, "remove the secret {name}"),
            Self::RemoveNetwork => f.write_str("remove the network"),
            Self::UnlabelHost { host } => write!(f, "take the label off {host}"),
            Self::LeaveSwarm { host } => write!(f, "take {host} out of the swarm"),
            Self::RemoveImage { host, image } => write!(f, "remove the image {image} on {host}"),
            Self::RemoveState => f.write_str("remove the cluster's keys and passwords from this machine"),
        }
    }
}

fn list(nodes: &[NodeName]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
