//! What versions are made of. Merged extents stand for those that they were made of: no move may change a byte.

use super::{Broken, Truth};
use node::cluster::{BlobId, Extent, Position, Record, Version};
use node::path::FtpPath;
use std::collections::BTreeSet;

impl Truth {
    /// A node is to make one blob of several.
    pub(super) fn merges_blobs(&mut self, blob: BlobId, run: &[Extent]) -> Result<(), Broken> {
        let known = self.merged.entry(blob).or_insert_with(|| run.to_vec());
        if known == run {
            return Ok(());
        }
        Err(Broken::new("I10", format!("{blob:?} is made of {known:?} and of {run:?}")))
    }
    /// The extents as operations staged them.
    pub(super) fn unmerged(&self, extents: &[Extent]) -> Vec<Extent> {
        let of = |e: &Extent| self.merged.get(&e.blob).map_or_else(|| vec![*e], |run| self.unmerged(run));
        extents.iter().flat_map(of).collect()
    }
    /// Whether two versions say the same but for where the bytes are and how they are cut.
    pub(super) fn same(&self, a: &Version, b: &Version) -> bool {
        match (a, b) {
            (Version::File(a), Version::File(b)) => {
                a.modified == b.modified && self.unmerged(&a.extents) == self.unmerged(&b.extents)
            }
            _ => a == b,
        }
    }
    /// Notes what a version is made of. No operation's bytes are in it twice (I9), and it is as long as they are (I10).
    pub(super) fn learn_extents(&mut self, position: Position, what: &Version) -> Result<(), Broken> {
        let Version::File(file) = what else { return Ok(()) };
        let mut ops = BTreeSet::new();
        let staged = self.unmerged(&file.extents);
        if let Some(twice) = staged.iter().find(|e| !ops.insert(e.blob.op)) {
            let what = format!("the version of {position:?} has the bytes of op {:?} twice", twice.blob.op);
            return Err(Broken::new("I9", what));
        }
        if [&file.extents, &staged].iter().any(|all| file.size != all.iter().map(|e| e.length).sum::<u64>()) {
            return Err(Broken::new(
                "I10",
                format!("the version of {position:?} has other bytes than its length says"),
            ));
        }
        for extent in &file.extents {
            self.by_blob.entry(extent.blob).or_default().insert(position);
        }
        Ok(())
    }
    /// Notes where a record moves versions to. They keep their bytes (I10).
    pub(super) fn learn_moves(&mut self, record: &Record) -> Result<(), Broken> {
        for version in record.moved().iter().filter(|v| !v.extents.is_empty()) {
            let before = self.content(version.position, &version.path);
            if before.is_some_and(|before| before != self.unmerged(&version.extents)) {
                let what =
                    format!("{:?} changes the bytes of {} {:?}", record.position, version.path, version.position);
                return Err(Broken::new("I10", what));
            }
            for extent in &version.extents {
                self.by_blob.entry(extent.blob).or_default().insert(record.position);
            }
        }
        Ok(())
    }
    /// How many extents the staged bytes of a record are the last of.
    pub(crate) fn extents(&self, position: Position) -> usize {
        let write = self.records.get(&position).and_then(|r| r.write()).filter(|w| w.blob.is_some());
        let effect = write.and_then(|w| w.effects.first());
        if let Some(Version::File(file)) = effect.map(|e| &e.what) { file.extents.len() } else { 0 }
    }
    /// What a version was logged with, as operations staged it.
    pub(super) fn content(&self, position: Position, path: &FtpPath) -> Option<Vec<Extent>> {
        match &Self::effect(self.records.get(&position)?, path)?.what {
            Version::File(file) => Some(self.unmerged(&file.extents)),
            Version::Directory { .. } | Version::Deleted | Version::Resolved => None,
        }
    }
}
