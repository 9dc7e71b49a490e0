//! What can be done with a blob on a node, this one or another: put, get, copy, keep. This node's own disk takes the same
//! steps without a socket. It knows nothing of paths, versions or operations.

use super::blocks::Blocks;
use super::delta::Deltas;
use super::doubt::Doubts;
use super::pace::SharedPace;
use super::pool::{Connection, Pool, check_stored, message};
use super::sink::{Sink, finish};
use super::wire::{
    Answer, Failure, HEADER_MAX, RawError, Request, append_body, read_chunk, read_hash, within, write_chunk, write_end,
};
use super::{Cluster, Limits};
use crate::cluster::{BlobId, Hash, NodeId};
use crate::meter::{Direction, Meter};
use crate::peer::read_frame;
use crate::store::{BlobWriter, INLINE_MAX, Store};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

/// One node's raw port, as server and as client.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) me: NodeId,
    pub(crate) cluster: Box<dyn Cluster>,
    pub(crate) store: Arc<Store>,
    pub(crate) pool: Pool,
    pub(crate) limits: Limits,
    /// What waits here for the replicas of appends.
    pub(crate) deltas: Deltas,
    pub(crate) doubts: Doubts,
    /// Spreads reads over replicas.
    pub(crate) turn: AtomicUsize,
    /// What is copied in the background, for nobody who waits for it.
    pub(crate) repair: SharedPace,
}

/// A blob's bytes as they are sent to a replica.
#[derive(Debug, Clone)]
pub(crate) enum Block {
    /// At most a chunk, not empty.
    Bytes(Bytes),
    /// All were sent: their number and hash.
    End(u64, Hash),
}

/// Bytes of one blob that are here, or on their way from another node.
#[derive(Debug)]
pub(crate) enum Incoming {
    Memory(Bytes),
    File(Blocks),
    Remote(Box<Remote>),
}

/// A body being received.
#[derive(Debug)]
pub(crate) struct Remote {
    /// Taken while a chunk is read: a read that was cancelled leaves none.
    connection: Option<Connection>,
    left: u64,
    hasher: blake3::Hasher,
}

