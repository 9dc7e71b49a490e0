//! One node's disk: an exclusively locked data directory with blobs as files and log, index and small files in fjall.
//!
//! `keys` and `tables` are the database, `overlay` what is not written yet, `batch` turns a member's batch into changes,
//! `writer` writes them, `blobs` are the files, `verify` checks a stopped node. Nothing here decides anything: the member
//! says what to write and what to delete.

mod batch;
mod blobs;
mod chains;
mod condemned;
mod conflicts;
mod error;
pub(crate) mod failpoint;
#[cfg(test)]
mod format_tests;
mod identity;
mod keys;
mod lock;
mod overlay;
mod planted;
mod private;
mod row;
mod scrub;
mod state;
mod tables;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

pub use blobs::BlobWriter;
pub use chains::{ChainFile, Remembered};
pub use condemned::Integrity;
pub use conflicts::Conflicted;
pub use error::{OpenError, StoreError};
pub use failpoint::FAILPOINTS;
pub use identity::BootChain;
pub use row::Row;
pub use scrub::{BlobCopy, Walk};
pub use verify::{FileReport, Summary, verify};

use crate::cluster::{
    Aging, AgingKind, Batch, BlobId, Digest, DiskReport, Head, Holding, Marks, NodeId, OpId, Outcome, PathEntry,
    PathRange, Position, Record, Restored, Storage, Version,
};
use crate::path::FtpPath;
use batch::LogEnd;
use blobs::Blobs;
use bytes::Bytes;
use fjall::Slice;
use identity::Identity;
use keys::Table;
use lock::DirectoryLock;
use overlay::{Reader, View};
use state::Written;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard};
use tables::{Tables, Writes};
use tokio::sync::{mpsc, oneshot};
use writer::{Job, Writer};

/// Files up to this size live inline in the database.
pub const INLINE_MAX: u64 = 64 * 1024;

/// Space that bytes of files leave free for log and index, in bytes. A database that meets a full disk ends the process.
const RESERVE: u64 = 16 << 20;

/// An open data directory. Shared by driver, replica server and sessions (`Arc<Store>`).
///
/// Dropped, it writes what was submitted, then lets the directory go.
pub struct Store {
    // In the order they are dropped in: the writer ends first, the lock goes last.
    writer: Writer,
    view: Arc<View>,
    blobs: Arc<Blobs>,
    used: Arc<AtomicU64>,
    losers: AtomicU64,
    end: Mutex<LogEnd>,
    identity: Identity,
    unreferenced: Vec<BlobId>,
    astray: Vec<BlobId>,
    _lock: DirectoryLock,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens or creates the directory and takes its lock; fails at once with the holder's pid when it is held. Closes it to
    /// other users of this machine. Clears half-written staging files, and syncs the database: all that is read from it is
    /// on the disk. Starts the store thread, which reports every written batch number to `persisted` (the greatest one, if
    /// several were written at once). Blocking.
    pub fn open(dir: &Path, persisted: mpsc::Sender<u64>) -> Result<Arc<Self>, OpenError> {
        Self::open_with(dir, persisted, RESERVE)
    }

