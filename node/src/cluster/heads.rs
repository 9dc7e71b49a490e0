//! Which of a path's heads clients see, which of them lost a conflict, and what is no conflict at all. Pure rules over one
//! path's heads: what lies below the path is the caller's to know.

use super::record::{File, Head, PathEntry, Version};
use super::types::Position;

impl PathEntry {
    /// The confirmed head with the greatest stamp: the last writer. It may be a delete.
    pub fn winner(&self) -> Option<&Head> {
        self.heads.iter().find(|h| h.confirmed)
    }
    /// The head that counts: the last writer's, save that files never take the place of a directory that nobody removed
    /// after it was made. The files are kept as losers.
    pub fn standing(&self) -> Option<&Head> {
        let beneath = self.heads.iter().find(|h| h.confirmed && !matches!(h.what, Version::File(_)));
        beneath.filter(|h| matches!(h.what, Version::Directory { .. })).or_else(|| self.winner())
    }
    /// The head that counts, unless it is a delete.
    pub fn visible(&self) -> Option<&Head> {
        self.standing().filter(|h| h.what != Version::Deleted)
    }
    /// Confirmed heads that say the same as the one that counts, and itself: one write replaces them all, or an upload that
    /// was made on both sides of a partition would turn into a conflict with the next version.
    pub fn agreeing(&self) -> impl Iterator<Item = &Head> {
        let standing = self.standing();
        self.heads.iter().filter(move |h| {
            h.confirmed && standing.is_some_and(|s| s.position == h.position || s.op == h.op || s.what.equals(&h.what))
        })
    }
    /// What a write replaces: all that say what counts, and whatever is no file. Only files are worth keeping as losers, and
    /// a directory that a delete hides would be back once that delete is replaced.
    pub fn replaced(&self) -> impl Iterator<Item = &Head> {
        let agreeing: Vec<Position> = self.agreeing().map(|h| h.position).collect();
        let is_file = |h: &Head| matches!(h.what, Version::File(_));
        self.heads.iter().filter(move |h| h.confirmed && (!is_file(h) || agreeing.contains(&h.position)))
    }
    /// The position of a delete that is all there is: what may be collected.
    pub(super) fn lone_delete(&self) -> Option<Position> {
        match &self.heads[..] {
            [head] if head.confirmed && head.what == Version::Deleted => Some(head.position),
            _ => None,
        }
    }
    /// Confirmed heads that do not count, whatever they are.
    pub(super) fn beaten(&self) -> impl Iterator<Item = Position> + '_ {
        let standing = self.standing().map(|h| h.position);
        self.heads.iter().filter(move |h| h.confirmed && Some(h.position) != standing).map(|h| h.position)
    }
    /// Whether the same head counts when one is gone: a delete that hides an older directory stays as long as that does.
    pub(super) fn can_spare(&self, position: Position) -> bool {
        let rest = Self { heads: self.heads.iter().filter(|h| h.position != position).cloned().collect() };
        self.beaten().any(|p| p == position)
            && self.standing().map(|h| h.position) == rest.standing().map(|h| h.position)
    }
    /// Files that lost: confirmed heads that clients do not see at the path, the greatest stamp first. `covered`: a directory
    /// hides the path's file, since something lies below it. Of equal files one is shown, none where the visible one is equal.
    pub fn losers(&self, covered: bool) -> Vec<(&Head, &File)> {
        let visible = self.visible().filter(|h| !(covered && matches!(h.what, Version::File(_))));
        let mut shown: Vec<&Version> = visible.into_iter().map(|h| &h.what).collect();
        let mut lost = vec![];
        for head in self.heads.iter().filter(|h| h.confirmed) {
            let Version::File(file) = &head.what else { continue };
            if !shown.iter().any(|what| what.equals(&head.what)) {
                shown.push(&head.what);
                lost.push((head, file));
            }
        }
        lost
    }
}

impl Version {
    /// Whether both say the same to a client who reads them: bytes count, times and places do not.
    pub fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(a), Self::File(b)) => a.equals(b),
            (Self::Directory { .. }, Self::Directory { .. }) | (Self::Deleted, Self::Deleted) => true,
            _ => false,
        }
    }
}

