//! Blob files: `blobs/<two hex digits>/<blob>`, where the digits spread them over 256 directories. A file appears there
//! whole and durable or not at all: it is written under `staging/`, synced, renamed, and its directory synced.
//! Blobs never change. Whether anything refers to one is not known here.

use super::condemned::Condemned;
use super::error::{OpenError, StoreError, fatal};
use super::failpoint::reach;
use super::planted::syncs;
use super::private;
use crate::cluster::BlobId;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bytes written to a blob between two looks at the free space.
const LOOK_EVERY: u64 = 4 << 20;
/// Bytes written to a blob between two syncs: a large file's last one is then as short as any.
const SYNC_EVERY: u64 = 64 << 20;

/// The directories of blobs.
#[derive(Debug)]
pub(super) struct Blobs {
    blobs: PathBuf,
    staging: PathBuf,
    /// Space that blobs leave free for the database, which must never meet a full disk. In bytes.
    reserve: u64,
    attempts: AtomicU64,
    healthy: AtomicBool,
    used: Arc<AtomicU64>,
    /// Copies that are known to be bad, small ones among them.
    pub(super) condemned: Arc<Condemned>,
}

/// What is on a file system.
#[derive(Debug, Clone, Copy)]
pub(super) struct Space {
    /// Free for this process, in bytes.
    pub(super) free: u64,
    /// Whether the last write went well and the file system answers.
    pub(super) healthy: bool,
}

impl Blobs {
    /// The blobs of a data directory, as they are.
    pub(super) fn at(dir: &Path, reserve: u64, used: Arc<AtomicU64>) -> Self {
        let (blobs, staging) = (dir.join("blobs"), dir.join("staging"));
        let (attempts, healthy, condemned) = (AtomicU64::new(0), AtomicBool::new(true), Arc::default());
        Self { blobs, staging, reserve, attempts, healthy, used, condemned }
    }

    /// Makes the directories, and removes what was half-written when the process ended.
    pub(super) fn prepare(&self) -> Result<(), OpenError> {
        private::directory(&self.staging)?;
        private::directory(&self.blobs)?;
        for digits in 0..=255u8 {
            private::directory(&self.blobs.join(format!("{digits:02x}")))?;
        }
        for path in [&self.blobs, &self.staging] {
            sync_directory(path).map_err(OpenError::io("sync", path))?;
        }
        for path in files(&self.staging)? {
            std::fs::remove_file(&path).map_err(OpenError::io("remove", path))?;
        }
        Ok(())
    }