    fn open_with(dir: &Path, persisted: mpsc::Sender<u64>, reserve: u64) -> Result<Arc<Self>, OpenError> {
        private::make(dir)?;
        private::refuse_foreign(dir)?;
        let lock = DirectoryLock::take(dir)?;
        // Only now is it known to be nobody else's. A fresh volume is open, and there is nothing in it to see.
        if private::tighten(dir)? && dir.join("database").exists() {
            tracing::warn!(?dir, "the data directory was open to other users; now it is its owner's alone");
        }
        let database = dir.join("database");
        let has_data = database.exists();
        ChainFile::of(dir).judge()?;
        let mut identity = Identity::find(dir, has_data)?;
        if !has_data {
            // First of all: data without an identity are refused, should this start be cut short.
            identity.boot(dir)?;
        }
        private::directory(&database)?;
        let tables = Tables::open(&database)?;
        failpoint::reach("tables-opened");
        if has_data {
            // Last: a start that a database of another format refuses is none, and leaves no trace.
            identity.boot(dir)?;
        }
        // What a killed process wrote and did not sync is read like all else, and counts as durable from here on.
        tables.commit(Writes::new(), true);
        let used = Arc::new(AtomicU64::new(0));
        let blobs = Arc::new(Blobs::at(dir, reserve, Arc::clone(&used)));
        blobs.prepare()?;
        failpoint::reach("staging-cleared");
        blobs::sync_directory(dir).map_err(OpenError::io("sync", dir))?;
        let inline: u64 = tables.sizes(Table::Inline).map(|framed| framed.saturating_sub(1)).sum();
        let files = blobs.census()?;
        let unreferenced = verify::unreferenced(&tables, &files);
        let astray = verify::astray(&tables, &files, identity.node);
        let files: u64 = files.iter().map(|(_, length)| length).sum();
        used.store(inline + files, Ordering::Relaxed);
        let mut end = log_end(&tables);
        let view = Arc::new(View::new(tables));
        let losers = AtomicU64::new(conflicts::total(&view));
        end.written = Written::read(&*view);
        let end = Mutex::new(end);
        let writer = Writer::start(dir, Arc::clone(&view), Arc::clone(&used), Arc::clone(&blobs.condemned), persisted)?;
        Ok(Arc::new(Self { writer, view, blobs, used, losers, end, identity, unreferenced, astray, _lock: lock }))
    }

    /// This node's identity, made at the first open.
    pub fn node(&self) -> NodeId {
        self.identity.node
    }
    /// The boots of this data directory, this one included.
    pub fn boots(&self) -> &BootChain {
        &self.identity.boots
    }

    /// What a member starts from; its blobs are those found when the store was opened. Blocking.
    pub fn restored(&self) -> Restored {
        let mut state = state::read(&*self.view).unwrap_or_default();
        state.digest = state.digest.or_else(|| Some(self.digest()));
        let tail = self.records_beyond(&state.applied, usize::MAX);
        let tables = &self.view.tables;
        Restored {
            tail,
            unconfirmed: tables.keys(Table::Unconfirmed, keys::all()).map(|key| keys::read_path(&key)).collect(),
            met: tables.scan(Table::Met, keys::all()).map(|(_, value)| keys::decode(&value)).collect(),
            outcomes: tables.keys(Table::Outcomes, keys::all()).map(|key| keys::read_op(&key)).collect(),
            unreferenced: self.unreferenced.clone(),
            astray: self.astray.clone(),
            state,
        }
    }

    /// Queues a batch for the store thread; [`Storage`] shows it from now on, whole. Reads what listing rows depend on,
    /// and waits when the disk is 2,048 batches behind, but never for a write or an fsync of its own.
    pub fn submit(&self, batch: Batch) {
        let mut end = self.end();
        let writes = batch::changes(&*self.view, &batch, &mut end);
        conflicts::count(&self.view, &writes, &self.losers);
        self.view.lay(batch.number, &writes);
        // Still under `end`: batches reach the queue in the order in which they were laid.
        self.writer.queue(Job::Batch { number: batch.number, sync: batch.sync, writes });
    }

