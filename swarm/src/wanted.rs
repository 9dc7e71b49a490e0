//! What shall be: a checked cluster, the image of its nodes and the names of the secrets that they are given. The same
//! input gives the same services, to the byte, on any day.

use crate::cluster::Cluster;
use crate::name::{self, Name, NodeName};
use crate::spec;
use std::collections::BTreeMap;

/// The secret with the authority's certificates.
pub const CA: &str = "ca";
/// The secret with the users file.
pub const USERS: &str = "users";

/// The secret with a node's certificate for its peers, and its key.
pub fn peer_role(node: &NodeName) -> String {
    format!("{node}-peer")
}

/// The secret with a host's certificate for clients, and its key.
pub fn ftp_role(host: &Name) -> String {
    format!("{host}-ftp")
}

/// What shall be.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Checked.
    pub cluster: Cluster,
    /// Of all nodes.
    pub image: String,
    /// By what they hold: the name of the edition. One that has still to be made is called `…-new`.
    pub secrets: BTreeMap<String, String>,
    /// Which authority issues the certificates; `None` while there is none.
    pub authority: Option<String>,
}

impl Wanted {
    /// With the contents of secrets, by what they are; what is not there has still to be made.
    pub fn new(cluster: Cluster, image: String, contents: &BTreeMap<String, Vec<u8>>) -> Self {
        let edition = |role: String| {
            let name = match contents.get(&role) {
                Some(content) => name::secret(&cluster.name, &role, content),
                None => format!("{}-{role}-new", cluster.name),
            };
            (role, name)
        };
        let secrets = roles(&cluster).into_iter().map(edition).collect();
        let authority = contents.get(CA).map(|ca| authority(ca));
        Self { cluster, image, secrets, authority }
    }
    /// What the service of a node is made from; changes when the node must be replaced.
    pub fn fingerprint(&self, node: &NodeName) -> String {
        spec::fingerprint(&spec::service(self, node, &BTreeMap::new()))
    }
}

/// How an authority is recognised.
pub fn authority(certificates: &[u8]) -> String {
    blake3::hash(certificates).to_hex()[..16].to_owned()
}

/// Of all secrets of a cluster.
pub fn roles(cluster: &Cluster) -> Vec<String> {
    let mut roles = vec![CA.to_owned(), USERS.to_owned()];
    roles.extend(cluster.hosts.iter().filter(|host| host.nodes > 0).map(|host| ftp_role(&host.name)));
    roles.extend(cluster.nodes().iter().map(peer_role));
    roles
}
