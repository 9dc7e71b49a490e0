//! Checks a stopped node's disk against its index: every visible file's bytes and those of the losers of conflicts, read
//! again and hashed. Changes nothing but the lock file; never asks another node.

use super::blobs::Blobs;
use super::error::{OpenError, StoreError};
use super::identity::Identity;
use super::keys::{self, Table};
use super::lock::DirectoryLock;
use super::tables::Tables;
use crate::cluster::{BlobId, Extent, File, Hash, Head, Holding, NodeId, PathEntry, Position, Version};
use crate::path::FtpPath;
use serde::Serialize;
use std::collections::BTreeSet;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

/// Bytes read at a time.
const BLOCK: usize = 256 * 1024;

/// One visible file of the index, or the loser of a conflict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileReport {
    /// Its path.
    pub path: FtpPath,
    /// Its length, in bytes.
    pub size: u64,
    /// BLAKE3 of the whole: as the index has it, or, for a file that was appended to, of the bytes that are here.
    pub hash: Option<Hash>,
    /// How many extents it has.
    pub extents: usize,
    /// Which version it is.
    pub position: Position,
    /// Whether it lost a conflict: clients find it under `.conflicts` only. A path may have several.
    pub loser: bool,
    /// The nodes that are to hold its bytes.
    pub nodes: Vec<NodeId>,
    /// Whether this node is one of them.
    pub listed: bool,
    /// Whether all its bytes are here, with the right hashes.
    pub holds: bool,
    /// False when this node should hold it and does not, or holds something else.
    pub ok: bool,
    /// What is wrong, for people.
    pub problem: Option<String>,
}

/// The whole disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The node.
    pub node: NodeId,
    /// Visible files in the index.
    pub files: u64,
    /// Those whose bytes are here and right.
    pub held: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Losers of conflicts in the index. They are not among the files.
    pub losers: u64,
    /// Those whose bytes are here and right.
    pub losers_held: u64,
    /// Files and losers that are not ok.
    pub problems: u64,
    /// Files and losers whose bytes are here although this node is not listed for them.
    pub surplus: u64,
    /// Blobs that no head refers to: replaced versions, and uploads that never ended.
    pub unreferenced: u64,
}

/// Checks the data directory of a stopped node; `each` gets every visible file and every loser, in the order of paths.
/// Refuses a directory that is held. Blocking, reads every byte of them.
pub fn verify(dir: &Path, mut each: impl FnMut(&FileReport)) -> Result<Summary, OpenError> {
    let database = dir.join("database");
    if !database.exists() {
        return Err(OpenError::NotADataDirectory(dir.to_owned()));
    }
    let _lock = DirectoryLock::take(dir)?;
    let identity = Identity::read(dir)?.ok_or_else(|| OpenError::NotADataDirectory(dir.to_owned()))?;
    let disk = Disk { tables: Tables::open(&database)?, blobs: Blobs::at(dir, 0, Arc::default()), node: identity.node };
    let unreferenced = unreferenced(&disk.tables, &disk.blobs.census()?).len() as u64;
    let mut summary = Summary { node: disk.node, unreferenced, ..Summary::default() };
    for (key, value) in disk.tables.scan(Table::Index, keys::all()) {
        let entry: PathEntry = keys::decode(&value);
        let path = keys::read_path(&key);
        // From the rows, not from the table of conflicts: what is checked must not rest on what is derived.
        let covered = disk.tables.keys(Table::Live, keys::children(&path, None)).next().is_some();
        let seen = entry.visible().filter(|_| !covered).and_then(|head| match &head.what {
            Version::File(file) => Some((head, file)),
            _ => None,
        });
        if let Some((head, file)) = seen {
            let report = disk.check(&path, head, file, false);
            summary.files += 1;
            summary.held += u64::from(report.holds);
            summary.bytes += if report.holds { report.size } else { 0 };
            summary.note(&report, &mut each);
        }
        for (head, file) in entry.losers(covered) {
            let report = disk.check(&path, head, file, true);
            summary.losers += 1;
            summary.losers_held += u64::from(report.holds);
            summary.note(&report, &mut each);
        }
    }
    Ok(summary)
}

