//! The words two nodes open a connection with, on both ports: who I am, and why I will not speak with you. Only words;
//! [`Greeter`](super::Greeter) says them.

use crate::cluster::{OLDEST, PROTOCOL, PeerInfo, speaks};
use crate::store::BootChain;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Longest frame before the peer is known, in bytes.
pub(crate) const HELLO_MAX: usize = 64 << 10;

/// Addresses of others that a Hello carries at most, and that are taken from one.
pub const PEERS: usize = 128;

/// What a node says of itself, and fixes for the life of the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`] of the speaker, which is the version of all that follows.
    pub protocol: u32,
    /// The oldest version that it understands, where it says: of a listener that is older it then need not be refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<u32>,
    /// The cluster it belongs to.
    pub cluster: String,
    /// Which of the two ports it means to speak to.
    pub port: Port,
    /// Its identity and addresses.
    pub info: PeerInfo,
    /// Its boots so far, this one included.
    pub boot: BootChain,
    /// RPC addresses of nodes that are connected to it, at most [`PEERS`]: so one seed in common is enough for all to meet.
    /// Hearsay: it only says whom to call.
    #[serde(default)]
    pub peers: Vec<SocketAddr>,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Port {
    /// Coordination, JSON frames (2123).
    Rpc,
    /// File bytes (2124).
    Raw,
}

/// Why a Hello was refused. The connection ends with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum HelloRefusal {
    /// The speaker is newer than the listener, and speaks no version that the listener knows.
    #[error("its protocol is newer than version {ours}: upgrade this side first")]
    NewerProtocol {
        /// The greatest version the refusing side speaks.
        ours: u32,
    },
    /// The speaker is of a version that the listener speaks no more.
    #[error("its protocol is older than version {oldest}: upgrade it")]
    OlderProtocol {
        /// The least version the refusing side speaks.
        oldest: u32,
    },
    /// Another cluster's node. The refusing side does not say which its own is.
    #[error("it belongs to another cluster")]
    WrongCluster,
    /// RPC spoken to the raw port, or the other way round.
    #[error("it spoke to the wrong port")]
    WrongPort,
    /// The speaker and the listener are one process.
    #[error("it is this node itself")]
    Own,
    /// It does not go on from the boots of the node that goes by its id.
    #[error(
        "another node goes by its id: its data directory is a copy, or was put back from an older one. Stop it, and start \
         it again with an empty data directory"
    )]
    DuplicateNode,
    /// An earlier start of it was heard a moment ago. It is to try again: soon one of the two is silent, or both are
    /// known to live, and then it is a copy.
    #[error("an earlier start of it is still heard; wait a moment")]
    OlderStart,
    /// A connected node has the same id and another key in its certificate.
    #[error("a connected node has the same id with another certificate key")]
    OtherKey,
    /// A node that the operator removed for good.
    #[error("it was removed from the cluster: give it an empty data directory")]
    Forgotten,
    /// The Hello contradicts itself.
    #[error("its Hello contradicts itself")]
    Malformed,
    /// A reason of a later version.
    #[error("for a reason this version does not know")]
    #[serde(other)]
    Other,
}

impl HelloRefusal {
    /// A word for each.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::NewerProtocol { .. } => "newer protocol",
            Self::OlderProtocol { .. } => "older protocol",
            Self::WrongCluster => "wrong cluster",
            Self::WrongPort => "wrong port",
            Self::Own => "own",
            Self::DuplicateNode => "duplicate node",
            Self::OlderStart => "older start",
            Self::OtherKey => "other key",
            Self::Forgotten => "forgotten",
            Self::Malformed => "malformed",
            Self::Other => "other",
        }
    }
}

/// The answer to a Hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    /// "And I am this one."
    Welcome(Box<Hello>),
    /// "No."
    Refused(HelloRefusal),
}

/// Just enough of any version's Hello to refuse it in words.
#[derive(Debug, Deserialize)]
pub(crate) struct AnyHello {
    protocol: u32,
    oldest: Option<u32>,
}

impl AnyHello {
    /// Why nodes of these versions cannot speak with each other, if they cannot.
    pub(crate) fn refusal(&self) -> Option<HelloRefusal> {
        if speaks(self.protocol, self.oldest) {
            return None;
        }
        Some(if self.protocol < OLDEST {
            HelloRefusal::OlderProtocol { oldest: OLDEST }
        } else {
            HelloRefusal::NewerProtocol { ours: PROTOCOL }
        })
    }
}

impl From<&Hello> for AnyHello {
    fn from(hello: &Hello) -> Self {
        Self { protocol: hello.protocol, oldest: hello.oldest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_later_versions_are_understood_as_such() {
        let json = r#"{"refused":{"reason":"full_moon","phase":3}}"#;
        assert_eq!(serde_json::from_str::<Reply>(json).unwrap(), Reply::Refused(HelloRefusal::Other));
        let known = serde_json::to_string(&Reply::Refused(HelloRefusal::NewerProtocol { ours: 1 })).unwrap();
        assert_eq!(known, r#"{"refused":{"reason":"newer_protocol","ours":1}}"#);
    }
}
