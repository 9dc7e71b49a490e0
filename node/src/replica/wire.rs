//! What is said on the raw port (specification 3.1: file bytes are unencoded streams). After the Hello one request follows
//! another, each a JSON frame; bodies are chunks, a big-endian `u32` length and that many bytes, length 0 ends them, then
//! comes the BLAKE3 of all their bytes. It never carries more than [`CHUNK_MAX`] at once, and never decides anything.

use crate::cluster::{BlobId, Hash, NodeId};
use crate::peer::{FrameError, GreetError, Stopped};
use crate::store::StoreError;
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Longest chunk of a body, in bytes.
pub(crate) const CHUNK_MAX: usize = 256 * 1024;
/// Longest request or answer, in bytes.
pub(crate) const HEADER_MAX: usize = 16 * 1024;

/// What one node asks of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// A body of at most [`INLINE_MAX`](crate::store::INLINE_MAX) bytes follows at once. Answered by `Stored`.
    PutSmall {
        /// The name to store it under.
        blob: BlobId,
    },
    /// A body of any length follows after `Ready`. Answered by `Stored`, or by `Failed` in the middle of it.
    PutLarge {
        /// The name to store it under.
        blob: BlobId,
    },
    /// Answered by `Sending` and a body of just `length` bytes.
    Get {
        /// Of which blob.
        blob: BlobId,
        /// First byte.
        offset: u64,
        /// How many.
        length: u64,
    },
    /// "Get this blob from that node, and keep it." Answered by any number of `Moved`, then `Stored`.
    Copy {
        /// Which.
        blob: BlobId,
        /// Its length in bytes.
        length: u64,
        /// What its bytes must hash to.
        hash: Hash,
        /// Who has it.
        from: NodeId,
    },
    /// "The front that staged this, or reads it, still lives." Answered by `Kept`.
    Keep {
        /// Which.
        blob: BlobId,
    },
    /// "What you sent of this is not what its hash says: read your copy again." Answered by `Kept`, before it is read.
    Doubt {
        /// Which.
        blob: BlobId,
    },
}

/// What the other answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// Send the body.
    Ready,
    /// Durable.
    Stored {
        /// In bytes.
        size: u64,
        /// Of what was stored.
        hash: Hash,
    },
    /// A body follows.
    Sending,
    /// A copy moves.
    Moved {
        /// Bytes so far.
        bytes: u64,
    },
    /// Noted.
    Kept,
    /// Nothing was stored. After a body that was cut short by it, the connection ends.
    Failed(Failure),
}

/// Why a node did not do what it was asked. Nothing of it is stored there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Failure {
    /// It does not have these bytes.
    #[error("it does not have these bytes")]
    NotHere,
    /// Its disk is full.
    #[error("its disk is full")]
    Full,
    /// Its disk failed; its own log says how.
    #[error("its disk failed")]
    Disk,
    /// What came is not what the hash says.
    #[error("the bytes did not arrive whole")]
    Damaged,
    /// The node it was to copy from failed.
    #[error("the node it was to copy from failed")]
    Origin,
    /// It shuts down.
    #[error("it is shutting down")]
    Stopping,
    /// The request or its body breaks the rules.
    #[error("the request breaks the rules")]
    Malformed,
    /// A reason of a later version.
    #[error("for a reason this version does not know")]
    #[serde(other)]
    Other,
}

impl Failure {
    /// A word for each: the log says each kind about a peer now and then, and not each time.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::NotHere => "request: not here",
            Self::Full => "request: full",
            Self::Disk => "request: disk",
            Self::Damaged => "request: damaged",
            Self::Origin => "request: origin",
            Self::Stopping => "request: stopping",
            Self::Malformed => "request: malformed",
            Self::Other => "request: other",
        }
    }
}

/// Why bytes did not get to or from a node. What was being stored is not, unless only its confirmation was lost.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RawError {
    #[error("its address is not known")]
    Unknown,
    #[error("{0}")]
    Greet(#[from] GreetError),
    #[error("node {0} answers at its address")]
    WrongNode(NodeId),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("closed in the middle")]
    Ended,
    #[error("nothing moved in time")]
    Stalled,
    #[error("refused: {0}")]
    Failed(#[from] Failure),
    #[error("the answer does not fit the request")]
    Unexpected,
    #[error("a chunk of {0} bytes, {CHUNK_MAX} are allowed")]
    ChunkTooLong(usize),
    #[error("the body is longer than announced")]
    BodyTooLong,
    #[error("the bytes are not those of the hash")]
    Damaged,
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Task(#[from] tokio::task::JoinError),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl RawError {
    /// True when the connection itself broke: on one from the pool, it may have been dead before.
    pub(crate) fn is_broken(&self) -> bool {
        matches!(self, Self::Io(_) | Self::Ended | Self::Frame(FrameError::Io(_)))
    }
    /// What to tell the peer.
    pub(crate) fn failure(&self) -> Failure {
        match self {
            Self::Failed(failure) => *failure,
            Self::Damaged => Failure::Damaged,
            Self::Store(error) => Failure::from(error),
            Self::Stopped(_) => Failure::Stopping,
            Self::Stalled | Self::Task(_) => Failure::Disk,
            _ => Failure::Malformed,
        }
    }
}

impl From<&StoreError> for Failure {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Full => Self::Full,
            StoreError::Closing => Self::Stopping,
            StoreError::TooLarge(_) => Self::Malformed,
            StoreError::Busy | StoreError::Io { .. } => Self::Disk,
        }
    }
}

