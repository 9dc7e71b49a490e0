//! What re-reading needs of a disk: which copies there are, what their bytes must be, the copies themselves, and how one is
//! condemned. It compares nothing: the scrubber in `replica/scrub` does.

use super::Store;
use super::blobs::Blobs;
use super::condemned::Integrity;
use super::error::StoreError;
use super::keys::{self, Table};
use super::overlay::Reader;
use crate::cluster::{BlobId, Extent, Holding, Storage, Version};
use bytes::Bytes;
use rustix::fs::{Advice, fadvise};
use std::fs::File;
use std::os::unix::fs::MetadataExt;

/// Blobs in a page of a walk; those in a directory of blobs come in one.
const PAGE: usize = 256;

/// A blob's copy on this disk, condemned or not.
#[derive(Debug)]
pub enum BlobCopy {
    /// A small file's bytes.
    Inline(Bytes),
    /// A blob file. What the system's cache had of it was dropped: the disk is to be read, not memory.
    File(File),
    /// A small file's bytes that the database does not give any more: its own sums do not fit, or the disk fails.
    Unreadable,
    /// It is not here.
    Absent,
}

/// Where a walk over all copies is: first through what registers have here, from a place of its own and round to it, so
/// that a node that restarts often comes to all of it one day; then through what else lies about.
#[derive(Debug, Clone, Copy)]
pub struct Walk {
    start: BlobId,
    at: Stage,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Beyond(BlobId),
    Upto(Option<BlobId>),
    Inline(Option<BlobId>),
    Files(u8),
}

impl Walk {
    /// A walk that begins behind `start`.
    pub fn from(start: BlobId) -> Self {
        Self { start, at: Stage::Beyond(start) }
    }
}

impl Store {
    /// The next page of a walk, and where it goes on; `None` at its end. Blocking.
    pub fn page(&self, Walk { start, at }: Walk) -> (Vec<BlobId>, Option<Walk>) {
        let mine = Holding::Node(self.node());
        // Where a page is not full, there is no more of its kind.
        let following = |page: &[BlobId]| page.last().copied().filter(|_| page.len() == PAGE);
        let (page, next) = match at {
            Stage::Beyond(after) => {
                let page = self.held(mine, Some(after), PAGE);
                let next = following(&page).map_or(Stage::Upto(None), Stage::Beyond);
                (page, Some(next))
            }
            Stage::Upto(after) => {
                let mut page = self.held(mine, after, PAGE);
                page.retain(|blob| *blob <= start);
                let next = following(&page).map_or(Stage::Inline(None), |last| Stage::Upto(Some(last)));
                (page, Some(next))
            }
            Stage::Inline(after) => {
                let found = self.view.tables.keys(Table::Inline, keys::blobs_after(after)).take(PAGE);
                let page: Vec<BlobId> = found.map(|key| keys::read_blob(&key)).collect();
                let next = following(&page).map_or(Stage::Files(0), |last| Stage::Inline(Some(last)));
                (self.strays(page), Some(next))
            }
            Stage::Files(digits) => {
                let page = self.blobs.names(digits).unwrap_or_else(|error| {
                    tracing::warn!(%error, "a directory of blobs cannot be read");
                    vec![]
                });
                (self.strays(page), digits.checked_add(1).map(Stage::Files))
            }
        };
        (page, next.map(|at| Walk { start, at }))
    }
    /// Those that no register has here: the others come earlier in a walk.
    fn strays(&self, mut blobs: Vec<BlobId>) -> Vec<BlobId> {
        blobs.retain(|blob| !self.is_due(*blob));
        blobs
    }
    /// Whether a register has it here.
    fn is_due(&self, blob: BlobId) -> bool {
        self.view.get(Table::Held, &keys::held(Holding::Node(self.node()), blob)).is_some()
    }

