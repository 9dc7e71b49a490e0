//! What an operation does to the index: the leader's judgement of a change against the heads it sees.

use super::append;
use super::change::{CONFLICTS, Change, Refusal, Staged};
use super::record::{Effect, File, Head, PathEntry, Version};
use super::rename;
use super::types::{Micros, Position};
use crate::path::FtpPath;

/// What the leader sees: everything logged, committed or not.
pub(super) trait Sight {
    /// The heads of a path.
    fn entry(&self, path: &FtpPath) -> PathEntry;
    /// Whether anything visible lies below.
    fn has_children(&self, dir: &FtpPath) -> bool;
    /// All paths below with something visible; refused when there are too many.
    fn visible_below(&self, dir: &FtpPath) -> Result<Vec<FtpPath>, Refusal>;
}

/// Whether a path is a directory: made, or implied by what lies below it, even where a file of its name is the last
/// writer's. Listings say the same (`store::batch`).
pub(super) fn is_directory(sight: &dyn Sight, path: &FtpPath) -> bool {
    let made = |entry: PathEntry| matches!(entry.visible().map(|h| &h.what), Some(Version::Directory { .. }));
    path.is_root() || made(sight.entry(path)) || sight.has_children(path)
}

fn parent_exists(sight: &dyn Sight, path: &FtpPath) -> Result<(), Refusal> {
    let (parent, _) = path.split().ok_or(Refusal::IsDirectory)?;
    if is_directory(sight, &parent) { Ok(()) } else { Err(Refusal::NoParent) }
}

/// What may come to be: its directory is there, and the name is not the one under which conflicts are shown.
pub(super) fn may_be_made(sight: &dyn Sight, path: &FtpPath) -> Result<(), Refusal> {
    if path.components().any(|name| name == CONFLICTS) {
        return Err(Refusal::Reserved);
    }
    parent_exists(sight, path)
}

/// The heads that a write replaces. Losers of a conflict stay.
pub(super) fn replaced(entry: &PathEntry) -> Vec<Position> {
    entry.replaced().map(|h| h.position).collect()
}

/// The file that clients see at a path.
pub(super) fn file_at<'a>(
    sight: &dyn Sight,
    entry: &'a PathEntry,
    path: &FtpPath,
) -> Result<(&'a Head, &'a File), Refusal> {
    match entry.visible().map(|h| (h, &h.what)) {
        Some((_, Version::Directory { .. })) => Err(Refusal::IsDirectory),
        _ if is_directory(sight, path) => Err(Refusal::IsDirectory),
        Some((head, Version::File(file))) => Ok((head, file)),
        Some((_, Version::Deleted | Version::Resolved)) | None => Err(Refusal::NotFound),
    }
}

/// A loser of a conflict, with the heads that go when it goes: itself and those that say the same.
fn loser_at<'a>(
    sight: &dyn Sight,
    entry: &'a PathEntry,
    path: &FtpPath,
    position: Position,
) -> Result<(&'a Head, &'a File, Vec<Position>), Refusal> {
    let lost = entry.losers(sight.has_children(path));
    let (head, file) = lost.into_iter().find(|(h, _)| h.position == position).ok_or(Refusal::NotFound)?;
    let same = entry.heads.iter().filter(|h| h.confirmed && h.what.equals(&head.what)).map(|h| h.position).collect();
    Ok((head, file, same))
}

/// What takes a loser away. One that counts, and is only hidden by a directory, is deleted: or it would come back where
/// another copy of the log still has it alone.
fn settled(entry: &PathEntry, path: &FtpPath, lost: &Head, over: Vec<Position>) -> Effect {
    let counts = entry.agreeing().any(|h| h.position == lost.position);
    let what = if counts { Version::Deleted } else { Version::Resolved };
    Effect { path: path.clone(), over, what }
}

/// The same bytes under another name or time: where they are is what the location register says.
pub(super) fn carried(head: &Head, file: &File) -> File {
    File { replicas: head.location.nodes.clone(), ..file.clone() }
}

/// A new version with the bytes of the one that is there, of which something else is said.
fn retold(sight: &dyn Sight, path: &FtpPath, say: impl FnOnce(File) -> File) -> Result<Effect, Refusal> {
    let entry = sight.entry(path);
    let (head, file) = file_at(sight, &entry, path)?;
    Ok(Effect { path: path.clone(), over: replaced(&entry), what: Version::File(say(carried(head, file))) })
}

/// Whether a file may be put there.
fn file_may_be_made(sight: &dyn Sight, path: &FtpPath) -> Result<(), Refusal> {
    may_be_made(sight, path)?;
    if is_directory(sight, path) { Err(Refusal::IsDirectory) } else { Ok(()) }
}

