//! Bytes towards the client: sendfile(2) from a blob to a plain connection, else large writes. What a client takes is
//! counted, and one that takes nothing for too long is cut. A blob that ends early is gone on with from another replica.

use super::ascii::ToWire;
use super::data::DataError;
use super::progress::Progress;
use super::stream::ClientStream;
use crate::replica::{Download, Elsewhere, ReadError, Stream};
use bytes::{Bytes, BytesMut};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// Bytes that one sendfile may move: what readahead fetches at a time on a blocking thread.
const PIECE: usize = 1024 * 1024;
/// Bytes read from a blob at a time for TLS and for TYPE A.
const CHUNK: usize = 256 * 1024;

/// Why a download ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// The client's side.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The replicas' side.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// This disk.
    #[error("the file cannot be read: {0}")]
    Disk(io::Error),
}

/// Where this disk's copy ended, or could not be read: the first byte of the file that was not sent.
#[derive(Debug)]
struct Short {
    at: u64,
    error: io::Error,
}

/// An open data connection to write to.
#[derive(Debug)]
pub(crate) struct Sender {
    stream: ClientStream,
    progress: Progress,
    stall: Duration,
}

impl Sender {
    /// Writes to `stream`.
    pub(crate) fn new(stream: ClientStream, progress: Progress, stall: Duration) -> Self {
        Self { stream, progress, stall }
    }

    /// Sends all of it, in TYPE A when `ascii`, and ends the connection in order. On an error the connection is dropped
    /// without close_notify, so that a client with TLS can tell.
    pub(crate) async fn send(mut self, download: Download, ascii: bool) -> Result<(), SendError> {
        let mut ascii = ascii.then(ToWire::default);
        match download {
            Download::Local { file, offset, length, elsewhere } => {
                let short = match self.stream {
                    ClientStream::Plain(stream) if ascii.is_none() => {
                        let (stream, short) =
                            sendfile(stream, file, offset, length, &self.progress, self.stall).await?;
                        self.stream = ClientStream::Plain(stream);
                        short
                    }
                    _ => self.send_file(file, offset, length, ascii.as_mut()).await?,
                };
                if let Some(short) = short {
                    self.send_rest(short, elsewhere, ascii.as_mut()).await?;
                }
            }
            Download::Stream(stream) => self.send_stream(stream, ascii.as_mut()).await?,
        }
        self.close().await.map_err(SendError::from)
    }

    /// Sends bytes; they may stay in a buffer until [`Self::close`].
    pub(crate) async fn write(&mut self, mut bytes: &[u8]) -> Result<(), DataError> {
        while !bytes.is_empty() {
            let taken = timeout(self.stall, self.stream.write(bytes)).await.map_err(|_| DataError::Stalled)?;
            match taken.map_err(DataError::Cut)? {
                0 => return Err(DataError::Cut(io::ErrorKind::WriteZero.into())),
                taken => {
                    self.progress.add(taken);
                    bytes = &bytes[taken..];
                }
            }
        }
        Ok(())
    }

    /// Sends what is buffered, and the end.
    pub(crate) async fn close(mut self) -> Result<(), DataError> {
        let flushed = timeout(self.stall, self.stream.flush()).await.map_err(|_| DataError::Stalled)?;
        flushed.map_err(DataError::Cut)?;
        self.stream.close().await;
        Ok(())
    }

    async fn send_stream(&mut self, mut stream: Stream, mut ascii: Option<&mut ToWire>) -> Result<(), SendError> {
        while let Some(chunk) = stream.next_chunk().await? {
            let chunk = ascii.as_mut().map_or_else(|| chunk.clone(), |ascii| ascii.chunk(&chunk));
            self.write(&chunk).await?;
        }
        Ok(())
    }

    /// What this disk could not give.
    async fn send_rest(
        &mut self,
        short: Short,
        elsewhere: Option<Elsewhere>,
        ascii: Option<&mut ToWire>,
    ) -> Result<(), SendError> {
        let elsewhere = elsewhere.ok_or(SendError::Disk(short.error))?;
        let rest = elsewhere.resume(short.at).await?;
        self.send_stream(rest, ascii).await
    }

    /// Reads one chunk ahead while the last one is being sent.
    async fn send_file(
        &mut self,
        file: File,
        mut offset: u64,
        mut length: u64,
        mut ascii: Option<&mut ToWire>,
    ) -> Result<Option<Short>, SendError> {
        let file = Arc::new(file);
        let mut ahead = read_chunk(file.clone(), offset, length).await;
        loop {
            let chunk = match ahead {
                Ok(chunk) if chunk.is_empty() => return Ok(None),
                Ok(chunk) => chunk,
                Err(error) => return Ok(Some(Short { at: offset, error })),
            };
            offset += chunk.len() as u64;
            length -= chunk.len() as u64;
            let wire = ascii.as_mut().map_or_else(|| chunk.clone(), |ascii| ascii.chunk(&chunk));
            let (written, next) = tokio::join!(self.write(&wire), read_chunk(file.clone(), offset, length));
            written?;
            ahead = next;
        }
    }
}

/// Up to [`CHUNK`] bytes; none only when `length` is 0.
async fn read_chunk(file: Arc<File>, offset: u64, length: u64) -> io::Result<Bytes> {
    let size = usize::try_from(length).unwrap_or(CHUNK).min(CHUNK);
    if size == 0 {
        return Ok(Bytes::new());
    }
    let read = spawn_blocking(move || {
        let mut chunk = BytesMut::zeroed(size);
        file.read_exact_at(&mut chunk, offset).map(|()| chunk.freeze())
    });
    read.await?
}

/// Hands the connection back, unless it broke.
async fn sendfile(
    stream: TcpStream,
    file: File,
    mut offset: u64,
    mut length: u64,
    progress: &Progress,
    stall: Duration,
) -> Result<(TcpStream, Option<Short>), SendError> {
    let (stream, file) = (Arc::new(stream), Arc::new(file));
    let mut short = None;
    while length > 0 && short.is_none() {
        timeout(stall, stream.writable()).await.map_err(|_| DataError::Stalled)?.map_err(DataError::Cut)?;
        let piece = usize::try_from(length).unwrap_or(PIECE).min(PIECE);
        let (to, from) = (stream.clone(), file.clone());
        // The socket never blocks; the disk may, which is why this is on a thread of its own.
        let sent = spawn_blocking(move || {
            to.try_io(Interest::WRITABLE, || {
                let mut at = offset;
                rustix::fs::sendfile(&*to, &*from, Some(&mut at), piece).map_err(io::Error::from)
            })
        });
        match sent.await.map_err(|error| SendError::Disk(error.into()))? {
            Ok(0) => short = Some(Short { at: offset, error: io::ErrorKind::UnexpectedEof.into() }),
            Ok(sent) => {
                progress.add(sent);
                offset += sent as u64;
                length -= sent as u64;
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                short = Some(Short { at: offset, error });
            }
            Err(error) => return Err(DataError::Cut(error).into()),
        }
    }
    Ok((Arc::into_inner(stream).expect("no piece is under way"), short))
}
