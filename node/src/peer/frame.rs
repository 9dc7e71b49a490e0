//! Frames: what every connection between nodes carries, on both ports. A big-endian `u32` length, then that many bytes:
//! one of format version, the rest JSON. It never trusts a length: memory grows with what has really come.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest payload, its version byte included: 16 MiB.
pub const FRAME_MAX: usize = 16 << 20;
/// The first byte of every payload.
pub const FORMAT: u8 = 1;
/// Memory taken on the word of a length alone.
const TRUST: usize = 64 << 10;

/// Why a frame could not be read or made. The connection is of no more use, except after `TooLong` from [`encode`].
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The socket failed, or ended within a frame.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Longer than the limit, in bytes.
    #[error("frame of {length} bytes, {limit} are allowed")]
    TooLong {
        /// As announced, or as it came out.
        length: usize,
        /// The most allowed here.
        limit: usize,
    },
    /// Not this format.
    #[error("frame format {0}, this node speaks {FORMAT} only")]
    Format(u8),
    /// No bytes at all.
    #[error("empty frame")]
    Empty,
    /// Not the JSON that is expected here.
    #[error("frame is not understood: {0}")]
    Json(#[from] serde_json::Error),
}

/// Appends `value` as a frame to `out`. On an error `out` is as it was.
pub fn encode<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, FORMAT]);
    let result = match serde_json::to_writer(&mut *out, value) {
        Err(e) => Err(e.into()),
        Ok(()) => {
            let length = out.len() - start - 4;
            if length > FRAME_MAX { Err(FrameError::TooLong { length, limit: FRAME_MAX }) } else { Ok(length) }
        }
    };
    match result {
        Ok(length) => {
            let length = u32::try_from(length).expect("FRAME_MAX fits");
            out[start..start + 4].copy_from_slice(&length.to_be_bytes());
            Ok(())
        }
        Err(e) => {
            out.truncate(start);
            Err(e)
        }
    }
}

/// Writes `value` as one frame and flushes.
pub async fn write_frame<T: Serialize, W: AsyncWrite + Unpin>(writer: &mut W, value: &T) -> Result<(), FrameError> {
    let mut bytes = Vec::new();
    encode(value, &mut bytes)?;
    writer.write_all(&bytes).await?;
    Ok(writer.flush().await?)
}

/// Reads one frame of at most `limit` bytes of payload, into `buffer` (reused between calls). `None` at a clean end,
/// which is one between frames. Give it a buffered reader. Not safe to cancel: part of a frame may have been taken.
pub async fn read_frame<T: DeserializeOwned, R: AsyncRead + Unpin>(
    reader: &mut R,
    buffer: &mut Vec<u8>,
    limit: usize,
) -> Result<Option<T>, FrameError> {
    let mut head = [0u8; 4];
    if reader.read(&mut head[..1]).await? == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut head[1..]).await?;
    let length = u32::from_be_bytes(head) as usize;
    if length > limit {
        return Err(FrameError::TooLong { length, limit });
    }
    buffer.clear();
    buffer.shrink_to(TRUST);
    buffer.reserve(length.min(TRUST));
    let mut left = length;
    while left > 0 {
        let step = left.min(TRUST);
        let at = buffer.len();
        buffer.resize(at + step, 0);
        reader.read_exact(&mut buffer[at..]).await?;
        left -= step;
    }
    match buffer.split_first() {
        None => Err(FrameError::Empty),
        Some((&FORMAT, json)) => Ok(Some(serde_json::from_slice(json)?)),
        Some((other, _)) => Err(FrameError::Format(*other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Result<Option<String>, FrameError> {
        let mut reader = bytes;
        read_frame(&mut reader, &mut Vec::new(), 1000).await
    }
    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_be_bytes().to_vec();
        bytes.extend_from_slice(payload);
        bytes
    }

    #[tokio::test]
    async fn frames_round_trip_one_after_another() {
        let mut bytes = Vec::new();
        encode(&"one", &mut bytes).unwrap();
        encode(&"x".repeat(200_000), &mut bytes).unwrap();
        let (mut reader, mut buffer) = (&bytes[..], Vec::new());
        let mut next = async || read_frame::<String, _>(&mut reader, &mut buffer, FRAME_MAX).await.unwrap();
        assert_eq!(next().await.unwrap(), "one");
        assert_eq!(next().await.unwrap().len(), 200_000);
        assert!(next().await.is_none());
    }

    #[tokio::test]
    async fn garbage_is_told_apart() {
        assert!(matches!(read(b"").await, Ok(None)));
        assert!(matches!(read(b"GET / HTTP/1.1\r\n").await, Err(FrameError::TooLong { length: 0x4745_5420, .. })));
        assert!(matches!(read(&frame(b"")).await, Err(FrameError::Empty)));
        assert!(matches!(read(&frame(b"\x02\"a\"")).await, Err(FrameError::Format(2))));
        assert!(matches!(read(&frame(b"\x01{}")).await, Err(FrameError::Json(_))));
        assert!(matches!(read(&frame(b"\x01\"a\"")[..6]).await, Err(FrameError::Io(_))));
        assert!(matches!(read(&[0, 0]).await, Err(FrameError::Io(_))));
    }

    #[tokio::test]
    async fn limit_is_exact() {
        let fits = format!("\u{1}\"{}\"", "x".repeat(997));
        assert_eq!(read(&frame(fits.as_bytes())).await.unwrap().unwrap().len(), 997);
        let over = format!("\u{1}\"{}\"", "x".repeat(998));
        assert!(matches!(read(&frame(over.as_bytes())).await, Err(FrameError::TooLong { length: 1001, limit: 1000 })));
    }

    #[test]
    fn too_long_a_value_leaves_the_buffer_as_it_was() {
        let mut bytes = b"before".to_vec();
        let error = encode(&"x".repeat(FRAME_MAX), &mut bytes).unwrap_err();
        assert!(matches!(error, FrameError::TooLong { .. }));
        assert_eq!(bytes, b"before");
    }
}