    /// Stages a small file's bytes with the next group commit. The answer comes when they are on the disk; refused when
    /// they are longer than [`INLINE_MAX`], the disk is full or does not keep up. Never blocks for the disk.
    pub fn put_inline(&self, blob: BlobId, bytes: Bytes) -> oneshot::Receiver<Result<(), StoreError>> {
        let fits = if bytes.len() as u64 > INLINE_MAX {
            Err(StoreError::TooLarge(bytes.len()))
        } else {
            self.blobs.room(bytes.len() as u64)
        };
        match fits {
            Ok(()) => self.writer.queue_inline(keys::blob(blob), keys::framed(&bytes)),
            Err(error) => {
                let (done, answer) = oneshot::channel();
                // The receiver is in our hands, so the answer arrives.
                let _ = done.send(Err(error));
                answer
            }
        }
    }
    /// A small file's bytes, if they are inline here and not condemned.
    pub fn inline(&self, blob: BlobId) -> Option<Bytes> {
        if self.is_condemned(blob) { None } else { self.inline_copy(blob).ok().flatten() }
    }
    /// Begins a blob file under a temporary name. Blocking.
    pub fn create_blob(&self, blob: BlobId) -> Result<BlobWriter, StoreError> {
        self.blobs.create(blob)
    }
    /// Opens a finished blob file for reading; `None` when it is not here (or inline), or condemned. Blocking.
    pub fn open_blob(&self, blob: BlobId) -> Result<Option<std::fs::File>, StoreError> {
        if self.is_condemned(blob) { Ok(None) } else { self.blobs.open(blob) }
    }
    /// Deletes blobs, inline or files; those that are not here count as deleted. Blocking.
    pub fn drop_blobs(&self, blobs: &[BlobId]) -> Result<(), StoreError> {
        let here = |key: &Slice| self.view.tables.size_of(Table::Inline, key).is_some();
        let inline: Vec<Slice> = blobs.iter().map(|b| keys::blob(*b)).filter(here).collect();
        if !inline.is_empty() {
            let (done, answer) = sync_channel(1);
            self.writer.queue(Job::Drop { keys: inline, done });
            answer.recv().map_err(|_| StoreError::Closing)?;
        }
        // All are tried; the first error is told.
        blobs.iter().map(|blob| self.blobs.remove(*blob)).fold(Ok(()), Result::and)
    }

    /// The visible head of a path. The root and implicit directories have none: see [`Self::is_directory`]. A file whose
    /// name is also a directory's is not visible.
    pub fn visible(&self, path: &FtpPath) -> Option<Head> {
        let head = self.entry(path)?.visible()?.clone();
        let hidden = matches!(head.what, Version::File(_)) && self.is_directory(path);
        (!hidden).then_some(head)
    }
    /// Whether a path is a directory, made by MKD or implied by something below it. The root always is.
    pub fn is_directory(&self, path: &FtpPath) -> bool {
        let Some((parent, name)) = path.split() else { return true };
        let row = self.view.get(Table::Live, &keys::child(&parent, name));
        row.is_some_and(|bytes| Row::decode(String::new(), &bytes).directory)
    }
    /// Up to `limit` children of `dir` with names greater than `after`, in bytewise order. Blocking, reads live rows only.
    pub fn list(&self, dir: &FtpPath, after: Option<&str>, limit: usize) -> Vec<Row> {
        let rows = self.view.scan(Table::Live, keys::children(dir, after));
        rows.take(limit).map(|(key, value)| Row::decode(keys::read_child(dir, &key), &value)).collect()
    }
    /// Disk use for placement. One system call.
    pub fn report(&self) -> DiskReport {
        let space = self.blobs.space();
        DiskReport { used: self.used.load(Ordering::Relaxed), free: space.free, healthy: space.healthy }
    }

    /// Records in the log.
    pub fn log_records(&self) -> u64 {
        let end = self.end();
        end.arrival.saturating_sub(end.oldest)
    }

    fn read<T: serde::de::DeserializeOwned>(&self, table: Table, key: &Slice) -> Option<T> {
        self.view.get(table, key).map(|bytes| keys::decode(&bytes))
    }
    /// Of the whole index, for a member without a state: that of an empty one.
    fn digest(&self) -> Digest {
        let entries = self.view.scan(Table::Index, keys::all());
        entries.map(|(key, value)| Digest::of(&keys::read_path(&key), &keys::decode(&value))).sum()
    }
    fn end(&self) -> MutexGuard<'_, LogEnd> {
        self.end.lock().expect("nothing panics while it holds the log's end")
    }
}

/// Where the log ends, read from its tables: two lookups, and one for each epoch.
fn log_end(tables: &Tables) -> LogEnd {
    let number = |key: Option<Slice>| key.map(|key| keys::read_arrival(&key));
    let last = number(tables.keys(Table::Log, keys::all()).next_back());
    let oldest = number(tables.keys(Table::Log, keys::all()).next()).unwrap_or(0);
    let mut end = LogEnd { arrival: last.map_or(0, |last| last + 1), oldest, ..LogEnd::default() };
    let mut range = keys::all();
    while let Some(key) = tables.keys(Table::Position, range.clone()).next_back() {
        let Position { epoch, seq } = keys::read_position(&key);
        end.marks.raise(epoch, seq + 1);
        range.end = keys::position(Position { epoch, seq: 0 });
    }
    end
}