impl Summary {
    fn note(&mut self, report: &FileReport, each: &mut impl FnMut(&FileReport)) {
        self.problems += u64::from(!report.ok);
        self.surplus += u64::from(report.holds && !report.listed);
        each(report);
    }
}

/// Blobs on the disk, inline or among these files, that no head refers to.
pub(super) fn unreferenced(tables: &Tables, files: &[(BlobId, u64)]) -> Vec<BlobId> {
    let mut here = on_disk(tables, files);
    for key in tables.keys(Table::Referrers, keys::all()) {
        here.remove(&keys::read_referrer(&key).0);
    }
    here.into_iter().collect()
}

/// Blobs that are here, and heads refer to them, but no register has them here; and those that one has here and are not.
pub(super) fn astray(tables: &Tables, files: &[(BlobId, u64)], node: NodeId) -> Vec<BlobId> {
    let mut here = on_disk(tables, files);
    let mut astray: BTreeSet<BlobId> = BTreeSet::new();
    let holding = Holding::Node(node);
    for key in tables.keys(Table::Held, keys::held_after(holding, None)) {
        let blob = keys::read_held(holding, &key);
        if !here.remove(&blob) {
            astray.insert(blob);
        }
    }
    let referred = |blob: &BlobId| tables.keys(Table::Referrers, keys::referrers(*blob)).next().is_some();
    astray.extend(here.into_iter().filter(referred));
    astray.into_iter().collect()
}

fn on_disk(tables: &Tables, files: &[(BlobId, u64)]) -> BTreeSet<BlobId> {
    let inline = tables.keys(Table::Inline, keys::all()).map(|key| keys::read_blob(&key));
    files.iter().map(|(blob, _)| *blob).chain(inline).collect()
}

struct Disk {
    tables: Tables,
    blobs: Blobs,
    node: NodeId,
}

impl Disk {
    fn check(&self, path: &FtpPath, head: &Head, file: &File, loser: bool) -> FileReport {
        let listed = head.location.nodes.contains(&self.node);
        let checked = self.bytes(file);
        let absent = matches!(checked, Err(Problem::Absent));
        let (holds, whole) = (checked.is_ok(), checked.as_ref().ok().copied());
        FileReport {
            path: path.clone(),
            size: file.size,
            hash: file.hash.or(whole),
            extents: file.extents.len(),
            position: head.position,
            loser,
            nodes: head.location.nodes.clone(),
            listed,
            holds,
            ok: holds || (absent && !listed),
            problem: checked.err().filter(|_| listed || !absent).map(|problem| problem.to_string()),
        }
    }

    /// Reads all extents in order; each must have its hash, and all together the file's, where that is known: the hash of it.
    fn bytes(&self, file: &File) -> Result<Hash, Problem> {
        let (mut whole, mut size) = (blake3::Hasher::new(), 0);
        for extent in &file.extents {
            let mut part = blake3::Hasher::new();
            self.read(extent, |bytes| {
                part.update(bytes);
                whole.update(bytes);
            })?;
            if Hash::from(part.finalize()) != extent.hash {
                return Err(Problem::Rotten(extent.blob));
            }
            size += extent.length;
        }
        if size != file.size {
            return Err(Problem::Size(size));
        }
        let whole = Hash::from(whole.finalize());
        if file.hash.is_none_or(|hash| hash == whole) { Ok(whole) } else { Err(Problem::Whole) }
    }

