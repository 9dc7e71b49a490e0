//! Whether the blobs on this disk are those that the registers have here. What should be here and is not is fetched. What
//! is here and should not be is dropped, but only when every register that concerns it names three nodes and all of them
//! have just said that they hold the bytes. A copy that is known to be bad is none: it is fetched anew like one that is
//! missing, and stays until the good one takes its place. Where none should be it goes as a good one does.
//!
//! Why nothing is lost that way: an answer counts only for the very value of the register that both sides have in their
//! indexes, and whoever answers has that index on its disk. Registers only grow, so of all drops of a version's bytes look
//! at those by the greatest value: the nodes it names said then that they hold them, and could drop theirs only by a
//! greater one.

use super::compact::Merging;
use super::io::Output;
use super::log::COPIES;
use super::member::{Cx, Member};
use super::message::{CopyState, Message, Possession, VersionId};
use super::record::{Extent, Head, Version};
use super::types::{BlobId, MS, Micros, NodeId, Stamp};
use std::collections::{BTreeMap, BTreeSet};

/// Blobs looked at in one beat.
const AT_ONCE: usize = 256;
/// Between two looks at a blob that is not where it should be.
const LOOK_AGAIN: Micros = 2000 * MS;
/// An answer that is older does not count.
const FRESH: Micros = 4000 * MS;
/// A copy that a leader was told of is kept for so long: the Move that names this node is on its way.
const PLEDGED: Micros = 5000 * MS;
/// Nodes asked for bytes.
const SOURCES: usize = 16;

/// Blobs that may not be where they should be. As many as there are, in memory.
#[derive(Debug)]
pub(super) struct Presence {
    /// When to look at which.
    due: BTreeSet<(Micros, BlobId)>,
    when: BTreeMap<BlobId, Micros>,
    /// Who said when that it holds a blob by which register.
    vouched: BTreeMap<BlobId, BTreeMap<(VersionId, Stamp, NodeId), Micros>>,
    /// Copies that leaders were told of, and until when they stay whatever registers say.
    pledged: BTreeMap<BlobId, Micros>,
    /// Being deleted: gone, as far as anybody is told.
    dropping: BTreeSet<BlobId>,
    fetches: BTreeMap<u64, Fetching>,
    next_fetch: u64,
    /// Blobs being made of others, and those that were.
    pub(super) merging: BTreeMap<BlobId, Merging>,
}

/// Blobs on their way to this disk.
#[derive(Debug)]
struct Fetching {
    blobs: BTreeSet<BlobId>,
    /// Who wants to know, of what, and all blobs of that.
    asked: Option<(NodeId, VersionId, Vec<BlobId>)>,
}

/// Where a blob should be, as this node's index says.
enum Place {
    /// No head refers to it.
    Unknown,
    /// Where it is.
    Right,
    /// Here, and it is not.
    Missing(Extent, Vec<NodeId>),
    /// Not here, and it is, whole or not; the registers that say so.
    Surplus(Vec<(VersionId, Stamp, Vec<NodeId>)>),
}

impl Presence {
    pub(super) fn new(astray: Vec<BlobId>, now: Micros) -> Self {
        Self {
            due: astray.iter().map(|blob| (now, *blob)).collect(),
            when: astray.into_iter().map(|blob| (blob, now)).collect(),
            vouched: BTreeMap::new(),
            pledged: BTreeMap::new(),
            dropping: BTreeSet::new(),
            fetches: BTreeMap::new(),
            next_fetch: 0,
            merging: BTreeMap::new(),
        }
    }
    fn fetches(&self, blob: BlobId) -> bool {
        self.fetches.values().any(|f| f.blobs.contains(&blob))
    }
}

impl Member {
    /// Looks at a blob, not before `at`.
    pub(super) fn look_after(&mut self, blob: BlobId, at: Micros) {
        let presence = &mut self.presence;
        if let Some(known) = presence.when.get(&blob) {
            if *known <= at {
                return;
            }
            presence.due.remove(&(*known, blob));
        }
        presence.due.insert((at, blob));
        presence.when.insert(blob, at);
    }

    pub(super) fn tick_presence(&mut self, cx: Cx<'_>) {
        let now = cx.mono();
        for _ in 0..AT_ONCE {
            let Some((_, blob)) = self.presence.due.first().copied().filter(|(at, _)| *at <= now) else { return };
            self.presence.due.pop_first();
            self.presence.when.remove(&blob);
            match self.place_of(cx, blob) {
                Place::Unknown if self.log.is_in_tail(blob) => self.look_after(blob, now + LOOK_AGAIN),
                Place::Unknown | Place::Right => drop(self.presence.vouched.remove(&blob)),
                Place::Missing(extent, sources) => {
                    self.look_after(blob, now + LOOK_AGAIN);
                    let presence = &self.presence;
                    if self.may_fetch() && !presence.dropping.contains(&blob) && !presence.fetches(blob) {
                        self.fetch(vec![extent], sources, None);
                    }
                }
                Place::Surplus(registers) => self.tend_surplus(cx, blob, &registers),
            }
        }
    }

