//! Repair: the leader finds versions that lack live copies, has copies made where placement says, and logs where each
//! version lives once the copy is durable. It never logs a version again, and never looks through the index: what a node
//! holds is a list of its own (`whereabouts`).

use super::decide::Sight;
use super::log::COPIES;
use super::member::{Cx, Member, Role};
use super::message::{CopyState, Message, VersionId};
use super::record::{Body, Extent, Location, Moved, Relocated, Version};
use super::storage::Holding;
use super::types::{BlobId, Micros, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// Blobs looked at in one beat.
const AT_ONCE: usize = 512;
/// Nodes asked for a version that is on none of those that should have it.
const SOURCES: usize = 16;
/// Versions that wait for a copy in memory; those with the fewest live copies are kept, the others are found again.
const WAITING: usize = 1024;
/// Versions passed over in one round, since whoever could take them has enough to do.
const PASSED: usize = 64;
/// Versions that one record moves.
const MOVES: usize = 256;

/// What the leader of one epoch repairs.
#[derive(Debug, Default)]
pub(super) struct Repair {
    /// Which blob of which list was looked at last.
    seen: Option<(Holding, Option<BlobId>)>,
    /// All lists were looked through: not again before.
    rests_until: Micros,
    /// Versions that need a copy, those with the fewest live ones first.
    waiting: BTreeSet<(usize, VersionId)>,
    copies: BTreeMap<VersionId, Copy>,
    /// Where a version could not be copied to.
    failed: BTreeMap<VersionId, BTreeSet<NodeId>>,
    /// A copy ended: the next one need not wait for a heartbeat, for small files are many.
    freed: bool,
    /// Registers to set: a new copy is durable there, or (`None`) names of nodes that were forgotten go.
    done: Vec<(VersionId, Option<Made>)>,
}

/// A copy that was made: where, and of which blobs.
#[derive(Debug)]
struct Made {
    target: NodeId,
    blobs: Vec<BlobId>,
}

/// A copy that is being made.
#[derive(Debug)]
struct Copy {
    target: NodeId,
    /// When the target was asked last, and was heard last.
    asked: Micros,
    heard: Micros,
    tries: usize,
}

/// How the nodes that a register names are.
struct Standing {
    live: Vec<NodeId>,
    /// Away, but not for long enough to be given up; who has been away for the shortest time first.
    awaited: Vec<NodeId>,
}

impl Standing {
    /// Whether a copy is needed now. With no live one there is nobody to copy from, but once all are given up a copy may be
    /// found where no register has one.
    fn lacks_copies(&self) -> bool {
        match self.live.len() {
            0 => self.awaited.is_empty(),
            1 => true,
            live => live < COPIES && live + self.awaited.len() < COPIES,
        }
    }
    /// Whose turn it is: last copies first, then what may be lost for good.
    fn urgency(&self) -> usize {
        if self.live.is_empty() { COPIES } else { self.live.len() }
    }
    /// The register with a new copy.
    fn with(self, target: Option<NodeId>) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> = self.live;
        nodes.extend(target.filter(|t| !nodes.contains(t)));
        nodes.extend(self.awaited);
        nodes.truncate(COPIES);
        nodes.sort();
        nodes
    }
}

impl Member {
    /// How long a node has been away, as far as this leader knows; for ever when it was forgotten.
    fn absence(&self, cx: Cx<'_>, node: NodeId) -> Micros {
        let Role::Lead(lead) = &self.role else { return 0 };
        if node == self.me.node {
            return 0;
        }
        if self.log.state.forgotten.contains(&node) {
            return Micros::MAX;
        }
        let now = cx.mono();
        self.peers.away_for(node, now).unwrap_or_else(|| now.saturating_sub(lead.since))
    }

    /// Whether a linked peer is in another leader's epoch.
    fn follows_another(&self, cx: Cx<'_>) -> bool {
        let led = |i: &super::Info| i.leader.is_some_and(|(_, epoch)| epoch != self.log.state.promised);
        self.peers.all_linked(cx.mono()).any(|(.., said)| led(said))
    }

