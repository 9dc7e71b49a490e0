//! What an append brings, kept by the receiving node alone until the lock is held (specification 6.3): a small one in
//! memory, a large one in a file that has no name among the blobs yet. Whatever ends the append ends it, too. Replicas
//! fetch it from here; it never decides where it goes.

use super::raw::Raw;
use super::read::Stream;
use super::sink::Sink;
use super::wire::{Failure, RawError};
use super::write::{Source, UploadError};
use crate::cluster::{BlobId, Hash, OpId};
use crate::peer::random128;
use crate::store::{BlobWriter, INLINE_MAX};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Arc, Mutex};

/// All bytes of one append.
#[derive(Debug)]
pub(crate) struct Delta {
    pub(super) length: u64,
    pub(super) hash: Hash,
    pub(super) bytes: Kept,
}

/// Where they are.
#[derive(Debug)]
pub(crate) enum Kept {
    Memory(Bytes),
    Disk(Waiting),
}

/// A file whose blob has no name yet.
#[derive(Debug)]
pub(crate) struct Waiting {
    file: Arc<File>,
    /// Until it is a blob of this node's.
    pub(super) writer: Option<BlobWriter>,
}

/// The deltas whose blobs have got names, while replicas fetch them.
#[derive(Debug, Default)]
pub(crate) struct Deltas(Mutex<BTreeMap<BlobId, Waiting>>);

impl Deltas {
    /// A delta's bytes.
    pub(super) fn open(&self, blob: BlobId) -> Option<Arc<File>> {
        self.all().get(&blob).map(|waiting| waiting.file.clone())
    }
    /// The right to make a blob of it here. Given out once.
    pub(super) fn writer(&self, blob: BlobId) -> Option<BlobWriter> {
        self.all().get_mut(&blob).and_then(|waiting| waiting.writer.take())
    }
    fn all(&self) -> std::sync::MutexGuard<'_, BTreeMap<BlobId, Waiting>> {
        self.0.lock().expect("no panic while held")
    }
}

/// A delta that may be fetched. Dropped, it may not.
#[derive(Debug)]
pub(super) struct Offered {
    raw: Arc<Raw>,
    blob: BlobId,
}

impl Offered {
    pub(super) fn new(raw: &Arc<Raw>, blob: BlobId, waiting: Waiting) -> Self {
        raw.deltas.all().insert(blob, waiting);
        Self { raw: raw.clone(), blob }
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        // What goes with it, the file perhaps, goes after the lock.
        let gone = self.raw.deltas.all().remove(&self.blob);
        drop(gone);
    }
}

/// Takes everything from the source, behind the first bytes of what is there already, if that is wanted.
pub(super) async fn collect<S: Source>(
    raw: &Arc<Raw>,
    head: Option<(Stream, u64)>,
    source: &mut S,
) -> Result<Delta, UploadError> {
    let mut collecting = Collecting::new(raw);
    if let Some((mut stream, mut left)) = head {
        // To its end, for only there its hash is checked: what is stored anew must not be what rotted.
        while let Some(chunk) = stream.next_chunk().await? {
            let wanted = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            left -= wanted as u64;
            collecting.push(&chunk[..wanted]).await.map_err(held_up)?;
        }
    }
    while let Some(chunk) = source.next_chunk().await.map_err(UploadError::Source)? {
        collecting.push(&chunk).await.map_err(held_up)?;
    }
    collecting.end().await.map_err(held_up)
}

fn held_up(error: RawError) -> UploadError {
    match error {
        RawError::Stopped(stopped) => stopped.into(),
        error => UploadError::NoReplica(format!("this node cannot hold what is to be appended: {}", error.failure())),
    }
}

/// Bytes that come one after the other.
pub(super) struct Collecting<'a> {
    raw: &'a Arc<Raw>,
    memory: BytesMut,
    sink: Option<Sink>,
}

impl<'a> Collecting<'a> {
    pub(super) fn new(raw: &'a Arc<Raw>) -> Self {
        Self { raw, memory: BytesMut::new(), sink: None }
    }
    pub(super) async fn push(&mut self, bytes: &[u8]) -> Result<(), RawError> {
        if let Some(sink) = &mut self.sink {
            return sink.push(bytes).await;
        }
        self.memory.extend_from_slice(bytes);
        if self.memory.len() as u64 > INLINE_MAX {
            // A name that nothing else has, until the lock gives it the right one.
            let name = BlobId { op: OpId(random128()), ..BlobId::default() };
            let mut sink = Sink::create(&self.raw.store, name, self.raw.limits.replica_stalled).await?;
            sink.push(&std::mem::take(&mut self.memory)).await?;
            self.sink = Some(sink);
        }
        Ok(())
    }
    pub(super) async fn end(self) -> Result<Delta, RawError> {
        let Some(sink) = self.sink else {
            let bytes = self.memory.freeze();
            let (length, hash) = (bytes.len() as u64, blake3::hash(&bytes).into());
            return Ok(Delta { length, hash, bytes: Kept::Memory(bytes) });
        };
        let (writer, length, hash) = sink.hold().await?;
        let file = Arc::new(writer.reader().map_err(|_| Failure::Disk)?);
        Ok(Delta { length, hash, bytes: Kept::Disk(Waiting { file, writer: Some(writer) }) })
    }
}
