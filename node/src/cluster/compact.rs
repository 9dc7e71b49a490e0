//! Compaction: a version that was appended to often gets fewer and longer extents. The leader names a run of them, every node
//! that holds the version makes one blob of it from its own disk, and once all have, a logged move says so: a change of
//! where the bytes are, never a new version. No byte of it crosses the network.
//!
//! Runs are chosen as in a log-structured merge tree (O'Neil et al., 1996): an extent is written again only together with
//! about as many bytes behind it, so a byte is written as often as the logarithm of what follows it.

use super::change::Change;
use super::config::Config;
use super::decide::Sight;
use super::io::Output;
use super::member::{Cx, Member, Role};
use super::message::{Message, VersionId};
use super::record::{Body, Effect, Extent, Moved, Relocated, Version};
use super::types::{BlobId, Hash, MS, Micros, NodeId, OpId};
use crate::path::FtpPath;
use std::collections::{BTreeMap, VecDeque};

/// Paths that wait for their turn; more are noted again at their next append.
const WAITING: usize = 1024;
/// Runs made into blobs at once, in the cluster and, a few leaders' together, on one node.
const AT_ONCE: usize = 4;

/// After a run that could not be merged, before the next one of that path.
const AGAIN: Micros = 30_000 * MS;
/// From a leader's last word on a blob that was made for it, until it may be collected.
const AWAITED: Micros = 30_000 * MS;
/// Bytes per microsecond that a node is given time for.
const SLOWEST: u64 = 5;
/// Blobs made for leaders that a node remembers.
const REMEMBERED: usize = 64;

/// What a node makes for a leader, or made: then with the hash.
#[derive(Debug)]
pub(super) struct Merging {
    leader: NodeId,
    hash: Option<Hash>,
    /// When a leader last asked for it.
    asked: Micros,
}

/// What the leader of one epoch has compacted.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    /// First come, first served.
    waiting: VecDeque<FtpPath>,
    /// Paths of which a run could not be made into one blob, and when: not tried again at once.
    failed: BTreeMap<FtpPath, Micros>,
    /// By the name of the new blob.
    running: BTreeMap<BlobId, Running>,
}

#[derive(Debug)]
struct Running {
    path: FtpPath,
    run: Vec<Extent>,
    /// Who has to make the blob, and what those made who did.
    made: BTreeMap<NodeId, Option<Hash>>,
    begun: Micros,
    asked: Micros,
}

/// Which extents become one: from where to the end. `None` where there are fewer than `most`. Where sizes fall so steeply
/// that no run is worth it, the last ones have to do.
fn run(extents: &[Extent], most: usize) -> Option<usize> {
    if extents.len() < most.max(2) {
        return None;
    }
    let (mut from, mut behind) = (extents.len(), 0);
    while from > 0 && (extents[from - 1].length <= behind || extents.len() - from < (most / 2).max(2)) {
        from -= 1;
        behind += extents[from].length;
    }
    Some(from)
}

impl Compaction {
    fn note(&mut self, path: FtpPath) {
        if self.waiting.len() < WAITING && !self.waiting.contains(&path) {
            self.waiting.push_back(path);
        }
    }
    /// Somebody cannot: an extent is damaged there, perhaps, and about to be fetched anew.
    fn fail(&mut self, blob: BlobId, now: Micros) {
        self.failed.retain(|_, at| now.saturating_sub(*at) < AGAIN);
        if let Some(running) = self.running.remove(&blob)
            && self.failed.len() < WAITING
        {
            self.failed.insert(running.path, now);
        }
    }
    fn has_failed(&self, path: &FtpPath, now: Micros) -> bool {
        self.failed.get(path).is_some_and(|at| now.saturating_sub(*at) < AGAIN)
    }
}

impl Running {
    fn length(&self) -> u64 {
        self.run.iter().map(|e| e.length).sum()
    }
}