    fn copies_of(&self, cx: Cx<'_>, location: &Location) -> Standing {
        let absent = |n: &NodeId| (self.absence(cx, *n), *n);
        let mut all: Vec<(Micros, NodeId)> = location.nodes.iter().map(absent).collect();
        all.sort();
        let named = |from: Micros, to: Micros| {
            let within = all.iter().filter(|(away, _)| (from..=to).contains(away));
            within.map(|(_, n)| *n).collect::<Vec<_>>()
        };
        let live = self.config.repair_last_copy;
        // Who is away from here may be with the other leader, who logs the same of our nodes: without this they would move
        // every version to and fro for as long as a bridge keeps them apart.
        let given_up = if self.follows_another(cx) { Micros::MAX - 1 } else { self.config.repair_after.max(live) };
        Standing { live: named(0, live), awaited: named(live + 1, given_up) }
    }

    /// A version as the leader sees it: all that is logged counts.
    fn version(&self, cx: Cx<'_>, what: &VersionId) -> Option<(Location, Vec<Extent>)> {
        let head = self.sight(cx).entry(&what.path).heads.into_iter().find(|h| h.position == what.position)?;
        let Version::File(file) = head.what else { return None };
        Some((head.location, file.extents))
    }

    pub(super) fn tick_repair(&mut self, cx: Cx<'_>) {
        if self.serves() && self.lease_ok(cx) {
            self.watch_copies(cx);
            self.find_lacking(cx);
            self.start_copies(cx);
        }
    }

    /// Asks again how copies stand, and gives up those of which nothing is heard.
    fn watch_copies(&mut self, cx: Cx<'_>) {
        let now = cx.mono();
        let Role::Lead(lead) = &mut self.role else { return };
        let late = |copy: &Copy| now.saturating_sub(copy.heard) > self.config.repair_timeout;
        let lost: Vec<VersionId> = lead.repair.copies.iter().filter(|(_, c)| late(c)).map(|(w, _)| w.clone()).collect();
        for what in lost {
            lead.repair.fail(what);
        }
        let due = |copy: &Copy| now.saturating_sub(copy.asked) > self.config.rpc;
        let again: Vec<VersionId> = lead.repair.copies.iter().filter(|(_, c)| due(c)).map(|(w, _)| w.clone()).collect();
        for what in again {
            self.ask_for_copy(cx, &what);
        }
    }

    fn ask_for_copy(&mut self, cx: Cx<'_>, what: &VersionId) {
        let found = self.version(cx, what);
        let Role::Lead(lead) = &self.role else { return };
        let tries = lead.repair.copies.get(what).map_or(0, |copy| copy.tries);
        let anybody = || -> Vec<NodeId> {
            let linked: Vec<NodeId> =
                self.peers.all_linked(cx.mono()).map(|(id, ..)| id).chain([self.me.node]).collect();
            let from = tries * SOURCES % linked.len();
            linked.iter().cycle().skip(from).take(SOURCES.min(linked.len())).copied().collect()
        };
        let sources =
            found.as_ref().map(|(location, _)| self.copies_of(cx, location).live).map(|live| match &live[..] {
                [] => anybody(),
                _ => live,
            });
        let Role::Lead(lead) = &mut self.role else { return };
        let (Some((_, extents)), Some(sources)) = (found, sources) else {
            lead.repair.copies.remove(what); // replaced meanwhile
            return;
        };
        if let Some(copy) = lead.repair.copies.get_mut(what) {
            copy.asked = cx.mono();
            copy.tries += 1;
            let target = copy.target;
            self.send(target, Message::Fetch { what: what.clone(), extents, sources });
        }
    }

    /// Looks through what is short of copies, and through what is held by nodes that are away.
    fn find_lacking(&mut self, cx: Cx<'_>) {
        let Role::Lead(lead) = &self.role else { return };
        if cx.mono() < lead.repair.rests_until {
            return;
        }
        let state = &self.log.state;
        let away = |n: &&NodeId| self.absence(cx, **n) > self.config.repair_last_copy;
        let nodes = state.known.iter().filter(away).chain(&state.forgotten);
        let mut lists: Vec<Holding> = nodes.map(|n| Holding::Node(*n)).chain([Holding::Short]).collect();
        lists.sort();
        // From where the last beat ended, round and back to there.
        let (from, mut after) = lead.repair.seen.unwrap_or((Holding::Short, None));
        let start = lists.partition_point(|l| *l < from) % lists.len();
        if lists[start] != from {
            after = None;
        }
        lists.rotate_left(start);
        let (mut room, mut blobs, mut seen) = (AT_ONCE, vec![], None);
        for list in lists {
            let found = cx.storage.held(list, after.take(), room);
            room -= found.len();
            seen = Some((list, found.last().copied()));
            blobs.extend(found.into_iter().map(|blob| (list, blob)));
            if room == 0 {
                break;
            }
            seen = None;
        }
        if let Role::Lead(lead) = &mut self.role {
            lead.repair.seen = seen;
            if seen.is_none() {
                lead.repair.rests_until = cx.mono() + self.config.repair_last_copy;
            }
        }
        for (list, blob) in blobs {
            self.judge(cx, list, blob);
        }
    }

