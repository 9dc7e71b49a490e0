//! Appends: what they make of the version that is there, and among which nodes their bytes may go. Every copy of the new
//! version is to be whole, so what is appended is staged where the base is, as the leader sees that when it plans and again
//! when it commits. The base itself is never moved for an append: that is repair's.

use super::change::{Change, Refusal, Staged};
use super::decide::{Sight, file_at, may_be_made, replaced, stored};
use super::member::{Cx, Member};
use super::record::{Effect, File, Head, PathEntry, Version};
use super::types::{Micros, NodeId};
use crate::path::FtpPath;

/// What an append goes on: the file that clients see, if there is one.
fn base_of<'a>(
    sight: &dyn Sight,
    entry: &'a PathEntry,
    path: &FtpPath,
) -> Result<Option<(&'a Head, &'a File)>, Refusal> {
    match file_at(sight, entry, path) {
        Ok(base) => Ok(Some(base)),
        Err(Refusal::NotFound) => Ok(None),
        Err(refusal) => Err(refusal),
    }
}

/// What an append does: nothing yet where nothing is staged.
pub(super) fn effects(
    sight: &dyn Sight,
    path: &FtpPath,
    staged: Option<&Staged>,
    wall: Micros,
) -> Result<Vec<Effect>, Refusal> {
    may_be_made(sight, path)?;
    let entry = sight.entry(path);
    let base = base_of(sight, &entry, path)?.map(|(_, file)| file);
    let effect = |staged| {
        let what = Version::File(appended(base, staged, wall));
        Effect { path: path.clone(), over: replaced(&entry), what }
    };
    Ok(staged.map(effect).into_iter().collect())
}

/// The base with what was staged at its end. It names all extents and not just the new one: a node that meets two sides'
/// appends in the other order has the base no more.
fn appended(base: Option<&File>, staged: &Staged, wall: Micros) -> File {
    let new = stored(staged, wall);
    let Some(base) = base else { return new };
    let extents = base.extents.iter().chain(&new.extents).copied().collect();
    File { extents, size: base.size + new.size, hash: None, ..new }
}

impl Member {
    /// The nodes that hold what an append goes on, or why there is none to be made. `None` when any node will do: where there
    /// is no file yet, and for every other change.
    pub(super) fn base_holders(&self, cx: Cx<'_>, change: &Change) -> Result<Option<Vec<NodeId>>, Refusal> {
        let Change::Append { path } = change else { return Ok(None) };
        #[cfg(feature = "planted-bugs")]
        if self.config.planted == super::planted::Planted::AppendAnywhere {
            return Ok(None);
        }
        let sight = self.sight(cx);
        let entry = sight.entry(path);
        match base_of(&sight, &entry, path)? {
            Some((_, file)) if file.extents.len() >= self.config.max_extents => Err(Refusal::TooManyExtents),
            Some((head, _)) => Ok(Some(head.location.nodes.clone())),
            None => Ok(None),
        }
    }

    /// Planted: whether a repeat is not recognised.
    #[cfg(feature = "planted-bugs")]
    pub(super) fn overlooks(&self, cx: Cx<'_>, op: super::OpId) -> bool {
        use super::planted::Planted;
        let appended = |w: &super::Write| {
            let longer = |e: &Effect| matches!(&e.what, Version::File(f) if f.extents.len() > 1);
            w.op == op && w.blob.is_some() && w.effects.iter().any(longer)
        };
        match self.config.planted {
            Planted::NoDedupe => true,
            Planted::AppendTwice => cx.storage.oldest(usize::MAX).iter().filter_map(|r| r.write()).any(appended),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::decide::tests::{Tree, file, path, staged};
    use super::*;
    use crate::cluster::{Hash, Position};

    fn append(tree: &Tree, p: &str) -> Result<Vec<Effect>, Refusal> {
        let more = Staged { confirmed: vec![NodeId(2), NodeId(3)], ..staged() };
        effects(tree, &path(p), Some(&more), 9)
    }
    fn other() -> Version {
        let Version::File(mut file) = file() else { panic!("a file") };
        file.extents[0].hash = Hash([2; 32]);
        Version::File(File { hash: Some(Hash([2; 32])), ..file })
    }

    #[test]
    fn an_append_is_the_visible_version_and_one_extent_more() {
        // A loser, which stays, and a version over it.
        let tree = Tree::default().with("/f", file()).with("/e", Version::Deleted).with("/f", other());
        let grown = append(&tree, "/f").unwrap();
        let Version::File(file) = &grown[0].what else { panic!("a file") };
        assert_eq!(file.extents.iter().map(|e| e.hash).collect::<Vec<_>>(), [Hash([2; 32]), Hash([1; 32])]);
        assert_eq!((file.size, file.hash, file.modified), (6, None, 9));
        assert_eq!(file.replicas, [NodeId(2), NodeId(3)]);
        assert_eq!(grown[0].over, [Position { seq: 3, ..Position::default() }]);
    }

    #[test]
    fn an_append_to_nothing_is_a_store() {
        let begun = append(&Tree::default().with("/q", Version::Deleted), "/q").unwrap();
        assert!(matches!(&begun[0].what, Version::File(f) if f.extents.len() == 1 && f.hash == Some(Hash([1; 32]))));
        assert_eq!(begun[0].over.len(), 1);
    }

    #[test]
    fn appends_are_refused_where_no_file_may_be() {
        let tree = Tree::default().with("/d", Version::Directory { modified: 1 });
        assert_eq!(append(&tree, "/d"), Err(Refusal::IsDirectory));
        assert_eq!(append(&tree, "/x/f"), Err(Refusal::NoParent));
        assert_eq!(append(&tree, "/d/.conflicts"), Err(Refusal::Reserved));
    }
}