impl Raw {
    /// Stores a small blob on `node`; done when it is durable there.
    pub(crate) async fn put_small(&self, node: NodeId, blob: BlobId, bytes: &Bytes) -> Result<(), RawError> {
        if node == self.me {
            return self.stage_small(blob, bytes.clone()).await;
        }
        let mut request = message(&Request::PutSmall { blob })?;
        append_body(&mut request, bytes);
        let (connection, answer) = self.pool.ask(self.find(node)?, &request, self.limits.replica_stalled).await?;
        self.pool.meter.replicated(Direction::Out, bytes.len());
        check_stored(&answer, bytes.len() as u64, blake3::hash(bytes).into())?;
        self.pool.give_back(connection);
        Ok(())
    }
    /// Streams a large blob to `node`; done when it is durable there. Ends without `Block::End`: nothing stays.
    pub(crate) async fn put_large(
        &self,
        node: NodeId,
        blob: BlobId,
        blocks: mpsc::Receiver<Block>,
    ) -> Result<(), RawError> {
        if node == self.me { self.take_large(blob, blocks).await } else { self.send_large(node, blob, blocks).await }
    }
    /// Has `node` fetch a blob from `from`; done when it is durable there. `moved` counts its bytes.
    pub(crate) async fn copy(
        &self,
        node: NodeId,
        from: NodeId,
        (blob, length, hash): (BlobId, u64, Hash),
        moved: &AtomicU64,
    ) -> Result<(), RawError> {
        if node == self.me {
            return self.fetch(blob, (length, hash), from, moved, None).await;
        }
        let request = message(&Request::Copy { blob, length, hash, from })?;
        let (mut connection, mut answer) = self.pool.ask(self.find(node)?, &request, self.limits.stalled).await?;
        let mut before = 0;
        // Only bytes are signs of life: a copy that stands still is given up.
        let mut since = tokio::time::Instant::now();
        while let Answer::Moved { bytes } = answer {
            if bytes > before {
                moved.fetch_add(bytes - before, Ordering::Relaxed);
                (before, since) = (bytes, tokio::time::Instant::now());
            }
            let limit = self.limits.stalled.saturating_sub(since.elapsed());
            answer = within(limit, connection.answer()).await?;
        }
        check_stored(&answer, length, hash)?;
        self.pool.give_back(connection);
        Ok(())
    }
    /// Tells `node` that the front of a blob still lives.
    pub(crate) async fn keep(&self, node: NodeId, blob: BlobId) -> Result<(), RawError> {
        if node == self.me {
            return Ok(self.cluster.blob_kept(blob).await?);
        }
        let request = message(&Request::Keep { blob })?;
        self.noted(node, &request).await
    }
    /// Has another node read its copy again.
    pub(crate) async fn tell_doubt(&self, node: NodeId, blob: BlobId) -> Result<(), RawError> {
        let request = message(&Request::Doubt { blob })?;
        self.noted(node, &request).await
    }
    /// Sends a request that is only noted.
    async fn noted(&self, node: NodeId, request: &[u8]) -> Result<(), RawError> {
        let (connection, answer) = self.pool.ask(self.find(node)?, request, self.limits.answer).await?;
        if answer != Answer::Kept {
            return Err(RawError::Unexpected);
        }
        self.pool.give_back(connection);
        Ok(())
    }
    /// Begins to read `length` bytes of a blob from another node.
    pub(crate) async fn get(&self, node: NodeId, blob: BlobId, offset: u64, length: u64) -> Result<Incoming, RawError> {
        let request = message(&Request::Get { blob, offset, length })?;
        let (connection, answer) = self.pool.ask(self.find(node)?, &request, self.limits.answer).await?;
        if answer != Answer::Sending {
            return Err(RawError::Unexpected);
        }
        Ok(Incoming::Remote(Box::new(Remote {
            connection: Some(connection),
            left: length,
            hasher: blake3::Hasher::new(),
        })))
    }
    /// The same from this node's disk; `None` when it does not have those bytes.
    pub(crate) async fn get_local(&self, blob: BlobId, offset: u64, length: u64) -> Result<Option<Incoming>, RawError> {
        if let Some(bytes) = self.store.inline(blob) {
            return Ok(range(&bytes, offset, length).map(Incoming::Memory));
        }
        if let Some(delta) = self.deltas.open(blob) {
            return Ok(Some(Incoming::File(Blocks::new(delta, offset, length))));
        }
        let file = self.open_blob(blob, offset, length).await?;
        Ok(file.map(|file| Incoming::File(Blocks::new(file, offset, length))))
    }
    /// A blob's file on this disk, if it has those bytes.
    pub(crate) async fn open_blob(
        &self,
        blob: BlobId,
        offset: u64,
        length: u64,
    ) -> Result<Option<std::fs::File>, RawError> {
        let store = self.store.clone();
        let opening = spawn_blocking(move || -> Result<_, RawError> {
            let Some(file) = store.open_blob(blob)? else { return Ok(None) };
            let enough = offset.checked_add(length).is_some_and(|end| file.metadata().is_ok_and(|m| m.len() >= end));
            Ok(enough.then_some(file))
        });
        within(self.limits.answer, async { opening.await? }).await
    }
    /// Makes a small blob durable here.
    pub(crate) async fn stage_small(&self, blob: BlobId, bytes: Bytes) -> Result<(), RawError> {
        self.cluster.blob_staged(blob).await?;
        let written = self.store.put_inline(blob, bytes);
        Ok(within(self.limits.stalled, async { written.await.map_err(|_| RawError::from(Failure::Stopping)) })
            .await??)
    }
    /// Makes a large blob durable here, if its bytes hash to `hash`: how long it is.
    pub(crate) async fn stage_large(&self, sink: Sink, blob: BlobId, hash: Hash) -> Result<u64, RawError> {
        // First the word, then the blob: if this future is dropped in between, the blob is still collected one day.
        self.cluster.blob_staged(blob).await?;
        sink.finish(hash, self.limits.stalled).await
    }
    /// Copies a blob from another node to this disk, at a pace where nobody waits for it.
    pub(crate) async fn fetch(
        &self,
        blob: BlobId,
        (length, hash): (u64, Hash),
        from: NodeId,
        moved: &AtomicU64,
        pace: Option<&SharedPace>,
    ) -> Result<(), RawError> {
        let origin = |_| RawError::from(Failure::Origin);
        if from == self.me {
            return self.adopt(blob).await;
        }
        let mut incoming = self.get(from, blob, 0, length).await.map_err(origin)?;
        if length <= INLINE_MAX {
            let mut bytes = Vec::new();
            while let Some(chunk) = incoming.next(&self.pool).await.map_err(origin)? {
                bytes.extend_from_slice(&chunk);
                spend(pace, &chunk).await;
            }
            if Hash::from(blake3::hash(&bytes)) != hash {
                self.doubt(from, blob);
                return Err(Failure::Origin.into());
            }
            return self.stage_small(blob, bytes.into()).await;
        }
        let mut sink = Sink::create(&self.store, blob, self.limits.replica_stalled).await?;
        while let Some(chunk) = incoming.next(&self.pool).await.map_err(origin)? {
            sink.push(&chunk).await?;
            moved.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            spend(pace, &chunk).await;
        }
        match self.stage_large(sink, blob, hash).await {
            Err(RawError::Damaged) => {
                self.doubt(from, blob);
                Err(Failure::Origin.into())
            }
            done => done.map(drop),
        }
    }