/// The name of the blob that a run becomes: the same wherever and however often it is made, for its bytes are the same.
fn name(run: &[Extent]) -> BlobId {
    let mut hasher = blake3::Hasher::new_derive_key("trebol 2026 blob of merged extents");
    for extent in run {
        hasher.update(format!("{} {} {} {};", extent.blob, extent.offset, extent.length, extent.hash).as_bytes());
    }
    let digest: [u8; 16] = hasher.finalize().as_bytes()[..16].try_into().expect("16 of 32 bytes");
    BlobId { op: OpId(u128::from_be_bytes(digest)), ..BlobId::default() }
}

/// The extents with the run as one; `None` when it is not in them.
fn merged(extents: &[Extent], run: &[Extent], whole: Extent) -> Option<Vec<Extent>> {
    let at = extents.windows(run.len()).position(|part| part == run)?;
    Some(extents[..at].iter().chain([&whole]).chain(&extents[at + run.len()..]).copied().collect())
}

impl Member {
    /// Notes files that come to have many extents.
    pub(super) fn note_extents(&mut self, cx: Cx<'_>, effects: &[Effect]) {
        let most = self.most_extents(cx);
        let many = |what: &Version| matches!(what, Version::File(f) if f.extents.len() >= most);
        for path in effects.iter().filter(|e| many(&e.what)).map(|e| e.path.clone()).collect::<Vec<_>>() {
            self.note_for_compaction(path);
        }
    }
    /// From how many on. While a known node is away nothing is deleted anywhere, and what is merged again and again would
    /// fill the disks: then only what comes near the limit is.
    fn most_extents(&self, cx: Cx<'_>) -> usize {
        let Config { merge_extents, max_extents, .. } = self.config;
        let away = |n: &NodeId| *n != self.me.node && !self.peers.linked(*n, cx.mono());
        let late = self.log.state.known.iter().any(away);
        merge_extents.max(if late { max_extents / 4 * 3 } else { 0 }).min(max_extents)
    }
    fn note_for_compaction(&mut self, path: FtpPath) {
        if let Role::Lead(lead) = &mut self.role {
            lead.compaction.note(path);
        }
    }

    pub(super) fn tick_compaction(&mut self, cx: Cx<'_>) {
        if !self.serves() || !self.lease_ok(cx) {
            return;
        }
        let now = cx.mono();
        let (timeout, rpc) = (self.config.repair_timeout, self.config.rpc);
        let Role::Lead(lead) = &mut self.role else { return };
        let late = |r: &Running| now.saturating_sub(r.begun) > timeout + r.length() / SLOWEST;
        let late: Vec<BlobId> = lead.compaction.running.iter().filter(|(_, r)| late(r)).map(|(b, _)| *b).collect();
        late.into_iter().for_each(|blob| lead.compaction.fail(blob, now));
        let mut again = vec![];
        for (blob, running) in &mut lead.compaction.running {
            if now.saturating_sub(running.asked) > rpc {
                running.asked = now;
                again.push(*blob);
            }
        }
        for blob in again {
            self.ask_to_merge(blob);
        }
        while let Role::Lead(lead) = &mut self.role
            && lead.compaction.running.len() < AT_ONCE
            && let Some(path) = lead.compaction.waiting.pop_front()
        {
            self.start_compaction(cx, path);
        }
    }

    fn start_compaction(&mut self, cx: Cx<'_>, path: FtpPath) {
        let entry = self.sight(cx).entry(&path);
        let Some((head, Version::File(file))) = entry.visible().map(|head| (head, &head.what)) else { return };
        let Some(from) = run(&file.extents, self.most_extents(cx)) else { return };
        let Role::Lead(lead) = &mut self.role else { return };
        // A node that is away would have to fetch the new blob when it comes back, and who copies the version copies others.
        let away = !head.location.nodes.iter().all(|n| lead.members.contains(n));
        let copied = lead.repair.is_under_way(&VersionId { path: path.clone(), position: head.position });
        let tried = lead.compaction.has_failed(&path, cx.mono());
        // Runs of one path must not overlap.
        if away || copied || tried || lead.compaction.running.values().any(|r| r.path == path) {
            return;
        }
        let run = file.extents[from..].to_vec();
        let made = head.location.nodes.iter().map(|n| (*n, None)).collect();
        let (blob, now) = (name(&run), cx.mono());
        lead.compaction.running.entry(blob).or_insert(Running { path, run, made, begun: now, asked: now });
        self.ask_to_merge(blob);
    }

