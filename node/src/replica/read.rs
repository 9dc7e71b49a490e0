//! RETR: a version's bytes from this disk or, proxied block by block and never stored, from a replica (specification: the
//! node in between keeps nothing). A replica that dies is replaced by another at the same offset of the same version. A copy
//! that turns out to be bad is doubted: its node reads it again.

use super::Replicas;
use super::raw::{Incoming, Raw};
use super::wire::RawError;
use crate::cluster::{BlobId, Extent, File, Hash, Location, NodeId};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// A file of one extent that is no longer than this is read before anybody could take it away.
const AT_ONCE: u64 = 4 << 20;

/// Why a version could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No node that holds the bytes answers.
    #[error("no replica of the file answers")]
    NoReplica,
    /// The offset is beyond the end.
    #[error("offset beyond the end of the file")]
    BeyondEnd,
    /// The bytes that came do not fit their hash, and some were already handed out.
    #[error("the file's bytes are damaged on a replica")]
    Damaged,
}

/// A version's bytes from some offset on.
#[derive(Debug)]
pub enum Download {
    /// All of it is one file on this disk: its handle, where to begin, how many bytes. Fit for sendfile, which compares no
    /// hash: other bytes than were stored are the scrubber's to find.
    Local {
        /// The blob's file.
        file: std::fs::File,
        /// First byte.
        offset: u64,
        /// How many.
        length: u64,
        /// What to go on with should the file end early. `None` where there is nothing else.
        elsewhere: Option<Elsewhere>,
    },
    /// Anything else: inline, proxied, several extents.
    Stream(Stream),
}

/// Chunks of a version, from wherever they are; a replica that dies is replaced at the same offset.
#[derive(Debug)]
pub struct Stream {
    raw: Arc<Raw>,
    nodes: Vec<NodeId>,
    /// Whether this node should have all of it.
    named: bool,
    parts: VecDeque<Part>,
    incoming: Option<(NodeId, Incoming)>,
    /// Nodes that failed since the last byte.
    failed: Vec<NodeId>,
    /// Says that the blobs are being read; ends with the stream.
    _keeper: JoinSet<()>,
}

/// The other copies of a file on this disk.
#[derive(Debug)]
pub struct Elsewhere {
    raw: Arc<Raw>,
    nodes: Vec<NodeId>,
    extent: Extent,
}

impl Elsewhere {
    /// The bytes from the file's byte `at` on, from other nodes: this one's copy ended there or could not be read, and is
    /// doubted.
    pub async fn resume(self, at: u64) -> Result<Stream, ReadError> {
        let Self { raw, nodes, extent } = self;
        tracing::warn!(blob = %extent.blob, at, "the copy on this disk ended early; the rest comes from another node");
        raw.doubt(raw.me, extent.blob);
        let failed = vec![raw.me];
        let parts = VecDeque::from([Part { extent, at: at - extent.offset, handed: 0, hasher: None }]);
        let mut stream = Stream::new(&raw, nodes, true, parts);
        stream.failed = failed;
        stream.open().await?;
        Ok(stream)
    }
}

/// What is to be read of one extent.
#[derive(Debug)]
struct Part {
    extent: Extent,
    /// Bytes of the extent that are skipped or handed out.
    at: u64,
    /// Handed out.
    handed: u64,
    /// Only when the extent is read from its start.
    hasher: Option<blake3::Hasher>,
}

impl Stream {
    fn new(raw: &Arc<Raw>, nodes: Vec<NodeId>, named: bool, parts: VecDeque<Part>) -> Self {
        let mut keeper = JoinSet::new();
        if parts.len() > 1 || parts.iter().any(|part| part.extent.length > AT_ONCE) {
            let blobs = parts.iter().map(|part| part.extent.blob).collect();
            keeper.spawn(keep(raw.clone(), nodes.clone(), blobs));
        }
        Self { raw: raw.clone(), nodes, named, parts, incoming: None, failed: Vec::new(), _keeper: keeper }
    }
    /// The next chunk, `None` at the end. Safe to cancel. Bytes that fail their hash are an error before the last chunk is handed out.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, ReadError> {
        while let Some(part) = self.parts.front_mut() {
            if part.at == part.extent.length {
                self.parts.pop_front();
                self.incoming = None;
                continue;
            }
            let Some((node, incoming)) = &mut self.incoming else {
                self.open().await?;
                continue;
            };
            let node = *node;
            match incoming.next(&self.raw.pool).await.and_then(|chunk| part.take(chunk)) {
                Ok(chunk) => {
                    self.failed.clear();
                    return Ok(Some(chunk));
                }
                Err(RawError::Damaged) if part.handed > 0 => {
                    tracing::error!(%node, blob = %part.extent.blob, "bytes do not fit their hash");
                    self.raw.doubt(node, part.extent.blob);
                    return Err(ReadError::Damaged);
                }
                Err(error) => {
                    if node == self.raw.me || matches!(error, RawError::Damaged) {
                        self.raw.doubt(node, part.extent.blob);
                    }
                    tracing::warn!(%node, blob = %part.extent.blob, at = part.at, %error, "replica lost during a download");
                    self.incoming = None;
                    self.failed.push(node);
                    self.raw.pool.shun(node);
                }
            }
        }
        Ok(None)
    }

    /// Opens what is left of the first part at the first node that has it and did not just fail.
    async fn open(&mut self) -> Result<(), ReadError> {
        let Some(part) = self.parts.front() else { return Ok(()) };
        let (blob, offset, length) = (part.extent.blob, part.extent.offset + part.at, part.extent.length - part.at);
        for &node in &self.nodes {
            if self.failed.contains(&node) {
                continue;
            }
            let opened = if node == self.raw.me {
                self.raw.get_local(blob, offset, length).await
            } else {
                self.raw.get(node, blob, offset, length).await.map(Some)
            };
            match opened {
                Ok(Some(incoming)) => {
                    self.incoming = Some((node, incoming));
                    return Ok(());
                }
                Ok(None) if self.named => self.raw.doubt(node, blob),
                Ok(None) => {}
                Err(error) => tracing::debug!(%node, %blob, %error, "replica does not serve"),
            }
            self.failed.push(node);
        }
        Err(ReadError::NoReplica)
    }
}