    /// Makes a blob of what this node received for an append.
    async fn adopt(&self, blob: BlobId) -> Result<(), RawError> {
        let writer = self.deltas.writer(blob).ok_or(Failure::Origin)?;
        self.name(blob, writer).await
    }
    /// Makes what was written a blob of this node's.
    pub(crate) async fn name(&self, blob: BlobId, mut writer: BlobWriter) -> Result<(), RawError> {
        writer.assign(blob);
        self.cluster.blob_staged(blob).await?;
        finish(writer, self.limits.stalled).await
    }

    async fn take_large(&self, blob: BlobId, mut blocks: mpsc::Receiver<Block>) -> Result<(), RawError> {
        let mut sink = Sink::create(&self.store, blob, self.limits.replica_stalled).await?;
        loop {
            match blocks.recv().await {
                Some(Block::Bytes(bytes)) => sink.push(&bytes).await?,
                Some(Block::End(length, hash)) => {
                    let size = self.stage_large(sink, blob, hash).await?;
                    debug_assert_eq!(size, length, "equal hashes, equal lengths");
                    return Ok(());
                }
                None => return Err(RawError::Ended),
            }
        }
    }
    async fn send_large(&self, node: NodeId, blob: BlobId, mut blocks: mpsc::Receiver<Block>) -> Result<(), RawError> {
        let request = message(&Request::PutLarge { blob })?;
        let (mut connection, answer) = self.pool.ask(self.find(node)?, &request, self.limits.replica_stalled).await?;
        if answer != Answer::Ready {
            return Err(RawError::Unexpected);
        }
        self.send_body(&mut connection, &mut blocks).await?;
        self.pool.give_back(connection);
        Ok(())
    }
    async fn send_body(
        &self,
        Connection { stream, buffer, .. }: &mut Connection,
        blocks: &mut mpsc::Receiver<Block>,
    ) -> Result<(), RawError> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let answer = async { read_frame(&mut reader, buffer, HEADER_MAX).await?.ok_or(RawError::Ended) };
        let mut answer = std::pin::pin!(answer);
        let (length, hash) = tokio::select! {
            biased;
            sent = send_blocks(&mut writer, blocks, self.limits.replica_stalled, &self.pool.meter) => sent?,
            // Before the end there can only be bad news: a full disk, or the connection's end.
            early = &mut answer => return match early? {
                Answer::Failed(failure) => Err(failure.into()),
                _ => Err(RawError::Unexpected),
            },
        };
        check_stored(&within(self.limits.stalled, answer).await?, length, hash)
    }
    /// A node with its address.
    fn find(&self, node: NodeId) -> Result<(NodeId, std::net::SocketAddr), RawError> {
        self.cluster.raw(node).map(|address| (node, address)).ok_or(RawError::Unknown)
    }
}