    /// Notes which versions of a blob need a copy.
    fn judge(&mut self, cx: Cx<'_>, list: Holding, blob: BlobId) {
        let forgotten = |n: &NodeId| self.log.state.forgotten.contains(n);
        let (mut lacking, mut named) = (vec![], vec![]);
        for path in self.log.view(cx.storage).referrers(blob) {
            for head in self.log.view(cx.storage).entry(&path).unwrap_or_default().heads {
                let of = matches!(&head.what, Version::File(f) if f.extents.iter().any(|e| e.blob == blob));
                let what = VersionId { path: path.clone(), position: head.position };
                let standing = self.copies_of(cx, &head.location);
                if of && standing.lacks_copies() {
                    lacking.push((standing.urgency(), what.clone()));
                }
                let stays = head.location.nodes.iter().any(|n| !forgotten(n));
                let listed = matches!(list, Holding::Node(n) if forgotten(&n) && head.location.nodes.contains(&n));
                if of && listed && stays {
                    named.push((what, None));
                }
            }
        }
        let Role::Lead(lead) = &mut self.role else { return };
        let repair = &mut lead.repair;
        let lacking = lacking.into_iter().filter(|(_, what)| !repair.is_under_way(what)).collect::<Vec<_>>();
        repair.waiting.extend(lacking);
        while repair.waiting.len() > WAITING {
            repair.waiting.pop_last();
        }
        repair.done.extend(named);
    }

    /// Has copies made, as many at once as is allowed.
    fn start_copies(&mut self, cx: Cx<'_>) {
        let mut passed = vec![];
        while let Role::Lead(lead) = &mut self.role
            && lead.repair.copies.len() < self.config.repair_copies
            && passed.len() < PASSED
            && let Some(next) = lead.repair.waiting.pop_first()
        {
            if !lead.repair.is_under_way(&next.1) && !self.start_copy(cx, next.1.clone()) {
                passed.push(next);
            }
        }
        if let Role::Lead(lead) = &mut self.role {
            lead.repair.waiting.extend(passed);
        }
    }

    /// False when whoever could take the copy has enough to do now.
    fn start_copy(&mut self, cx: Cx<'_>, what: VersionId) -> bool {
        let Some((location, _)) = self.version(cx, &what) else { return true };
        let standing = self.copies_of(cx, &location);
        let Role::Lead(lead) = &self.role else { return true };
        if !standing.lacks_copies() {
            return true;
        }
        let repair = &lead.repair;
        let running = |n: &NodeId| repair.copies.values().filter(|c| c.target == *n).count();
        let busy: Vec<NodeId> =
            lead.members.iter().copied().filter(|n| running(n) >= self.config.repair_copies_per_node).collect();
        let failed = repair.failed.get(&what).into_iter().flatten();
        let exclude: Vec<NodeId> = location.nodes.iter().chain(failed).chain(&busy).copied().collect();
        let target = self.place(cx, None, 1, &standing.live, &exclude, None).first().copied();
        let Role::Lead(lead) = &mut self.role else { return true };
        let Some(target) = target else {
            if busy.is_empty() {
                // All were tried, or there is nobody: it is found again one day, and everybody may be asked anew.
                lead.repair.failed.remove(&what);
            }
            return busy.is_empty();
        };
        let now = cx.mono();
        lead.repair.copies.insert(what.clone(), Copy { target, asked: now, heard: now, tries: 0 });
        self.ask_for_copy(cx, &what);
        true
    }

