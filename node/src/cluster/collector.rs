//! Which blobs may be deleted: those no head refers to, once nobody can want them any more. A staged blob waits for its
//! front; a replaced one for the readers of the old version.

use super::member::{Cx, Member};
use super::types::{BlobId, Micros, NodeId};
use std::collections::BTreeMap;

/// Blobs deleted at one go.
const AT_ONCE: usize = 512;

/// Blobs that nothing refers to.
#[derive(Debug)]
pub(super) struct Collector {
    /// Staged, and when their front was last seen alive.
    staged: BTreeMap<BlobId, Micros>,
    /// Replaced, and since when.
    replaced: BTreeMap<BlobId, Micros>,
    /// When each known member last had nothing in its log that was not in ours. Blobs age only up to the earliest of these:
    /// a member that is away may hold a record that needs them, and brings it back.
    agreed: BTreeMap<NodeId, Micros>,
    /// Since when this node has followed a leader without a break: staged bytes age only then, for what a leader we do not
    /// hear may have logged is not ours to judge.
    steady_since: Option<Micros>,
}

impl Collector {
    pub(super) fn new(unreferenced: Vec<BlobId>, now: Micros) -> Self {
        let staged = unreferenced.into_iter().map(|b| (b, now)).collect();
        Self { staged, replaced: BTreeMap::new(), agreed: BTreeMap::new(), steady_since: None }
    }
}

impl Member {
    /// A blob comes to this disk, or its front lives, or somebody reads it.
    pub(super) fn blob_kept(&mut self, cx: Cx<'_>, blob: BlobId) {
        match self.collector.replaced.get_mut(&blob) {
            Some(since) => *since = cx.mono(),
            None => drop(self.collector.staged.insert(blob, cx.mono())),
        }
        // It may be late: logged already, with other replicas.
        if self.log.is_in_tail(blob) || !self.log.view(cx.storage).referrers(blob).is_empty() {
            self.look_after(blob, cx.mono());
        }
    }
    /// Takes over from the log which blobs got or lost their references, and which are to be here or not.
    pub(super) fn note_blobs(&mut self, cx: Cx<'_>) {
        for (blob, here) in std::mem::take(&mut self.log.logged_blobs) {
            let staged = self.collector.staged.remove(&blob).is_some();
            if staged && !here {
                self.look_after(blob, cx.mono());
            }
        }
        for blob in std::mem::take(&mut self.log.unreferenced) {
            // From here on it waits for its readers, however long ago it was staged.
            self.collector.staged.remove(&blob);
            self.collector.replaced.insert(blob, cx.mono());
        }
        // What was replaced here may be wanted again: renamed elsewhere, or kept as the loser of a conflict.
        let Collector { staged, replaced, .. } = &self.collector;
        let waits = |b: &BlobId| staged.contains_key(b) || replaced.contains_key(b);
        let again: Vec<BlobId> = std::mem::take(&mut self.log.referred).into_iter().filter(waits).collect();
        for blob in again.into_iter().chain(std::mem::take(&mut self.log.rehomed)) {
            self.look_after(blob, cx.mono());
        }
    }

    /// Until when all known members had nothing that we lack.
    fn agreed_until(&mut self, now: Micros) -> Micros {
        let logged = &self.log.state.logged;
        let agreeing = self.peers.all_linked(now).filter(|(_, _, said)| logged.covers(&said.marks));
        self.collector.agreed.extend(agreeing.map(|(id, ..)| (id, now)));
        let others = self.log.state.known.iter().filter(|m| **m != self.me.node);
        others.map(|m| self.collector.agreed.get(m).copied().unwrap_or(0)).min().unwrap_or(now)
    }

    pub(super) fn tick_collector(&mut self, cx: Cx<'_>) {
        let now = cx.mono();
        let steady = self.leader.is_some_and(|(l, _)| {
            l == self.me.node || self.peers.said(l).is_some_and(|i| self.log.state.logged.lacks(&i.marks) < 1000)
        });
        self.collector.steady_since = if steady { self.collector.steady_since.or(Some(now)) } else { None };
        let Some(steady_since) = self.collector.steady_since else { return };
        let horizon = self.agreed_until(now);
        let old = |since: Micros, grace: Micros| horizon.saturating_sub(since.max(steady_since)) > grace;
        let (staged_grace, replaced_grace) = (self.config.staged_grace, self.config.replaced_grace);
        let staged = self.collector.staged.iter().filter(|(_, since)| old(**since, staged_grace)).map(|(b, _)| *b);
        let replaced =
            self.collector.replaced.iter().filter(|(_, since)| old(**since, replaced_grace)).map(|(b, _)| *b);
        let due: Vec<BlobId> =
            staged.chain(replaced).filter(|blob| !self.is_awaited(*blob, now)).take(AT_ONCE).collect();
        if due.is_empty() {
            return;
        }
        let view = self.log.view(cx.storage);
        let (drop, keep): (Vec<BlobId>, Vec<BlobId>) =
            due.into_iter().partition(|b| view.referrers(*b).is_empty() && !self.log.is_in_tail(*b));
        for blob in drop.iter().chain(&keep) {
            self.collector.staged.remove(blob);
            self.collector.replaced.remove(blob);
        }
        for blob in keep {
            self.look_after(blob, now);
        }
        if !drop.is_empty() {
            self.drop_blobs(drop);
        }
    }
}
