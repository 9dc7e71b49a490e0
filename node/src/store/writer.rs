//! The store thread: the only writer of the database. It takes everything queued, writes it as one atomic batch, syncs when
//! something in it asks for that, and then tells those who wait. This is the group commit on the disk's side.
//! It never retries: a write that fails ends the process.

use super::condemned::Condemned;
use super::error::{OpenError, StoreError, fatal};
use super::failpoint::reach;
use super::keys::{self, Table};
use super::overlay::View;
use super::tables::Writes;
use fjall::Slice;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Jobs that may wait. A driver that is this far ahead of its disk waits for it.
const QUEUE: usize = 2048;
/// Of these, small files: more are refused, so that they never keep the driver's batches out. 16 MiB at most.
const QUEUE_INLINE: usize = 256;
/// Jobs written as one batch.
const ROUND: usize = 512;
/// Between attempts to report to a driver whose queue is full.
const REPORT_AGAIN: Duration = Duration::from_millis(2);

/// Something to write.
pub(super) enum Job {
    /// A member's batch.
    Batch {
        /// Its number.
        number: u64,
        /// Whether it must be synced.
        sync: bool,
        /// What changes.
        writes: Writes,
    },
    /// A small file's bytes, framed as a value. Always synced.
    Inline {
        /// Its key.
        key: Slice,
        /// The framed bytes.
        value: Slice,
        /// Who waits.
        done: oneshot::Sender<Result<(), StoreError>>,
    },
    /// Small files to delete.
    Drop {
        /// Their keys.
        keys: Vec<Slice>,
        /// Who waits.
        done: SyncSender<()>,
    },
}

/// The store thread and the way to it. Dropped, it writes what is queued and ends.
#[derive(Debug)]
pub(super) struct Writer {
    jobs: Option<SyncSender<Job>>,
    inline_waiting: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread. `used` follows the bytes of small files.
    pub(super) fn start(
        dir: &Path,
        view: Arc<View>,
        used: Arc<AtomicU64>,
        condemned: Arc<Condemned>,
        persisted: mpsc::Sender<u64>,
    ) -> Result<Self, OpenError> {
        let (jobs, queue) = sync_channel(QUEUE);
        let inline_waiting = Arc::new(AtomicUsize::new(0));
        let waiting = Arc::clone(&inline_waiting);
        let mut thread = Thread { view, used, condemned, inline_waiting: waiting, persisted, written: 0, reported: 0 };
        let spawned = std::thread::Builder::new().name("store".to_owned()).spawn(move || thread.run(&queue));
        let thread = spawned.map_err(OpenError::io("start the store thread for", dir))?;
        Ok(Self { jobs: Some(jobs), inline_waiting, thread: Some(thread) })
    }
    /// Queues a job; waits only when the queue is full.
    pub(super) fn queue(&self, job: Job) {
        let jobs = self.jobs.as_ref().expect("taken by drop only");
        if jobs.send(job).is_err() {
            fatal("the store thread is gone", &"its queue is closed");
        }
    }
    /// Queues a small file, or refuses it when too many wait. Never blocks.
    pub(super) fn queue_inline(&self, key: Slice, value: Slice) -> oneshot::Receiver<Result<(), StoreError>> {
        let (done, answer) = oneshot::channel();
        let waiting = self.inline_waiting.fetch_add(1, Ordering::AcqRel);
        let jobs = self.jobs.as_ref().expect("taken by drop only");
        if waiting >= QUEUE_INLINE {
            self.inline_waiting.fetch_sub(1, Ordering::AcqRel);
            // The receiver is in our hands, so the answer arrives.
            let _ = done.send(Err(StoreError::Busy));
        } else if let Err(refused) = jobs.try_send(Job::Inline { key, value, done }) {
            self.inline_waiting.fetch_sub(1, Ordering::AcqRel);
            let (job, error) = match refused {
                std::sync::mpsc::TrySendError::Full(job) => (job, StoreError::Busy),
                std::sync::mpsc::TrySendError::Disconnected(job) => (job, StoreError::Closing),
            };
            if let Job::Inline { done, .. } = job {
                let _ = done.send(Err(error));
            }
        }
        answer
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported where it happened; there is nobody to hand it to.
            let _ = thread.join();
        }
    }
}

struct Thread {
    view: Arc<View>,
    used: Arc<AtomicU64>,
    condemned: Arc<Condemned>,
    inline_waiting: Arc<AtomicUsize>,
    persisted: mpsc::Sender<u64>,
    written: u64,
    reported: u64,
}

impl Thread {
    fn run(&mut self, queue: &Receiver<Job>) {
        // Reports never block: a driver that waits for room in the queue would wait for a thread that waits for it.
        loop {
            let first = if self.reported == self.written {
                queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                queue.recv_timeout(REPORT_AGAIN)
            };
            match first {
                Ok(first) => self.round(std::iter::once(first).chain(queue.try_iter()).take(ROUND)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.report();
        }
    }

    fn round(&mut self, jobs: impl Iterator<Item = Job>) {
        let mut writes = Writes::new();
        let (mut batch, mut must_sync) = (None, false);
        let (mut stored, mut dropped) = (vec![], vec![]);
        for job in jobs {
            match job {
                Job::Batch { number, sync, writes: more } => {
                    batch = Some(number);
                    must_sync |= sync;
                    writes.extend(more);
                }
                Job::Inline { key, value, done } => {
                    must_sync = true;
                    stored.push((keys::read_blob(&key), done));
                    writes.insert((Table::Inline, key), Some(value));
                }
                Job::Drop { keys, done } => {
                    writes.extend(keys.into_iter().map(|key| ((Table::Inline, key), None)));
                    dropped.push(done);
                }
            }
        }
        let (more, less) = self.inline_change(&writes);
        let keys: Vec<_> = writes.keys().cloned().collect();
        reach("batch-taken");
        self.view.tables.commit(writes, must_sync);
        reach("batch-committed");
        self.used.fetch_add(more, Ordering::Relaxed);
        self.used.fetch_sub(less, Ordering::Relaxed);
        if let Some(number) = batch {
            self.view.retire(number, keys.iter());
            self.written = number;
        }
        self.inline_waiting.fetch_sub(stored.len(), Ordering::AcqRel);
        // Whoever does not wait any more has lost interest, not the bytes.
        for (blob, done) in stored {
            self.condemned.replaced(blob);
            drop(done.send(Ok(())));
        }
        dropped.into_iter().for_each(|done| done.send(()).unwrap_or_default());
    }

    /// Bytes of small files that this batch adds and takes away.
    fn inline_change(&self, writes: &Writes) -> (u64, u64) {
        let all = keys::all();
        let (mut more, mut less) = (0, 0);
        for ((_, key), value) in writes.range((Table::Inline, all.start)..(Table::Inline, all.end)) {
            let framing = |length: u64| length.saturating_sub(1);
            more += value.as_ref().map_or(0, |v| framing(v.len() as u64));
            less += self.view.tables.size_of(Table::Inline, key).map_or(0, framing);
        }
        (more, less)
    }

    fn report(&mut self) {
        if self.reported == self.written {
            return;
        }
        match self.persisted.try_send(self.written) {
            Err(mpsc::error::TrySendError::Full(_)) => {}
            // Without a driver there is nobody to tell.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => self.reported = self.written,
        }
    }
}
