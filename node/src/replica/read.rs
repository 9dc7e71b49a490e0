//! RETR: a version's bytes from this disk or, proxied block by block and never stored, from a replica.

use super::Replicas;
use crate::cluster::File;
use crate::cluster::Location;
use bytes::Bytes;

/// Why a version could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No node that holds the bytes answers.
    #[error("no replica of the file answers")]
    NoReplica,
    /// The offset is beyond the end.
    #[error("offset beyond the end of the file")]
    BeyondEnd,
}

/// A version's bytes from some offset on.
#[derive(Debug)]
pub enum Download {
    /// All of it is one file on this disk: its handle, where to begin, how many bytes. Fit for sendfile.
    Local {
        /// The blob's file.
        file: std::fs::File,
        /// First byte.
        offset: u64,
        /// How many.
        length: u64,
    },
    /// Anything else: inline, proxied, several extents.
    Stream(Stream),
}

/// Chunks of a version, from wherever they are; a replica that dies is replaced at the same offset.
#[derive(Debug)]
pub struct Stream {}

impl Stream {
    /// The next chunk, `None` at the end. Bytes that fail their hash are an error before the last chunk is handed out.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, ReadError> {
        unimplemented!()
    }
}

impl Replicas {
    /// Opens a version from byte `offset` on.
    pub async fn open(&self, _file: &File, _location: &Location, _offset: u64) -> Result<Download, ReadError> {
        unimplemented!()
    }
}