    /// What heads say of a blob's bytes; none of one that no head refers to. Blocking.
    pub fn extents(&self, blob: BlobId) -> Vec<Extent> {
        let mut found: Vec<Extent> = vec![];
        for head in self.referrers(blob).iter().filter_map(|path| self.entry(path)).flat_map(|entry| entry.heads) {
            let Version::File(file) = head.what else { continue };
            for extent in file.extents.into_iter().filter(|extent| extent.blob == blob) {
                if !found.contains(&extent) {
                    found.push(extent);
                }
            }
        }
        found
    }
    /// The copy of a blob, for reading it again. Blocking.
    pub fn copy(&self, blob: BlobId) -> Result<BlobCopy, StoreError> {
        match self.inline_copy(blob) {
            Ok(Some(bytes)) => return Ok(BlobCopy::Inline(bytes)),
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%blob, %error, "a small file cannot be read");
                return Ok(BlobCopy::Unreadable);
            }
        }
        let Some(file) = self.blobs.open(blob)? else { return Ok(BlobCopy::Absent) };
        // Only advice: where it is not taken, what rots on the disk is found once memory has forgotten it.
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
        Ok(BlobCopy::File(file))
    }
    /// Condemns the copy that was `read` and found bad, unless another is in its place by now; one that is absent only
    /// where a register has it here. Whether that is news. Blocking.
    pub fn condemn(&self, blob: BlobId, read: &BlobCopy) -> bool {
        self.blobs.condemned.add(blob, || match read {
            BlobCopy::Inline(bytes) => self.inline_copy(blob).ok().flatten().as_ref() == Some(bytes),
            BlobCopy::Unreadable => self.inline_copy(blob).is_err(),
            BlobCopy::File(file) => self.blobs.is_still(blob, file),
            BlobCopy::Absent => self.is_due(blob) && !self.is_on_disk(blob),
        })
    }
    /// A copy was read and found good.
    pub fn absolve(&self, blob: BlobId) {
        self.blobs.condemned.forget(blob);
    }
    /// A good copy was looked for in vain.
    pub fn sought(&self, blob: BlobId) {
        self.blobs.condemned.sought(blob);
    }
    /// Whether its copy is known to be bad, or missing.
    pub fn is_condemned(&self, blob: BlobId) -> bool {
        self.blobs.condemned.has(blob)
    }
    /// Counts a copy that was read again, with its bytes.
    pub fn scrubbed(&self, bytes: u64) {
        self.blobs.condemned.scrubbed(bytes);
    }
    /// Counts a walk that came to its end.
    pub fn walked(&self) {
        self.blobs.condemned.round();
    }
    /// What reading copies again has come to since the node started.
    pub fn integrity(&self) -> Integrity {
        self.blobs.condemned.figures()
    }

    /// Whether there is a copy, good or bad.
    pub(super) fn is_on_disk(&self, blob: BlobId) -> bool {
        self.view.tables.size_of(Table::Inline, &keys::blob(blob)).is_some() || self.blobs.has(blob)
    }
    /// A small file's bytes, good or bad.
    pub(super) fn inline_copy(&self, blob: BlobId) -> Result<Option<Bytes>, fjall::Error> {
        let value = self.view.tables.try_get(Table::Inline, &keys::blob(blob))?.map(Bytes::from);
        Ok(value.map(|value| value.slice(value.len() - keys::payload(&value).len()..)))
    }
}

impl Blobs {
    /// Whether this file, opened earlier, is the one under the blob's name.
    fn is_still(&self, blob: BlobId, file: &File) -> bool {
        let of = |file: &File| file.metadata().ok().map(|m| (m.dev(), m.ino()));
        self.open(blob).ok().flatten().is_some_and(|now| of(&now) == of(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Batch, File as Stored, Hash, Head, Hlc, Location, Mutation, OpId, PathEntry, Position};
    use crate::path::FtpPath;
    use std::sync::Arc;

    fn blob(n: u128) -> BlobId {
        BlobId { op: OpId(n), ..BlobId::default() }
    }
    fn open(dir: &std::path::Path) -> Arc<Store> {
        let (persisted, _) = tokio::sync::mpsc::channel(1);
        Store::open(dir, persisted).unwrap()
    }
    fn write(store: &Store, n: u128, bytes: &[u8]) {
        let mut writer = store.create_blob(blob(n)).unwrap();
        writer.write(bytes).unwrap();
        writer.finish().unwrap();
    }
    /// Heads refer to these blobs, and registers have them here or not.
    fn index(store: &Store, blobs: &[(u128, bool)]) {
        let mut mutations = vec![];
        for (n, here) in blobs {
            let path = FtpPath::try_from(format!("/{n}")).unwrap();
            let extent = Extent { blob: blob(*n), offset: 0, length: 3, hash: Hash([0; 32]) };
            let what = Stored { extents: vec![extent, extent], size: 6, hash: None, modified: 0, ..Stored::default() };
            let (position, location) = (Position::default(), Location::default());
            let what = Version::File(what);
            let head = Head { position, hlc: Hlc(1), op: OpId(1), confirmed: true, what, location };
            mutations.push(Mutation::Entry(path.clone(), Some(PathEntry { heads: vec![head] })));
            mutations.push(Mutation::Reference(blob(*n), path, true));
            mutations.extend(here.then(|| Mutation::Held(Holding::Node(store.node()), blob(*n), true)));
        }
        store.submit(Batch { number: 1, sync: true, mutations });
    }

    #[tokio::test]
    async fn a_walk_comes_to_every_copy_once_wherever_it_begins() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        // More than two pages that should be here, some of which are not; and others that lie about.
        let due = 1..=600;
        index(&store, &due.clone().map(|n| (n, true)).collect::<Vec<_>>());
        let small = [3, 700, 701];
        for n in small {
            store.put_inline(blob(n), Bytes::from_static(b"abc")).await.unwrap().unwrap();
        }
        [5, 800, 801, 802].iter().for_each(|n| write(&store, *n, b"abc"));
        let mut expected: Vec<u128> = due.chain([700, 701, 800, 801, 802]).collect();
        for start in [0, 1, 300, 600, 650, u128::MAX] {
            let (mut found, mut walk) = (vec![], Some(Walk::from(blob(start))));
            while let Some(at) = walk {
                let (page, next) = store.page(at);
                assert!(page.len() <= PAGE);
                found.extend(page.into_iter().map(|blob| blob.op.0));
                walk = next;
            }
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected, "from {start}");
        }
        assert_eq!((store.extents(blob(7)).len(), store.extents(blob(700)).len()), (1, 0));
    }

