//! STOR and APPE: from the client's chunks to three disks and a committed version. The doors only; the way is in `stage`.

use super::Replicas;
use super::delta::collect;
use super::raw::Raw;
use super::read::{ReadError, verified};
use super::stage::{append, stage};
use crate::cluster::{BlobId, Change, Extent, FrontEvent, Location, NodeId, Outcome, Refusal};
use crate::peer::{Operation, Stopped};
use bytes::Bytes;
use std::future::Future;
use std::sync::Arc;

/// Where an upload's bytes come from.
pub trait Source: Send {
    /// The next chunk, `None` at a clean end. An error means that the upload was cut: nothing of it may show.
    fn next_chunk(&mut self) -> impl Future<Output = std::io::Result<Option<Bytes>>> + Send;
}

/// Why an upload failed. Unless it is `Refused(Unknown)`, nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The client's side broke.
    #[error("the upload was cut: {0}")]
    Source(std::io::Error),
    /// The cluster refused it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Too few replicas took the bytes (disks full, nodes lost).
    #[error("no node could store the bytes: {0}")]
    NoReplica(String),
    /// What is there already could not be read.
    #[error(transparent)]
    Base(#[from] ReadError),
    /// The node stops.
    #[error("the node is shutting down")]
    Stopped,
}

impl From<Stopped> for UploadError {
    fn from(Stopped: Stopped) -> Self {
        Self::Stopped
    }
}

/// What an upload did.
#[derive(Debug, Clone)]
pub struct Uploaded {
    /// Position, clock, copies.
    pub outcome: Outcome,
    /// Bytes.
    pub size: u64,
}

/// An upload whose lock is held and whose replicas are known: only now may the data connection be opened.
#[derive(Debug)]
pub struct Upload {
    raw: Arc<Raw>,
    operation: Operation,
    blob: BlobId,
    nodes: Vec<NodeId>,
}

/// Bytes of the version that is there, to be stored anew before those that the client sends: an extent is not cut, for the
/// hash of a part of it is not known.
#[derive(Debug, Clone)]
pub struct Restored {
    /// The extent they are in.
    pub extent: Extent,
    /// How many of its first bytes.
    pub length: u64,
    /// Where it is.
    pub location: Location,
}

impl Replicas {
    /// Takes all bytes, then asks for the lock: many clients may append to one file at a time, and a slow one keeps nobody
    /// waiting. Dropping the future cancels it.
    pub async fn append<S: Source>(
        &self,
        change: Change,
        restored: Option<Restored>,
        source: &mut S,
    ) -> Result<Uploaded, UploadError> {
        let head =
            restored.map(|Restored { extent, length, location }| (verified(&self.raw, extent, &location), length));
        let delta = collect(&self.raw, head, source).await?;
        let Upload { raw, operation, blob, nodes } = self.begin(change).await?;
        let (outcome, size) = append(raw, operation, blob, nodes, delta).await?;
        Ok(Uploaded { outcome, size })
    }
    /// Asks for lock and plan.
    pub async fn begin(&self, change: Change) -> Result<Upload, UploadError> {
        let mut operation = self.handle.submit(change, self.raw.limits.patience).await?;
        match operation.next().await? {
            FrontEvent::Stage { blob, replicas } => {
                Ok(Upload { raw: self.raw.clone(), operation, blob, nodes: replicas })
            }
            FrontEvent::Refused(refusal) => Err(refusal.into()),
            event @ (FrontEvent::Replacement { .. } | FrontEvent::Done(_)) => {
                tracing::error!(op = %operation.id(), ?event, "an event before the bytes were asked for");
                Err(Refusal::Unknown.into())
            }
        }
    }
}

impl Upload {
    /// Streams all chunks to the replicas, waits for every confirmation, commits. Dropping the future, or the upload,
    /// cancels it.
    pub async fn run<S: Source>(self, source: &mut S) -> Result<Uploaded, UploadError> {
        let Self { raw, operation, blob, nodes } = self;
        let (outcome, size) = stage(raw, operation, blob, nodes, source).await?;
        Ok(Uploaded { outcome, size })
    }
}
