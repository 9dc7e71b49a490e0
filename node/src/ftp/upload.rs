//! The client's bytes as a [`Source`] for the replicas: read in large chunks, line ends converted in TYPE A.
//!
//! A connection that ends in any way but in order (FIN, and close_notify before it where TLS is used) is a cut upload: the
//! source fails, and nothing of it may show.

use super::ascii::FromWire;
use super::data::DataError;
use super::progress::Progress;
use super::stream::ClientStream;
use crate::replica::Source;
use bytes::{Bytes, BytesMut};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::timeout;

/// Bytes of a chunk at most. TLS hands out 16 KiB at a time; gathering spares the path behind it.
const CHUNK: usize = 256 * 1024;
/// What the first chunk makes room for: most files are small.
const FIRST_CHUNK: usize = 64 * 1024;

/// An open data connection to read from.
#[derive(Debug)]
pub(crate) struct Receiver {
    stream: ClientStream,
    ascii: Option<FromWire>,
    progress: Progress,
    stall: Duration,
    size: usize,
    /// Seen behind the chunk that was handed out last.
    end: Option<io::Result<()>>,
    done: bool,
}

impl Receiver {
    /// Reads from `stream`; in TYPE A when `ascii`.
    pub(crate) fn new(stream: ClientStream, ascii: bool, progress: Progress, stall: Duration) -> Self {
        let ascii = ascii.then(FromWire::default);
        Self { stream, ascii, progress, stall, size: FIRST_CHUNK, end: None, done: false }
    }

    /// All that is there already, and at least one byte unless it is the end.
    fn poll_chunk(&mut self, cx: &mut Context<'_>, chunk: &mut BytesMut) -> Poll<io::Result<()>> {
        let mut space = [0; 16 * 1024];
        while chunk.len() < self.size {
            let room = space.len().min(self.size - chunk.len());
            let mut buf = ReadBuf::new(&mut space[..room]);
            let result = match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                Poll::Pending if chunk.is_empty() => return Poll::Pending,
                Poll::Pending => break,
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    chunk.extend_from_slice(buf.filled());
                    continue;
                }
                Poll::Ready(result) => result,
            };
            if chunk.is_empty() {
                self.done = true;
                return Poll::Ready(result);
            }
            self.end = Some(result);
            break;
        }
        Poll::Ready(Ok(()))
    }

    async fn raw_chunk(&mut self) -> io::Result<Bytes> {
        if let Some(end) = self.end.take() {
            self.done = true;
            return end.map(|()| Bytes::new());
        }
        let mut chunk = BytesMut::with_capacity(self.size);
        let stall = self.stall;
        timeout(stall, poll_fn(|cx| self.poll_chunk(cx, &mut chunk)))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, DataError::Stalled))??;
        self.size = CHUNK;
        self.progress.add(chunk.len());
        Ok(chunk.freeze())
    }
}

impl Source for Receiver {
    async fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        while !self.done {
            let raw = self.raw_chunk().await?;
            let chunk = match &mut self.ascii {
                None => raw,
                Some(ascii) if raw.is_empty() => ascii.end(),
                Some(ascii) => ascii.chunk(&raw),
            };
            if self.done {
                // From here on it can only be awaited. Some clients wait for our close_notify before they look at the
                // control connection.
                self.progress.end();
                self.stream.close().await;
            }
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
        Ok(None)
    }
}
