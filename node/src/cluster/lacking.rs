//! Finding versions that need a copy: through the lists of what is short of copies and of what is held by nodes that are
//! away, forgotten or drained, never through the index. When zones change, the lists of nodes that could hold all copies of
//! something are looked through as well, once, and after everything else.

use super::decide::Sight;
use super::log::COPIES;
use super::member::{Cx, Member, Role};
use super::message::VersionId;
use super::placement::Room;
use super::record::{Location, Version};
use super::storage::Holding;
use super::types::{BlobId, Micros, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// A blob of a list, which was looked at last; none yet when it is missing.
type Cursor = (Holding, Option<BlobId>);
/// Which lists are to be looked through for what is crowded: the zones of the nodes that may hold copies, and the nodes that
/// have room.
type Zones = (BTreeMap<NodeId, String>, BTreeSet<NodeId>);

/// How far the leader of one epoch has looked.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// In what may be lost or has to leave, and in whose lists: again and again.
    urgent: Option<Cursor>,
    lists: BTreeSet<Holding>,
    /// These lists were looked through: not again before.
    rests_until: Micros,
    /// In what may be all in one zone; when there was nothing to look for, not again before.
    spread: Option<Cursor>,
    idle_until: Micros,
    /// Something was found that could not be remembered: what was looked through is not settled.
    pub(super) lost: bool,
    /// With which zones that is looked for, and with which it was found.
    zones: Zones,
    settled: Zones,
    /// Who could take copies when zones were last looked at.
    room: Vec<Room>,
}

/// Up to `limit` blobs of lists, which are in order, from behind a cursor on; and where to go on, if that is not all.
fn walk(
    lists: &BTreeSet<Holding>,
    from: Option<Cursor>,
    limit: usize,
    held: impl Fn(Holding, Option<BlobId>, usize) -> Vec<BlobId>,
) -> (Vec<(Holding, BlobId)>, Option<Cursor>) {
    let mut found = vec![];
    for list in lists.iter().filter(|list| from.is_none_or(|(first, _)| **list >= first)) {
        let after = from.filter(|(first, _)| first == list).and_then(|(_, after)| after);
        let blobs = held(*list, after, limit - found.len());
        let last = blobs.last().copied().or(after);
        found.extend(blobs.into_iter().map(|blob| (*list, blob)));
        if found.len() >= limit {
            return (found, Some((*list, last)));
        }
    }
    (found, None)
}

/// Nodes one of which holds a copy of whatever has all its copies in one zone of several.
fn suspects(zones: &BTreeMap<NodeId, String>) -> Vec<NodeId> {
    let mut by_zone: BTreeMap<&str, Vec<NodeId>> = BTreeMap::new();
    for (node, zone) in zones {
        by_zone.entry(zone).or_default().push(*node);
    }
    if by_zone.len() < 2 {
        return vec![];
    }
    by_zone.into_values().flat_map(|nodes| nodes.into_iter().skip(COPIES - 1)).collect()
}

impl Member {
    pub(super) fn find_lacking(&mut self, cx: Cx<'_>) {
        self.note_placed(cx);
        let looked = self.find_urgent(cx);
        self.find_crowded(cx, self.config.repair_look.saturating_sub(looked));
    }

    /// Looks through what may be lost or has to leave; at how many blobs.
    fn find_urgent(&mut self, cx: Cx<'_>) -> usize {
        let Role::Lead(lead) = &self.role else { return 0 };
        let state = &self.log.state;
        let away = |n: &&NodeId| self.absence(cx, **n) > self.config.repair_last_copy;
        let drained = state.drains.keys().filter(|n| state.is_draining(**n));
        let nodes = state.known.iter().filter(away).chain(&state.forgotten).chain(drained);
        let lists: BTreeSet<Holding> = nodes.map(|n| Holding::Node(*n)).chain([Holding::Short]).collect();
        let search = &lead.repair.search;
        // Who has just gone may have taken the last copy but one: that comes before the rest of a round, and its rest.
        let (from, rests) =
            if lists.is_subset(&search.lists) { (search.urgent, search.rests_until) } else { (None, 0) };
        if cx.mono() < rests {
            return 0;
        }
        let held = |list, after, limit| cx.storage.held(list, after, limit);
        let (found, next) = walk(&lists, from, self.config.repair_look, held);
        if let Role::Lead(lead) = &mut self.role {
            (lead.repair.search.urgent, lead.repair.search.lists) = (next, lists);
            if next.is_none() {
                lead.repair.search.rests_until = cx.mono() + self.config.repair_last_copy;
            }
        }
        let looked = found.len();
        for (list, blob) in found {
            self.judge(cx, list, blob);
        }
        looked
    }

