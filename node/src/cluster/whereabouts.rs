//! Which blobs the registers have where: the rows by which a lost node's blobs are found, and by which a blob's versions
//! are. Kept in step with the heads, path by path; never a look at a disk.

use super::log::{COPIES, Log};
use super::record::{PathEntry, Version};
use super::storage::{Holding, Storage};
use super::types::BlobId;
use crate::path::FtpPath;
use std::collections::{BTreeMap, BTreeSet};

/// What the registers of a path say of each blob that its heads refer to.
fn whereabouts(entry: &PathEntry) -> BTreeMap<BlobId, BTreeSet<Holding>> {
    let mut all: BTreeMap<BlobId, BTreeSet<Holding>> = BTreeMap::new();
    for head in &entry.heads {
        let Version::File(file) = &head.what else { continue };
        let nodes = &head.location.nodes;
        for extent in &file.extents {
            let of = all.entry(extent.blob).or_default();
            of.extend(nodes.iter().copied().map(Holding::Node));
            of.extend((nodes.len() < COPIES).then_some(Holding::Short));
        }
    }
    all
}

impl Log {
    /// A path's heads changed, and its new ones are pending.
    pub(super) fn note_whereabouts(
        &mut self,
        path: &FtpPath,
        before: &PathEntry,
        after: &PathEntry,
        storage: &dyn Storage,
    ) {
        let (old, new) = (whereabouts(before), whereabouts(after));
        let none = BTreeSet::new();
        for blob in old.keys().chain(new.keys()).copied().collect::<BTreeSet<_>>() {
            let (was, is) = (old.get(&blob), new.get(&blob));
            if was.is_some() != is.is_some() {
                self.pending.reference(blob, path, is.is_some());
                self.referred.extend(is.map(|_| blob));
            }
            let (was, is) = (was.unwrap_or(&none), is.unwrap_or(&none));
            if was == is && !was.is_empty() {
                continue;
            }
            let others = self.elsewhere(blob, path, storage);
            let referenced = others.is_some() || new.contains_key(&blob);
            if !referenced {
                self.unreferenced.push(blob);
            }
            // Another path's register may say the same.
            let others = others.unwrap_or_default();
            for holding in was.symmetric_difference(is).filter(|h| !others.contains(h)) {
                self.pending.held(*holding, blob, is.contains(holding));
                if referenced && *holding == Holding::Node(self.me) {
                    self.rehomed.insert(blob);
                }
            }
        }
    }

    /// What the registers of all other paths say of a blob; `None` when no head of theirs refers to it.
    fn elsewhere(&self, blob: BlobId, path: &FtpPath, storage: &dyn Storage) -> Option<BTreeSet<Holding>> {
        let view = self.view(storage);
        let others: Vec<FtpPath> = view.referrers(blob).into_iter().filter(|p| p != path).collect();
        if others.is_empty() {
            return None;
        }
        let entries = others.iter().filter_map(|p| view.entry(p));
        Some(entries.filter_map(|e| whereabouts(&e).remove(&blob)).flatten().collect())
    }
}
