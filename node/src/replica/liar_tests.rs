//! Nodes that answer a read with other bytes than they announced, one more or one fewer: whoever asked keeps nothing of it,
//! uses the connection for nothing else, and a client gets the very bytes from another replica, or an error.

use super::Limits;
use super::raw::Incoming;
use super::read::{Download, ReadError, open};
use super::testing::*;
use super::wire::{CHUNK_MAX, Failure, RawError};
use crate::cluster::{File, Location};
use std::sync::atomic::{AtomicU64, Ordering};

/// How a body differs from what was asked for.
#[derive(Debug, Clone, Copy)]
enum Lie {
    /// A byte more, in the last chunk.
    Longer,
    /// A byte more, in a chunk of its own.
    Another,
    /// A byte fewer.
    Shorter,
}

const LIES: [Lie; 3] = [Lie::Longer, Lie::Another, Lie::Shorter];

/// The chunks of such a body.
fn body(bytes: &[u8], lie: Lie) -> Vec<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    match lie {
        Lie::Longer => bytes.push(7),
        Lie::Another => {}
        Lie::Shorter => drop(bytes.pop()),
    }
    // Shorter than a chunk may be, for the byte more to have room.
    let mut chunks: Vec<Vec<u8>> = bytes.chunks(CHUNK_MAX - 1).map(<[u8]>::to_vec).collect();
    if matches!(lie, Lie::Another) {
        chunks.push(vec![7]);
    }
    chunks
}

/// A small file and a large one, whose last chunk is a short one.
fn sizes() -> [Vec<u8>; 2] {
    [noise(1000), noise(2 * CHUNK_MAX + 77)]
}

async fn read(incoming: &mut Incoming, node: &Node) -> (usize, Result<(), RawError>) {
    let mut got = 0;
    loop {
        match incoming.next(&node.raw.pool).await {
            Ok(Some(chunk)) => got += chunk.len(),
            Ok(None) => return (got, Ok(())),
            Err(error) => return (got, Err(error)),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_or_less_than_announced_is_refused_and_nothing_kept() {
    for lie in LIES {
        for bytes in sizes() {
            let (town, nodes) = nodes(2, Limits::default()).await;
            let (here, length) = (&nodes[0], bytes.len() as u64);
            let liar = Liar::in_place_of(&nodes[1], &town, body(&bytes, lie)).await;

            let mut incoming = here.raw.get(node(2), blob(1), 0, length).await.unwrap();
            let (got, error) = read(&mut incoming, here).await;
            assert!(got < bytes.len(), "{lie:?}: all {got} bytes were handed out");
            match lie {
                Lie::Longer | Lie::Another => {
                    assert!(matches!(error, Err(RawError::BodyTooLong)), "{lie:?}: {error:?}")
                }
                Lie::Shorter => assert!(matches!(error, Err(RawError::Ended)), "{lie:?}: {error:?}"),
            }
            // As a copy for this disk: even though the hash of what was wanted is known, and that of what came is right.
            for n in [2, 3] {
                let what = (length, blake3::hash(&bytes).into());
                let error = here.raw.fetch(blob(n), what, node(2), &AtomicU64::new(0), None).await.unwrap_err();
                assert!(matches!(error, RawError::Failed(Failure::Origin)), "{lie:?}: {error}");
                assert!(here.bytes(blob(n)).is_none() && here.is_clean(), "{lie:?}: something was kept");
            }
            assert!(town.staged.lock().unwrap().is_empty(), "{lie:?}: the cluster heard of a copy");
            assert_eq!(liar.accepted.load(Ordering::Relaxed), 3, "{lie:?}: a connection was used again");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_get_the_very_bytes_from_another_replica_or_an_error() {
    for lie in LIES {
        for bytes in sizes() {
            let (town, nodes) = nodes(3, Limits::default()).await;
            nodes[2].put(1, &bytes).await;
            let liar = Liar::in_place_of(&nodes[1], &town, body(&bytes, lie)).await;
            let extents = vec![extent(blob(1), &bytes)];
            let file = File { extents, size: bytes.len() as u64, hash: None, modified: 0, ..File::default() };

            // The first read begins with the first replica.
            assert!(download(&nodes[0], &file, &[2, 3]).await.unwrap() == bytes, "{lie:?}: other bytes");
            assert_eq!(liar.accepted.load(Ordering::Relaxed), 1, "{lie:?}: the liar was not asked");
            let alone = download(&nodes[0], &file, &[2]).await;
            assert!(matches!(alone, Err(ReadError::NoReplica)), "{lie:?}: {alone:?}");
            assert!(nodes[0].bytes(blob(1)).is_none(), "a proxy keeps nothing");
        }
    }
}

async fn download(on: &Node, file: &File, nodes: &[u128]) -> Result<Vec<u8>, ReadError> {
    let location = Location { nodes: nodes.iter().map(|n| node(*n)).collect(), ..Location::default() };
    let Download::Stream(mut stream) = open(&on.raw, file, &location, 0).await? else { panic!("not from here") };
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next_chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
