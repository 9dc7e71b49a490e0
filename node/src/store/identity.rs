//! Who this data directory is: the node's id and its chain of boots, in `identity.json`. Written to a temporary file, synced
//! and renamed, so it is never half there. Never guessed: data without an identity are refused.

use super::error::OpenError;
use super::failpoint::reach;
use crate::cluster::NodeId;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

const FILE: &str = "identity.json";
const FORMAT: u64 = 1;
/// Boots that are remembered. A peer that missed more of them than this cannot tell a copy and has to believe.
const REMEMBERED: usize = 64;
/// No node starts so often: a start a second takes 136 years.
const BOOTS: u64 = 1 << 32;

/// A chain of boots: each start adds a random link. Of two copies of one disk, both of which were started, neither chain
/// extends the other.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BootChain {
    /// How many boots there were.
    pub count: u64,
    /// The links of the newest ones, the newest last.
    pub recent: Vec<u64>,
}

impl BootChain {
    /// Whether this chain goes on from `known` (or is the same). Chains too far apart to compare count as one.
    pub fn extends(&self, known: &Self) -> bool {
        let Some(newest) = known.recent.last() else { return true };
        let Some(since) = self.count.checked_sub(known.count) else { return false };
        let at = usize::try_from(since).ok().and_then(|n| self.recent.len().checked_sub(n.saturating_add(1)));
        at.is_none_or(|at| self.recent[at] == *newest)
    }
    /// Whether a node can have it: its newest links and no others, at least one, and a count that leaves it others to come.
    /// What is believed of one that is not would hold for ever.
    pub fn is_sound(&self) -> bool {
        let held = self.count.min(REMEMBERED as u64);
        (1..BOOTS).contains(&self.count) && self.recent.len() as u64 == held
    }
    fn add(&mut self, link: u64) {
        self.count += 1;
        self.recent.push(link);
        let surplus = self.recent.len().saturating_sub(REMEMBERED);
        self.recent.drain(..surplus);
    }
}

/// What `identity.json` holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Identity {
    format: u64,
    /// The node.
    pub(super) node: NodeId,
    /// Its boots, this one included after [`Identity::boot`].
    pub(super) boots: BootChain,
}

impl Identity {
    /// Reads the identity; `None` when the directory has none.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>, OpenError> {
        let file = dir.join(FILE);
        let text = match std::fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(OpenError::io("read", file)(error)),
        };
        // The format is judged first: a newer one may have any shape.
        #[derive(Deserialize)]
        struct Format {
            format: u64,
        }
        let damaged = |error: serde_json::Error| OpenError::Damaged { file: file.clone(), reason: error.to_string() };
        let Format { format } = serde_json::from_slice(&text).map_err(damaged)?;
        if format > FORMAT {
            return Err(OpenError::NewerFormat { file, found: format, known: FORMAT });
        }
        serde_json::from_slice(&text).map(Some).map_err(damaged)
    }

    /// The identity, or a new one if there is none; nothing is written. `has_data` says whether there is something beside it
    /// that an earlier identity must have written.
    pub(super) fn find(dir: &Path, has_data: bool) -> Result<Self, OpenError> {
        match Self::read(dir)? {
            Some(identity) => Ok(identity),
            None if has_data => {
                Err(OpenError::Damaged { file: dir.join(FILE), reason: "missing beside data".to_owned() })
            }
            None => {
                let node = NodeId(u128::from_be_bytes(random(dir)?));
                Ok(Self { format: FORMAT, node, boots: BootChain::default() })
            }
        }
    }

    /// Adds a boot, and has it and the identity on the disk before it returns.
    pub(super) fn boot(&mut self, dir: &Path) -> Result<(), OpenError> {
        self.boots.add(u64::from_be_bytes(random(dir)?));
        let text = serde_json::to_vec(self).expect("numbers and strings always serialise");
        replace(dir, FILE, &text).map_err(OpenError::io("write", dir.join(FILE)))
    }
}

fn random<const N: usize>(dir: &Path) -> Result<[u8; N], OpenError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|e| OpenError::io("make an identity for", dir)(io::Error::other(e.to_string())))?;
    Ok(bytes)
}

/// Puts a whole file in place of another, durably, or leaves the old one.
pub(super) fn replace(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    reach("identity-written");
    std::fs::rename(&temporary, dir.join(name))?;
    reach("identity-replaced");
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_boot_extends_the_chain_and_keeps_the_node() {
        let dir = tempfile::tempdir().unwrap();
        let boot = |has_data| {
            let mut identity = Identity::find(dir.path(), has_data).unwrap();
            identity.boot(dir.path()).unwrap();
            identity
        };
        let (first, second) = (boot(false), boot(true));
        assert_eq!(first.node, second.node);
        assert!(second.boots.extends(&first.boots) && !first.boots.extends(&second.boots));
    }

    #[test]
    fn two_copies_that_were_both_started_do_not_extend_each_other() {
        let mut original = BootChain::default();
        original.add(1);
        let mut copy = original.clone();
        original.add(2);
        copy.add(3);
        assert!(!original.extends(&copy) && !copy.extends(&original));
        copy.add(4);
        assert!(!copy.extends(&original));
        for link in 0..200 {
            original.add(link);
        }
        assert_eq!(original.recent.len(), REMEMBERED);
        assert!(original.extends(&copy), "too far apart to tell");
    }

    #[test]
    fn a_newer_format_and_a_lost_identity_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Identity::find(dir.path(), true), Err(OpenError::Damaged { .. })));
        std::fs::write(dir.path().join(FILE), r#"{"format":2,"soul":"new"}"#).unwrap();
        let error = Identity::find(dir.path(), true).unwrap_err();
        assert!(matches!(error, OpenError::NewerFormat { found: 2, known: 1, .. }), "{error}");
    }
}