    /// Looks through what may be all in one zone, when zones changed; only while there is little else to do.
    fn find_crowded(&mut self, cx: Cx<'_>, limit: usize) {
        let Role::Lead(lead) = &self.role else { return };
        let (idle_until, begins) = (lead.repair.search.idle_until, lead.repair.search.spread.is_none());
        if limit == 0 || !lead.repair.has_leisure(limit) || (begins && cx.mono() < idle_until) {
            return;
        }
        if begins {
            let room = self.room(cx);
            let zones = (self.present_zones(cx), room.iter().map(|r| r.node).collect());
            let Role::Lead(lead) = &mut self.role else { return };
            let search = &mut lead.repair.search;
            (search.zones, search.room) = (zones, room);
            search.idle_until = cx.mono() + self.config.repair_last_copy;
            // What was lost since the last round is looked for, too.
            if !std::mem::take(&mut search.lost) && search.zones == search.settled {
                return;
            }
        } else if self.follows_another(cx) || self.present_zones(cx) != lead.repair.search.zones.0 {
            // What is looked at now may not be called crowded, since somebody is awaited.
            let Role::Lead(lead) = &mut self.role else { return };
            lead.repair.search.lost = true;
        }
        let Role::Lead(lead) = &mut self.role else { return };
        let search = &mut lead.repair.search;
        let lists = suspects(&search.zones.0).into_iter().map(Holding::Node).collect();
        let held = |list, after, limit| cx.storage.held(list, after, limit);
        let (found, next) = walk(&lists, search.spread, limit, held);
        search.spread = next;
        for (list, blob) in found {
            self.judge(cx, list, blob);
        }
        if let Role::Lead(lead) = &mut self.role
            && next.is_none()
            && !lead.repair.search.lost
        {
            lead.repair.search.settled.clone_from(&lead.repair.search.zones);
        }
    }

    /// The zones of the nodes that are there and may hold copies.
    fn present_zones(&self, cx: Cx<'_>) -> BTreeMap<NodeId, String> {
        let here = |n: &&NodeId| self.absence(cx, **n) <= self.config.repair_last_copy;
        let zone = |n: &NodeId| Some((*n, self.zone(*n)?.clone()));
        self.log.state.known.iter().filter(here).filter_map(zone).collect()
    }

    /// Looks at what was placed since this was last done: it may be all in one zone, since others were not to be had.
    fn note_placed(&mut self, cx: Cx<'_>) {
        let (placed, lost) = std::mem::take(&mut self.log.placed).take();
        let in_one = |nodes: &[NodeId]| {
            let zone = nodes.first().map(|n| self.zone(*n));
            nodes.len() >= COPIES && nodes.iter().all(|n| Some(self.zone(*n)) == zone)
        };
        let lacking: Vec<(usize, VersionId)> = (placed.into_iter())
            .filter(|(_, nodes)| in_one(nodes))
            .filter_map(|(what, _)| Some((self.version(cx, &what)?, what)))
            .map(|((location, extents), what)| (self.copies_of(cx, &location, size(&extents)), what))
            .filter(|(standing, _)| standing.lacks_copies())
            .map(|(standing, what)| (standing.urgency(), what))
            .collect();
        let Role::Lead(lead) = &mut self.role else { return };
        lead.repair.note(lacking, vec![]);
        lead.repair.search.lost |= lost;
    }