    #[tokio::test]
    async fn a_small_file_that_the_database_does_not_give_any_more_is_a_bad_copy_and_no_end() {
        let dir = tempfile::tempdir().unwrap();
        let noise = |n: u64| -> Bytes {
            let mut bytes = vec![0; 60_000];
            blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(&mut bytes);
            bytes.into()
        };
        // More than stays in memory.
        let all = 0..400;
        let store = open(dir.path());
        for n in all.clone() {
            store.put_inline(blob(n.into()), noise(n)).await.unwrap().unwrap();
        }
        drop(store);
        // One byte in each of the greatest file's 100 KiB, as a failing disk might.
        let mut files = vec![];
        let mut directories = vec![dir.path().join("database/keyspaces")];
        while let Some(at) = directories.pop() {
            for entry in std::fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() { directories.push(entry) } else { files.push(entry) }
            }
        }
        let largest = files.into_iter().max_by_key(|file| file.metadata().unwrap().len()).unwrap();
        let mut bytes = std::fs::read(&largest).unwrap();
        assert!(bytes.len() > 1_000_000, "{largest:?}");
        let end = bytes.len() - 200_000;
        bytes[..end].iter_mut().step_by(100_000).for_each(|byte| *byte ^= 1);
        std::fs::write(&largest, bytes).unwrap();

        let store = open(dir.path());
        let mut bad = vec![];
        for n in all {
            match store.copy(blob(n.into())).unwrap() {
                BlobCopy::Inline(bytes) => assert_eq!(bytes, noise(n)),
                BlobCopy::Unreadable => bad.push(n),
                copy => panic!("{copy:?}"),
            }
        }
        assert!(!bad.is_empty());
        let first = blob(bad[0].into());
        assert!(store.inline(first).is_none() && store.condemn(first, &BlobCopy::Unreadable));
        assert!(!store.has_blob(first));
        store.put_inline(first, noise(bad[0])).await.unwrap().unwrap();
        assert!(store.has_blob(first));
        assert_eq!(store.inline(first), Some(noise(bad[0])));
    }

    #[tokio::test]
    async fn only_the_copy_that_was_read_is_condemned_and_a_good_one_ends_that() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        index(&store, &[(1, true), (2, true), (3, false), (4, true)]);
        write(&store, 1, b"bad");
        store.put_inline(blob(2), Bytes::from_static(b"bad")).await.unwrap().unwrap();
        let read = [1, 2].map(|n| store.copy(blob(n)).unwrap());
        write(&store, 1, b"new");
        store.put_inline(blob(2), Bytes::from_static(b"new")).await.unwrap().unwrap();
        for (n, old) in (1..).zip(&read) {
            assert!(!store.condemn(blob(n), old), "another is in its place");
            let copy = store.copy(blob(n)).unwrap();
            assert!(store.condemn(blob(n), &copy) && !store.condemn(blob(n), &copy), "news only once");
            assert!(!store.has_blob(blob(n)) && store.has_damaged(blob(n)));
        }
        assert!(store.open_blob(blob(1)).unwrap().is_none() && store.inline(blob(2)).is_none());
        // Absent: 1 is here, 3 need not be.
        store.absolve(blob(1));
        assert!(store.has_blob(blob(1)));
        assert_eq!([1, 3, 4].map(|n| store.condemn(blob(n), &BlobCopy::Absent)), [false, false, true]);
        assert!(!store.has_damaged(blob(4)));
        store.sought(blob(4));
        store.sought(blob(1));
        let Integrity { bad, healed, condemned, incurable, .. } = store.integrity();
        assert_eq!((bad, healed, condemned, incurable), (3, 0, 2, 1));

        store.put_inline(blob(2), Bytes::from_static(b"abc")).await.unwrap().unwrap();
        write(&store, 4, b"abc");
        assert!(store.has_blob(blob(2)) && store.has_blob(blob(4)));
        let Integrity { bad, healed, condemned, incurable, .. } = store.integrity();
        assert_eq!((bad, healed, condemned, incurable), (3, 2, 0, 0));
        // What is deleted is neither bad nor healed.
        let copy = store.copy(blob(4)).unwrap();
        assert!(store.condemn(blob(4), &copy));
        store.drop_blobs(&[blob(4)]).unwrap();
        assert_eq!((store.integrity().healed, store.integrity().condemned), (2, 0));
    }
}