/// Whether the change could be made now, before any byte of it moved.
pub(super) fn admit(sight: &dyn Sight, change: &Change) -> Result<(), Refusal> {
    if let Change::Rename { from, to } = change
        && is_directory(sight, from)
    {
        return rename::admit(sight, from, to);
    }
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
            may_be_made(sight, path)?;
            match file_at(sight, &sight.entry(path), path) {
                Err(Refusal::IsDirectory) => return Err(Refusal::IsDirectory),
                Ok(_) if *create_only => return Err(Refusal::Exists),
                _ => {}
            }
            Ok(staged.map(|s| effect(path, Version::File(stored(s, wall)))).into_iter().collect())
        }
        Change::Append { path, cut } => append::effects(sight, path, *cut, staged, wall),
        Change::Delete { path } => {
            file_at(sight, &sight.entry(path), path)?;
            Ok(vec![effect(path, Version::Deleted)])
        }
        Change::MakeDirectory { path } => {
            if path.is_root() || sight.entry(path).visible().is_some() || sight.has_children(path) {
                return Err(Refusal::Exists);
            }
            may_be_made(sight, path)?;
            Ok(vec![effect(path, Version::Directory { modified: wall })])
        }
        Change::RemoveDirectory { path } => {
            if path.is_root() || sight.has_children(path) {
                return Err(Refusal::NotEmpty);
            }
            match sight.entry(path).visible().map(|h| &h.what) {
                Some(Version::Directory { .. }) => Ok(vec![effect(path, Version::Deleted)]),
                Some(_) => Err(Refusal::NotDirectory),
                None => Err(Refusal::NotFound),
            }
        }
        Change::Rename { from, to } if is_directory(sight, from) => rename::effects(sight, from, to),
        Change::Rename { from, to } => {
            let entry = sight.entry(from);
            let (head, file) = file_at(sight, &entry, from)?;
            file_may_be_made(sight, to)?;
            if from == to {
                return Ok(vec![]);
            }
            Ok(vec![effect(from, Version::Deleted), effect(to, Version::File(carried(head, file)))])
        }
        Change::Forget { .. } | Change::Drain(_) => Ok(vec![]),
        Change::SetModified { path, modified } => {
            Ok(vec![retold(sight, path, |file| File { modified: *modified, ..file })?])
        }
        #[cfg(feature = "next-protocol")]
        Change::SetMode { path, mode } => Ok(vec![retold(sight, path, |file| File { mode: Some(*mode), ..file })?]),
        Change::Resolve { path, position } => {
            let entry = sight.entry(path);
            let (lost, _, over) = loser_at(sight, &entry, path, *position)?;
            Ok(vec![settled(&entry, path, lost, over)])
        }
        Change::Recover { path, position, to } => {
            let entry = sight.entry(path);
            let (lost, file, over) = loser_at(sight, &entry, path, *position)?;
            file_may_be_made(sight, to)?;
            let what = Version::File(carried(lost, file));
            if path == to {
                let over = replaced(&entry).into_iter().chain(over).collect();
                return Ok(vec![Effect { path: path.clone(), over, what }]);
            }
            Ok(vec![settled(&entry, path, lost, over), effect(to, what)])
        }
    }
}

