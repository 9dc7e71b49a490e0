//! The raw port's server: takes and gives file bytes for other nodes of the cluster (and nobody else: mutual TLS and a
//! Hello come first). It never decides where bytes belong, and never answers "stored" before they are durable.

use super::Replicas;
use super::doubt::look_into;
use super::pull::pull;
use super::raw::Raw;
use super::scrub::scrub;
use super::sink::Sink;
use super::wire::{
    Answer, CHUNK_MAX, Failure, HEADER_MAX, RawError, Request, read_chunk, read_hash, within, write_chunk, write_end,
};
use crate::cluster::{BlobId, Hash, NodeId};
use crate::meter::Direction;
use crate::peer::{Greeted, Order, Port, read_frame, write_frame};
use crate::store::INLINE_MAX;
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Between two signs of life of a running copy.
const MOVED: Duration = Duration::from_secs(5);
/// Between two looks at idle connections.
const REAP: Duration = Duration::from_secs(10);
/// How long the rest of a refused body is thrown away, so that the refusal arrives.
const LINGER: Duration = Duration::from_secs(5);
/// After an accept that failed (too many open files), before the next.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A running server. Dropped, it is aborted with all its connections.
#[derive(Debug)]
pub struct ReplicaTasks {
    cancel: CancellationToken,
    tasks: JoinSet<()>,
}

/// Serves the raw port on `listener`, looks after the idle connections of `replicas`, makes the blobs that the core wants,
/// and reads all copies on this disk again and again.
pub fn serve(listener: TcpListener, replicas: &Replicas, orders: Option<mpsc::Receiver<Order>>) -> ReplicaTasks {
    let mut serving = serve_raw(listener, replicas.raw.clone());
    serving.tasks.spawn(scrub(replicas.raw.clone(), serving.cancel.clone()));
    if let Some(orders) = orders {
        let cancel = serving.cancel.clone();
        serving.tasks.spawn(pull(replicas.raw.clone(), orders, cancel));
    }
    serving
}

impl ReplicaTasks {
    /// Stops accepting, closes idle connections, lets running requests end within `deadline`, then aborts them.
    pub async fn stop(mut self, deadline: Duration) {
        self.cancel.cancel();
        if timeout(deadline, async { while self.tasks.join_next().await.is_some() {} }).await.is_err() {
            tracing::warn!("transfers between nodes were cut by the shutdown");
            self.tasks.shutdown().await;
        }
    }
}

pub(super) fn serve_raw(listener: TcpListener, raw: Arc<Raw>) -> ReplicaTasks {
    let cancel = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(reap(raw.clone(), cancel.clone()));
    tasks.spawn(look_into(raw.clone(), cancel.clone()));
    tasks.spawn(accept(listener, raw, cancel.clone()));
    ReplicaTasks { cancel, tasks }
}

async fn reap(raw: Arc<Raw>, cancel: CancellationToken) {
    let mut tick = interval(REAP);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while cancel.run_until_cancelled(tick.tick()).await.is_some() {
        raw.pool.reap();
    }
}