impl File {
    /// Equal bytes: by the hash of the whole where both are known, or by the hashes of the same runs.
    fn equals(&self, other: &Self) -> bool {
        let runs = |f: &Self| f.extents.iter().map(|e| (e.length, e.hash)).collect::<Vec<_>>();
        let same_whole = self.hash.is_some() && self.hash == other.hash;
        self.size == other.size && (same_whole || runs(self) == runs(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{BlobId, Extent, Hash, Hlc, Location, OpId, Position};

    fn file(byte: u8) -> Version {
        let hash = Hash([byte; 32]);
        let extent = Extent { blob: BlobId::default(), offset: 0, length: 3, hash };
        Version::File(File {
            extents: vec![extent],
            size: 3,
            hash: Some(hash),
            modified: u64::from(byte),
            ..File::default()
        })
    }
    fn directory(modified: u64) -> Version {
        Version::Directory { modified }
    }
    /// Heads in order of their stamps, the greatest first, as an entry keeps them.
    fn entry(heads: &[(Version, bool)]) -> PathEntry {
        let numbered = heads.iter().zip((1..=heads.len() as u64).rev());
        let head = |((what, confirmed), n): (&(Version, bool), u64)| Head {
            position: Position { seq: n, ..Position::default() },
            hlc: Hlc(n),
            op: OpId(n.into()),
            confirmed: *confirmed,
            what: what.clone(),
            location: Location::default(),
        };
        PathEntry { heads: numbered.map(head).collect() }
    }
    fn lost(entry: &PathEntry, covered: bool) -> Vec<u64> {
        entry.losers(covered).iter().map(|(h, _)| h.position.seq).collect()
    }

    #[test]
    fn the_last_writer_is_seen_and_the_other_is_a_loser() {
        let both = entry(&[(file(1), true), (file(2), true)]);
        assert_eq!(both.visible().map(|h| h.position.seq), Some(2));
        assert_eq!(lost(&both, false), [1]);
        let deleted = entry(&[(Version::Deleted, true), (file(2), true)]);
        assert_eq!(deleted.visible(), None);
        assert_eq!(lost(&deleted, false), [1], "a file that was deleted elsewhere while it was written");
        let written = entry(&[(file(1), true), (Version::Deleted, true)]);
        assert!(lost(&written, false).is_empty());
    }

    #[test]
    fn equal_bytes_make_no_conflict_and_are_replaced_together() {
        let mut twice = entry(&[(file(1), true), (file(2), true), (file(1), true), (file(2), true)]);
        assert_eq!(lost(&twice, false), [3], "once");
        assert_eq!(twice.agreeing().map(|h| h.position.seq).collect::<Vec<_>>(), [4, 2]);
        twice.heads[2].op = twice.heads[1].op;
        assert_eq!(twice.agreeing().count(), 2);
        let made = entry(&[(directory(1), true), (directory(2), true)]);
        assert_eq!(made.agreeing().count(), 2);
    }

    #[test]
    fn appended_files_are_equal_by_their_extents_alone() {
        let appended = |bytes: [u8; 2]| {
            let mut all = bytes.map(|b| if let Version::File(f) = file(b) { f.extents[0] } else { panic!("a file") });
            all[1].blob.op = OpId(bytes[1].into());
            Version::File(File { extents: all.to_vec(), size: 6, hash: None, modified: 1, ..File::default() })
        };
        assert!(appended([1, 2]).equals(&appended([1, 2])));
        assert!(!appended([1, 2]).equals(&appended([1, 3])), "two hashes that are not known are not the same");
        let both = entry(&[(appended([1, 3]), true), (appended([1, 2]), true)]);
        assert_eq!(lost(&both, false), [1], "two sides appended to one base");
    }

    #[test]
    fn a_file_hides_no_directory_and_a_void_copy_nothing() {
        let both = entry(&[(file(1), true), (directory(2), true)]);
        assert_eq!(both.visible().map(|h| h.position.seq), Some(1));
        assert_eq!(lost(&both, false), [2]);
        assert_eq!(both.agreeing().map(|h| h.position.seq).collect::<Vec<_>>(), [1]);
        // Removing the directory does not bring the file back: the delete is the last writer's.
        let removed = entry(&[(Version::Deleted, true), (file(1), true)]);
        assert_eq!((removed.visible(), lost(&removed, false)), (None, vec![1]));
        assert_eq!(removed.replaced().map(|h| h.position.seq).collect::<Vec<_>>(), [2]);
        let gone = entry(&[(file(1), true), (Version::Deleted, true), (directory(2), true)]);
        assert_eq!(gone.replaced().count(), 3, "or the next version would be hidden by what was removed");
        let hidden = entry(&[(Version::Deleted, true), (file(1), true), (directory(2), true), (directory(3), false)]);
        assert_eq!(hidden.replaced().map(|h| h.position.seq).collect::<Vec<_>>(), [4, 2]);
        assert_eq!(gone.visible().map(|h| h.position.seq), Some(3), "removed on a third side after it was made");
        let void = entry(&[(file(1), false), (file(2), true), (file(3), false)]);
        assert_eq!((void.visible().map(|h| h.position.seq), lost(&void, false)), (Some(2), vec![]));
    }

    #[test]
    fn what_lies_below_makes_a_loser_of_the_file() {
        let alone = entry(&[(file(1), true)]);
        assert!(lost(&alone, false).is_empty());
        assert_eq!(lost(&alone, true), [1]);
        assert_eq!(lost(&entry(&[(directory(1), true)]), true), Vec::<u64>::new());
    }
}
