//! What an operation does to the index: the leader's judgement of a change against the heads it sees.

use super::message::{Change, Refusal, Staged};
use super::record::{Effect, File, Head, PathEntry, Version};
use super::types::{Micros, Position};
use crate::path::FtpPath;

/// What the leader sees: everything logged, committed or not, and the locks.
pub(super) trait Sight {
    /// The heads of a path.
    fn entry(&self, path: &FtpPath) -> PathEntry;
    /// Whether anything visible lies below.
    fn has_children(&self, dir: &FtpPath) -> bool;
    /// Whether somebody is writing something below.
    fn is_busy_below(&self, dir: &FtpPath) -> bool;
}

/// Whether a path is a directory: made, or implied by what lies below it.
fn is_directory(sight: &dyn Sight, path: &FtpPath) -> bool {
    let entry = sight.entry(path);
    match entry.visible().map(|h| &h.what) {
        Some(Version::Directory { .. }) => true,
        Some(_) => false,
        None => path.is_root() || sight.has_children(path),
    }
}

fn parent_exists(sight: &dyn Sight, path: &FtpPath) -> Result<(), Refusal> {
    let (parent, _) = path.split().ok_or(Refusal::IsDirectory)?;
    if is_directory(sight, &parent) { Ok(()) } else { Err(Refusal::NoParent) }
}

/// The heads that a write replaces: the visible one and all copies of the same operation. Losers of a conflict stay.
fn replaced(entry: &PathEntry) -> Vec<Position> {
    let Some(winner) = entry.winner() else { return vec![] };
    entry.heads.iter().filter(|h| h.confirmed && h.op == winner.op).map(|h| h.position).collect()
}

fn file_at<'a>(sight: &dyn Sight, entry: &'a PathEntry, path: &FtpPath) -> Result<(&'a Head, &'a File), Refusal> {
    match entry.visible().map(|h| (h, &h.what)) {
        Some((head, Version::File(file))) => Ok((head, file)),
        Some(_) => Err(Refusal::IsDirectory),
        None if is_directory(sight, path) => Err(Refusal::IsDirectory),
        None => Err(Refusal::NotFound),
    }
}

/// Whether the change could be made now, before any byte of it moved.
pub(super) fn admit(sight: &dyn Sight, change: &Change) -> Result<(), Refusal> {
    effects(sight, change, None, 0).map(drop)
}

/// What the change does, or why it does not.
pub(super) fn effects(
    sight: &dyn Sight,
    change: &Change,
    staged: Option<&Staged>,
    wall: Micros,
) -> Result<Vec<Effect>, Refusal> {
    let effect =
        |path: &FtpPath, what: Version| Effect { path: path.clone(), over: replaced(&sight.entry(path)), what };
    match change {
        Change::Store { path, create_only } => {
            parent_exists(sight, path)?;
            match file_at(sight, &sight.entry(path), path) {
                Err(Refusal::IsDirectory) => return Err(Refusal::IsDirectory),
                Ok(_) if *create_only => return Err(Refusal::Exists),
                _ => {}
            }
            Ok(staged.map(|s| effect(path, Version::File(stored(s, wall)))).into_iter().collect())
        }
        Change::Delete { path } => {
            file_at(sight, &sight.entry(path), path)?;
            Ok(vec![effect(path, Version::Deleted)])
        }
        Change::MakeDirectory { path } => {
            if path.is_root() || sight.entry(path).visible().is_some() || sight.has_children(path) {
                return Err(Refusal::Exists);
            }
            parent_exists(sight, path)?;
            Ok(vec![effect(path, Version::Directory { modified: wall })])
        }
        Change::RemoveDirectory { path } => {
            if path.is_root() {
                return Err(Refusal::NotEmpty);
            }
            if !is_directory(sight, path) {
                let found = sight.entry(path).visible().is_some();
                return Err(if found { Refusal::NotDirectory } else { Refusal::NotFound });
            }
            if sight.has_children(path) || sight.is_busy_below(path) {
                return Err(Refusal::NotEmpty);
            }
            Ok(vec![effect(path, Version::Deleted)])
        }
        Change::Rename { from, to } => {
            let entry = sight.entry(from);
            let (head, file) = file_at(sight, &entry, from)?;
            parent_exists(sight, to)?;
            if is_directory(sight, to) {
                return Err(Refusal::IsDirectory);
            }
            if from == to {
                return Ok(vec![]);
            }
            let moved = File { replicas: head.location.nodes.clone(), ..file.clone() };
            Ok(vec![effect(from, Version::Deleted), effect(to, Version::File(moved))])
        }
        Change::SetModified { path, modified } => {
            let entry = sight.entry(path);
            let (head, file) = file_at(sight, &entry, path)?;
            let touched = File { modified: *modified, replicas: head.location.nodes.clone(), ..file.clone() };
            Ok(vec![effect(path, Version::File(touched))])
        }
    }
}