    pub(super) fn on_fetched(
        &mut self,
        cx: Cx<'_>,
        from: NodeId,
        what: VersionId,
        state: CopyState,
        blobs: Vec<BlobId>,
    ) {
        let Role::Lead(lead) = &mut self.role else { return };
        let Some(copy) = lead.repair.copies.get_mut(&what).filter(|c| c.target == from) else { return };
        match state {
            CopyState::UnderWay => copy.heard = cx.mono(),
            CopyState::Failed => lead.repair.fail(what),
            CopyState::Durable => {
                lead.repair.copies.remove(&what);
                lead.repair.failed.remove(&what);
                lead.repair.done.push((what, Some(Made { target: from, blobs })));
            }
        }
        lead.repair.freed |= state != CopyState::UnderWay;
    }

    /// What the end of a copy leads to.
    pub(super) fn settle_repair(&mut self, cx: Cx<'_>) {
        let idle = |repair: &Repair| repair.done.is_empty() && !repair.freed;
        if matches!(&self.role, Role::Lead(lead) if idle(&lead.repair)) || !self.serves() || !self.lease_ok(cx) {
            return;
        }
        self.log_moves(cx);
        if let Role::Lead(lead) = &mut self.role
            && std::mem::take(&mut lead.repair.freed)
        {
            self.start_copies(cx);
        }
    }

    /// Logs where versions live, all that one round of inputs brought in one record.
    fn log_moves(&mut self, cx: Cx<'_>) {
        let Role::Lead(lead) = &mut self.role else { return };
        let rest = lead.repair.done.split_off(lead.repair.done.len().min(MOVES));
        let done = std::mem::replace(&mut lead.repair.done, rest);
        let mut versions: BTreeMap<VersionId, Vec<NodeId>> = BTreeMap::new();
        for (what, target) in done {
            let Some((location, extents)) = self.version(cx, &what) else { continue };
            let standing = self.copies_of(cx, &location);
            let nodes = match target {
                Some(_) if !standing.lacks_copies() => continue, // somebody came back
                // Merged meanwhile, here or by another leader: what was copied is not what there is.
                Some(made) if extents.iter().any(|e| !made.blobs.contains(&e.blob)) => continue,
                Some(made) => standing.with(Some(made.target)),
                None => location.nodes.iter().copied().filter(|n| !self.log.state.forgotten.contains(n)).collect(),
            };
            if nodes != location.nodes && !nodes.is_empty() {
                versions.insert(what, nodes);
            }
        }
        #[cfg(feature = "planted-bugs")]
        if self.config.planted == super::planted::Planted::RepairRestamps {
            return self.restamp(cx, versions);
        }
        let register = |(VersionId { path, position }, nodes)| {
            let head = self.sight(cx).entry(&path).heads.into_iter().find(|h| h.position == position)?;
            Some(head.relocated(path, nodes))
        };
        let versions: Vec<Relocated> = versions.into_iter().filter_map(register).collect();
        if !versions.is_empty() {
            self.append(cx, Body::Move(Moved { versions }));
        }
    }

    /// Planted: the same version once more, with other replicas.
    #[cfg(feature = "planted-bugs")]
    fn restamp(&mut self, cx: Cx<'_>, versions: BTreeMap<VersionId, Vec<NodeId>>) {
        for (VersionId { path, position }, replicas) in versions {
            let heads = self.sight(cx).entry(&path).heads;
            let Some(head) = heads.into_iter().find(|h| h.position == position) else { continue };
            let Version::File(file) = head.what else { continue };
            let what = Version::File(super::File { replicas, ..file });
            let effects = vec![super::Effect { path, over: vec![position], what }];
            self.append(cx, Body::Write(super::Write { op: head.op, blob: None, effects, forget: None, part: None }));
        }
    }
}

impl Repair {
    /// Being copied, or copied and not logged yet.
    pub(super) fn is_under_way(&self, what: &VersionId) -> bool {
        self.copies.contains_key(what) || self.done.iter().any(|(done, copy)| done == what && copy.is_some())
    }
    /// A copy could not be made: another node is tried.
    fn fail(&mut self, what: VersionId) {
        if let Some(copy) = self.copies.remove(&what) {
            if self.failed.len() >= WAITING {
                self.failed.clear();
            }
            self.failed.entry(what).or_default().insert(copy.target);
        }
    }
}
