//! Blobs that the core wants on this disk: copies, each from the first source that has it, and one blob made of several,
//! from this disk alone. All are durable before the core is told. It never decides what belongs where, and gives up rather
//! than wait: the core asks again.

use super::delta::{Collecting, Kept};
use super::raw::Raw;
use super::wire::{Failure, RawError};
use crate::cluster::{BlobId, Extent, Hash, NodeId};
use crate::peer::Order;
use crate::store::failpoint::reach;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Takes orders until it is cancelled; what is running then is cut. The core bounds how many there are.
pub(super) async fn pull(raw: Arc<Raw>, mut orders: mpsc::Receiver<Order>, cancel: CancellationToken) {
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            Some(_) = running.join_next() => {}
            order = orders.recv() => match order {
                Some(order) => drop(running.spawn(carry_out(raw.clone(), order))),
                None => return,
            },
        }
    }
}

pub(super) async fn carry_out(raw: Arc<Raw>, order: Order) {
    let told = match order {
        Order::Fetch { id, extents, sources } => {
            let mut good = true;
            for extent in &extents {
                good = good && bring(&raw, extent, &sources).await;
            }
            raw.pool.meter.fetched(good);
            raw.cluster.fetched(id, good).await
        }
        Order::Merge { blob, run } => {
            let made = merge(&raw, blob, &run).await;
            raw.pool.meter.compacted(made.is_ok());
            reach("blob-merged");
            if let Err(error) = &made {
                tracing::info!(%blob, %error, "extents could not be merged");
            }
            raw.cluster.merged(blob, made.ok()).await
        }
    };
    if told.is_err() {
        tracing::debug!("what the cluster wanted ended after the cluster");
    }
}

/// Makes one blob of a run of extents, all of which are here. Each is checked: what rotted must not get a new hash. One that
/// does not fit is doubted, for until it is replaced the run cannot be merged.
async fn merge(raw: &Arc<Raw>, blob: BlobId, run: &[Extent]) -> Result<Hash, RawError> {
    let mut collecting = Collecting::new(raw);
    for extent in run {
        if let Err(error) = collect(raw, extent, &mut collecting).await {
            raw.doubt(raw.me, extent.blob);
            return Err(error);
        }
    }
    let whole = collecting.end().await?;
    match whole.bytes {
        Kept::Memory(bytes) => raw.stage_small(blob, bytes).await?,
        Kept::Disk(waiting) => raw.name(blob, waiting.writer.ok_or(Failure::Disk)?).await?,
    }
    Ok(whole.hash)
}

async fn collect(raw: &Arc<Raw>, extent: &Extent, into: &mut Collecting<'_>) -> Result<(), RawError> {
    let here = raw.get_local(extent.blob, extent.offset, extent.length).await?;
    let mut incoming = here.ok_or(Failure::NotHere)?;
    let mut hasher = blake3::Hasher::new();
    while let Some(chunk) = incoming.next(&raw.pool).await? {
        hasher.update(&chunk);
        into.push(&chunk).await?;
    }
    if Hash::from(hasher.finalize()) == extent.hash { Ok(()) } else { Err(RawError::Damaged) }
}