/// Runs `work`, at most `limit` long.
pub(crate) async fn within<T, E: Into<RawError>>(
    limit: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, RawError> {
    timeout(limit, work).await.map_or(Err(RawError::Stalled), |done| done.map_err(Into::into))
}

/// Writes one chunk, neither empty nor longer than [`CHUNK_MAX`].
pub(crate) async fn write_chunk<W: AsyncWrite + Unpin>(writer: &mut W, bytes: &[u8]) -> Result<(), RawError> {
    writer.write_all(&chunk_head(bytes.len())).await?;
    Ok(writer.write_all(bytes).await?)
}

/// Writes a body's end and flushes.
pub(crate) async fn write_end<W: AsyncWrite + Unpin>(writer: &mut W, hash: Hash) -> Result<(), RawError> {
    let mut end = [0; 36];
    end[4..].copy_from_slice(&hash.0);
    writer.write_all(&end).await?;
    Ok(writer.flush().await?)
}

/// Appends a whole body of at most [`CHUNK_MAX`] bytes to a request.
pub(crate) fn append_body(message: &mut Vec<u8>, bytes: &[u8]) {
    if !bytes.is_empty() {
        message.extend_from_slice(&chunk_head(bytes.len()));
        message.extend_from_slice(bytes);
    }
    message.extend_from_slice(&[0; 4]);
    message.extend_from_slice(blake3::hash(bytes).as_bytes());
}

fn chunk_head(length: usize) -> [u8; 4] {
    assert!((1..=CHUNK_MAX).contains(&length), "a chunk of {length} bytes");
    u32::try_from(length).expect("CHUNK_MAX fits").to_be_bytes()
}

/// Reads the next chunk to the end of `into`: how long it is, 0 at the body's end. Not safe to cancel.
pub(crate) async fn read_chunk<R: AsyncRead + Unpin>(reader: &mut R, into: &mut Vec<u8>) -> Result<usize, RawError> {
    let mut head = [0; 4];
    reader.read_exact(&mut head).await.map_err(ended)?;
    let length = u32::from_be_bytes(head) as usize;
    if length > CHUNK_MAX {
        return Err(RawError::ChunkTooLong(length));
    }
    into.reserve(length);
    let mut chunk = reader.take(length as u64);
    while chunk.limit() > 0 {
        if chunk.read_buf(into).await? == 0 {
            return Err(RawError::Ended);
        }
    }
    Ok(length)
}

/// Reads the hash behind a body's end.
pub(crate) async fn read_hash<R: AsyncRead + Unpin>(reader: &mut R) -> Result<Hash, RawError> {
    let mut hash = [0; 32];
    reader.read_exact(&mut hash).await.map_err(ended)?;
    Ok(Hash(hash))
}

fn ended(error: io::Error) -> RawError {
    if error.kind() == io::ErrorKind::UnexpectedEof { RawError::Ended } else { error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bodies_round_trip_and_end_with_their_hash() {
        let (a, b) = (vec![7u8; CHUNK_MAX], vec![8u8; 3]);
        let mut bytes = Vec::new();
        write_chunk(&mut bytes, &a).await.unwrap();
        write_chunk(&mut bytes, &b).await.unwrap();
        write_end(&mut bytes, Hash([9; 32])).await.unwrap();
        let (mut reader, mut into) = (&bytes[..], Vec::new());
        assert_eq!(read_chunk(&mut reader, &mut into).await.unwrap(), CHUNK_MAX);
        assert_eq!(read_chunk(&mut reader, &mut into).await.unwrap(), 3);
        assert_eq!(read_chunk(&mut reader, &mut into).await.unwrap(), 0);
        assert_eq!(read_hash(&mut reader).await.unwrap(), Hash([9; 32]));
        assert_eq!(into, [a, b].concat());
    }

    #[tokio::test]
    async fn cut_and_oversized_chunks_are_told_apart() {
        let mut bytes = Vec::new();
        write_chunk(&mut bytes, b"hello").await.unwrap();
        for cut in [0, 2, 6] {
            let error = read_chunk(&mut &bytes[..cut], &mut Vec::new()).await.unwrap_err();
            assert!(matches!(error, RawError::Ended), "cut at {cut}: {error}");
        }
        let long = u32::try_from(CHUNK_MAX + 1).unwrap().to_be_bytes();
        let error = read_chunk(&mut &long[..], &mut Vec::new()).await.unwrap_err();
        assert!(matches!(error, RawError::ChunkTooLong(n) if n == CHUNK_MAX + 1));
    }

    #[tokio::test]
    async fn small_body_is_one_piece_even_when_empty() {
        for body in [&b""[..], b"some"] {
            let mut message = Vec::new();
            append_body(&mut message, body);
            let (mut reader, mut into) = (&message[..], Vec::new());
            while read_chunk(&mut reader, &mut into).await.unwrap() > 0 {}
            assert_eq!(into, body);
            assert_eq!(read_hash(&mut reader).await.unwrap(), blake3::hash(body).into());
            assert!(reader.is_empty());
        }
    }
}