fn stored(staged: &Staged, wall: Micros) -> File {
    let extent = staged.extent;
    File {
        extents: vec![extent],
        size: extent.length,
        hash: extent.hash,
        modified: wall,
        replicas: staged.confirmed.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{BlobId, Extent, Hash, Hlc, Location, NodeId, OpId};
    use std::collections::BTreeMap;

    #[derive(Default)]
    struct Tree(BTreeMap<FtpPath, PathEntry>);

    impl Tree {
        fn with(mut self, p: &str, what: Version) -> Self {
            let n = self.0.len() as u64 + 1;
            let position = Position { seq: n, ..Position::default() };
            let head = Head {
                position,
                hlc: Hlc(n),
                op: OpId(n.into()),
                confirmed: true,
                what,
                location: Location::default(),
            };
            self.0.entry(path(p)).or_default().heads.insert(0, head);
            self
        }
    }
    impl Sight for Tree {
        fn entry(&self, path: &FtpPath) -> PathEntry {
            self.0.get(path).cloned().unwrap_or_default()
        }
        fn has_children(&self, dir: &FtpPath) -> bool {
            self.0.iter().any(|(p, e)| p != dir && p.is_within(dir) && e.visible().is_some())
        }
        fn is_busy_below(&self, _: &FtpPath) -> bool {
            false
        }
    }

    fn path(text: &str) -> FtpPath {
        FtpPath::try_from(text.to_owned()).unwrap()
    }
    fn staged() -> Staged {
        let extent = Extent { blob: BlobId::default(), offset: 0, length: 3, hash: Hash([1; 32]) };
        Staged { extent, confirmed: vec![NodeId(1), NodeId(2), NodeId(3)] }
    }
    fn file() -> Version {
        Version::File(stored(&staged(), 5))
    }
    fn tree() -> Tree {
        Tree::default()
            .with("/d", Version::Directory { modified: 1 })
            .with("/d/f", file())
            .with("/e", Version::Directory { modified: 1 })
    }
    fn store(p: &str) -> Change {
        Change::Store { path: path(p), create_only: false }
    }

    #[test]
    fn a_store_replaces_what_is_visible() {
        let effects = effects(&tree(), &store("/d/f"), Some(&staged()), 9).unwrap();
        assert_eq!(effects[0].over, [Position { seq: 2, ..Position::default() }]);
    }

    #[test]
    fn a_losing_head_is_not_replaced() {
        let tree = tree().with("/d/f", file());
        let effects = effects(&tree, &store("/d/f"), Some(&staged()), 9).unwrap();
        assert_eq!(effects[0].over, [Position { seq: 4, ..Position::default() }]);
    }

    #[test]
    fn refusals_name_what_is_wrong() {
        let refused = |change: Change| admit(&tree(), &change).unwrap_err();
        assert_eq!(refused(store("/x/f")), Refusal::NoParent);
        assert_eq!(refused(store("/d")), Refusal::IsDirectory);
        assert_eq!(refused(store("/")), Refusal::IsDirectory);
        assert_eq!(refused(store("/d/f/g")), Refusal::NoParent);
        assert_eq!(refused(Change::Store { path: path("/d/f"), create_only: true }), Refusal::Exists);
        assert_eq!(refused(Change::Delete { path: path("/d") }), Refusal::IsDirectory);
        assert_eq!(refused(Change::Delete { path: path("/q") }), Refusal::NotFound);
        assert_eq!(refused(Change::RemoveDirectory { path: path("/d") }), Refusal::NotEmpty);
        assert_eq!(refused(Change::RemoveDirectory { path: path("/d/f") }), Refusal::NotDirectory);
        assert_eq!(refused(Change::RemoveDirectory { path: path("/q") }), Refusal::NotFound);
        assert_eq!(refused(Change::MakeDirectory { path: path("/d") }), Refusal::Exists);
        assert_eq!(refused(Change::MakeDirectory { path: path("/q/r") }), Refusal::NoParent);
        assert_eq!(refused(Change::Rename { from: path("/d/f"), to: path("/e") }), Refusal::IsDirectory);
        assert_eq!(refused(Change::Rename { from: path("/q"), to: path("/r") }), Refusal::NotFound);
    }

    #[test]
    fn a_rename_deletes_there_and_keeps_the_bytes_here() {
        let effects = effects(&tree(), &Change::Rename { from: path("/d/f"), to: path("/e/g") }, None, 9).unwrap();
        assert_eq!(effects[0].what, Version::Deleted);
        assert!(matches!(&effects[1].what, Version::File(f) if f.size == 3 && f.modified == 5));
    }
}
