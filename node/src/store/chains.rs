//! What this node remembers of other nodes' boots, in `peers.json`: with it a copy of a disk is told from its original even
//! when the two never run at the same time. A safety net, no part of the cluster's state: a node without it believes whom it
//! meets first.

use super::error::OpenError;
use super::identity::{BootChain, replace};
use crate::cluster::NodeId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

const FILE: &str = "peers.json";
const FORMAT: u64 = 1;

/// What is remembered of one node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Remembered {
    /// The last boot of whoever went by its id; the newest link is enough to compare with.
    pub boot: BootChain,
    /// Boots that were proven to be those of a copy, the newest last.
    #[serde(default)]
    pub copies: Vec<u64>,
}

/// The file.
#[derive(Debug, Clone)]
pub struct ChainFile(PathBuf);

#[derive(Serialize, Deserialize)]
struct Content {
    format: u64,
    peers: BTreeMap<NodeId, Remembered>,
}

impl ChainFile {
    /// Of a data directory.
    pub fn of(dir: &Path) -> Self {
        Self(dir.to_owned())
    }
    /// Refuses a later format: it would be taken for damage, and overwritten. Blocking.
    pub(super) fn judge(&self) -> Result<(), OpenError> {
        #[derive(Deserialize)]
        struct Format {
            format: u64,
        }
        let file = self.0.join(FILE);
        // What cannot be read says no format; `load` tells of it.
        let Ok(text) = std::fs::read(&file) else { return Ok(()) };
        match serde_json::from_slice(&text) {
            Ok(Format { format: found }) if found > FORMAT => {
                Err(OpenError::NewerFormat { file, found, known: FORMAT })
            }
            _ => Ok(()),
        }
    }
    /// Reads it; empty when there is none, or none that can be read, which is logged. Blocking.
    pub fn load(&self) -> BTreeMap<NodeId, Remembered> {
        let path = self.0.join(FILE);
        let read = std::fs::read(&path).and_then(|text| Ok(serde_json::from_slice::<Content>(&text)?));
        match read {
            Ok(content) if content.format == FORMAT => content.peers,
            Ok(Content { format, .. }) => {
                tracing::warn!(?path, format, "boots of other nodes are in another format, and forgotten");
                BTreeMap::new()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => {
                tracing::warn!(?path, %error, "boots of other nodes cannot be read, and are forgotten");
                BTreeMap::new()
            }
        }
    }
    /// Puts all of it in place of the old one, durably. Blocking.
    pub fn save(&self, peers: BTreeMap<NodeId, Remembered>) -> io::Result<()> {
        replace(&self.0, FILE, &serde_json::to_vec(&Content { format: FORMAT, peers })?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_there_and_what_cannot_be_read_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let file = ChainFile::of(dir.path());
        assert!(file.load().is_empty());
        let boot = BootChain { count: 3, recent: vec![7] };
        let peers = BTreeMap::from([(NodeId(1), Remembered { boot, copies: vec![9] })]);
        file.save(peers.clone()).unwrap();
        assert_eq!(file.load(), peers);
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(file.load().is_empty());
        file.judge().unwrap();
    }
}