async fn accept(listener: TcpListener, raw: Arc<Raw>, cancel: CancellationToken) {
    let mut connections = JoinSet::new();
    let mut full = false;
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, from)) if connections.len() < raw.limits.connections => {
                full = false;
                connections.spawn(connection(raw.clone(), tcp, from, cancel.clone()));
            }
            Ok((_, from)) => {
                if !std::mem::replace(&mut full, true) {
                    tracing::warn!(%from, limit = raw.limits.connections, "raw port: too many connections");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "raw port: cannot accept");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(raw: Arc<Raw>, tcp: TcpStream, from: SocketAddr, cancel: CancellationToken) {
    // The greeter logs refusals.
    let Ok(greeted) = raw.pool.greeter.accept(tcp, from, Port::Raw).await else { return };
    let peer = greeted.info.node;
    let mut guest = Guest { raw, greeted, from, buffer: Vec::new() };
    loop {
        let idle = guest.raw.limits.idle * 2;
        let request = cancel.run_until_cancelled(within(idle, guest.request())).await;
        let done = match request {
            // Shutdown, a clean end, or nobody needs the connection.
            None | Some(Ok(None) | Err(RawError::Stalled)) => return,
            Some(Ok(Some(request))) => guest.serve(request).await,
            Some(Err(error)) => Err(error),
        };
        match done {
            Ok(()) => {}
            Err(error) if error.is_broken() => {
                return tracing::debug!(%peer, %from, %error, "raw port: connection lost");
            }
            Err(error) => return guest.raw.pool.greeter.log_garbage(from, peer, &error),
        }
    }
}

/// A node that asks.
struct Guest {
    raw: Arc<Raw>,
    greeted: Greeted,
    from: SocketAddr,
    buffer: Vec<u8>,
}

impl Guest {
    async fn request(&mut self) -> Result<Option<Request>, RawError> {
        Ok(read_frame(&mut self.greeted.stream, &mut self.buffer, HEADER_MAX).await?)
    }
    async fn answer(&mut self, answer: Answer) -> Result<(), RawError> {
        within(self.raw.limits.stalled, write_frame(&mut self.greeted.stream, &answer)).await
    }
    /// Serves one request. After an error the connection is of no more use.
    async fn serve(&mut self, request: Request) -> Result<(), RawError> {
        match request {
            Request::PutSmall { blob } => self.put_small(blob).await,
            Request::PutLarge { blob } => self.put_large(blob).await,
            Request::Get { blob, offset, length } => self.get(blob, offset, length).await,
            Request::Copy { blob, length, hash, from } => self.copy(blob, (length, hash), from).await,
            Request::Keep { blob } => {
                self.raw.cluster.blob_kept(blob).await?;
                self.answer(Answer::Kept).await
            }
            Request::Doubt { blob } => {
                self.raw.doubt(self.raw.me, blob);
                self.answer(Answer::Kept).await
            }
        }
    }

    async fn put_small(&mut self, blob: BlobId) -> Result<(), RawError> {
        let limit = self.raw.limits.stalled;
        let body = within(limit, small_body(&mut self.greeted.stream)).await;
        let (bytes, hash) = body.inspect_err(|error| self.note_cut(blob, error))?;
        if Hash::from(blake3::hash(&bytes)) != hash {
            return self.refuse(blob, &RawError::Damaged).await;
        }
        self.raw.pool.meter.replicated(Direction::In, bytes.len());
        let size = bytes.len() as u64;
        match self.raw.stage_small(blob, bytes).await {
            Ok(()) => self.answer(Answer::Stored { size, hash }).await,
            Err(error) => self.refuse(blob, &error).await,
        }
    }
    async fn put_large(&mut self, blob: BlobId) -> Result<(), RawError> {
        let sink = match Sink::create(&self.raw.store, blob, self.raw.limits.replica_stalled).await {
            Ok(sink) => sink,
            Err(error) => return self.refuse(blob, &error).await,
        };
        self.answer(Answer::Ready).await?;
        match self.receive(sink, blob).await {
            Ok((size, hash)) => self.answer(Answer::Stored { size, hash }).await,
            // Nobody is there to read a refusal.
            Err(error) if error.is_broken() => {
                self.note_cut(blob, &error);
                Err(error)
            }
            Err(error) => {
                self.refuse(blob, &error).await?;
                // A socket that is closed over unread bytes takes the refusal with it.
                timeout(LINGER, tokio::io::copy(&mut self.greeted.stream, &mut tokio::io::sink())).await.ok();
                // The log has it already; the connection ends here.
                Err(RawError::Ended)
            }
        }
    }
    /// Takes a large body, and makes it durable.
    async fn receive(&mut self, mut sink: Sink, blob: BlobId) -> Result<(u64, Hash), RawError> {
        // Twice as long as the front waits for its client: the front is the one to give up.
        let limit = self.raw.limits.stalled * 2;
        let stream = &mut self.greeted.stream;
        loop {
            let length = within(limit, read_chunk(stream, sink.collected())).await?;
            if length == 0 {
                break;
            }
            self.raw.pool.meter.replicated(Direction::In, length);
            sink.settle().await?;
        }
        let hash = within(limit, read_hash(stream)).await?;
        Ok((self.raw.stage_large(sink, blob, hash).await?, hash))
    }
    async fn get(&mut self, blob: BlobId, offset: u64, length: u64) -> Result<(), RawError> {
        let mut bytes = match self.raw.get_local(blob, offset, length).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => {
                // Who asks may have it from a register.
                self.raw.doubt(self.raw.me, blob);
                return self.refuse(blob, &Failure::NotHere.into()).await;
            }
            Err(error) => return self.refuse(blob, &error).await,
        };
        self.answer(Answer::Sending).await?;
        let limit = self.raw.limits.stalled * 2;
        let mut hasher = blake3::Hasher::new();
        let doubt = |_: &RawError| self.raw.doubt(self.raw.me, blob);
        while let Some(block) = bytes.next(&self.raw.pool).await.inspect_err(doubt)? {
            hasher.update(&block);
            for chunk in block.chunks(CHUNK_MAX) {
                within(limit, write_chunk(&mut self.greeted.stream, chunk)).await?;
                self.raw.pool.meter.replicated(Direction::Out, chunk.len());
            }
        }
        within(limit, write_end(&mut self.greeted.stream, hasher.finalize().into())).await
    }
    async fn copy(&mut self, blob: BlobId, what: (u64, Hash), from: NodeId) -> Result<(), RawError> {
        // A client waits for it: at no pace but the disk's.
        let (raw, moved) = (self.raw.clone(), AtomicU64::new(0));
        let mut copying = std::pin::pin!(raw.fetch(blob, what, from, &moved, None));
        let mut tick = interval(MOVED);
        let copied = loop {
            tokio::select! {
                copied = &mut copying => break copied,
                // Also how a front that is gone is noticed: the copy ends with its connection.
                _ = tick.tick() => self.answer(Answer::Moved { bytes: moved.load(Ordering::Relaxed) }).await?,
            }
        };
        match copied {
            Ok(()) => self.answer(Answer::Stored { size: what.0, hash: what.1 }).await,
            Err(error) => self.refuse(blob, &error).await,
        }
    }
    /// Says no; the peer may ask for something else.
    async fn refuse(&mut self, blob: BlobId, error: &RawError) -> Result<(), RawError> {
        let failure = error.failure();
        let what = format!("{blob}: {error}");
        self.raw.pool.greeter.log_failed(self.from, self.greeted.info.node, failure.kind(), &what);
        self.answer(Answer::Failed(failure)).await
    }
    /// A body that ended before its end; other errors are told of where they are answered.
    fn note_cut(&self, blob: BlobId, error: &RawError) {
        if error.is_broken() {
            self.raw.pool.greeter.log_cut(self.from, self.greeted.info.node, &format!("{blob}: {error}"));
        }
    }
}

/// A whole body that must be small, and the hash behind it.
async fn small_body<R: tokio::io::AsyncRead + Unpin>(reader: &mut R) -> Result<(Bytes, Hash), RawError> {
    let mut bytes = Vec::new();
    while read_chunk(reader, &mut bytes).await? > 0 {
        if bytes.len() as u64 > INLINE_MAX {
            return Err(RawError::BodyTooLong);
        }
    }
    let hash = read_hash(reader).await?;
    Ok((bytes.into(), hash))
}
