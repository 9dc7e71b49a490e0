//! One control connection: lines in, replies out, plain first and TLS from AUTH on. It knows nothing of what they mean.

use super::line::{Decoder, Line};
use super::reply::Reply;
use super::stream::ClientStream;
use bytes::{Buf, BytesMut};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// Bytes taken from the socket at a time.
const READ: usize = 4096;

/// Why a session is over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Gone {
    /// The client closed the connection, or QUIT was answered.
    #[error("closed")]
    Closed,
    /// It broke.
    #[error("broken: {0}")]
    Broken(#[from] io::Error),
    /// Nothing came for too long, or a reply was not taken.
    #[error("timed out")]
    TimedOut,
    /// It broke a rule that leaves no way on: it was told, and is being closed.
    #[error("refused: {0}")]
    Refused(&'static str),
    /// The node stops.
    #[error("the node is shutting down")]
    Stopping,
}

/// A control connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: ClientStream,
    decoder: Decoder,
    /// Read, and not decoded yet. At most [`READ`] bytes.
    unread: BytesMut,
    /// Longest wait for the client to take a reply.
    patience: Duration,
}

impl Connection {
    /// A fresh one.
    pub(crate) fn new(stream: TcpStream, patience: Duration) -> Self {
        let unread = BytesMut::with_capacity(READ);
        Self { stream: ClientStream::Plain(stream), decoder: Decoder::default(), unread, patience }
    }
    /// Whether TLS stands.
    pub(crate) fn is_secure(&self) -> bool {
        matches!(self.stream, ClientStream::Tls(_))
    }
    /// Whether the client sent something beyond the last line.
    pub(crate) fn has_more(&self) -> bool {
        !self.unread.is_empty() || !self.decoder.is_empty()
    }
    /// The next line. Dropped half-way, it loses nothing.
    pub(crate) async fn next_line(&mut self) -> Result<Line, Gone> {
        loop {
            if !self.unread.is_empty() {
                let (taken, line) = self.decoder.take(&self.unread);
                self.unread.advance(taken);
                if let Some(line) = line {
                    return Ok(line);
                }
            }
            // The buffer is empty now, so this reclaims it.
            self.unread.reserve(READ);
            match self.stream.read_buf(&mut self.unread).await {
                Ok(0) => return Err(Gone::Closed),
                Ok(_) => {}
                // Many clients end without close_notify on the control connection.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(Gone::Closed),
                Err(error) => return Err(error.into()),
            }
        }
    }
    /// Sends a reply in one write.
    pub(crate) async fn send(&mut self, reply: &Reply) -> Result<(), Gone> {
        let bytes = reply.encode();
        let all = async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        };
        timeout(self.patience, all).await.map_err(|_| Gone::TimedOut)?.map_err(Gone::from)
    }
    /// Does the server's part of a TLS handshake, within `limit`. What the client sent in clear beyond its AUTH must have
    /// been refused before ([`Self::has_more`]), or somebody in between could slip commands in.
    pub(crate) async fn secure(&mut self, acceptor: &TlsAcceptor, limit: Duration) -> Result<(), Gone> {
        let stream = match std::mem::replace(&mut self.stream, ClientStream::Gone) {
            ClientStream::Plain(stream) => stream,
            other => {
                self.stream = other;
                return Ok(());
            }
        };
        self.stream =
            timeout(limit, ClientStream::accept_tls(stream, acceptor)).await.map_err(|_| Gone::TimedOut)??;
        Ok(())
    }
    /// Ends it in order.
    pub(crate) async fn close(&mut self) {
        self.stream.close().await;
    }
}
