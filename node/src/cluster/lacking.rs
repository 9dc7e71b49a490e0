//! Finding versions that need a copy: through the lists of what is short of copies and of what is held by nodes that are
//! away, forgotten or drained, never through the index. After a change of zones, or when something came to be in one zone
//! alone, the lists of nodes that could hold all copies of something are looked through, too.

use super::decide::Sight;
use super::log::COPIES;
use super::member::{Cx, Member, Role};
use super::message::VersionId;
use super::record::Version;
use super::storage::Holding;
use super::types::{BlobId, Micros, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// Blobs looked at in one beat.
const AT_ONCE: usize = 512;

/// How far the leader of one epoch has looked.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// Which blob of which list was looked at last.
    seen: Option<(Holding, Option<BlobId>)>,
    /// All lists were looked through: not again before.
    rests_until: Micros,
    /// The zones of the nodes that could take copies when this round began.
    zones: BTreeMap<NodeId, String>,
    /// Some version is, or came to be, in one of several zones.
    crowded: bool,
    /// Zones with which there was none in a whole round.
    settled: BTreeMap<NodeId, String>,
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
    /// Looks on from where the last beat ended, round and back to there.
    pub(super) fn find_lacking(&mut self, cx: Cx<'_>) {
        let Role::Lead(lead) = &self.role else { return };
        if cx.mono() < lead.repair.search.rests_until {
            return;
        }
        let begins = lead.repair.search.seen.is_none();
        let zones = if begins { self.zones_with_room(cx) } else { lead.repair.search.zones.clone() };
        let state = &self.log.state;
        let away = |n: &&NodeId| self.absence(cx, **n) > self.config.repair_last_copy;
        let drained = state.drains.keys().filter(|n| state.is_draining(**n));
        let nodes = state.known.iter().filter(away).chain(&state.forgotten).chain(drained).copied();
        let crowded = if zones == lead.repair.search.settled { vec![] } else { suspects(&zones) };
        let nodes = nodes.chain(crowded).map(Holding::Node);
        let mut lists: Vec<Holding> = nodes.chain([Holding::Short]).collect::<BTreeSet<_>>().into_iter().collect();
        let (from, mut after) = lead.repair.search.seen.unwrap_or((Holding::Short, None));
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
            (lead.repair.search.seen, lead.repair.search.zones) = (seen, zones);
        }
        for (list, blob) in blobs {
            self.judge(cx, list, blob);
        }
        if let Role::Lead(lead) = &mut self.role
            && seen.is_none()
        {
            lead.repair.search.rests_until = cx.mono() + self.config.repair_last_copy;
            lead.repair.search.settle();
        }
    }

    /// Whether what was placed since this was last looked at is all in one zone: then there is something to look for.
    pub(super) fn note_placed(&mut self) {
        let placed = std::mem::take(&mut self.log.placed);
        let in_one = |nodes: &Vec<NodeId>| {
            let zone = nodes.first().map(|n| self.zone(*n));
            nodes.len() >= COPIES && nodes.iter().all(|n| Some(self.zone(*n)) == zone)
        };
        let crowded = placed.iter().any(in_one);
        if let Role::Lead(lead) = &mut self.role
            && crowded
        {
            lead.repair.search.crowded = true;
            lead.repair.search.settled.clear();
        }
    }

    /// Notes which versions of a blob need a copy.
    fn judge(&mut self, cx: Cx<'_>, list: Holding, blob: BlobId) {
        let forgotten = |n: &NodeId| self.log.state.forgotten.contains(n);
        let (mut lacking, mut named, mut crowded) = (vec![], vec![], false);
        for path in self.log.view(cx.storage).referrers(blob) {
            for head in self.log.view(cx.storage).entry(&path).unwrap_or_default().heads {
                if !matches!(&head.what, Version::File(f) if f.extents.iter().any(|e| e.blob == blob)) {
                    continue;
                }
                let what = VersionId { path: path.clone(), position: head.position };
                let standing = self.copies_of(cx, &head.location);
                crowded |= standing.crowded.is_some();
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
        let Role::Lead(lead) = &mut self.role else { return };
        lead.repair.search.crowded |= crowded;
        lead.repair.note(lacking, named);
    }

    /// The version that repair speaks of, as the leader sees it: all that is logged counts.
    pub(super) fn version(
        &self,
        cx: Cx<'_>,
        what: &VersionId,
    ) -> Option<(super::record::Location, Vec<super::record::Extent>)> {
        let head = self.sight(cx).entry(&what.path).heads.into_iter().find(|h| h.position == what.position)?;
        let Version::File(file) = head.what else { return None };
        Some((head.location, file.extents))
    }
}

impl Search {
    /// Whether a node outside this zone could take copies when the round began.
    pub(super) fn has_room_outside(&self, zone: &str) -> bool {
        self.zones.values().any(|z| z != zone)
    }
    /// A round is over.
    fn settle(&mut self) {
        if !std::mem::take(&mut self.crowded) {
            self.settled.clone_from(&self.zones);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_two_nodes_of_each_zone_are_suspects() {
        let zones = |all: &[(u128, &str)]| all.iter().map(|(n, z)| (NodeId(*n), (*z).to_owned())).collect();
        let found = |all: &[(u128, &str)]| suspects(&zones(all)).into_iter().map(|n| n.0).collect::<Vec<_>>();
        assert_eq!(found(&[(1, "a"), (2, "a"), (3, "a"), (4, "b")]), [3]);
        assert_eq!(found(&[(1, "a"), (2, "a"), (3, "b"), (4, "b")]), [] as [u128; 0], "three copies are in both");
        assert_eq!(found(&[(1, "a"), (2, "a"), (3, "a"), (4, "a")]), [] as [u128; 0], "there is no other zone");
    }
}