/// Tells all replicas now and then that blobs are being read: a version that is replaced, or whose extents are merged, stays
/// for a slow reader.
async fn keep(raw: Arc<Raw>, nodes: Vec<NodeId>, blobs: Vec<BlobId>) {
    loop {
        sleep(raw.limits.keep).await;
        for &node in &nodes {
            for &blob in &blobs {
                if let Err(error) = raw.keep(node, blob).await {
                    tracing::debug!(%node, %blob, %error, "no sign of life to a replica");
                    break;
                }
            }
        }
    }
}

impl Part {
    /// Checks the next chunk, if there is one, and hands it out.
    fn take(&mut self, chunk: Option<Bytes>) -> Result<Bytes, RawError> {
        let chunk = chunk.ok_or(RawError::Ended)?;
        let at = self.at + chunk.len() as u64;
        if at > self.extent.length {
            return Err(RawError::BodyTooLong);
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&chunk);
            if at == self.extent.length && Hash::from(hasher.finalize()) != self.extent.hash {
                hasher.reset();
                return Err(RawError::Damaged);
            }
        }
        (self.at, self.handed) = (at, self.handed + chunk.len() as u64);
        Ok(chunk)
    }
}

impl Replicas {
    /// Opens a version from byte `offset` on.
    pub async fn open(&self, file: &File, location: &Location, offset: u64) -> Result<Download, ReadError> {
        open(&self.raw, file, location, offset).await
    }
}

/// [`Replicas::open`] without the cluster.
pub(super) async fn open(raw: &Arc<Raw>, file: &File, location: &Location, offset: u64) -> Result<Download, ReadError> {
    if offset > file.size {
        return Err(ReadError::BeyondEnd);
    }
    let parts = parts(&file.extents, offset);
    let nodes = order(raw, &location.nodes);
    // Before the leader's word says so, and after it no longer does: a blob that is here is the right one.
    if let (Some(Part { extent, at, .. }), 1) = (parts.front(), parts.len()) {
        let (offset, length) = (extent.offset + *at, extent.length - *at);
        if let Ok(Some(file)) = raw.open_blob(extent.blob, offset, length).await {
            let elsewhere = Some(Elsewhere { raw: raw.clone(), nodes, extent: *extent });
            return Ok(Download::Local { file, offset, length, elsewhere });
        }
    }
    let named = location.nodes.contains(&raw.me);
    let mut stream = Stream::new(raw, nodes, named, parts);
    // Before the client is told that its file comes.
    stream.open().await?;
    Ok(Download::Stream(stream))
}

/// One whole extent, whose hash is checked before its last bytes are handed out.
pub(super) fn verified(raw: &Arc<Raw>, extent: Extent, location: &Location) -> Stream {
    let (nodes, named) = (order(raw, &location.nodes), location.nodes.contains(&raw.me));
    Stream::new(raw, nodes, named, parts(&[extent], 0))
}

/// What of the extents lies behind `offset`.
fn parts(extents: &[Extent], offset: u64) -> VecDeque<Part> {
    let mut skip = offset;
    let mut parts = VecDeque::new();
    for &extent in extents {
        let at = skip.min(extent.length);
        skip -= at;
        if at < extent.length {
            parts.push_back(Part { extent, at, handed: 0, hasher: (at == 0).then(blake3::Hasher::new) });
        }
    }
    parts
}

/// This node first, then the others in turn, those that failed a moment ago last.
fn order(raw: &Raw, nodes: &[NodeId]) -> Vec<NodeId> {
    let mut others: Vec<_> = nodes.iter().copied().filter(|node| *node != raw.me).collect();
    if !others.is_empty() {
        let turn = raw.turn.fetch_add(1, Ordering::Relaxed) % others.len();
        others.rotate_left(turn);
    }
    others.sort_by_key(|node| raw.pool.is_shunned(*node));
    others.insert(0, raw.me);
    others
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_beyond_an_extents_end_is_handed_out() {
        let bytes = Bytes::from_static(b"twelve bytes");
        let extent = Extent { blob: BlobId::default(), offset: 0, length: 12, hash: blake3::hash(&bytes).into() };
        let mut part = parts(&[extent], 0).pop_front().unwrap();
        assert_eq!(part.take(Some(bytes.slice(..5))).unwrap(), bytes.slice(..5));
        let more = Bytes::from_static(b"e bytes!");
        assert!(matches!(part.take(Some(more)), Err(RawError::BodyTooLong)));
        assert!(matches!(part.take(None), Err(RawError::Ended)));
        assert_eq!((part.at, part.handed), (5, 5), "it goes on from there");
        assert_eq!(part.take(Some(bytes.slice(5..))).unwrap(), bytes.slice(5..));
    }
}
