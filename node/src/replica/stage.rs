//! One upload from its first byte to its outcome (DESIGN "bytes first"): stage on all planned replicas, replace those that
//! fail, say `Staged`, follow the leader's wishes until the end. Small files are kept in memory until then and sent again
//! where needed; of large ones the replicas copy from each other. It never calls bytes staged that were not confirmed.

use super::delta::{Delta, Kept, Offered};
use super::fan::{Fan, Landed};
use super::raw::Raw;
use super::wire::{Failure, RawError};
use super::write::{Source, UploadError};
use crate::cluster::{BlobId, Extent, FrontEvent, NodeId, Outcome, Refusal, Staged};
use crate::peer::{Operation, Stopped};
use crate::store::INLINE_MAX;
use bytes::{Bytes, BytesMut};
use std::convert::Infallible;
use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};

/// Bytes that came wait this long for more, so that slow clients do not look dead to the replicas.
const LINGER: Duration = Duration::from_secs(1);
/// Between two reports of progress.
const PROGRESS: Duration = Duration::from_millis(250);
/// Reports to the leader, of staged bytes or of lost replicas, before an upload is given up: more failures in one upload
/// than clusters have nodes to spare.
const REPORTS: usize = 16;

/// The operation an upload belongs to: [`Operation`], or a script in tests.
pub(crate) trait Steps: Send {
    fn next(&mut self) -> impl Future<Output = Result<FrontEvent, Stopped>> + Send;
    fn staged(&self, staged: Staged) -> impl Future<Output = Result<(), Stopped>> + Send;
    fn replica_lost(&self, kept: Vec<NodeId>, lost: Vec<NodeId>) -> impl Future<Output = Result<(), Stopped>> + Send;
    fn progress(&self, bytes: u64);
}

impl Steps for Operation {
    async fn next(&mut self) -> Result<FrontEvent, Stopped> {
        Self::next(self).await
    }
    async fn staged(&self, staged: Staged) -> Result<(), Stopped> {
        Self::staged(self, staged).await
    }
    async fn replica_lost(&self, kept: Vec<NodeId>, lost: Vec<NodeId>) -> Result<(), Stopped> {
        Self::replica_lost(self, kept, lost).await
    }
    fn progress(&self, bytes: u64) {
        Self::progress(self, bytes);
    }
}

/// Streams, stages, waits for the outcome; also says how many bytes there were.
pub(crate) async fn stage<O: Steps, S: Source>(
    raw: Arc<Raw>,
    operation: O,
    blob: BlobId,
    nodes: Vec<NodeId>,
    source: &mut S,
) -> Result<(Outcome, u64), UploadError> {
    let moved = Arc::new(AtomicU64::new(0));
    let line = Line::new(raw.clone(), operation, blob, moved.clone());
    // All replicas confirm it together.
    through(line, pin!(pump(&raw, blob, nodes, source, &moved)), &[]).await
}

/// The same of bytes that are all here: the replicas fetch them.
pub(crate) async fn append<O: Steps>(
    raw: Arc<Raw>,
    operation: O,
    blob: BlobId,
    nodes: Vec<NodeId>,
    Delta { length, hash, bytes }: Delta,
) -> Result<(Outcome, u64), UploadError> {
    let moved = Arc::new(AtomicU64::new(0));
    let line = Line::new(raw.clone(), operation, blob, moved.clone());
    let (own, _offered) = match bytes {
        Kept::Memory(bytes) => (Origin::Memory(bytes), None),
        Kept::Disk(waiting) => (Origin::Nodes(vec![raw.me]), Some(Offered::new(&raw, blob, waiting))),
    };
    let extent = Extent { blob, offset: 0, length, hash };
    // Each of them is done in its own time, and keeps what it has until all are.
    let put = async { Ok(put(&raw, extent, own, nodes.clone(), &moved).await) };
    through(line, pin!(put), &nodes).await
}

/// Follows an operation whose bytes are staged by `staging`, while those in `keeping` are told that its front lives.
async fn through<O: Steps>(
    mut line: Line<O>,
    staging: Pin<&mut impl Future<Output = Result<OnDisks, UploadError>>>,
    keeping: &[NodeId],
) -> Result<(Outcome, u64), UploadError> {
    let staged = match line.turn(staging, keeping).await? {
        Turn::Worked(staged) => staged?,
        Turn::Wanted(..) | Turn::Done(_) => return Err(unexpected(line.blob)),
    };
    let size = staged.extent.length;
    Ok((settle(line, staged).await?, size))
}

/// Bytes on disks.
#[derive(Debug)]
struct OnDisks {
    extent: Extent,
    /// All of it, where this node has it by itself.
    own: Option<Origin>,
    have: Vec<NodeId>,
    lost: Vec<NodeId>,
}

/// What ended a turn.
enum Turn<T> {
    Worked(T),
    /// Copies that count, and nodes that need one.
    Wanted(Vec<NodeId>, Vec<NodeId>),
    Done(Outcome),
}