    /// All blobs with their lengths in bytes. Foreign files are left alone and told of.
    pub(super) fn census(&self) -> Result<Vec<(BlobId, u64)>, OpenError> {
        let mut found = vec![];
        for digits in 0..=255u8 {
            for blob in self.names(digits)? {
                let path = self.path(blob);
                let length = path.metadata().map_err(OpenError::io("look at", &path))?.len();
                found.push((blob, length));
            }
        }
        Ok(found)
    }
    /// The blobs of one of the 256 directories.
    pub(super) fn names(&self, digits: u8) -> Result<Vec<BlobId>, OpenError> {
        let mut found = vec![];
        for path in files(&self.blobs.join(format!("{digits:02x}")))? {
            let blob = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse::<BlobId>().ok());
            match blob.filter(|b| self.path(*b) == path) {
                Some(blob) => found.push(blob),
                None => tracing::warn!(?path, "not a blob; left alone"),
            }
        }
        Ok(found)
    }

    /// Begins a blob.
    pub(super) fn create(self: &Arc<Self>, blob: BlobId) -> Result<BlobWriter, StoreError> {
        self.room(0)?;
        let attempt = self.attempts.fetch_add(1, Ordering::Relaxed);
        let path = self.staging.join(format!("{blob}.{attempt}"));
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = self.judged(opened).map_err(StoreError::io("create a staging file"))?;
        reach("blob-created");
        Ok(BlobWriter { blobs: Arc::clone(self), blob, file, staged: path, written: 0, looked_at: 0, synced_at: 0 })
    }
    /// Opens a finished blob; `None` when it is not here.
    pub(super) fn open(&self, blob: BlobId) -> Result<Option<File>, StoreError> {
        match File::open(self.path(blob)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("open a blob")(error)),
        }
    }
    /// Whether a finished blob is here. One system call.
    pub(super) fn has(&self, blob: BlobId) -> bool {
        self.path(blob).exists()
    }
    /// Deletes a blob if it is here. Not synced: one that comes back after a power cut is found as unreferenced.
    pub(super) fn remove(&self, blob: BlobId) -> Result<(), StoreError> {
        let path = self.path(blob);
        let length = path.metadata().map_or(0, |m| m.len());
        match std::fs::remove_file(path) {
            Ok(()) => {
                reach("blob-removed");
                self.used.fetch_sub(length, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::io("delete a blob")(error)),
        }
        // A small one of this name was deleted before.
        self.condemned.forget(blob);
        Ok(())
    }

    /// Whether `more` bytes fit without touching the reserve.
    pub(super) fn room(&self, more: u64) -> Result<(), StoreError> {
        let wanted = self.reserve.saturating_add(more);
        if self.space().free < wanted { Err(StoreError::Full) } else { Ok(()) }
    }
    /// The file system's state.
    pub(super) fn space(&self) -> Space {
        match rustix::fs::statvfs(&self.blobs) {
            Ok(fs) => {
                Space { free: fs.f_bavail.saturating_mul(fs.f_frsize), healthy: self.healthy.load(Ordering::Relaxed) }
            }
            Err(_) => Space { free: 0, healthy: false },
        }
    }

    /// Notes whether the disk takes writes. A full disk does, as far as its health goes.
    fn judged<T>(&self, result: io::Result<T>) -> io::Result<T> {
        let full = |e: &io::Error| matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        self.healthy.store(result.as_ref().map_or_else(full, |_| true), Ordering::Relaxed);
        result
    }
    fn path(&self, blob: BlobId) -> PathBuf {
        let name = blob.to_string();
        let digits = blake3::hash(name.as_bytes()).as_bytes()[0];
        self.blobs.join(format!("{digits:02x}")).join(name)
    }
}

/// The entries of a directory; none if it is not there.
fn files(dir: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(OpenError::io("list", dir)(error)),
    };
    entries.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>().map_err(OpenError::io("list", dir))
}

/// Has the names in a directory on the disk.
pub(super) fn sync_directory(dir: &Path) -> io::Result<()> {
    if syncs() { File::open(dir)?.sync_all() } else { Ok(()) }
}

/// A blob being written. Dropped unfinished, it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    blobs: Arc<Blobs>,
    blob: BlobId,
    file: File,
    staged: PathBuf,
    written: u64,
    looked_at: u64,
    synced_at: u64,
}

