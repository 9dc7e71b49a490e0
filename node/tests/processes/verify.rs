//! Judges a stopped cluster by `trebol verify --json` on every data directory, and trees by their bytes.

use crate::cluster::{Cluster, trebol};
use crate::{Outcome, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Copies of every file.
const COPIES: usize = 3;

/// What the nodes know of one file: hash and number of whole copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    /// BLAKE3 of all bytes, as hex.
    pub(crate) hash: String,
    /// Runs of bytes it is made of.
    pub(crate) extents: u64,
    /// Nodes that hold it, verified.
    pub(crate) copies: usize,
}

/// Whether the bytes may also lie where no index names them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Surplus {
    /// No node died.
    None,
    /// A node that dies between its confirmation and the commit comes back with a copy that was replaced meanwhile.
    AfterDeath,
}

/// Stops the cluster and verifies all nodes: every file whole, on exactly three, everywhere the same.
pub(crate) fn all_whole(cluster: &mut Cluster, surplus: Surplus) -> Outcome<BTreeMap<String, Kept>> {
    cluster.stop()?;
    let mut files: BTreeMap<String, Kept> = BTreeMap::new();
    for node in &cluster.nodes {
        let data = node.data.to_str().ok_or("a data directory that is no text")?;
        let (status, said) = trebol(&["verify", "--json", "--data", data], &[])?;
        ensure(status.success(), || format!("verify of {} ended with {status}:\n{said}", node.name))?;
        let mut known = 0;
        for line in said.lines() {
            let row: Value = serde_json::from_str(line).map_err(|error| format!("verify printed {line:?}: {error}"))?;
            let (Some(path), Some(extents)) = (row["path"].as_str(), row["extents"].as_u64()) else { continue };
            ensure(row["ok"] == true, || format!("{}: {line}", node.name))?;
            known += 1;
            // A loser of a conflict is a version of its own, and whole on three nodes as well.
            let key =
                if row["loser"] == true { format!("{path} (loser {})", row["position"]) } else { path.to_owned() };
            let kept = files.entry(key).or_insert_with(|| Kept { hash: String::new(), extents, copies: 0 });
            // Of a file that was appended to only those know it who have it.
            if let Some(hash) = row["hash"].as_str() {
                ensure(kept.hash.is_empty() || kept.hash == hash, || format!("{}: two hashes of {path}", node.name))?;
                hash.clone_into(&mut kept.hash);
            }
            ensure(kept.extents == extents, || format!("{}: two lists of extents of {path}", node.name))?;
            kept.copies += usize::from(row["holds"] == true && row["listed"] == true);
            let extra = row["holds"] == true && row["listed"] != true;
            ensure(!extra || surplus == Surplus::AfterDeath, || format!("{}: a copy too many: {line}", node.name))?;
        }
        ensure(known == files.len(), || format!("{} knows {known} files of {}", node.name, files.len()))?;
    }
    let odd: Vec<_> = files.iter().filter(|(_, kept)| kept.copies != COPIES).take(5).collect();
    ensure(odd.is_empty(), || format!("not on {COPIES} nodes: {odd:?}"))?;
    Ok(files)
}

/// The blob files on a node's disk with so many bytes.
pub(crate) fn blobs(cluster: &Cluster, node: usize, length: usize) -> Outcome<Vec<PathBuf>> {
    let mut found = vec![];
    for directory in fs::read_dir(cluster.nodes[node].data.join("blobs"))? {
        for file in fs::read_dir(directory?.path())? {
            let path = file?.path();
            // It may be gone by now.
            if fs::metadata(&path).is_ok_and(|m| m.len() == length as u64) {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// Every file of a tree, by its path there, with the BLAKE3 of its bytes.
pub(crate) fn hashes(root: &Path) -> Outcome<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let name = path.strip_prefix(root)?.to_str().ok_or("a name that is no text")?.to_owned();
                found.insert(name, blake3::hash(&fs::read(&path)?).to_hex().to_string());
            }
        }
    }
    Ok(found)
}

/// Fails unless the cluster keeps exactly the tree's bytes under `prefix`.
pub(crate) fn holds_tree(kept: &BTreeMap<String, Kept>, prefix: &str, tree: &BTreeMap<String, String>) -> Outcome {
    for (name, hash) in tree {
        let path = format!("{prefix}/{name}");
        let file = kept.get(&path).ok_or_else(|| format!("{path} is not there"))?;
        ensure(file.hash == *hash, || format!("{path} has other bytes"))?;
    }
    let there = kept.keys().filter(|path| path.starts_with(&format!("{prefix}/"))).count();
    ensure(there == tree.len(), || format!("{there} files under {prefix}, {} sent", tree.len()))
}
