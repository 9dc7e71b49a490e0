//! Appends: what they make of the version that is there, and among which nodes their bytes may go. Every copy of the new
//! version is to be whole, so what is appended is staged where the base is, as the leader sees that when it plans and again
//! when it commits. The base itself is never moved for an append: that is repair's.

use super::change::{Change, Cut, Refusal, Staged};
use super::decide::{Sight, file_at, may_be_made, replaced, stored};
use super::member::{Cx, Member, Role};
use super::record::{Effect, Extent, File, Head, PathEntry, Version};
use super::types::{Micros, NodeId};
use crate::path::FtpPath;

/// What an append goes on.
struct Base<'a> {
    head: &'a Head,
    file: &'a File,
    /// Its extents that stay.
    kept: &'a [Extent],
}

/// The visible file, as far as it stays. `None` where there is no file.
fn base_of<'a>(
    sight: &dyn Sight,
    entry: &'a PathEntry,
    path: &FtpPath,
    cut: Option<Cut>,
) -> Result<Option<Base<'a>>, Refusal> {
    let (head, file) = match (file_at(sight, entry, path), cut) {
        (Ok(base), _) => base,
        (Err(Refusal::NotFound), None) => return Ok(None),
        (Err(Refusal::NotFound), Some(_)) => return Err(Refusal::Changed),
        (Err(refusal), _) => return Err(refusal),
    };
    let Some(Cut { base, keep }) = cut else { return Ok(Some(Base { head, file, kept: &file.extents })) };
    let (kept, inside) = split(&file.extents, keep).filter(|_| head.position == base).ok_or(Refusal::Changed)?;
    if inside == 0 { Ok(Some(Base { head, file, kept: &file.extents[..kept] })) } else { Err(Refusal::Changed) }
}

/// Where byte `at` of these extents is: how many of them end before it, and how many bytes of the next one do. `None` beyond
/// the end.
pub fn split(extents: &[Extent], at: u64) -> Option<(usize, u64)> {
    let mut left = at;
    for (n, extent) in extents.iter().enumerate() {
        if left < extent.length {
            return Some((n, left));
        }
        left -= extent.length;
    }
    (left == 0).then_some((extents.len(), 0))
}

/// What an append does: nothing yet where nothing is staged.
pub(super) fn effects(
    sight: &dyn Sight,
    path: &FtpPath,
    cut: Option<Cut>,
    staged: Option<&Staged>,
    wall: Micros,
) -> Result<Vec<Effect>, Refusal> {
    may_be_made(sight, path)?;
    let entry = sight.entry(path);
    let base = base_of(sight, &entry, path, cut)?;
    let effect = |staged| {
        let what = Version::File(appended(base.as_ref(), staged, wall));
        Effect { path: path.clone(), over: replaced(&entry), what }
    };
    Ok(staged.map(effect).into_iter().collect())
}

/// The base with what was staged at its end. It names all extents and not just the new one: a node that meets two sides'
/// appends in the other order has the base no more. What else is known of the base stays.
fn appended(base: Option<&Base<'_>>, staged: &Staged, wall: Micros) -> File {
    let new = stored(staged, wall);
    let Some(Base { file, kept, .. }) = base else { return new };
    let extents: Vec<Extent> = kept.iter().chain(&new.extents).copied().collect();
    let (size, hash) = (extents.iter().map(|e| e.length).sum(), new.hash.filter(|_| kept.is_empty()));
    File { extents, size, hash, modified: new.modified, replicas: new.replicas, ..(*file).clone() }
}

impl Member {
    /// The nodes that hold what an append goes on, or why there is none to be made. `None` when any node will do: where there
    /// is no file yet, and for every other change.
    pub(super) fn base_holders(&self, cx: Cx<'_>, change: &Change) -> Result<Option<Vec<NodeId>>, Refusal> {
        let Change::Append { path, cut } = change else { return Ok(None) };
        #[cfg(feature = "planted-bugs")]
        if self.config.planted == super::planted::Planted::AppendAnywhere {
            return Ok(None);
        }
        let sight = self.sight(cx);
        let entry = sight.entry(path);
        match base_of(&sight, &entry, path, *cut)? {
            Some(base) if base.kept.len() >= self.config.max_extents => Err(Refusal::TooManyExtents),
            Some(base) if !base.kept.is_empty() => Ok(Some(base.head.location.nodes.clone())),
            _ => Ok(None),
        }
    }