impl BlobWriter {
    /// Appends, and syncs every 64 MiB; an fsync that fails aborts the process, as in [`Self::finish`]. After an error
    /// only dropping it makes sense. Blocking.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let more = bytes.len() as u64;
        if self.written + more - self.looked_at >= LOOK_EVERY {
            self.blobs.room(more)?;
            self.looked_at = self.written;
        }
        let written = self.file.write_all(bytes);
        self.blobs.judged(written).map_err(StoreError::io("write a blob"))?;
        self.written += more;
        if self.written - self.synced_at >= SYNC_EVERY {
            self.sync();
        }
        Ok(())
    }
    /// Names the blob anew, before it is finished.
    pub fn assign(&mut self, blob: BlobId) {
        self.blob = blob;
    }
    /// Opens what was written so far; it can be read for as long as the handle lives, whatever becomes of the blob.
    pub fn reader(&self) -> Result<File, StoreError> {
        File::open(&self.staged).map_err(StoreError::io("read a staging file"))
    }
    fn sync(&mut self) {
        let synced = if syncs() { self.file.sync_data() } else { Ok(()) };
        synced.unwrap_or_else(|error| fatal("a blob cannot be synced", &error));
        self.synced_at = self.written;
    }

    /// fsync, rename, fsync of the directory. An fsync that fails aborts the process: the pages it failed on are marked
    /// clean, and a second fsync would lie. A blob of the same name is replaced, its bytes are the same. Blocking.
    pub fn finish(mut self) -> Result<(), StoreError> {
        reach("blob-written");
        self.sync();
        reach("blob-synced");
        let path = self.blobs.path(self.blob);
        let replaced = path.metadata().map_or(0, |m| m.len());
        let renamed = std::fs::rename(&self.staged, &path);
        self.blobs.judged(renamed).map_err(StoreError::io("name a blob"))?;
        reach("blob-renamed");
        let dir = path.parent().expect("it is in a directory of blobs");
        sync_directory(dir).unwrap_or_else(|error| fatal("a directory of blobs cannot be synced", &error));
        self.blobs.used.fetch_add(self.written, Ordering::Relaxed);
        self.blobs.used.fetch_sub(replaced, Ordering::Relaxed);
        self.blobs.condemned.replaced(self.blob);
        reach("blob-durable");
        Ok(())
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        // Gone already when it was finished; what cannot be removed now is removed at the next start.
        let _ = std::fs::remove_file(&self.staged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::OpId;
    use std::os::unix::fs::PermissionsExt;

    fn blob(n: u128) -> BlobId {
        BlobId { op: OpId(n), ..BlobId::default() }
    }
    fn blobs(dir: &Path, reserve: u64) -> Arc<Blobs> {
        let blobs = Arc::new(Blobs::at(dir, reserve, Arc::default()));
        blobs.prepare().unwrap();
        blobs
    }

    #[test]
    fn a_blob_appears_whole_when_it_is_finished_and_never_before() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = blobs(dir.path(), 0);
        let mut writer = blobs.create(blob(1)).unwrap();
        writer.write(b"some ").unwrap();
        writer.write(b"bytes").unwrap();
        assert!(blobs.open(blob(1)).unwrap().is_none());
        writer.finish().unwrap();
        assert_eq!(io::read_to_string(blobs.open(blob(1)).unwrap().unwrap()).unwrap(), "some bytes");
        assert_eq!(blobs.census().unwrap(), [(blob(1), 10)]);
        assert_eq!(blobs.used.load(Ordering::Relaxed), 10);
        assert_eq!(blobs.path(blob(1)).metadata().unwrap().permissions().mode() & 0o777, 0o600);
        blobs.remove(blob(1)).unwrap();
        assert!(blobs.open(blob(1)).unwrap().is_none());
        assert_eq!(blobs.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_large_blob_is_synced_on_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = blobs(dir.path(), 0).create(blob(1)).unwrap();
        let piece = vec![0; 16 << 20];
        for (n, synced) in [(3, 0), (1, 64), (1, 64)] {
            (0..n).for_each(|_| writer.write(&piece).unwrap());
            assert_eq!(writer.synced_at, synced << 20);
        }
    }

    #[test]
    fn an_unfinished_blob_leaves_nothing_and_a_crash_leaves_it_to_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let store = blobs(dir.path(), 0);
        let mut writer = store.create(blob(1)).unwrap();
        writer.write(b"half").unwrap();
        drop(writer);
        assert!(files(&store.staging).unwrap().is_empty());
        std::mem::forget(store.create(blob(2)).unwrap());
        assert_eq!(files(&store.staging).unwrap().len(), 1);
        assert!(files(&blobs(dir.path(), 0).staging).unwrap().is_empty());
        assert!(store.census().unwrap().is_empty());
    }

    #[test]
    fn a_full_disk_is_an_error_of_its_own_and_no_illness() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(blobs(dir.path(), u64::MAX).create(blob(1)), Err(StoreError::Full)));
        let blobs = blobs(dir.path(), 0);
        let mut writer = blobs.create(blob(1)).unwrap();
        writer.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert!(matches!(writer.write(b"x"), Err(StoreError::Full)));
        assert!(blobs.space().healthy);
        writer.file = File::open("/dev/null").unwrap();
        assert!(matches!(writer.write(b"x"), Err(StoreError::Io { .. })));
        assert!(!blobs.space().healthy);
    }
}