    /// The heads that refer to a blob, as far as they are committed.
    fn heads_of(&self, cx: Cx<'_>, blob: BlobId) -> Vec<(VersionId, Head, Extent)> {
        let view = self.log.view(cx.storage);
        let mut found = vec![];
        for path in view.referrers(blob) {
            for head in view.entry(&path).unwrap_or_default().heads {
                let Version::File(file) = &head.what else { continue };
                if let Some(extent) = file.extents.iter().find(|e| e.blob == blob).copied() {
                    found.push((VersionId { path: path.clone(), position: head.position }, head, extent));
                }
            }
        }
        found
    }

    /// Whether a blob is on this disk to stay, as far as is known whole.
    pub(super) fn holds(&self, cx: Cx<'_>, blob: BlobId) -> bool {
        let there = cx.storage.has_blob(blob);
        #[cfg(feature = "planted-bugs")]
        let there =
            there || (self.config.planted == super::planted::Planted::BadCopiesCount && cx.storage.has_damaged(blob));
        there && self.is_settled(blob)
    }
    /// Neither on its way to this disk nor from it.
    fn is_settled(&self, blob: BlobId) -> bool {
        !self.is_dropping(blob) && !self.presence.fetches(blob)
    }
    pub(super) fn is_dropping(&self, blob: BlobId) -> bool {
        self.presence.dropping.contains(&blob)
    }
    /// Has blobs deleted, once all that says that nobody needs them is on the disk.
    pub(super) fn drop_blobs(&mut self, blobs: Vec<BlobId>) {
        self.presence.dropping.extend(&blobs);
        self.when_durable(Output::DropBlobs(blobs));
    }

    fn place_of(&self, cx: Cx<'_>, blob: BlobId) -> Place {
        let me = self.me.node;
        let heads = self.heads_of(cx, blob);
        let Some((_, _, extent)) = heads.first() else { return Place::Unknown };
        let listed = heads.iter().any(|(_, head, _)| head.location.nodes.contains(&me));
        let damaged = self.is_settled(blob) && cx.storage.has_damaged(blob);
        match (listed, self.holds(cx, blob)) {
            (true, false) => {
                let named = heads.iter().flat_map(|(_, head, _)| &head.location.nodes).copied();
                // Whoever else has it may be no longer named, or not yet. Where there are many, others each time.
                let mut linked: Vec<NodeId> = self.peers.all_linked(cx.mono()).map(|(id, ..)| id).collect();
                let from = self.presence.next_fetch as usize % linked.len().max(1);
                linked.rotate_left(from);
                let mut sources: Vec<NodeId> = vec![];
                for node in named.chain(linked).filter(|n| *n != me) {
                    if !sources.contains(&node) {
                        sources.push(node);
                    }
                }
                sources.truncate(SOURCES);
                Place::Missing(*extent, sources)
            }
            (false, holds) if holds || damaged => {
                let register =
                    |(what, head, _): (VersionId, Head, Extent)| (what, head.location.stamp, head.location.nodes);
                Place::Surplus(heads.into_iter().map(register).collect())
            }
            _ => Place::Right,
        }
    }

    /// Asks those who should have a blob, and drops it once all of them do.
    fn tend_surplus(&mut self, cx: Cx<'_>, blob: BlobId, registers: &[(VersionId, Stamp, Vec<NodeId>)]) {
        let now = cx.mono();
        if let Some(until) = self.presence.pledged.get(&blob).copied().filter(|until| *until > now) {
            return self.look_after(blob, until);
        }
        // With fewer names this may be the copy that repair waits for. So may it be while a record is on its way.
        let enough = registers.iter().all(|(.., nodes)| nodes.len() >= COPIES) && !self.log.is_in_tail(blob);
        let vouched = self.presence.vouched.get(&blob);
        let fresh = |at: &Micros| now.saturating_sub(*at) <= FRESH;
        let holds = |what: &VersionId, stamp: Stamp, node: NodeId| {
            vouched.and_then(|v| v.get(&(what.clone(), stamp, node))).is_some_and(fresh)
        };
        let all = registers.iter().all(|(what, stamp, nodes)| nodes.iter().all(|n| holds(what, *stamp, *n)));
        #[cfg(feature = "planted-bugs")]
        let all = all || self.config.planted == super::planted::Planted::SurplusTooEarly;
        if enough && all {
            self.presence.vouched.remove(&blob);
            return self.drop_blobs(vec![blob]);
        }
        self.look_after(blob, now + LOOK_AGAIN);
        if enough {
            for (what, register, nodes) in registers {
                let ask = Possession { blob, what: what.clone(), register: *register, asked: now };
                for node in nodes {
                    self.send(*node, Message::Have(ask.clone()));
                }
            }
        }
    }