pub(super) fn stored(staged: &Staged, wall: Micros) -> File {
    let extent = staged.extent;
    File {
        extents: vec![extent],
        size: extent.length,
        hash: Some(extent.hash),
        modified: wall,
        replicas: staged.confirmed.clone(),
        ..File::default()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cluster::{BlobId, Extent, Hash, Hlc, Location, NodeId, OpId};
    use std::collections::BTreeMap;

    #[derive(Default)]
    pub(in crate::cluster) struct Tree(BTreeMap<FtpPath, PathEntry>);

    impl Tree {
        pub(in crate::cluster) fn with(mut self, p: &str, what: Version) -> Self {
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
        fn visible_below(&self, dir: &FtpPath) -> Result<Vec<FtpPath>, Refusal> {
            let below = self.0.iter().filter(|(p, e)| *p != dir && p.is_within(dir) && e.visible().is_some());
            Ok(below.map(|(p, _)| p.clone()).collect())
        }
    }

    pub(in crate::cluster) fn path(text: &str) -> FtpPath {
        FtpPath::try_from(text.to_owned()).unwrap()
    }
    pub(in crate::cluster) fn staged() -> Staged {
        let extent = Extent { blob: BlobId::default(), offset: 0, length: 3, hash: Hash([1; 32]) };
        Staged { extent, confirmed: vec![NodeId(1), NodeId(2), NodeId(3)] }
    }
    pub(in crate::cluster) fn file() -> Version {
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
        let tree = tree().with("/d/f", other());
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
    fn a_directory_lives_by_what_lies_below_it() {
        // Removed on one side of a partition while the other wrote into it; and a file on one side, a directory on the other.
        let tree = tree().with("/d", Version::Deleted).with("/x", file()).with("/x/f", file());
        let judged = |change: Change| admit(&tree, &change);
        for dir in ["/d", "/x"] {
            let (dir, file) = (path(dir), path(dir).join("f").unwrap());
            assert_eq!(judged(Change::Store { path: file.clone(), create_only: false }), Ok(()));
            assert_eq!(judged(Change::Store { path: dir.clone(), create_only: false }), Err(Refusal::IsDirectory));
            assert_eq!(judged(Change::MakeDirectory { path: dir.clone() }), Err(Refusal::Exists));
            assert_eq!(judged(Change::RemoveDirectory { path: dir.clone() }), Err(Refusal::NotEmpty));
            assert_eq!(judged(Change::Delete { path: dir.clone() }), Err(Refusal::IsDirectory));
            assert_eq!(judged(Change::Rename { from: dir.clone(), to: path("/q") }), Ok(()));
            assert_eq!(judged(Change::Rename { from: file, to: dir }), Err(Refusal::IsDirectory));
        }
    }

    #[test]
    fn nobody_makes_the_name_that_shows_conflicts() {
        let tree = tree();
        let there = || path("/d/.conflicts");
        for change in [
            store("/d/.conflicts"),
            store("/.conflicts/f"),
            Change::MakeDirectory { path: there() },
            Change::Rename { from: path("/d/f"), to: there() },
        ] {
            assert_eq!(admit(&tree, &change), Err(Refusal::Reserved), "{change:?}");
        }
    }

    /// `/d/f` has a loser at 2 under the winner at 4, which has equal bytes at 5.
    fn conflict() -> Tree {
        let mut tree = tree().with("/d/f", other()).with("/d/f", other());
        let heads = &mut tree.0.get_mut("/d/f").unwrap().heads;
        for (head, seq) in heads.iter_mut().zip([5, 4, 2]) {
            (head.position.seq, head.hlc, head.op) = (seq, Hlc(seq), OpId(seq.into()));
        }
        tree
    }
    fn other() -> Version {
        let Version::File(file) = file() else { panic!("a file") };
        let extents = vec![Extent { hash: Hash([2; 32]), ..file.extents[0] }];
        Version::File(File { hash: Some(Hash([2; 32])), extents, ..file })
    }
    fn seq(seq: u64) -> Position {
        Position { seq, ..Position::default() }
    }

    #[test]
    fn a_conflict_is_settled_by_deleting_its_loser_or_bringing_it_back() {
        let resolve = |position| effects(&conflict(), &Change::Resolve { path: path("/d/f"), position }, None, 9);
        let dropped = Effect { path: path("/d/f"), over: vec![seq(2)], what: Version::Resolved };
        assert_eq!(resolve(seq(2)), Ok(vec![dropped.clone()]));
        assert_eq!((resolve(seq(5)), resolve(seq(4))), (Err(Refusal::NotFound), Err(Refusal::NotFound)));
        let recover =
            |to| effects(&conflict(), &Change::Recover { path: path("/d/f"), position: seq(2), to: path(to) }, None, 9);
        let here = recover("/d/f").unwrap();
        assert_eq!(here[0].over, [seq(5), seq(4), seq(2)]);
        assert!(here.len() == 1 && matches!(&here[0].what, Version::File(f) if f.hash == Some(Hash([1; 32]))));
        let there = recover("/e/g").unwrap();
        assert_eq!((there.len(), &there[0]), (2, &dropped));
        assert_eq!(recover("/e"), Err(Refusal::IsDirectory));
        assert_eq!(recover("/q/r"), Err(Refusal::NoParent));
    }

    #[test]
    fn a_file_that_a_directory_hides_is_deleted_when_it_is_settled() {
        let tree = Tree::default().with("/x", file()).with("/x/f", file());
        let effects = effects(&tree, &Change::Resolve { path: path("/x"), position: seq(1) }, None, 9).unwrap();
        assert_eq!(effects, [Effect { path: path("/x"), over: vec![seq(1)], what: Version::Deleted }]);
    }

    #[test]
    fn a_rename_deletes_there_and_keeps_the_bytes_here() {
        let effects = effects(&tree(), &Change::Rename { from: path("/d/f"), to: path("/e/g") }, None, 9).unwrap();
        assert_eq!(effects[0].what, Version::Deleted);
        assert!(matches!(&effects[1].what, Version::File(f) if f.size == 3 && f.modified == 5));
    }
}