impl Incoming {
    /// The next chunk, never empty; `None` at the end. A remote body's own hash is checked before its last chunk.
    pub(crate) async fn next(&mut self, pool: &Pool) -> Result<Option<Bytes>, RawError> {
        let limit = pool.limits.replica_stalled;
        match self {
            Self::Memory(bytes) => {
                let bytes = std::mem::take(bytes);
                Ok((!bytes.is_empty()).then_some(bytes))
            }
            Self::File(blocks) => within(limit, blocks.next()).await,
            Self::Remote(remote) => within(limit, remote.next(pool)).await,
        }
    }
}

impl Remote {
    async fn next(&mut self, pool: &Pool) -> Result<Option<Bytes>, RawError> {
        let Some(mut connection) = self.connection.take() else {
            return if self.left == 0 { Ok(None) } else { Err(RawError::Ended) };
        };
        let mut chunk = Vec::new();
        if self.left > 0 {
            let length = read_chunk(&mut connection.stream, &mut chunk).await?;
            if length == 0 {
                return Err(RawError::Ended);
            }
            pool.meter.replicated(Direction::In, length);
            self.left = self.left.checked_sub(length as u64).ok_or(RawError::BodyTooLong)?;
            self.hasher.update(&chunk);
        }
        if self.left > 0 {
            self.connection = Some(connection);
            return Ok(Some(chunk.into()));
        }
        if read_chunk(&mut connection.stream, &mut Vec::new()).await? != 0 {
            return Err(RawError::BodyTooLong);
        }
        if read_hash(&mut connection.stream).await? != self.hasher.finalize().into() {
            return Err(RawError::Damaged);
        }
        pool.give_back(connection);
        Ok((!chunk.is_empty()).then(|| chunk.into()))
    }
}

/// Writes blocks as a body until its end: how long it was, and its hash. No write may take longer than `limit`.
async fn send_blocks<W: AsyncWrite + Unpin>(
    writer: &mut W,
    blocks: &mut mpsc::Receiver<Block>,
    limit: Duration,
    meter: &Meter,
) -> Result<(u64, Hash), RawError> {
    loop {
        match blocks.recv().await {
            Some(Block::Bytes(bytes)) => {
                within(limit, write_chunk(writer, &bytes)).await?;
                meter.replicated(Direction::Out, bytes.len());
                // Nothing waits behind it: let it go.
                if blocks.is_empty() {
                    within(limit, writer.flush()).await?;
                }
            }
            Some(Block::End(length, hash)) => {
                within(limit, write_end(writer, hash)).await?;
                return Ok((length, hash));
            }
            None => return Err(RawError::Ended),
        }
    }
}

async fn spend(pace: Option<&SharedPace>, chunk: &Bytes) {
    if let Some(pace) = pace {
        pace.spend(chunk.len() as u64).await;
    }
}

/// A part of some bytes, if they go that far.
pub(crate) fn range(bytes: &Bytes, offset: u64, length: u64) -> Option<Bytes> {
    let from = usize::try_from(offset).ok()?;
    let to = usize::try_from(offset.checked_add(length)?).ok()?;
    (to <= bytes.len()).then(|| bytes.slice(from..to))
}
