//! Copies in doubt: a read found other bytes than were stored, or none. The node that has the copy reads it again and judges
//! for itself; nobody's word condemns one. What is too much to remember is forgotten: the next read doubts it again.

use super::pace::Pace;
use super::raw::Raw;
use super::scrub::check;
use crate::cluster::{BlobId, NodeId};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Doubts that wait, of either kind.
const WAITING: usize = 256;
/// Bytes a second at which copies in doubt are read, one at a time: faster than a round, for clients may be waiting.
const RATE: u64 = 64 << 20;

/// What waits to be looked into.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    own: Queue<BlobId>,
    others: Queue<(NodeId, BlobId)>,
}

/// Things to do once each, in no order that matters.
#[derive(Debug)]
struct Queue<T> {
    waiting: Mutex<BTreeSet<T>>,
    news: Notify,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { waiting: Mutex::default(), news: Notify::new() }
    }
}

impl<T: Ord> Queue<T> {
    fn push(&self, what: T) {
        let mut waiting = self.waiting.lock().expect("no panic while held");
        if waiting.len() < WAITING {
            waiting.insert(what);
        }
        self.news.notify_one();
    }
    /// Safe to cancel.
    async fn next(&self) -> T {
        loop {
            if let Some(what) = self.waiting.lock().expect("no panic while held").pop_first() {
                return what;
            }
            self.news.notified().await;
        }
    }
}

impl Raw {
    /// A copy is not as it should be, it seems. Never waits.
    pub(crate) fn doubt(&self, node: NodeId, blob: BlobId) {
        if node != self.me {
            self.doubts.others.push((node, blob));
        } else if !self.store.is_condemned(blob) {
            self.doubts.own.push(blob);
        }
    }
}

/// Looks into what is doubted until it is cancelled.
pub(super) async fn look_into(raw: Arc<Raw>, cancel: CancellationToken) {
    let own = async {
        let mut pace = Pace::new(RATE);
        loop {
            let blob = raw.doubts.own.next().await;
            if let Err(error) = check(&raw, blob, &mut pace).await {
                tracing::warn!(%blob, %error, "a copy in doubt could not be read again");
            }
        }
    };
    let others = async {
        loop {
            let (node, blob) = raw.doubts.others.next().await;
            if let Err(error) = raw.tell_doubt(node, blob).await {
                tracing::info!(%node, %blob, %error, "a node could not be told that its copy is in doubt");
            }
        }
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        () = own => {}
        () = others => {}
    }
}
