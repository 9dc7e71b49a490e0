//! Copies that the core wants on this disk: each blob from the first source that has it, durable before the core is told.
//! It never decides what belongs where, and gives up rather than wait: the core asks again.

use super::raw::Raw;
use super::wire::{Failure, RawError};
use crate::cluster::{Extent, NodeId};
use crate::peer::Fetch;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Takes orders until it is cancelled; what is running then is cut. The core bounds how many there are.
pub(super) async fn pull(raw: Arc<Raw>, mut orders: mpsc::Receiver<Fetch>, cancel: CancellationToken) {
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

pub(super) async fn carry_out(raw: Arc<Raw>, order: Fetch) {
    let mut good = true;
    for extent in &order.extents {
        good = good && bring(&raw, extent, &order.sources).await;
    }
    if raw.cluster.fetched(order.id, good).await.is_err() {
        tracing::debug!(id = order.id, "a copy ended after the cluster");
    }
}

/// Whether the whole blob is here now.
async fn bring(raw: &Raw, extent: &Extent, sources: &[NodeId]) -> bool {
    let (blob, moved) = (extent.blob, AtomicU64::new(0));
    let mut in_vain = true;
    for from in sources.iter().filter(|n| **n != raw.me) {
        match raw.fetch(blob, (extent.length, extent.hash), *from, &moved).await {
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
    use crate::replica::testing::{blob, node, nodes, noise};
    use std::time::Duration;
    use tokio::time::timeout;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_version_is_copied_from_whoever_has_each_blob_or_said_to_have_failed() {
        let (town, nodes) = nodes(3, Limits::default()).await;
        let bytes = [noise(100), noise(300_000)];
        let extent = |n: usize| {
            let (length, hash) = (bytes[n].len() as u64, blake3::hash(&bytes[n]).into());
            Extent { blob: blob(n as u128), offset: 0, length, hash }
        };
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
        order.send(Fetch { id: 1, extents: extents.clone(), sources }).await.unwrap();
        order.send(Fetch { id: 2, extents, sources: vec![node(2)] }).await.unwrap();
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
        stop.cancel();
        pulling.join_next().await.unwrap().unwrap();
    }
}