/// Whether the whole blob is here now.
async fn bring(raw: &Raw, extent: &Extent, sources: &[NodeId]) -> bool {
    let (blob, moved) = (extent.blob, AtomicU64::new(0));
    let mut in_vain = true;
    for from in sources.iter().filter(|n| **n != raw.me) {
        match raw.fetch(blob, (extent.length, extent.hash), *from, &moved, Some(&raw.repair)).await {
            Ok(()) => return true,
            Err(error) => {
                // Else it is this disk that did not take it.
                in_vain &= matches!(error, RawError::Failed(Failure::Origin));
                tracing::info!(%blob, %from, %error, "a blob could not be copied from there");
            }
        }
    }
    if in_vain {
        raw.store.sought(blob);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::Limits;
    use crate::replica::testing::{SOON, blob, extent, node, nodes, noise};
    use std::time::Duration;
    use tokio::time::{Instant, timeout};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_version_is_copied_from_whoever_has_each_blob_or_said_to_have_failed() {
        let (town, nodes) = nodes(3, Limits::default()).await;
        let bytes = [noise(100), noise(300_000)];
        let extent = |n: usize| extent(blob(n as u128), &bytes[n]);
        nodes[0].raw.put_small(node(2), blob(0), &bytes[0].clone().into()).await.unwrap();
        let (blocks, taken) = mpsc::channel(4);
        blocks.send(crate::replica::raw::Block::Bytes(bytes[1].clone().into())).await.unwrap();
        blocks.send(crate::replica::raw::Block::End(300_000, extent(1).hash)).await.unwrap();
        nodes[0].raw.put_large(node(1), blob(1), taken).await.unwrap();

        let (order, orders) = mpsc::channel(4);
        let stop = CancellationToken::new();
        let mut pulling = JoinSet::new();
        pulling.spawn(pull(nodes[2].raw.clone(), orders, stop.clone()));
        let sources = vec![node(3), node(1), node(2)];
        let extents = vec![extent(0), extent(1)];
        order.send(Order::Fetch { id: 1, extents: extents.clone(), sources }).await.unwrap();
        order.send(Order::Fetch { id: 2, extents, sources: vec![node(2)] }).await.unwrap();
        let told = async {
            while town.fetched.lock().unwrap().len() < 2 {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(20), told).await.unwrap();
        let mut fetched = town.fetched.lock().unwrap().clone();
        fetched.sort_unstable();
        assert_eq!(fetched, [(1, true), (2, false)]);
        assert_eq!(
            (nodes[2].bytes(blob(0)).unwrap(), nodes[2].bytes(blob(1)).unwrap()),
            (bytes[0].clone(), bytes[1].clone())
        );
        // The second order got its first blob, too.
        let shows = |node: usize, line: &str| nodes[node].raw.pool.meter.shows(line);
        assert!(shows(2, "trebol_copies_fetched_total{result=\"done\"} 1"));
        assert!(shows(2, "trebol_copies_fetched_total{result=\"failed\"} 1"));
        assert!(shows(2, "trebol_replica_bytes_total{direction=\"in\"} 300200"));
        assert!(shows(0, "trebol_replica_bytes_total{direction=\"out\"} 300100"));
        assert!(shows(1, "trebol_replica_bytes_total{direction=\"in\"} 100"));
        stop.cancel();
        pulling.join_next().await.unwrap().unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn repair_is_no_faster_than_it_may_and_a_client_waits_for_no_pace() {
        let bytes = noise(300_000);
        let what = extent(blob(1), &bytes);
        for (rate, paced) in [(600_000, true), (1, false)] {
            let (town, nodes) = nodes(2, Limits { repair_rate: rate, ..Limits::default() }).await;
            nodes[1].put(1, &bytes).await;
            let began = Instant::now();
            if paced {
                let order = Order::Fetch { id: 1, extents: vec![what], sources: vec![node(2)] };
                carry_out(nodes[0].raw.clone(), order).await;
                assert_eq!(*town.fetched.lock().unwrap(), [(1, true)]);
                assert!(began.elapsed() >= Duration::from_millis(440), "{:?}", began.elapsed());
            } else {
                // As for an upload, here and at another node's word.
                let (moved, copied) = (AtomicU64::new(0), (blob(1), what.length, what.hash));
                let copies = async {
                    nodes[0].raw.copy(node(1), node(2), copied, &moved).await.unwrap();
                    nodes[1].raw.copy(node(1), node(2), copied, &moved).await.unwrap();
                };
                timeout(SOON, copies).await.unwrap();
            }
            assert_eq!(nodes[0].bytes(blob(1)).unwrap(), bytes);
        }
    }

    #[tokio::test]
    async fn extents_become_one_blob_and_what_rotted_becomes_none() {
        let (town, nodes) = nodes(1, Limits::default()).await;
        let raw = &nodes[0].raw;
        for (name, sizes) in [(7, [100, 0, 300_000]), (8, [10, 20, 30])] {
            let bytes = sizes.map(noise);
            let mut run = vec![];
            for (n, bytes) in bytes.iter().enumerate() {
                let blob = blob(name * 10 + n as u128);
                run.push(extent(blob, bytes));
                if bytes.len() as u64 > crate::store::INLINE_MAX {
                    let (blocks, taken) = mpsc::channel(4);
                    blocks.send(crate::replica::raw::Block::Bytes(bytes.clone().into())).await.unwrap();
                    blocks.send(crate::replica::raw::Block::End(300_000, run[n].hash)).await.unwrap();
                    raw.put_large(node(1), blob, taken).await.unwrap();
                } else {
                    raw.put_small(node(1), blob, &bytes.clone().into()).await.unwrap();
                }
            }
            let hash = merge(raw, blob(name), &run).await.unwrap();
            assert_eq!(nodes[0].bytes(blob(name)).unwrap(), bytes.concat());
            assert_eq!(hash, blake3::hash(&bytes.concat()).into());
            assert!(town.staged.lock().unwrap().contains(&(node(1), blob(name))));

            run[0].hash = Hash([1; 32]);
            assert!(matches!(merge(raw, blob(9), &run).await, Err(RawError::Damaged)));
            run[0].blob = blob(1);
            assert!(matches!(merge(raw, blob(9), &run).await, Err(RawError::Failed(Failure::NotHere))));
            assert!(nodes[0].bytes(blob(9)).is_none() && nodes[0].is_clean());
        }
    }
}
