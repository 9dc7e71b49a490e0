//! How keys and values look in the database. Keys sort bytewise in the order they are scanned in; every value begins with
//! its format version. Encodings only, nothing here reads or writes.

use super::error::fatal;
use crate::cluster::{Aging, AgingKind, BlobId, Epoch, Hlc, Holding, NodeId, OpId, PathRange, Position, Token};
use crate::path::FtpPath;
use fjall::Slice;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ops::Range;

/// Version of all values that are written; a newer one is refused when the database is opened.
pub(super) const FORMAT: u8 = 3;
/// The oldest version that is read. 3 added the extents of a register to the records of 2, and where they are missing none
/// were merged.
pub(super) const OLDEST: u8 = 2;

/// The tables, each a keyspace of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Table {
    /// Arrival number → record.
    Log,
    /// Epoch and number in it → arrival number.
    Position,
    /// Path → all its heads.
    Index,
    /// Directory and name → listing row; only what clients see.
    Live,
    /// Path that lost versions → how many of them a view of conflicts shows.
    Conflicts,
    /// Operation → outcome.
    Outcomes,
    /// Blob and path with a head that refers to it → nothing.
    Referrers,
    /// Holding and blob → nothing.
    Held,
    /// Blob → the bytes of a small file.
    Inline,
    /// Path with a head that is not confirmed → nothing.
    Unconfirmed,
    /// Kind, clock, position and path of a head that ages → nothing.
    Aging,
    /// Node → what it said of itself.
    Met,
    /// Which watermarks, and epoch → how many of its records.
    Marks,
    /// The singletons.
    Meta,
}

impl Table {
    /// All of them, in the order of their numbers.
    pub(super) const ALL: [Self; 14] = [
        Self::Log,
        Self::Position,
        Self::Index,
        Self::Live,
        Self::Conflicts,
        Self::Outcomes,
        Self::Referrers,
        Self::Held,
        Self::Inline,
        Self::Unconfirmed,
        Self::Aging,
        Self::Met,
        Self::Marks,
        Self::Meta,
    ];
    /// Its name on disk.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Position => "position",
            Self::Index => "index",
            Self::Live => "live",
            Self::Conflicts => "conflicts",
            Self::Outcomes => "outcomes",
            Self::Referrers => "referrers",
            Self::Held => "held",
            Self::Inline => "inline",
            Self::Unconfirmed => "unconfirmed",
            Self::Aging => "aging",
            Self::Met => "met",
            Self::Marks => "marks",
            Self::Meta => "meta",
        }
    }
}

/// Everything in a table.
pub(super) fn all() -> Range<Slice> {
    Slice::from(&[][..])..Slice::from(&[0xff; 64][..])
}