    /// Those who have made it, too: they keep it until all have.
    fn ask_to_merge(&mut self, blob: BlobId) {
        let Role::Lead(lead) = &self.role else { return };
        let Some(running) = lead.compaction.running.get(&blob) else { return };
        let (nodes, run): (Vec<NodeId>, _) = (running.made.keys().copied().collect(), running.run.clone());
        for node in nodes {
            self.send(node, Message::Merge { blob, run: run.clone() });
        }
    }

    /// The leader wants one blob of several that are here.
    pub(super) fn on_merge(&mut self, cx: Cx<'_>, leader: NodeId, blob: BlobId, run: Vec<Extent>) {
        if blob != name(&run) || self.is_dropping(blob) {
            return;
        }
        let merging = &mut self.presence.merging;
        if let Some(known) = merging.get_mut(&blob).filter(|m| m.hash.is_none() || cx.storage.has_blob(blob)) {
            (known.leader, known.asked) = (leader, cx.mono());
            if let Some(hash) = known.hash {
                self.blob_kept(cx, blob);
                self.send(leader, Message::Merged { blob, hash: Some(hash) });
            }
            return;
        }
        let made = merging.iter().find(|(_, m)| m.hash.is_some()).map(|(blob, _)| *blob);
        if let Some(made) = made.filter(|_| merging.len() >= REMEMBERED) {
            merging.remove(&made);
        }
        let running = merging.values().filter(|m| m.hash.is_none()).count();
        if running < AT_ONCE && run.iter().all(|e| self.holds(cx, e.blob)) {
            self.presence.merging.insert(blob, Merging { leader, hash: None, asked: cx.mono() });
            self.out.push(Output::Merge { blob, run });
        }
    }

    /// Whether a leader waits for others to make a blob that was made here: until its move is logged nothing refers to it.
    pub(super) fn is_awaited(&self, blob: BlobId, now: Micros) -> bool {
        self.presence.merging.get(&blob).is_some_and(|m| now.saturating_sub(m.asked) < AWAITED)
    }

    /// It was made, and is durable, or it could not be.
    pub(super) fn merge_ended(&mut self, cx: Cx<'_>, blob: BlobId, hash: Option<Hash>) {
        // One of that name may have been on its way out.
        let hash = hash.filter(|_| self.holds(cx, blob));
        let Some(merging) = self.presence.merging.get_mut(&blob) else { return };
        let leader = merging.leader;
        merging.hash = hash;
        if hash.is_none() {
            self.presence.merging.remove(&blob);
        }
        self.send(leader, Message::Merged { blob, hash });
    }

    pub(super) fn on_merged(&mut self, cx: Cx<'_>, from: NodeId, blob: BlobId, hash: Option<Hash>) {
        let served = self.serves() && self.lease_ok(cx);
        let Role::Lead(lead) = &mut self.role else { return };
        let Some(running) = lead.compaction.running.get_mut(&blob) else { return };
        let Some(hash) = hash else { return lead.compaction.fail(blob, cx.mono()) };
        if let Some(made) = running.made.get_mut(&from) {
            *made = Some(hash);
        }
        // Not the same bytes everywhere: nobody's is believed.
        let all = running.made.values().all(|made| *made == Some(hash));
        #[cfg(feature = "planted-bugs")]
        let all = all || self.config.planted == super::planted::Planted::MergeTooEarly;
        if !served || !all {
            return;
        }
        if let Some(running) = lead.compaction.running.remove(&blob) {
            self.log_merged(cx, &running, Extent { blob, offset: 0, length: running.length(), hash });
        }
    }