/// The line to the leader: events in, progress out, and signs of life to the nodes that have the bytes.
struct Line<O> {
    raw: Arc<Raw>,
    operation: O,
    blob: BlobId,
    moved: Arc<AtomicU64>,
    progress: Interval,
    kept: Instant,
    keeps: JoinSet<()>,
    /// The leader was told that all is staged: it may have committed it.
    reported: bool,
}

impl<O: Steps> Line<O> {
    fn new(raw: Arc<Raw>, operation: O, blob: BlobId, moved: Arc<AtomicU64>) -> Self {
        let mut progress = interval(PROGRESS);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { raw, operation, blob, moved, progress, kept: Instant::now(), keeps: JoinSet::new(), reported: false }
    }
    /// Does `work` until it is done or the leader wants something. A refusal ends the upload.
    async fn turn<F: Future>(
        &mut self,
        mut work: Pin<&mut F>,
        have: &[NodeId],
    ) -> Result<Turn<F::Output>, UploadError> {
        loop {
            tokio::select! {
                worked = &mut work => return Ok(Turn::Worked(worked)),
                event = self.operation.next() => match event? {
                    FrontEvent::Replacement { kept, nodes } => return Ok(Turn::Wanted(kept, nodes)),
                    FrontEvent::Done(outcome) => return Ok(Turn::Done(outcome)),
                    FrontEvent::Refused(refusal) => return Err(refusal.into()),
                    FrontEvent::Stage { .. } => return Err(unexpected(self.blob)),
                },
                _ = self.progress.tick() => {
                    self.operation.progress(self.moved.load(Ordering::Relaxed));
                    self.keep(have);
                }
            }
        }
    }
    /// Staged bytes whose front is silent are collected after a while.
    fn keep(&mut self, have: &[NodeId]) {
        while self.keeps.try_join_next().is_some() {}
        if self.kept.elapsed() < self.raw.limits.keep || !self.keeps.is_empty() {
            return;
        }
        self.kept = Instant::now();
        for &node in have {
            let (raw, blob) = (self.raw.clone(), self.blob);
            self.keeps.spawn(async move {
                if let Err(error) = raw.keep(node, blob).await {
                    tracing::debug!(%node, %blob, %error, "no sign of life to a replica");
                }
            });
        }
    }
}

/// Takes everything from the source and puts it on the disks of `nodes`.
async fn pump<S: Source>(
    raw: &Arc<Raw>,
    blob: BlobId,
    nodes: Vec<NodeId>,
    source: &mut S,
    moved: &AtomicU64,
) -> Result<OnDisks, UploadError> {
    let count = |bytes: &Bytes| moved.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    let mut prefix = BytesMut::new();
    let large = loop {
        let Some(chunk) = source.next_chunk().await.map_err(UploadError::Source)? else { break None };
        count(&chunk);
        if (prefix.len() + chunk.len()) as u64 > INLINE_MAX {
            break Some(chunk);
        }
        prefix.extend_from_slice(&chunk);
    };
    let prefix = prefix.freeze();
    let Some(chunk) = large else {
        let extent = Extent { blob, offset: 0, length: prefix.len() as u64, hash: blake3::hash(&prefix).into() };
        return Ok(put(raw, extent, Origin::Memory(prefix), nodes, &Arc::default()).await);
    };

    let all_lost = |_| UploadError::NoReplica("all replicas failed during the upload".into());
    let mut fan = Fan::new(raw, blob, nodes);
    fan.push(prefix).await.map_err(all_lost)?;
    fan.push(chunk).await.map_err(all_lost)?;
    loop {
        let chunk = {
            let mut next = pin!(source.next_chunk());
            match timeout(LINGER, next.as_mut()).await {
                Ok(chunk) => chunk,
                Err(_) => {
                    fan.flush().await.map_err(all_lost)?;
                    next.await
                }
            }
        };
        let Some(chunk) = chunk.map_err(UploadError::Source)? else { break };
        count(&chunk);
        fan.push(chunk).await.map_err(all_lost)?;
    }
    let Landed { size, hash, confirmed, lost } = fan.finish().await.map_err(all_lost)?;
    let extent = Extent { blob, offset: 0, length: size, hash };
    Ok(OnDisks { extent, own: None, have: confirmed, lost })
}

/// All at once, from what this node has.
async fn put(raw: &Arc<Raw>, extent: Extent, own: Origin, nodes: Vec<NodeId>, moved: &Arc<AtomicU64>) -> OnDisks {
    let (have, lost) = obtain(raw, extent, &own, nodes, moved).await;
    OnDisks { extent, own: Some(own), have, lost }
}

/// Where copies come from.
#[derive(Debug, Clone)]
enum Origin {
    Memory(Bytes),
    Nodes(Vec<NodeId>),
}