/// Where the format of the database is noted.
pub(super) fn format() -> Slice {
    "format".into()
}
/// Where the member's state is.
pub(super) fn state() -> Slice {
    "state".into()
}
/// A number of the log.
pub(super) fn arrival(number: u64) -> Slice {
    number.to_be_bytes().into()
}
/// Reads [`arrival`] back.
pub(super) fn read_arrival(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(exactly(bytes))
}
/// A place in an epoch.
pub(super) fn position(at: Position) -> Slice {
    let mut key = Vec::with_capacity(24);
    key.extend(at.epoch.0.to_be_bytes());
    key.extend(at.epoch.1.to_be_bytes());
    key.extend(at.seq.to_be_bytes());
    key.into()
}
/// Reads [`position`] back.
pub(super) fn read_position(bytes: &[u8]) -> Position {
    let [a, b, seq] = numbers(bytes);
    Position { epoch: Epoch(a, b), seq }
}
/// A path.
pub(super) fn path(path: &FtpPath) -> Slice {
    path.as_str().into()
}
/// Reads [`path`] back.
pub(super) fn read_path(bytes: &[u8]) -> FtpPath {
    let text = String::from_utf8_lossy(bytes).into_owned();
    FtpPath::try_from(text).unwrap_or_else(|error| fatal("a path in the database cannot be read", &error))
}
/// One epoch in one kind of watermarks.
pub(super) fn mark(kind: u8, epoch: Epoch) -> Slice {
    [&[kind], &epoch.0.to_be_bytes()[..], &epoch.1.to_be_bytes()].concat().into()
}
/// Reads [`mark`] back.
pub(super) fn read_mark(bytes: &[u8]) -> (u8, Epoch) {
    let [kind, epoch @ ..] = exactly::<17>(bytes);
    let [counter, nonce] = [0, 8].map(|at| u64::from_be_bytes(exactly(&epoch[at..at + 8])));
    (kind, Epoch(counter, nonce))
}
/// The paths of a range. No path has a NUL in it: one behind a path is the least key beyond it.
pub(super) fn paths(range: &PathRange) -> Range<Slice> {
    let beyond = |path: &FtpPath| Slice::from([path.as_str().as_bytes(), &[0]].concat());
    let all = all();
    range.after.as_ref().map_or(all.start, beyond)..range.upto.as_ref().map_or(all.end, beyond)
}
/// A child of a directory. No path has a NUL in it, so all children of a directory are together, in the order of names.
pub(super) fn child(dir: &FtpPath, name: &str) -> Slice {
    [dir.as_str().as_bytes(), &[0], name.as_bytes()].concat().into()
}
/// All children of a directory with names greater than `after`.
pub(super) fn children(dir: &FtpPath, after: Option<&str>) -> Range<Slice> {
    let from = match after {
        None => child(dir, ""),
        Some(name) => [&*child(dir, name), &[0]].concat().into(),
    };
    from..[dir.as_str().as_bytes(), &[1]].concat().into()
}
/// Reads the name of a [`child`] back.
pub(super) fn read_child(dir: &FtpPath, key: &[u8]) -> String {
    String::from_utf8_lossy(&key[dir.as_str().len() + 1..]).into_owned()
}
/// A path with NULs for slashes: what lies below a directory is together, right behind the directory itself.
pub(super) fn tree(path: &FtpPath) -> Slice {
    path.as_str().replace('/', "\0").into()
}
/// Everything below `dir`; beyond the child `after` and what lies below that, if it is given.
pub(super) fn below(dir: &FtpPath, after: Option<&str>) -> Range<Slice> {
    let dir = tree(dir);
    let stem = dir.strip_suffix(b"\0").unwrap_or(&dir);
    let beyond = after.map(|name| [name.as_bytes(), &[1]].concat()).unwrap_or_default();
    [stem, &[0], &beyond[..]].concat().into()..[stem, &[1]].concat().into()
}
/// Reads [`tree`] back.
pub(super) fn read_tree(key: &[u8]) -> FtpPath {
    read_path(String::from_utf8_lossy(key).replace('\0', "/").as_bytes())
}
/// An operation.
pub(super) fn op(op: OpId) -> Slice {
    op.0.to_be_bytes().into()
}
/// All operations beyond `after`.
pub(super) fn ops_after(after: Option<OpId>) -> Range<Slice> {
    let all = all();
    after.map_or(all.start, |after| [&*op(after), &[0]].concat().into())..all.end
}
/// Reads [`op`] back.
pub(super) fn read_op(bytes: &[u8]) -> OpId {
    OpId(u128::from_be_bytes(exactly(bytes)))
}
/// A head that ages. Sorts as [`Aging`] does.
pub(super) fn aging(row: &Aging) -> Slice {
    let clock = row.since.0.to_be_bytes();
    [&[kind(row.kind)], &clock[..], &position(row.position), row.path.as_str().as_bytes()].concat().into()
}
fn kind(kind: AgingKind) -> u8 {
    match kind {
        AgingKind::Delete => 0,
        AgingKind::Loser => 1,
    }
}
/// All rows of one kind beyond `after`.
pub(super) fn aging_after(of: AgingKind, after: Option<&Aging>) -> Range<Slice> {
    // No path ends in a NUL.
    let from = after.map_or_else(|| [kind(of)].into(), |row| Slice::from([&*aging(row), &[0]].concat()));
    from..[kind(of) + 1].into()
}
/// Reads [`aging`] back.
pub(super) fn read_aging(of: AgingKind, bytes: &[u8]) -> Aging {
    let at = |range: Range<usize>| bytes.get(range).unwrap_or_default();
    let since = Hlc(u64::from_be_bytes(exactly(at(1..9))));
    let rest = bytes.get(33..).unwrap_or_default();
    Aging { kind: of, since, position: read_position(at(9..33)), path: read_path(rest) }
}
/// A node.
pub(super) fn node(node: NodeId) -> Slice {
    node.0.to_be_bytes().into()
}
/// A blob. Sorts as [`BlobId`] does.
pub(super) fn blob(blob: BlobId) -> Slice {
    let mut key = Vec::with_capacity(40);
    key.extend(blob.op.0.to_be_bytes());
    key.extend(blob.token.epoch.0.to_be_bytes());
    key.extend(blob.token.epoch.1.to_be_bytes());
    key.extend(blob.token.n.to_be_bytes());
    key.into()
}
/// All blobs beyond `after`.
pub(super) fn blobs_after(after: Option<BlobId>) -> Range<Slice> {
    let all = all();
    after.map_or(all.start, |after| [&*blob(after), &[0]].concat().into())..all.end
}
/// Reads [`blob`] back.
pub(super) fn read_blob(bytes: &[u8]) -> BlobId {
    let op = bytes.get(..16).map_or_else(|| fatal("a key in the database is too short", &bytes.len()), read_op);
    let [a, b, n] = numbers(&bytes[16..]);
    BlobId { op, token: Token { epoch: Epoch(a, b), n } }
}