    /// Logs it for every version that has the run and is where it was made: appends that came meanwhile, too.
    fn log_merged(&mut self, cx: Cx<'_>, Running { path, run, made, .. }: &Running, whole: Extent) {
        let mut versions = vec![];
        for head in self.sight(cx).entry(path).heads {
            let Version::File(file) = &head.what else { continue };
            let nodes = head.location.nodes.clone();
            let what = VersionId { path: path.clone(), position: head.position };
            // Who copies it now does not copy the new blob.
            let copied = matches!(&self.role, Role::Lead(lead) if lead.repair.is_under_way(&what));
            if let Some(extents) = merged(&file.extents, run, whole)
                && nodes.iter().all(|n| made.contains_key(n))
                && !copied
            {
                versions.push(Relocated { path: path.clone(), position: head.position, nodes, extents });
            }
        }
        if !versions.is_empty() {
            self.append(cx, Body::Move(Moved { versions }));
        }
    }

    /// Whether a file that has too many extents for one more is about to have fewer.
    pub(super) fn will_be_compacted(&mut self, cx: Cx<'_>, change: &Change) -> bool {
        let Change::Append { path, .. } = change else { return false };
        self.note_for_compaction(path.clone());
        let entry = self.sight(cx).entry(path);
        let Role::Lead(lead) = &self.role else { return false };
        !lead.compaction.has_failed(path, cx.mono())
            && entry.visible().is_some_and(|head| head.location.nodes.iter().all(|n| lead.members.contains(n)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extents(lengths: &[u64]) -> Vec<Extent> {
        let extent = |(n, length): (usize, &u64)| Extent {
            blob: BlobId { op: OpId(n as u128), ..BlobId::default() },
            offset: 0,
            length: *length,
            hash: Hash([n as u8; 32]),
        };
        lengths.iter().enumerate().map(extent).collect()
    }

    #[test]
    fn what_is_small_is_merged_and_what_is_large_is_left_alone() {
        let many = |large: u64, small: usize| extents(&[&[large][..], &vec![1; small]].concat());
        assert_eq!(run(&many(1000, 14), 16), None);
        assert_eq!(run(&many(1000, 15), 16), Some(1));
        assert_eq!(run(&many(15, 15), 16), Some(0), "it is no longer than what follows");
        let steep: Vec<u64> = (0..20).rev().map(|n| 1 << (2 * n)).collect();
        assert_eq!(run(&extents(&steep), 16), Some(12), "the last ones have to do");
    }

    #[test]
    fn a_byte_is_written_a_few_times_however_many_appends_follow() {
        let (mut file, mut written) = (extents(&[1 << 20]), 0);
        for _ in 0..10_000 {
            file.push(extents(&[1])[0]);
            if let Some(from) = run(&file, 16) {
                let length = file[from..].iter().map(|e| e.length).sum();
                written += length;
                file.truncate(from);
                file.push(Extent { length, ..extents(&[1])[0] });
            }
            assert!(file.len() < 32, "{} extents", file.len());
        }
        assert!(written < 10_000 * 12, "{written} bytes for 10,000");
    }

    #[test]
    fn a_run_is_replaced_where_it_is_and_nowhere_else() {
        let (all, whole) = (extents(&[5, 1, 2, 3, 4]), extents(&[6])[0]);
        assert_eq!(merged(&all, &all[1..4], whole), Some(vec![all[0], whole, all[4]]));
        assert_eq!(merged(&all[2..], &all[1..4], whole), None);
        let elsewhere = [&all[..], &all[1..4]].concat();
        assert_eq!(name(&all[1..4]), name(&elsewhere[5..]));
        assert_ne!(name(&all[1..4]), name(&all[1..]));
    }
}
