//! Copies on this disk that are known to be bad, and figures of how they were found. A condemned copy counts as not here:
//! it is neither read nor vouched for, and stays until a good one takes its place. In memory only: what is forgotten with
//! the process is found again. Never a look at a disk.

use crate::cluster::BlobId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

/// What reading copies again has come to since the node started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Integrity {
    /// How often all copies on this disk were read again.
    pub rounds: u64,
    /// Copies read again, a copy once each time.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Copies found bad: other bytes than were stored, too few of them, or none where there should be some.
    pub bad: u64,
    /// Of these, copies that good ones have replaced.
    pub healed: u64,
    /// Copies that are bad now.
    pub condemned: u64,
    /// Of these, copies of which nobody gave a good one when it was asked for last.
    pub incurable: u64,
}

/// The condemned copies of one disk.
#[derive(Debug, Default)]
pub(super) struct Condemned(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Whether a good copy was looked for in vain.
    copies: BTreeMap<BlobId, bool>,
    figures: Integrity,
}

impl Condemned {
    pub(super) fn has(&self, blob: BlobId) -> bool {
        self.state().copies.contains_key(&blob)
    }
    /// Condemns a copy if it `is_bad`; whether that is news. Who replaces it meanwhile is heard afterwards.
    pub(super) fn add(&self, blob: BlobId, is_bad: impl FnOnce() -> bool) -> bool {
        let mut state = self.state();
        let news = !state.copies.contains_key(&blob) && is_bad();
        if news {
            state.copies.insert(blob, false);
            state.figures.bad += 1;
        }
        news
    }
    /// A verified copy is durable in its place.
    pub(super) fn replaced(&self, blob: BlobId) {
        let mut state = self.state();
        if state.copies.remove(&blob).is_some() {
            state.figures.healed += 1;
        }
    }
    /// It was deleted, or turned out to be good.
    pub(super) fn forget(&self, blob: BlobId) {
        self.state().copies.remove(&blob);
    }
    /// A good copy was looked for in vain.
    pub(super) fn sought(&self, blob: BlobId) {
        if let Some(in_vain) = self.state().copies.get_mut(&blob) {
            *in_vain = true;
        }
    }
    /// A copy was read again.
    pub(super) fn scrubbed(&self, bytes: u64) {
        let figures = &mut self.state().figures;
        (figures.blobs, figures.bytes) = (figures.blobs + 1, figures.bytes + bytes);
    }
    /// All of them were.
    pub(super) fn round(&self) {
        self.state().figures.rounds += 1;
    }
    pub(super) fn figures(&self) -> Integrity {
        let state = self.state();
        let incurable = state.copies.values().filter(|in_vain| **in_vain).count() as u64;
        Integrity { condemned: state.copies.len() as u64, incurable, ..state.figures }
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it holds the condemned")
    }
}
