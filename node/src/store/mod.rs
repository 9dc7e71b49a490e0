//! One node's disk: an exclusively locked data directory with blobs as files and log, index and small files in fjall.

use crate::cluster::{
    Batch, BlobId, DiskReport, Head, Marks, NodeId, OpId, Outcome, PathEntry, Record, Restored, Storage,
};
use crate::path::FtpPath;
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Files up to this size live inline in the database.
pub const INLINE_MAX: u64 = 64 * 1024;

/// An open data directory. Shared by driver, replica server and sessions (`Arc<Store>`).
#[derive(Debug)]
pub struct Store {}

/// Why a data directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {}

/// Why bytes could not be stored or read. The store is as before.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {}

/// One row of a listing: the visible head of a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its name in the directory.
    pub name: String,
    /// True for a directory.
    pub directory: bool,
    /// Bytes; 0 for directories.
    pub size: u64,
    /// Microseconds since the Unix epoch.
    pub modified: u64,
}

impl Store {
    /// Opens or creates the directory and takes its lock; fails at once with the holder's pid when it is held. Clears
    /// half-written staging files. Starts the store thread, which reports every written batch number to `persisted`.
    pub fn open(_dir: &Path, _persisted: mpsc::Sender<u64>) -> Result<Arc<Self>, OpenError> {
        unimplemented!()
    }
    /// This node's identity, made at the first open.
    pub fn node(&self) -> NodeId {
        unimplemented!()
    }
    /// What a member starts from.
    pub fn restored(&self) -> Restored {
        unimplemented!()
    }
    /// Queues a batch for the store thread; [`Storage`] shows it from now on.
    pub fn submit(&self, _batch: Batch) {
        unimplemented!()
    }
    /// Stages a small file's bytes with the next group commit. The answer comes when they are on the disk.
    pub fn put_inline(&self, _blob: BlobId, _bytes: Bytes) -> oneshot::Receiver<Result<(), StoreError>> {
        unimplemented!()
    }
    /// A small file's bytes, if they are inline here.
    pub fn inline(&self, _blob: BlobId) -> Option<Bytes> {
        unimplemented!()
    }
    /// Begins a blob file under a temporary name. Blocking.
    pub fn create_blob(&self, _blob: BlobId) -> Result<BlobWriter, StoreError> {
        unimplemented!()
    }
    /// Opens a finished blob file for reading; `None` when it is not here. Blocking.
    pub fn open_blob(&self, _blob: BlobId) -> Result<Option<std::fs::File>, StoreError> {
        unimplemented!()
    }
    /// Whether the blob is here, as a file or inline.
    pub fn has_blob(&self, _blob: BlobId) -> bool {
        unimplemented!()
    }
    /// Deletes blobs, inline or files. Blocking.
    pub fn drop_blobs(&self, _blobs: &[BlobId]) -> Result<(), StoreError> {
        unimplemented!()
    }
    /// The visible head of a path. The root and implicit directories have none: see [`Self::is_directory`].
    pub fn visible(&self, _path: &FtpPath) -> Option<Head> {
        unimplemented!()
    }
    /// Whether a path is a directory, made by MKD or implied by something below it. The root always is.
    pub fn is_directory(&self, _path: &FtpPath) -> bool {
        unimplemented!()
    }
    /// Up to `limit` children of `dir` with names greater than `after`, in bytewise order. Blocking, reads live rows only.
    pub fn list(&self, _dir: &FtpPath, _after: Option<&str>, _limit: usize) -> Vec<Row> {
        unimplemented!()
    }
    /// Disk use for placement.
    pub fn report(&self) -> DiskReport {
        unimplemented!()
    }
}

impl Storage for Store {
    fn entry(&self, _path: &FtpPath) -> Option<PathEntry> {
        unimplemented!()
    }
    fn next_child(&self, _dir: &FtpPath, _after: Option<&str>) -> Option<String> {
        unimplemented!()
    }
    fn outcome(&self, _op: OpId) -> Option<Outcome> {
        unimplemented!()
    }
    fn references(&self, _blob: BlobId) -> u64 {
        unimplemented!()
    }
    fn records_beyond(&self, _marks: &Marks, _limit: usize) -> Vec<Arc<Record>> {
        unimplemented!()
    }
}

/// A blob being written. Dropped unfinished, it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {}

impl BlobWriter {
    /// Appends. Blocking.
    pub fn write(&mut self, _bytes: &[u8]) -> Result<(), StoreError> {
        unimplemented!()
    }
    /// fsync, rename, fsync of the directory. An fsync that fails aborts the process. Blocking.
    pub fn finish(self) -> Result<(), StoreError> {
        unimplemented!()
    }
}
