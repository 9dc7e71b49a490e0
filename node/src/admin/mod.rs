//! What a running node says of itself. To the command line, over the Unix socket `control.sock` in its data directory (mode
//! 0600: who may read the directory may ask, and order what an operator may): one JSON object a line, one answer a question,
//! never reachable from the network. To monitoring, by HTTP and read-only (`http`), closed unless a setting opens it.

mod client;
mod http;
mod metrics;
mod ready;
mod server;
mod socket;

pub use client::{AskError, ask, drain, forget};
pub use http::{Panel, show};
pub use server::{Admin, serve};

use crate::cluster::{NodeId, Status};
use crate::store::Integrity;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Version of questions and answers.
pub const VERSION: u32 = 1;
/// The socket's name in the data directory.
pub const SOCKET: &str = "control.sock";
/// The file in the data directory with the ports a node listens on.
pub const ENDPOINTS: &str = "endpoints.json";
/// Digits of an id that people are shown, and with which they name a node.
pub const ID_DIGITS: usize = 8;
/// Longest line, in bytes. A status of a thousand members fits.
const LINE_MAX: u64 = 1 << 20;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`] of the asker.
    pub version: u32,
    /// What is asked.
    pub request: Question,
}

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// The cluster as this node sees it.
    Status,
    /// Remove a node for good.
    Forget {
        /// Its name, its id, or at least [`ID_DIGITS`] digits of it.
        node: String,
    },
    /// Have a node's copies move elsewhere, or take that back.
    Drain {
        /// Its name, its id, or at least [`ID_DIGITS`] digits of it.
        node: String,
        /// False takes it back.
        draining: bool,
    },
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// [`VERSION`] of the node.
    pub version: u32,
    /// What it says.
    #[serde(flatten)]
    pub answer: Answer,
}

/// What a node answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Question::Status`].
    Status(Box<NodeStatus>),
    /// To [`Question::Forget`]: which node it was.
    Forgotten(NodeId),
    /// To [`Question::Drain`]: which node it is.
    Drain(NodeId),
    /// Why there is no other answer.
    Error(String),
}

/// A node and the cluster as it sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its readable name.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// Where it listens.
    pub endpoints: Endpoints,
    /// Losers of conflicts in this node's index.
    #[serde(default)]
    pub conflicts: u64,
    /// What reading the copies on this node's disk again has come to.
    #[serde(default)]
    pub scrub: Integrity,
    /// Records in its log.
    #[serde(default)]
    pub log_records: u64,
    /// The cluster.
    #[serde(flatten)]
    pub cluster: Status,
}

/// Where a node listens, with the ports it got where 0 was asked for. Also the content of [`ENDPOINTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// Clients.
    pub ftp: SocketAddr,
    /// Peers: coordination.
    pub peer: SocketAddr,
    /// Peers: file bytes.
    pub raw: SocketAddr,
    /// Monitoring, where that is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<SocketAddr>,
}
