//! Repair: the leader finds versions that lack live copies, has copies made where placement says, and logs where each
//! version lives once the copy is durable. It never logs a version again, and never looks through the index: what a node
//! holds is a list of its own (`whereabouts`).

use super::decide::Sight;
use super::lacking::{Search, size};
use super::log::COPIES;
use super::member::{Cx, Member, Role};
use super::message::{CopyState, Message, VersionId};
use super::placement::Wanted;
use super::record::{Body, Moved, Relocated};
#[cfg(feature = "planted-bugs")]
use super::record::{Effect, File, Version, Write};
use super::types::{BlobId, Micros, NodeId};
use std::collections::{BTreeMap, BTreeSet};

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
    pub(super) search: Search,
    /// Versions that need a copy, those with the fewest live ones first.
    waiting: BTreeSet<(usize, VersionId)>,
    copies: BTreeMap<VersionId, Copy>,
    /// Where a version could not be copied to.
    failed: BTreeMap<VersionId, BTreeSet<NodeId>>,
    /// Versions that have copies enough, though not where they should be, and for which there is no place: not before.
    resting: BTreeMap<VersionId, Micros>,
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
    urgency: usize,
    /// When the target was asked last, and was heard last.
    asked: Micros,
    heard: Micros,
    tries: usize,
}

