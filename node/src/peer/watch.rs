//! Judges a disk by its progress: a batch that is not written within two seconds makes it unhealthy, until the store
//! reports again. It never touches the disk.

use crate::cluster::{DiskReport, MS, Micros};

/// A pending batch without progress for so long makes a disk unhealthy.
const STALL: Micros = 2000 * MS;

/// What is known of the disk's progress.
#[derive(Debug, Default)]
pub(crate) struct DiskWatch {
    submitted: u64,
    persisted: u64,
    /// When something was last written, or first had to be.
    since: Micros,
    last: DiskReport,
}

impl DiskWatch {
    /// A batch was handed to the store.
    pub(crate) fn submitted(&mut self, batch: u64, mono: Micros) {
        if self.submitted == self.persisted {
            self.since = mono;
        }
        self.submitted = batch;
    }
    /// All batches up to this one are written.
    pub(crate) fn persisted(&mut self, batch: u64, mono: Micros) {
        if batch > self.persisted {
            self.persisted = batch;
            self.since = mono;
        }
    }
    /// The store's own report, corrected by what was seen here.
    pub(crate) fn reported(&mut self, report: DiskReport, mono: Micros) -> DiskReport {
        self.last = DiskReport { healthy: report.healthy && !self.stalls(mono), ..report };
        self.last
    }
    /// Bad news since the last report, told once.
    pub(crate) fn news(&mut self, mono: Micros) -> Option<DiskReport> {
        if !self.last.healthy || !self.stalls(mono) {
            return None;
        }
        self.last.healthy = false;
        Some(self.last)
    }
    fn stalls(&self, mono: Micros) -> bool {
        self.submitted > self.persisted && mono.saturating_sub(self.since) >= STALL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_batch_without_progress_is_bad_news_once() {
        let mut watch = DiskWatch::default();
        let good = DiskReport { used: 1, free: 2, healthy: true };
        assert!(watch.reported(good, 0).healthy);
        watch.submitted(1, 10_000 * MS);
        watch.submitted(2, 11_000 * MS);
        assert_eq!(watch.news(11_999 * MS), None);
        watch.persisted(1, 11_999 * MS);
        assert_eq!(watch.news(13_998 * MS), None, "it moves");
        assert_eq!(watch.news(13_999 * MS), Some(DiskReport { healthy: false, ..good }));
        assert_eq!(watch.news(14_000 * MS), None, "told");
        assert!(!watch.reported(good, 14_000 * MS).healthy);
        watch.persisted(2, 14_001 * MS);
        assert!(watch.reported(good, 14_001 * MS).healthy);
        assert_eq!(watch.news(99_000 * MS), None, "nothing is pending");
    }
}
