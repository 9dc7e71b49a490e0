//! Digests of the index: a sum over all paths of a hash of what each is. Sums can be kept up to date change by change, and
//! taken over any range of paths (an incremental hash in the sense of Bellare and Micciancio, 1997, against accidents, not
//! against nodes that lie). Equal digests mean equal indexes.

use super::record::{Head, PathEntry};
use super::types::Digest;
use crate::path::FtpPath;
use std::iter::Sum;
use std::ops::{Add, Sub};

impl Add for Digest {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }
}

impl Sub for Digest {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.wrapping_sub(other.0))
    }
}

impl Sum for Digest {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

impl Digest {
    /// Of one path with its heads; of a path without heads it is zero, as if it were not there.
    pub fn of(path: &FtpPath, entry: &PathEntry) -> Self {
        if entry.heads.is_empty() {
            return Self::default();
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(path.as_str().as_bytes());
        for head in &entry.heads {
            add_head(&mut hasher, head);
        }
        let mut first = [0; 16];
        hasher.finalize_xof().fill(&mut first);
        Self(u128::from_be_bytes(first))
    }
}

/// Paths with their heads, as one digest.
pub(super) trait Digests {
    fn digest(&self) -> Digest;
}

impl Digests for [(FtpPath, PathEntry)] {
    fn digest(&self) -> Digest {
        self.iter().map(|(path, entry)| Digest::of(path, entry)).sum()
    }
}

/// A head is known by its position; what can change of it afterwards is whether it is confirmed, and where its bytes are.
fn add_head(hasher: &mut blake3::Hasher, head: &Head) {
    let mut number = |n: u64| {
        hasher.update(&n.to_be_bytes());
    };
    for position in [head.position, head.location.stamp.position] {
        number(position.epoch.0);
        number(position.epoch.1);
        number(position.seq);
    }
    number(head.location.stamp.hlc.0);
    number(u64::from(head.confirmed));
    number(head.location.nodes.len() as u64);
    for node in &head.location.nodes {
        hasher.update(&node.0.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Epoch, Hlc, Location, NodeId, OpId, Position, Version};

    fn head(seq: u64) -> Head {
        Head {
            position: Position { epoch: Epoch(1, 2), seq },
            hlc: Hlc(seq),
            op: OpId(seq.into()),
            confirmed: true,
            what: Version::Deleted,
            location: Location::default(),
        }
    }
    fn path(text: &str) -> FtpPath {
        FtpPath::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn everything_that_may_differ_between_nodes_is_in_it() {
        let of = |change: fn(&mut Head)| {
            let mut changed = head(7);
            change(&mut changed);
            Digest::of(&path("/a"), &PathEntry { heads: vec![changed] })
        };
        let plain = of(|_| {});
        assert_eq!(plain, Digest::of(&path("/a"), &PathEntry { heads: vec![head(7)] }));
        assert_ne!(plain, Digest::of(&path("/b"), &PathEntry { heads: vec![head(7)] }));
        assert_ne!(plain, Digest::of(&path("/a"), &PathEntry { heads: vec![head(7), head(6)] }));
        let others = [
            of(|h| h.position.seq = 8),
            of(|h| h.position.epoch.1 = 3),
            of(|h| h.confirmed = false),
            of(|h| h.location.nodes.push(NodeId(1))),
            of(|h| h.location.stamp.hlc = Hlc(1)),
        ];
        assert!(others.iter().all(|other| *other != plain));
    }

    #[test]
    fn what_comes_and_goes_leaves_no_trace() {
        let (a, b) = (PathEntry { heads: vec![head(1)] }, PathEntry { heads: vec![head(2)] });
        let both: Digest = [Digest::of(&path("/a"), &a), Digest::of(&path("/b"), &b)].into_iter().sum();
        assert_eq!(both - Digest::of(&path("/a"), &a), Digest::of(&path("/b"), &b));
        assert_eq!(both + Digest::of(&path("/c"), &PathEntry::default()), both);
    }
}
