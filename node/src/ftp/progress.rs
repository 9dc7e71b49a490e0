//! How far a transfer is: written by the transfer, read by STAT and ABOR on the control connection beside it.

use prometheus_client::metrics::counter::Counter;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Shared between a transfer and its session. The numbers are for people; only [`Progress::is_ending`] decides anything.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    bytes: AtomicU64,
    ending: AtomicBool,
    /// Of all transfers of its direction.
    total: Counter,
}

impl Progress {
    /// One whose bytes count in `total` as they move.
    pub(crate) fn counted(total: Counter) -> Self {
        Self(Arc::new(Counts { total, ..Counts::default() }))
    }
    /// More bytes moved.
    pub(crate) fn add(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.0.total.inc_by(bytes as u64);
    }
    /// Bytes moved over the data connection so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }
    /// All bytes of an upload have come: it can no longer be aborted, only awaited.
    pub(crate) fn end(&self) {
        self.0.ending.store(true, Ordering::Relaxed);
    }
    /// Whether the end was reached.
    pub(crate) fn is_ending(&self) -> bool {
        self.0.ending.load(Ordering::Relaxed)
    }
}