impl Storage for Store {
    fn entry(&self, path: &FtpPath) -> Option<PathEntry> {
        self.read(Table::Index, &keys::path(path))
    }
    fn next_child(&self, dir: &FtpPath, after: Option<&str>) -> Option<String> {
        let (key, _) = self.view.scan(Table::Live, keys::children(dir, after)).next()?;
        Some(keys::read_child(dir, &key))
    }
    fn outcome(&self, op: OpId) -> Option<Outcome> {
        self.read(Table::Outcomes, &keys::op(op))
    }
    fn referrers(&self, blob: BlobId) -> Vec<FtpPath> {
        self.view.scan(Table::Referrers, keys::referrers(blob)).map(|(key, _)| keys::read_referrer(&key).1).collect()
    }
    fn held(&self, holding: Holding, after: Option<BlobId>, limit: usize) -> Vec<BlobId> {
        let rows = self.view.scan(Table::Held, keys::held_after(holding, after));
        rows.take(limit).map(|(key, _)| keys::read_held(holding, &key)).collect()
    }
    fn has_blob(&self, blob: BlobId) -> bool {
        !self.is_condemned(blob) && self.is_on_disk(blob)
    }
    fn has_damaged(&self, blob: BlobId) -> bool {
        self.is_condemned(blob) && self.is_on_disk(blob)
    }
    fn oldest(&self, limit: usize) -> Vec<Arc<Record>> {
        // Not from the very first key: what was truncated leaves marks that a scan would have to pass.
        let from = keys::arrival(self.end().oldest);
        let records = self.view.scan(Table::Log, from..keys::all().end).take(limit);
        records.map(|(_, value)| Arc::new(keys::decode(&value))).collect()
    }
    fn entries(&self, range: &PathRange, limit: usize) -> Vec<(FtpPath, PathEntry)> {
        let entries = self.view.scan(Table::Index, keys::paths(range)).take(limit);
        entries.map(|(key, value)| (keys::read_path(&key), keys::decode(&value))).collect()
    }
    fn outcomes(&self, after: Option<OpId>, limit: usize) -> Vec<(OpId, Outcome)> {
        let outcomes = self.view.scan(Table::Outcomes, keys::ops_after(after)).take(limit);
        outcomes.map(|(key, value)| (keys::read_op(&key), keys::decode(&value))).collect()
    }
    fn aging(&self, kind: AgingKind, after: Option<&Aging>, limit: usize) -> Vec<Aging> {
        let rows = self.view.scan(Table::Aging, keys::aging_after(kind, after));
        rows.take(limit).map(|(key, _)| keys::read_aging(kind, &key)).collect()
    }
    fn records_beyond(&self, marks: &Marks, limit: usize) -> Vec<Arc<Record>> {
        let own = self.end().marks.clone();
        // Within an epoch, records arrive in its order, so each run is sorted; the runs are merged by arrival.
        let mut runs: Vec<_> = own
            .iter()
            .filter(|(epoch, n)| marks.count(*epoch) < *n)
            .map(|(epoch, n)| {
                let at = |seq| keys::position(Position { epoch, seq });
                self.view.scan(Table::Position, at(marks.count(epoch))..at(n)).map(|(_, number)| number)
            })
            .collect();
        let mut next: BinaryHeap<Reverse<(Slice, usize)>> = BinaryHeap::new();
        next.extend(runs.iter_mut().enumerate().filter_map(|(i, run)| Some(Reverse((run.next()?, i)))));
        let mut records = vec![];
        while records.len() < limit {
            let Some(Reverse((number, i))) = next.pop() else { break };
            records.extend(self.read::<Record>(Table::Log, &number).map(Arc::new));
            next.extend(runs[i].next().map(|number| Reverse((number, i))));
        }
        records
    }
}