    /// Whether nodes that hold what an append goes on are away: repair will have copies made where they are not.
    /// `failed` are those that the asker has lost, whether or not we have heard of that.
    pub(super) fn base_will_move(&self, cx: Cx<'_>, change: &Change, failed: &[NodeId]) -> bool {
        let Role::Lead(lead) = &self.role else { return false };
        let holders = self.base_holders(cx, change).ok().flatten().unwrap_or_default();
        // One that is back and no member yet is of no use either, and soon will be.
        let there = |n: &&NodeId| **n == self.me.node || self.peers.linked(**n, cx.mono());
        let of_use = |n: &&NodeId| lead.members.contains(n) && !failed.contains(n) && there(n);
        let of_use = holders.iter().filter(of_use).count();
        (1..holders.len()).contains(&of_use) && lead.members.len() >= self.config.min_copies
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
        effects(tree, &path(p), None, Some(&more), 9)
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
    fn an_append_keeps_what_a_later_version_says_of_the_file() {
        let Version::File(mut base) = file() else { panic!("a file") };
        base.later.insert("moon".to_owned(), 3.into());
        let later = base.later.clone();
        let grown = append(&Tree::default().with("/f", Version::File(base)), "/f").unwrap();
        assert!(matches!(&grown[0].what, Version::File(f) if f.later == later && f.extents.len() == 2));
    }

    #[test]
    fn an_append_to_nothing_is_a_store() {
        let begun = append(&Tree::default().with("/q", Version::Deleted), "/q").unwrap();
        assert!(matches!(&begun[0].what, Version::File(f) if f.extents.len() == 1 && f.hash == Some(Hash([1; 32]))));
        assert_eq!(begun[0].over.len(), 1);
    }

    #[test]
    fn a_cut_version_keeps_whole_extents_and_none_but_the_one_that_was_looked_at_is_cut() {
        let Version::File(one) = file() else { panic!("a file") };
        let extents = [3, 0, 4].map(|length| Extent { length, ..one.extents[0] });
        assert_eq!(
            [0, 2, 3, 5, 7, 8].map(|at| split(&extents, at)),
            [Some((0, 0)), Some((0, 2)), Some((2, 0)), Some((2, 2)), Some((3, 0)), None]
        );
        let tree = Tree::default().with("/f", Version::File(File { extents: extents.to_vec(), size: 7, ..one }));
        let cut = |p: &str, seq, keep| {
            let cut = Cut { base: Position { seq, ..Position::default() }, keep };
            effects(&tree, &path(p), Some(cut), Some(&staged()), 9).map(|mut effects| match effects.remove(0).what {
                Version::File(file) => (file.extents.len(), file.size, file.hash.is_some()),
                what => panic!("{what:?}"),
            })
        };
        assert_eq!(cut("/f", 1, 3), Ok((3, 6, false)));
        assert_eq!(cut("/f", 1, 7), Ok((4, 10, false)));
        assert_eq!(cut("/f", 1, 0), Ok((1, 3, true)), "a store");
        for (p, seq, keep) in [("/f", 1, 5), ("/f", 1, 8), ("/f", 2, 3), ("/none", 1, 0)] {
            assert_eq!(cut(p, seq, keep), Err(Refusal::Changed), "{p} {seq} {keep}");
        }
    }

    #[test]
    fn appends_are_refused_where_no_file_may_be() {
        let tree = Tree::default().with("/d", Version::Directory { modified: 1 });
        assert_eq!(append(&tree, "/d"), Err(Refusal::IsDirectory));
        assert_eq!(append(&tree, "/x/f"), Err(Refusal::NoParent));
        assert_eq!(append(&tree, "/d/.conflicts"), Err(Refusal::Reserved));
    }
}