    /// Notes which versions of a blob need a copy.
    fn judge(&mut self, cx: Cx<'_>, list: Holding, blob: BlobId) {
        let forgotten = |n: &NodeId| self.log.state.forgotten.contains(n);
        let (mut lacking, mut named) = (vec![], vec![]);
        for path in self.log.view(cx.storage).referrers(blob) {
            for head in self.log.view(cx.storage).entry(&path).unwrap_or_default().heads {
                let Version::File(file) = &head.what else { continue };
                if !file.extents.iter().any(|e| e.blob == blob) {
                    continue;
                }
                let what = VersionId { path: path.clone(), position: head.position };
                let standing = self.copies_of(cx, &head.location, file.size);
                if standing.lacks_copies() {
                    lacking.push((standing.urgency(), what.clone()));
                }
                let stays = head.location.nodes.iter().any(|n| !forgotten(n));
                let listed = matches!(list, Holding::Node(n) if forgotten(&n) && head.location.nodes.contains(&n));
                if listed && stays {
                    named.push(what);
                }
            }
        }
        if let Role::Lead(lead) = &mut self.role {
            lead.repair.note(lacking, named);
        }
    }

    /// The version that repair speaks of, as the leader sees it: all that is logged counts.
    pub(super) fn version(&self, cx: Cx<'_>, what: &VersionId) -> Option<(Location, Vec<super::Extent>)> {
        let head = self.sight(cx).entry(&what.path).heads.into_iter().find(|h| h.position == what.position)?;
        let Version::File(file) = head.what else { return None };
        Some((head.location, file.extents))
    }
}

/// Bytes.
pub(super) fn size(extents: &[super::Extent]) -> u64 {
    extents.iter().map(|e| e.length).sum()
}

impl Search {
    /// Whether a node outside this zone had room for so many bytes when zones were last looked at.
    pub(super) fn has_room_outside(&self, zone: &str, bytes: u64) -> bool {
        self.room.iter().any(|r| r.zone != zone && r.free >= bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::OpId;

    #[test]
    fn all_but_two_nodes_of_each_zone_are_suspects() {
        let zones = |all: &[(u128, &str)]| all.iter().map(|(n, z)| (NodeId(*n), (*z).to_owned())).collect();
        let found = |all: &[(u128, &str)]| suspects(&zones(all)).into_iter().map(|n| n.0).collect::<Vec<_>>();
        assert_eq!(found(&[(1, "a"), (2, "a"), (3, "a"), (4, "b")]), [3]);
        assert_eq!(found(&[(1, "a"), (2, "a"), (3, "b"), (4, "b")]), [] as [u128; 0], "three copies are in both");
        assert_eq!(found(&[(1, "a"), (2, "a"), (3, "a"), (4, "a")]), [] as [u128; 0], "there is no other zone");
    }

    #[test]
    fn a_walk_sees_every_blob_once_and_ends() {
        let blob = |n: u128| BlobId { op: OpId(n), ..BlobId::default() };
        let list = |n: u128| Holding::Node(NodeId(n));
        let held = |of: Holding, after: Option<BlobId>, limit: usize| -> Vec<BlobId> {
            let count = if of == list(2) { 0 } else { 7 };
            (0..count).map(blob).filter(|b| after.is_none_or(|a| *b > a)).take(limit).collect()
        };
        let lists = [list(1), list(2), list(3), Holding::Short].into_iter().collect();
        for limit in 1..30 {
            let (mut seen, mut from, mut beats) = (vec![], None, 0);
            loop {
                let (found, next) = walk(&lists, from, limit, held);
                assert!(found.len() <= limit);
                seen.extend(found);
                (from, beats) = (next, beats + 1);
                if next.is_none() {
                    break;
                }
            }
            assert_eq!(seen.len(), 21, "{limit} at once");
            assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 21, "{limit} at once");
            assert_eq!(beats, 21 / limit + 1);
        }
        let gone = walk(&[list(3)].into_iter().collect(), Some((list(1), Some(blob(5)))), 30, held);
        assert_eq!((gone.0.len(), gone.1), (7, None), "a list that is none any more");
    }
}
