//! I3, at rest: every version is on the disks of three living nodes, or of all when there are fewer; its register says so,
//! and nobody else keeps it. None is on a node that is drained, nor all are in one zone of several, while three others could
//! have it. And on the way there: a copy goes only when those that are to stay are there.

use super::records::stamp;
use super::{Broken, Truth};
use crate::sim::disk::{Disk, Tables};
use crate::sim::process::{Process, id, index};
use crate::sim::world::{SECOND, Time};
use node::cluster::{BlobId, CopyState, Extent, Head, Location, Marks, Message, NodeId, Position, Storage, Version};
use node::path::FtpPath;
use std::collections::BTreeSet;

/// Longest time from a node's word that it has its copy to the drop of another that relies on it: what that waits for may
/// take long to be written.
const WORD: Time = 12 * SECOND;

/// The heads of an index that have bytes, with those bytes.
fn files(tables: &Tables) -> impl Iterator<Item = (&FtpPath, &Head, BTreeSet<BlobId>)> {
    tables.entries.iter().flat_map(|(path, entry)| {
        entry.heads.iter().filter_map(move |head| {
            let Version::File(file) = &head.what else { return None };
            Some((path, head, file.extents.iter().map(|e| e.blob).collect()))
        })
    })
}

/// What is not yet as it should be at rest.
pub(crate) fn unrepaired(processes: &[Process]) -> Option<String> {
    let living: Vec<usize> = (0..processes.len()).filter(|n| !processes[*n].gone).collect();
    let tables = &processes[*living.first()?].disk.shown;
    let due = living.len().min(3);
    let drained = |n: &NodeId| tables.state.drains.get(n).is_some_and(|d| d.draining);
    let zone = |n: &NodeId| processes[index(*n)].info.zone.as_str();
    let staying: Vec<NodeId> = living.iter().map(|n| id(*n)).filter(|n| !drained(n)).collect();
    let zones: BTreeSet<&str> = staying.iter().map(zone).collect();
    for (path, head, blobs) in files(tables) {
        let named = &head.location.nodes;
        let kept = named.iter().filter(|n| !processes[index(**n)].gone).count();
        if kept != due || (kept < named.len() && due == 3) {
            return Some(format!("{path} {:?} is on {named:?}, of which {kept} live", head.position));
        }
        if staying.len() >= 3 && named.iter().any(&drained) {
            return Some(format!("{path} {:?} is on {named:?}, and {staying:?} are not drained", head.position));
        }
        if staying.len() >= 3 && zones.len() > 1 && named.iter().map(zone).collect::<BTreeSet<_>>().len() == 1 {
            return Some(format!("{path} {:?} is on {named:?}, all in one zone of {zones:?}", head.position));
        }
        let lacks = |n: &&NodeId| {
            let process = &processes[index(**n)];
            !process.gone && blobs.iter().any(|b| !process.disk.has_good(*b))
        };
        if let Some(node) = named.iter().find(lacks) {
            return Some(format!("{path} {:?} is not whole on {node:?}", head.position));
        }
    }
    let (_, held) = tables.counted();
    let referred: BTreeSet<BlobId> = held.iter().map(|(_, blob)| *blob).collect();
    living.iter().find_map(|at| {
        let due = |blob: &BlobId| held.contains(&(node::cluster::Holding::Node(id(*at)), *blob));
        let blob = processes[*at].disk.blobs.keys().find(|blob| referred.contains(blob) && !due(blob))?;
        let of = files(tables).filter(|(.., blobs)| blobs.contains(blob));
        let named: Vec<_> = of.map(|(path, head, _)| (path, head.position, head.confirmed, &head.location)).collect();
        Some(format!("{at} keeps a copy of {blob:?} too many: {named:?}"))
    })
}

impl Truth {
    /// A node deletes a copy that heads refer to: three other nodes have it. Or each register names three nodes, and each of
    /// these has it, or has a later register, or had it a moment ago and lost its disk since.
    pub(super) fn surplus(&self, now: Time, at: usize, blob: BlobId, processes: &[Process]) -> Result<(), Broken> {
        let broken = |what: String| Err(Broken::new("I3", format!("{at} drops its copy of {blob:?}, {what}")));
        let others = processes.iter().enumerate().filter(|(n, p)| *n != at && !p.gone);
        if others.filter(|(_, p)| p.disk.has_good(blob)).count() >= 3 {
            return Ok(());
        }
        for (path, head, _) in files(&processes[at].disk.shown).filter(|(.., blobs)| blobs.contains(&blob)) {
            let Location { stamp, nodes } = &head.location;
            if nodes.len() < 3 {
                return broken(format!("and {path} {:?} is on {nodes:?}", head.position));
            }
            // It may be wanted here again since that was decided: then it is fetched.
            let without = nodes.iter().filter(|node| **node != id(at)).find(|node| {
                let process = &processes[index(**node)];
                let heads = process.disk.shown.entries.get(path).map_or(&[][..], |e| &e.heads);
                let newer =
                    heads.iter().find(|h| h.position == head.position).is_none_or(|h| h.location.stamp > *stamp);
                let lost = process.lost.is_some_and(|at| now - at <= WORD);
                !(process.disk.has_blob(blob) || lost || (newer && !process.gone))
            });
            if let Some(node) = without {
                return broken(format!("and {node:?}, which {path} {:?} is to be on, has none", head.position));
            }
        }
        Ok(())
    }

    /// A node says that it has a copy: not one that it has known to be bad for long.
    pub(super) fn vouched(now: Time, at: usize, message: &Message, disk: &Disk) -> Result<(), Broken> {
        let blobs: Vec<BlobId> = match message {
            Message::HaveIt(said) => vec![said.blob],
            Message::Fetched { what, copy: CopyState::Durable, .. } => {
                let of =
                    files(&disk.shown).filter(|(path, head, _)| **path == what.path && head.position == what.position);
                of.flat_map(|(.., blobs)| blobs).collect()
            }
            _ => return Ok(()),
        };
        let long = |blob: &&BlobId| disk.condemned.get(blob).is_some_and(|since| now - since > WORD);
        match blobs.iter().find(long) {
            Some(blob) => Err(Broken::new("I3", format!("{at} vouches for {blob:?}, which it knows to be bad"))),
            None => Ok(()),
        }
    }

    /// The register of a version as all records make it: the greatest stamp counts.
    pub(super) fn location(
        &self,
        path: &FtpPath,
        position: Position,
        scope: &Marks,
    ) -> Option<(Location, Vec<Extent>)> {
        let record = self.records.get(&position)?;
        let Version::File(file) = &Self::effect(record, path)?.what else { return None };
        let mut location = Location { stamp: stamp(record), nodes: file.replicas.clone() };
        let mut extents = &file.extents;
        for by in self.moves.iter().filter(|p| scope.has(**p)).map(|p| &self.records[p]) {
            let of = by.moved().iter().find(|v| v.path == *path && v.position == position);
            if let Some(version) = of.filter(|_| stamp(by) > location.stamp) {
                location = Location { stamp: stamp(by), nodes: version.nodes.clone() };
                extents = if version.extents.is_empty() { &file.extents } else { &version.extents };
            }
        }
        Some((location, extents.clone()))
    }
}
