//! A large blob on its way to this disk: collected to pieces of 1 MiB, hashed and written on blocking threads while the
//! next piece is collected. Dropped unfinished, it leaves nothing; it never says "durable" before the store does.

use super::wire::{Failure, RawError, within};
use crate::cluster::{BlobId, Hash};
use crate::store::{BlobWriter, Store, StoreError};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinHandle, spawn_blocking};

/// Bytes written at once.
const PIECE: usize = 1 << 20;

/// Takes a blob's bytes. At most two pieces in memory: one that is written, one that is collected.
#[derive(Debug)]
pub(crate) struct Sink {
    collected: Vec<u8>,
    pen: Pen,
    size: u64,
    stalled: Duration,
}

/// The writer goes to a blocking thread and comes back with every piece.
#[derive(Debug)]
enum Pen {
    Here(Box<Writing>),
    Away(JoinHandle<Result<Box<Writing>, StoreError>>),
    /// A write failed.
    Broken,
}

#[derive(Debug)]
struct Writing {
    writer: BlobWriter,
    hasher: blake3::Hasher,
    /// The piece written last, emptied: its memory is used again.
    spare: Vec<u8>,
}

impl Sink {
    /// Begins the blob's file. Neither this nor any later write may take longer than `stalled`.
    pub(crate) async fn create(store: &Arc<Store>, blob: BlobId, stalled: Duration) -> Result<Self, RawError> {
        let store = store.clone();
        let creating = spawn_blocking(move || store.create_blob(blob));
        let writer = within(stalled, async { creating.await.map_err(RawError::from) }).await??;
        let writing = Writing { writer, hasher: blake3::Hasher::new(), spare: Vec::new() };
        Ok(Self { collected: Vec::new(), pen: Pen::Here(Box::new(writing)), size: 0, stalled })
    }
    /// Where to append bytes, at most a chunk at a time; then call [`Self::settle`].
    pub(crate) fn collected(&mut self) -> &mut Vec<u8> {
        &mut self.collected
    }
    /// Hands what was collected to the disk when it is a piece; waits while the piece before is still being written.
    pub(crate) async fn settle(&mut self) -> Result<(), RawError> {
        if self.collected.len() >= PIECE { self.write().await } else { Ok(()) }
    }
    /// Appends.
    pub(crate) async fn push(&mut self, bytes: &[u8]) -> Result<(), RawError> {
        self.collected.extend_from_slice(bytes);
        self.settle().await
    }
    /// Makes the blob durable under its name if its bytes hash to `expected`; else nothing of it stays. The fsync of a
    /// large file has a limit of its own.
    pub(crate) async fn finish(self, expected: Hash, limit: Duration) -> Result<u64, RawError> {
        let (writer, size, hash) = self.hold().await?;
        if hash != expected {
            return Err(RawError::Damaged);
        }
        finish(writer, limit).await?;
        Ok(size)
    }
    /// Ends the bytes without making them a blob: the writer, how many there are, their hash.
    pub(crate) async fn hold(mut self) -> Result<(BlobWriter, u64, Hash), RawError> {
        if !self.collected.is_empty() {
            self.write().await?;
        }
        let writing = self.pen().await?;
        Ok((writing.writer, self.size, writing.hasher.finalize().into()))
    }

    async fn write(&mut self) -> Result<(), RawError> {
        let mut writing = self.pen().await?;
        let spare = std::mem::take(&mut writing.spare);
        let mut piece = std::mem::replace(&mut self.collected, spare);
        self.size += piece.len() as u64;
        self.pen = Pen::Away(spawn_blocking(move || {
            writing.hasher.update(&piece);
            writing.writer.write(&piece)?;
            piece.clear();
            writing.spare = piece;
            Ok(writing)
        }));
        Ok(())
    }
    /// The writer, once it is back.
    async fn pen(&mut self) -> Result<Box<Writing>, RawError> {
        match std::mem::replace(&mut self.pen, Pen::Broken) {
            Pen::Here(writing) => Ok(writing),
            Pen::Away(task) => Ok(within(self.stalled, async { task.await.map_err(RawError::from) }).await??),
            Pen::Broken => Err(Failure::Disk.into()),
        }
    }
}

/// [`BlobWriter::finish`], at most `limit` long.
pub(crate) async fn finish(writer: BlobWriter, limit: Duration) -> Result<(), RawError> {
    let finishing = spawn_blocking(move || writer.finish());
    Ok(within(limit, async { finishing.await.map_err(RawError::from) }).await??)
}