/// A path that refers to a blob.
pub(super) fn referrer(of: BlobId, path: &FtpPath) -> Slice {
    [&*blob(of), path.as_str().as_bytes()].concat().into()
}
/// All paths that refer to a blob.
pub(super) fn referrers(of: BlobId) -> Range<Slice> {
    // Every path begins with a slash.
    blob(of)..[&*blob(of), &[0xff]].concat().into()
}
/// Reads the blob and the path of a [`referrer`] back.
pub(super) fn read_referrer(bytes: &[u8]) -> (BlobId, FtpPath) {
    let (of, path) = bytes.split_at_checked(40).unwrap_or_else(|| fatal("a key is too short", &bytes.len()));
    (read_blob(of), read_path(path))
}
/// What the registers say of a blob.
pub(super) fn held(holding: Holding, of: BlobId) -> Slice {
    [&*holding_prefix(holding), &*blob(of)].concat().into()
}
fn holding_prefix(holding: Holding) -> Vec<u8> {
    match holding {
        Holding::Node(of) => [&[0], &*node(of)].concat(),
        Holding::Short => vec![1],
    }
}
/// All blobs with such a holding beyond `after`.
pub(super) fn held_after(holding: Holding, after: Option<BlobId>) -> Range<Slice> {
    let prefix = holding_prefix(holding);
    let from = after.map_or_else(|| prefix.clone(), |of| [&*held(holding, of), &[0]].concat());
    from.into()..[&*prefix, &[0xff; 41]].concat().into()
}
/// Reads the blob of a [`held`] back.
pub(super) fn read_held(holding: Holding, bytes: &[u8]) -> BlobId {
    read_blob(bytes.get(holding_prefix(holding).len()..).unwrap_or_default())
}

fn numbers(bytes: &[u8]) -> [u64; 3] {
    let all: [u8; 24] = exactly(bytes);
    [0, 8, 16].map(|at| u64::from_be_bytes(exactly(&all[at..at + 8])))
}
fn exactly<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().unwrap_or_else(|error| fatal("a key in the database has the wrong length", &error))
}

/// A value as JSON behind its format.
pub(super) fn encode<T: Serialize>(value: &T) -> Slice {
    let mut bytes = vec![FORMAT];
    serde_json::to_writer(&mut bytes, value).expect("the protocol's words always serialise");
    bytes.into()
}
/// Reads [`encode`] back. The database checks its own sums, so what cannot be read is a bug or an older program that opened
/// newer data past the check at the start: nothing to go on with.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> T {
    let read = serde_json::from_slice(payload(bytes));
    read.unwrap_or_else(|error| fatal("a value in the database cannot be read", &error))
}
/// Bytes behind their format.
pub(super) fn framed(bytes: &[u8]) -> Slice {
    [&[FORMAT], bytes].concat().into()
}
/// What is behind the format.
pub(super) fn payload(bytes: &[u8]) -> &[u8] {
    match bytes.split_first() {
        Some((OLDEST..=FORMAT, rest)) => rest,
        _ => fatal("a value in the database has an unknown format", &format_args!("{:?}", bytes.first())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_blob() -> impl Strategy<Value = BlobId> {
        (any::<u128>(), 0..3u64, any::<u64>(), any::<u64>())
            .prop_map(|(op, a, b, n)| BlobId { op: OpId(op), token: Token { epoch: Epoch(a, b), n } })
    }

    proptest! {
        #[test]
        fn blob_keys_round_trip_and_keep_the_order(a in any_blob(), b in any_blob()) {
            prop_assert_eq!(read_blob(&blob(a)), a);
            prop_assert_eq!(blob(a).cmp(&blob(b)), a.cmp(&b));
        }
        #[test]
        fn rows_of_a_blob_are_found_by_it_and_by_what_holds_it(a in any_blob(), b in any_blob(), n in 0..3u128) {
            let path = FtpPath::root().resolve("a/b").unwrap();
            prop_assert_eq!(read_referrer(&referrer(a, &path)), (a, path.clone()));
            prop_assert_eq!(referrers(a).contains(&referrer(b, &path)), a == b);
            for holding in [Holding::Node(NodeId(n)), Holding::Node(NodeId(u128::MAX)), Holding::Short] {
                prop_assert_eq!(read_held(holding, &held(holding, a)), a);
                prop_assert!(held_after(holding, None).contains(&held(holding, a)));
                prop_assert_eq!(held_after(holding, Some(a)).contains(&held(holding, b)), b > a);
                prop_assert!(!held_after(holding, None).contains(&held(Holding::Node(NodeId(7)), a)));
            }
        }
        #[test]
        fn children_are_those_of_the_directory_and_no_others(names in prop::collection::vec("[ab/]{1,4}", 1..6)) {
            let dir = FtpPath::root().resolve(&names[0]).unwrap();
            for name in &names[1..] {
                let path = FtpPath::root().resolve(name).unwrap();
                if let Some((parent, name)) = path.split() {
                    prop_assert_eq!(children(&dir, None).contains(&child(&parent, name)), parent == dir);
                    prop_assert!(!children(&parent, Some(name)).contains(&child(&parent, name)));
                }
            }
        }
    }
}