    pub(super) fn on_have(&mut self, cx: Cx<'_>, from: NodeId, asked: Possession) {
        let entry = self.log.view(cx.storage).entry(&asked.what.path).unwrap_or_default();
        let register = entry.heads.iter().find(|h| h.position == asked.what.position).map(|h| &h.location);
        if register.is_none_or(|r| r.stamp != asked.register || !r.nodes.contains(&self.me.node)) {
            return;
        }
        if self.holds(cx, asked.blob) {
            self.send_durable(from, Message::HaveIt(asked));
        } else {
            self.look_after(asked.blob, cx.mono());
        }
    }

    pub(super) fn on_have_it(&mut self, cx: Cx<'_>, from: NodeId, said: &Possession) {
        let now = cx.mono();
        let fresh = |asked: Micros| asked <= now && now - asked <= FRESH;
        // What is looked after no more was settled meanwhile.
        if !self.presence.when.contains_key(&said.blob) || !fresh(said.asked) {
            return;
        }
        let of = self.presence.vouched.entry(said.blob).or_default();
        of.retain(|_, asked| fresh(*asked));
        of.insert((said.what.clone(), said.register, from), said.asked);
        if of.len() >= COPIES {
            self.look_after(said.blob, now);
        }
    }

    // ---- copies to this disk ----

    /// Whether one more does not take too much of disk and network.
    fn may_fetch(&self) -> bool {
        self.presence.fetches.len() < self.config.repair_copies_per_node * 2
    }

    fn fetch(&mut self, extents: Vec<Extent>, sources: Vec<NodeId>, asked: Option<(NodeId, VersionId, Vec<BlobId>)>) {
        self.presence.next_fetch += 1;
        let id = self.presence.next_fetch;
        let blobs = extents.iter().map(|e| e.blob).collect();
        self.presence.fetches.insert(id, Fetching { blobs, asked });
        self.out.push(Output::Fetch { id, extents, sources });
    }

    /// The leader wants a copy here.
    pub(super) fn on_fetch(
        &mut self,
        cx: Cx<'_>,
        from: NodeId,
        what: VersionId,
        extents: Vec<Extent>,
        sources: Vec<NodeId>,
    ) {
        let all: Vec<BlobId> = extents.iter().map(|e| e.blob).collect();
        let wanted: Vec<Extent> = extents.into_iter().filter(|e| !self.holds(cx, e.blob)).collect();
        let busy = wanted.iter().any(|e| self.presence.fetches(e.blob) || self.presence.dropping.contains(&e.blob));
        if wanted.is_empty() {
            return self.vouch_for_copy(cx, from, what, &all);
        }
        let copy = if busy || self.may_fetch() { CopyState::UnderWay } else { CopyState::Failed };
        self.send(from, Message::Fetched { what: what.clone(), copy, blobs: vec![] });
        if !busy && copy == CopyState::UnderWay {
            self.fetch(wanted, sources, Some((from, what, all)));
        }
    }

    /// Says that a copy is here if all of it still is: what was here when the rest was asked for may have been dropped since.
    /// It stays for a while, whatever others say of theirs, for the register is about to name this node.
    fn vouch_for_copy(&mut self, cx: Cx<'_>, leader: NodeId, what: VersionId, blobs: &[BlobId]) {
        if !blobs.iter().all(|blob| self.holds(cx, *blob)) {
            return self.send(leader, Message::Fetched { what, copy: CopyState::UnderWay, blobs: vec![] });
        }
        let until = cx.mono() + PLEDGED;
        self.presence.pledged.retain(|_, end| *end > cx.mono());
        self.presence.pledged.extend(blobs.iter().map(|blob| (*blob, until)));
        self.send_durable(leader, Message::Fetched { what, copy: CopyState::Durable, blobs: blobs.to_vec() });
    }

    pub(super) fn fetch_ended(&mut self, cx: Cx<'_>, id: u64, good: bool) {
        let Some(Fetching { blobs, asked }) = self.presence.fetches.remove(&id) else { return };
        for blob in blobs {
            // If the leader wants it no more, it is surplus.
            self.look_after(blob, cx.mono() + LOOK_AGAIN);
        }
        match asked {
            Some((leader, what, blobs)) if good => self.vouch_for_copy(cx, leader, what, &blobs),
            Some((leader, what, _)) => {
                self.send(leader, Message::Fetched { what, copy: CopyState::Failed, blobs: vec![] })
            }
            None => {}
        }
    }

    pub(super) fn blobs_dropped(&mut self, cx: Cx<'_>, blobs: &[BlobId]) {
        for blob in blobs {
            if self.presence.dropping.remove(blob) {
                self.look_after(*blob, cx.mono()); // it may be wanted again
            }
        }
    }
}