/// Gets the bytes to all of `nodes` at once. Returns who has them now, and who failed.
async fn obtain(
    raw: &Arc<Raw>,
    extent: Extent,
    origin: &Origin,
    nodes: Vec<NodeId>,
    moved: &Arc<AtomicU64>,
) -> (Vec<NodeId>, Vec<NodeId>) {
    let mut tasks = JoinSet::new();
    for (at, &node) in nodes.iter().enumerate() {
        let (raw, mut origin, moved) = (raw.clone(), origin.clone(), moved.clone());
        if let Origin::Nodes(list) = &mut origin {
            let turn = at % list.len().max(1);
            list.rotate_left(turn);
        }
        tasks.spawn(async move { bring(&raw, extent, origin, node, &moved).await.then_some(node) });
    }
    let mut brought = Vec::with_capacity(nodes.len());
    while let Some(ended) = tasks.join_next().await {
        brought.extend(ended.ok().flatten());
    }
    nodes.into_iter().partition(|node| brought.contains(node))
}

/// Gets the bytes to one node: whether it has them now.
async fn bring(raw: &Raw, extent: Extent, origin: Origin, node: NodeId, moved: &AtomicU64) -> bool {
    let blob = extent.blob;
    match origin {
        Origin::Memory(bytes) => match raw.put_small(node, blob, &bytes).await {
            Ok(()) => return true,
            Err(error) => tracing::warn!(%node, %blob, %error, "replica lost during an upload"),
        },
        Origin::Nodes(sources) => {
            for from in sources {
                match raw.copy(node, from, (blob, extent.length, extent.hash), moved).await {
                    Ok(()) => return true,
                    Err(error) => {
                        tracing::warn!(%node, %from, %blob, %error, "copy failed");
                        if !matches!(error, RawError::Failed(Failure::Origin)) {
                            break;
                        }
                    }
                }
            }
        }
    }
    false
}

/// From staged bytes to the outcome. What fails here after the leader was told of them says nothing of what it did.
async fn settle<O: Steps>(mut line: Line<O>, on_disks: OnDisks) -> Result<Outcome, UploadError> {
    let staged = Instant::now();
    match follow(&mut line, on_disks).await {
        Ok(outcome) => {
            line.raw.pool.meter.committed(staged.elapsed());
            Ok(outcome)
        }
        Err(error @ (UploadError::NoReplica(_) | UploadError::Stopped)) if line.reported => {
            tracing::warn!(blob = %line.blob, %error, "an upload ended before its outcome was known");
            Err(Refusal::Unknown.into())
        }
        Err(error) => Err(error),
    }
}

/// Does what the leader wants until it says how the upload ended.
async fn follow<O: Steps>(line: &mut Line<O>, mut on_disks: OnDisks) -> Result<Outcome, UploadError> {
    for _ in 0..REPORTS {
        let (kept, nodes) = match report(line, &mut on_disks).await? {
            Turn::Wanted(kept, nodes) => (kept, nodes),
            Turn::Done(outcome) => return Ok(outcome),
            Turn::Worked(never) => match never {},
        };
        // Copies that do not count any more still serve as origins, after the others.
        let (counts, rest) = on_disks.have.iter().partition(|node| kept.contains(node));
        let others = || Origin::Nodes([&counts, &rest].into_iter().flatten().copied().collect::<Vec<_>>());
        let origin = on_disks.own.clone().unwrap_or_else(others);
        on_disks.have = counts;
        let (raw, moved) = (line.raw.clone(), line.moved.clone());
        let keeping: Vec<NodeId> = on_disks.have.iter().chain(&nodes).copied().collect();
        let mut work = pin!(obtain(&raw, on_disks.extent, &origin, nodes, &moved));
        match line.turn(work.as_mut(), &keeping).await? {
            Turn::Worked((have, lost)) => {
                on_disks.lost.retain(|node| !have.contains(node) && !lost.contains(node));
                on_disks.lost.extend(lost);
                on_disks.have.retain(|node| !have.contains(node));
                on_disks.have.extend(have);
            }
            // A commit that was asked for before.
            Turn::Done(outcome) => return Ok(outcome),
            // It wants no more before it has heard how this went.
            Turn::Wanted(..) => return Err(unexpected(line.blob)),
        }
    }
    Err(UploadError::NoReplica(format!("replicas were replaced {REPORTS} times")))
}

/// Tells the leader how things stand, and waits for what it says.
async fn report<O: Steps>(line: &mut Line<O>, on_disks: &mut OnDisks) -> Result<Turn<Infallible>, UploadError> {
    let confirmed = on_disks.have.clone();
    if confirmed.is_empty() && (on_disks.own.is_none() || on_disks.lost.is_empty()) {
        return Err(UploadError::NoReplica("all replicas failed".into()));
    }
    if on_disks.lost.is_empty() {
        let extent = on_disks.extent;
        line.reported = true;
        line.operation.staged(Staged { extent, confirmed }).await?;
    } else {
        line.operation.replica_lost(confirmed, std::mem::take(&mut on_disks.lost)).await?;
    }
    line.turn(pin!(pending()), &on_disks.have).await
}

fn unexpected(blob: BlobId) -> UploadError {
    tracing::error!(%blob, "the cluster core sent an event that does not fit");
    Refusal::Unknown.into()
}