    fn read(&self, extent: &Extent, mut each: impl FnMut(&[u8])) -> Result<(), Problem> {
        let short = |e: std::io::Error| Problem::Unreadable(extent.blob, e.to_string());
        let inline = self.tables.try_get(Table::Inline, &keys::blob(extent.blob));
        if let Some(value) = inline.map_err(|e| Problem::Unreadable(extent.blob, e.to_string()))? {
            let range = usize::try_from(extent.offset).ok().zip(usize::try_from(extent.offset + extent.length).ok());
            let part = range.and_then(|(from, to)| keys::payload(&value).get(from..to));
            each(part.ok_or_else(|| Problem::Unreadable(extent.blob, "shorter than its extent".to_owned()))?);
            return Ok(());
        }
        let mut blob = self.blobs.open(extent.blob)?.ok_or(Problem::Absent)?;
        blob.seek(SeekFrom::Start(extent.offset)).map_err(short)?;
        let (mut left, mut block) = (extent.length, vec![0; BLOCK]);
        while left > 0 {
            let most = left.min(BLOCK as u64);
            let part = &mut block[..usize::try_from(most).expect("a block's length")];
            blob.read_exact(part).map_err(short)?;
            each(part);
            left -= most;
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("its bytes are not here")]
    Absent,
    #[error("blob {0} has other bytes than were stored")]
    Rotten(BlobId),
    #[error("blob {0} cannot be read: {1}")]
    Unreadable(BlobId, String),
    #[error("its extents have {0} bytes together")]
    Size(u64),
    #[error("its extents do not make up the whole that was stored")]
    Whole,
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Batch, Hlc, Location, Mutation, OpId};
    use crate::store::Store;
    use bytes::Bytes;

    #[tokio::test]
    async fn losers_are_checked_too_and_counted_for_themselves() {
        let dir = tempfile::tempdir().unwrap();
        let (persisted, _reports) = tokio::sync::mpsc::channel(1);
        let store = Store::open(dir.path(), persisted).unwrap();
        let p = |text: &str| FtpPath::try_from(text.to_owned()).unwrap();
        let blob = |n: u128| BlobId { op: OpId(n), ..BlobId::default() };
        let head = |n: u128, bytes: &[u8]| {
            let (length, hash) = (bytes.len() as u64, Hash::from(blake3::hash(bytes)));
            let extents = vec![Extent { blob: blob(n), offset: 0, length, hash }];
            let what = Version::File(File { extents, size: length, hash: Some(hash), modified: 1, ..File::default() });
            let location = Location { nodes: vec![store.node()], ..Location::default() };
            let position = Position { seq: n as u64, ..Position::default() };
            Head { position, hlc: Hlc(n as u64), op: OpId(n), confirmed: true, what, location }
        };
        let entries = [
            ("/f", vec![head(4, b"won"), head(3, b"lost"), head(2, b"gone")]),
            ("/x", vec![head(1, b"hidden")]),
            ("/x/y", vec![head(5, b"hides")]),
        ];
        for (n, bytes) in [(1, "hidden"), (3, "lost"), (4, "won"), (5, "hides")] {
            store.put_inline(blob(n), Bytes::from_static(bytes.as_bytes())).await.unwrap().unwrap();
        }
        let set = |(path, heads)| Mutation::Entry(p(path), Some(PathEntry { heads }));
        store.submit(Batch { number: 1, sync: true, mutations: entries.map(set).to_vec() });
        drop(store);
        let mut reports = vec![];
        let summary =
            verify(dir.path(), |r| reports.push((r.path.to_string(), r.position.seq, r.loser, r.ok))).unwrap();
        let expected = [("/f", 4, false, true), ("/f", 3, true, true), ("/f", 2, true, false), ("/x", 1, true, true)];
        let expected = expected.into_iter().chain([("/x/y", 5, false, true)]);
        assert_eq!(reports, expected.map(|(path, n, loser, ok)| (path.to_owned(), n, loser, ok)).collect::<Vec<_>>());
        let Summary { files, held, bytes, losers, losers_held, problems, .. } = summary;
        assert_eq!((files, held, bytes, losers, losers_held, problems), (2, 2, 8, 3, 2, 1));
    }
}
