//! STOR: from the client's chunks to three disks and a committed version.

use super::Replicas;
use crate::cluster::{Change, Outcome, Refusal};
use bytes::Bytes;
use std::future::Future;

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
    /// The node stops.
    #[error("the node is shutting down")]
    Stopped,
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
pub struct Upload {}

impl Replicas {
    /// Asks for lock and plan.
    pub async fn begin(&self, _change: Change) -> Result<Upload, UploadError> {
        unimplemented!()
    }
}

impl Upload {
    /// Streams all chunks to the replicas, waits for every confirmation, commits. Dropping the future, or the upload,
    /// cancels it.
    pub async fn run<S: Source>(self, _source: &mut S) -> Result<Uploaded, UploadError> {
        unimplemented!()
    }
}