impl Member {
    pub(super) fn tick_repair(&mut self, cx: Cx<'_>) {
        self.peers.note_named(&self.log.state.known, cx.mono());
        if self.serves() && self.lease_ok(cx) {
            self.watch_copies(cx);
            if let Role::Lead(lead) = &mut self.role {
                lead.repair.wake(cx.mono());
            }
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
        let sources = found.as_ref().map(|(at, extents)| self.copies_of(cx, at, size(extents)).sources()).map(|all| {
            match &all[..] {
                [] => anybody(),
                _ => all,
            }
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

    /// Has copies made, as many at once as is allowed.
    fn start_copies(&mut self, cx: Cx<'_>) {
        let mut passed = vec![];
        while let Role::Lead(lead) = &mut self.role
            && lead.repair.copies.len() < self.config.repair_copies
            && passed.len() < PASSED
            && let Some(next) = lead.repair.next()
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
        let Some((location, extents)) = self.version(cx, &what) else { return true };
        let standing = self.copies_of(cx, &location, size(&extents));
        let Role::Lead(lead) = &self.role else { return true };
        if !standing.lacks_copies() {
            // Who is awaited now may not come, and what was all in one zone still is.
            if !standing.awaited.is_empty()
                && let Role::Lead(lead) = &mut self.role
            {
                lead.repair.rest(what, cx.mono() + self.config.repair_after);
            }
            return true;
        }
        let repair = &lead.repair;
        let running = |n: &NodeId| repair.copies.values().filter(|c| c.target == *n).count();
        let busy: Vec<NodeId> =
            lead.members.iter().copied().filter(|n| running(n) >= self.config.repair_copies_per_node).collect();
        let failed = repair.failed.get(&what).into_iter().flatten();
        // A node that is drained takes no copy in another's place.
        let drained = lead.members.iter().filter(|n| !standing.is_short() && self.log.state.is_draining(**n));
        let exclude: Vec<NodeId> = location.nodes.iter().chain(failed).chain(&busy).chain(drained).copied().collect();
        let among = standing.crowded.as_ref().map(|zone| self.members_outside(zone));
        let want = Wanted { count: 1, bytes: size(&extents), among: among.as_deref(), ..Wanted::default() };
        let target = self.place(cx, want, &standing.live, &exclude).first().copied();
        let Role::Lead(lead) = &mut self.role else { return true };
        let Some(target) = target else {
            if busy.is_empty() {
                // All were tried, or there is nobody: it is found again one day, and everybody may be asked anew.
                lead.repair.failed.remove(&what);
                if !standing.is_short() {
                    lead.repair.rest(what, cx.mono() + self.config.repair_after);
                }
            }
            return busy.is_empty();
        };
        let now = cx.mono();
        let urgency = standing.urgency();
        lead.repair.copies.insert(what.clone(), Copy { target, urgency, asked: now, heard: now, tries: 0 });
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
        let mut again = vec![];
        for (what, target) in done {
            let Some((location, extents)) = self.version(cx, &what) else { continue };
            let standing = self.copies_of(cx, &location, size(&extents));
            let nodes = match target {
                Some(_) if !standing.lacks_copies() => continue, // somebody came back
                // Merged meanwhile, here or by another leader: what was copied is not what there is.
                Some(made) if extents.iter().any(|e| !made.blobs.contains(&e.blob)) => {
                    again.push((standing.urgency(), what));
                    continue;
                }
                Some(made) => standing.with(made.target),
                None => location.nodes.iter().copied().filter(|n| !self.log.state.forgotten.contains(n)).collect(),
            };
            if nodes != location.nodes && !nodes.is_empty() {
                versions.insert(what, nodes);
            }
        }
        if let Role::Lead(lead) = &mut self.role {
            lead.repair.note(again, vec![]);
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
            let what = Version::File(File { replicas, ..file });
            let effects = vec![Effect { path, over: vec![position], what }];
            self.append(cx, Body::Write(Write { op: head.op, effects, ..Write::default() }));
        }
    }
}

impl Repair {
    /// The version with the fewest live copies of those that wait.
    fn next(&mut self) -> Option<(usize, VersionId)> {
        self.waiting.pop_first()
    }
    /// Being copied, or copied and not logged yet.
    pub(super) fn is_under_way(&self, what: &VersionId) -> bool {
        self.copies.contains_key(what) || self.done.iter().any(|(done, copy)| done == what && copy.is_some())
    }
    /// Whether so many versions more could wait, and hardly any does.
    pub(super) fn has_leisure(&self, more: usize) -> bool {
        self.waiting.len() + more <= WAITING
    }
    fn rest(&mut self, what: VersionId, until: Micros) {
        if self.resting.len() < WAITING {
            self.resting.insert(what, until);
        } else {
            self.search.lost = true;
        }
    }
    /// Those that have rested are tried again.
    fn wake(&mut self, now: Micros) {
        let due = self.resting.iter().filter(|(_, until)| **until <= now);
        let rested: Vec<VersionId> = due.map(|(what, _)| what.clone()).collect();
        self.resting.retain(|_, until| *until > now);
        self.note(rested.into_iter().map(|what| (COPIES, what)).collect(), vec![]);
    }
    /// Takes in what a search found: versions that need a copy, and versions whose register names who was forgotten.
    pub(super) fn note(&mut self, lacking: Vec<(usize, VersionId)>, named: Vec<VersionId>) {
        let rests = |urgency: usize, what: &VersionId| urgency >= COPIES && self.resting.contains_key(what);
        let lacking: Vec<_> =
            lacking.into_iter().filter(|(urgency, what)| !self.is_under_way(what) && !rests(*urgency, what)).collect();
        self.waiting.extend(lacking);
        while self.waiting.len() > WAITING {
            self.waiting.pop_last();
            self.search.lost = true;
        }
        self.done.extend(named.into_iter().map(|what| (what, None)));
    }
    /// A copy could not be made: another node is tried.
    fn fail(&mut self, what: VersionId) {
        if let Some(copy) = self.copies.remove(&what) {
            if self.failed.len() >= WAITING {
                self.failed.clear();
            }
            self.failed.entry(what.clone()).or_default().insert(copy.target);
            self.note(vec![(copy.urgency, what)], vec![]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Position;
    use crate::path::FtpPath;

    fn version(n: usize) -> VersionId {
        VersionId { path: FtpPath::try_from(format!("/{n}")).unwrap(), position: Position::default() }
    }

    #[test]
    fn last_copies_go_first_whenever_they_are_found() {
        let mut repair = Repair::default();
        repair.note(vec![(2, version(1)), (COPIES, version(2)), (2, version(3))], vec![]);
        repair.note(vec![(1, version(4))], vec![]);
        assert_eq!(repair.next(), Some((1, version(4))));
        repair.note(vec![(1, version(5))], vec![]);
        let rest: Vec<_> = std::iter::from_fn(|| repair.next()).map(|(urgency, _)| urgency).collect();
        assert_eq!(rest, [1, 2, 2, COPIES]);
    }

    #[test]
    fn what_has_the_most_copies_is_let_go_when_too_much_waits() {
        let mut repair = Repair::default();
        repair.note((0..WAITING).map(|n| (2, version(n))).collect(), vec![]);
        assert!(!repair.search.lost);
        repair.note(vec![(1, version(WAITING)), (COPIES, version(WAITING + 1))], vec![]);
        assert!(repair.search.lost, "what was let go is looked for again");
        assert_eq!(repair.next(), Some((1, version(WAITING))));
        let left: Vec<_> = std::iter::from_fn(|| repair.next()).collect();
        assert!(left.len() == WAITING - 1 && left.iter().all(|(urgency, _)| *urgency == 2));
    }
}
