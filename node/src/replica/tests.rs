//! The raw port between real nodes: what is confirmed is there, what is cut or wrong leaves nothing, and dead nodes are
//! replaced.

use super::Limits;
use super::fan::Fan;
use super::raw::{Block, Incoming};
use super::read::{Download, ReadError, open};
use super::stage::stage;
use super::testing::*;
use super::wire::{CHUNK_MAX, Failure, RawError};
use super::write::UploadError;
use crate::cluster::{BlobId, Extent, File, FrontEvent, Hash, Location, Refusal, Staged};
use crate::store::INLINE_MAX;
use bytes::Bytes;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

fn quick() -> Limits {
    Limits { replica_stalled: Duration::from_secs(5), keep: Duration::from_millis(50), ..Limits::default() }
}
fn large() -> Vec<u8> {
    noise(5 * CHUNK_MAX + 4321)
}

async fn read(incoming: &mut Incoming, node: &Node) -> Result<Vec<u8>, RawError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = incoming.next(&node.raw.pool).await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
async fn put(from: &Node, to: u128, blob: BlobId, bytes: &[u8]) {
    if bytes.len() as u64 <= INLINE_MAX {
        return from.raw.put_small(node(to), blob, &Bytes::copy_from_slice(bytes)).await.unwrap();
    }
    let mut fan = Fan::new(&from.raw, blob, vec![node(to)]);
    fan.push(Bytes::copy_from_slice(bytes)).await.unwrap();
    let landed = fan.finish().await.unwrap();
    assert_eq!((landed.size, landed.hash), (bytes.len() as u64, blake3::hash(bytes).into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn put_get_and_copy_move_the_very_bytes_over_one_kept_connection() {
    let (town, nodes) = nodes(3, quick()).await;
    let relay = Relay::before(&nodes[1], &town, u64::MAX).await;
    for (n, bytes) in [(1, vec![]), (2, noise(10_000)), (3, noise(64 * 1024)), (4, large())] {
        put(&nodes[0], 2, blob(n), &bytes).await;
        assert_eq!(nodes[1].bytes(blob(n)).unwrap(), bytes);
        assert_eq!(nodes[1].raw.store.inline(blob(n)).is_some(), bytes.len() as u64 <= INLINE_MAX);

        let half = bytes.len() as u64 / 2;
        let mut incoming = nodes[0].raw.get(node(2), blob(n), half, bytes.len() as u64 - half).await.unwrap();
        assert_eq!(read(&mut incoming, &nodes[0]).await.unwrap(), bytes[bytes.len() / 2..]);

        let (what, moved) = ((blob(n), bytes.len() as u64, blake3::hash(&bytes).into()), AtomicU64::new(0));
        nodes[0].raw.copy(node(3), node(2), what, &moved).await.unwrap();
        assert_eq!(nodes[2].bytes(blob(n)).unwrap(), bytes);
        assert!(town.staged.lock().unwrap().contains(&(node(3), blob(n))));
    }
    // One from node 1, one from node 3 that copied.
    assert_eq!(relay.accepted.load(Ordering::Relaxed), 2);
    nodes[0].raw.keep(node(2), blob(4)).await.unwrap();
    assert_eq!(*town.kept.lock().unwrap(), [(node(2), blob(4))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn put_that_is_cut_leaves_nothing() {
    let (_, nodes) = nodes(2, quick()).await;
    for to in [1, 2] {
        let (send, blocks) = mpsc::channel(8);
        let started = &nodes[usize::try_from(to).unwrap() - 1];
        let cut = async {
            for _ in 0..6 {
                send.send(Block::Bytes(noise(CHUNK_MAX).into())).await.unwrap();
            }
            until("something is being written", || !started.is_clean()).await;
            drop(send);
        };
        let (done, ()) = tokio::join!(nodes[0].raw.put_large(node(to), blob(1), blocks), cut);
        assert!(matches!(done, Err(RawError::Ended)));
        until("the half-written blob is gone", || started.is_clean()).await;
        assert!(started.bytes(blob(1)).is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_do_not_fit_their_hash_are_refused_and_leave_nothing() {
    let (_, nodes) = nodes(3, quick()).await;
    for to in [1, 2] {
        let (send, blocks) = mpsc::channel(8);
        send.send(Block::Bytes(noise(CHUNK_MAX).into())).await.unwrap();
        send.send(Block::End(CHUNK_MAX as u64, Hash([1; 32]))).await.unwrap();
        let error = nodes[0].raw.put_large(node(to), blob(1), blocks).await.unwrap_err();
        assert!(matches!(error, RawError::Damaged | RawError::Failed(Failure::Damaged)), "{error}");
    }
    for (n, bytes) in [(2, noise(100)), (3, large())] {
        put(&nodes[0], 2, blob(n), &bytes).await;
        let what = (blob(n), bytes.len() as u64, Hash([1; 32]));
        let error = nodes[0].raw.copy(node(3), node(2), what, &AtomicU64::new(0)).await.unwrap_err();
        assert!(matches!(error, RawError::Failed(Failure::Origin)), "{error}");
        assert!(nodes[2].bytes(blob(n)).is_none());
    }
    assert!(nodes.iter().all(|n| n.is_clean() && n.bytes(blob(1)).is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_that_died_while_idle_is_replaced() {
    let (_, mut nodes) = nodes(2, quick()).await;
    put(&nodes[0], 2, blob(1), b"one").await;
    nodes[1].stop().await;
    nodes[1].start().await;
    put(&nodes[0], 2, blob(2), b"two").await;
    assert_eq!(nodes[1].bytes(blob(2)).unwrap(), b"two");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_here_or_not_allowed_is_refused() {
    let (_, nodes) = nodes(2, quick()).await;
    put(&nodes[0], 2, blob(1), &large()).await;
    for (n, offset, length) in [(9, 0, 1), (1, large().len() as u64, 1), (1, u64::MAX, 2)] {
        let error = nodes[0].raw.get(node(2), blob(n), offset, length).await.unwrap_err();
        assert!(matches!(error, RawError::Failed(Failure::NotHere)), "{error}");
    }
    let long = Bytes::from(noise(CHUNK_MAX));
    assert!(nodes[0].raw.put_small(node(2), blob(2), &long).await.is_err());
    assert!(nodes[1].bytes(blob(2)).is_none());
    assert!(matches!(nodes[0].raw.keep(node(7), blob(1)).await, Err(RawError::Unknown)));
}

fn file(extents: Vec<Extent>) -> File {
    let size = extents.iter().map(|e| e.length).sum();
    File { extents, size, hash: None, modified: 0, ..File::default() }
}
fn at(nodes: &[u128]) -> Location {
    Location { nodes: nodes.iter().map(|n| node(*n)).collect(), ..Location::default() }
}
async fn download(on: &Node, file: &File, location: &Location, offset: u64) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    match open(&on.raw, file, location, offset).await? {
        Download::Local { .. } => panic!("not from here"),
        Download::Stream(mut stream) => {
            while let Some(chunk) = stream.next_chunk().await? {
                bytes.extend_from_slice(&chunk);
            }
        }
    }
    Ok(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_that_dies_during_a_download_is_replaced_at_the_same_offset() {
    let (town, nodes) = nodes(3, quick()).await;
    let bytes = large();
    for to in [2, 3] {
        put(&nodes[0], to, blob(1), &bytes).await;
    }
    nodes[0].raw.pool.close();
    let file = file(vec![extent(blob(1), &bytes)]);
    // Both are cut after a part; neither alone could give it all.
    let _relays = [
        Relay::before(&nodes[1], &town, 3 * CHUNK_MAX as u64).await,
        Relay::before(&nodes[2], &town, 3 * CHUNK_MAX as u64).await,
    ];
    assert_eq!(download(&nodes[0], &file, &at(&[2, 3]), 0).await.unwrap(), bytes);
    assert_eq!(download(&nodes[0], &file, &at(&[2, 3]), 777).await.unwrap(), bytes[777..]);
    assert!(nodes[0].bytes(blob(1)).is_none(), "a proxy keeps nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn download_without_a_live_replica_fails_before_it_begins() {
    let (_, mut nodes) = nodes(3, quick()).await;
    let bytes = noise(1000);
    put(&nodes[0], 2, blob(1), &bytes).await;
    let file = file(vec![extent(blob(1), &bytes)]);
    assert_eq!(download(&nodes[0], &file, &at(&[2, 3]), 0).await.unwrap(), bytes, "node 3 lacks it");
    assert!(matches!(download(&nodes[0], &file, &at(&[2, 3]), 1001).await, Err(ReadError::BeyondEnd)));
    assert_eq!(download(&nodes[0], &file, &at(&[2, 3]), 1000).await.unwrap(), b"");
    nodes[1].stop().await;
    assert!(matches!(download(&nodes[0], &file, &at(&[2, 3]), 0).await, Err(ReadError::NoReplica)));
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_bytes_are_never_handed_out_whole() {
    let (_, nodes) = nodes(3, quick()).await;
    let (small, big) = (noise(1000), large());
    let damaged = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes[500] ^= 1;
        bytes
    };
    put(&nodes[0], 1, blob(1), &damaged(&small)).await;
    put(&nodes[0], 2, blob(1), &damaged(&small)).await;
    put(&nodes[0], 3, blob(1), &small).await;
    let one = file(vec![extent(blob(1), &small)]);
    for _ in 0..3 {
        assert_eq!(download(&nodes[0], &one, &at(&[1, 2, 3]), 0).await.unwrap(), small);
    }
    put(&nodes[0], 2, blob(2), &damaged(&big)).await;
    let two = file(vec![extent(blob(2), &big)]);
    assert!(matches!(download(&nodes[0], &two, &at(&[2]), 0).await, Err(ReadError::Damaged)));
}

#[tokio::test(flavor = "multi_thread")]
async fn extents_are_read_one_after_another_and_one_local_file_is_given_as_such() {
    let (_, nodes) = nodes(2, quick()).await;
    let (a, b, c) = (noise(3000), large(), b"tail".to_vec());
    put(&nodes[0], 2, blob(1), &a).await;
    put(&nodes[0], 1, blob(2), &b).await;
    put(&nodes[0], 2, blob(2), &b).await;
    put(&nodes[0], 2, blob(3), &c).await;
    let mut part = extent(blob(2), &b[100..b.len() - 100]);
    part.offset = 100;
    let whole = [&a[..], &b[100..b.len() - 100], &c].concat();
    let three = file(vec![extent(blob(1), &a), part, extent(blob(3), &c)]);
    for offset in [0, 1, 2999, 3000, 3001, whole.len() - 1] {
        assert_eq!(download(&nodes[0], &three, &at(&[2]), offset as u64).await.unwrap(), whole[offset..]);
    }
    let local = open(&nodes[0].raw, &file(vec![part]), &at(&[2]), 5).await.unwrap();
    assert!(matches!(local, Download::Local { offset: 105, length, .. } if length == part.length - 5));
}

/// A leader content with what it is told.
fn content(said: &Said) -> Option<FrontEvent> {
    match said {
        Said::Staged(_) => Some(FrontEvent::Done(outcome())),
        Said::Lost { kept, .. } => Some(FrontEvent::Replacement { kept: kept.clone(), nodes: vec![] }),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_is_staged_on_all_its_replicas_before_the_leader_hears_of_it() {
    let (_, nodes) = nodes(3, quick()).await;
    for (n, bytes) in [(1, vec![]), (2, noise(64 * 1024)), (3, noise(64 * 1024 + 1)), (4, large())] {
        let leader = Script::new(|said| {
            let Said::Staged(Staged { extent: e, confirmed }) = said else { panic!("{said:?}") };
            assert_eq!((*e, confirmed.len()), (extent(blob(n), &bytes), 3));
            assert!(nodes.iter().all(|node| node.bytes(blob(n)).as_ref() == Some(&bytes)));
            content(said)
        });
        let (moved, plan) = (leader.moved.clone(), vec![node(1), node(2), node(3)]);
        let mut source = Chunks::of(&bytes, 16_000);
        let (done, size) = stage(nodes[0].raw.clone(), leader, blob(n), plan, &mut source).await.unwrap();
        assert_eq!((done, size), (outcome(), bytes.len() as u64));
        assert!(moved.load(Ordering::Relaxed) <= size);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_lost_during_an_upload_is_replaced_by_a_copy() {
    let (town, mut nodes) = nodes(4, quick()).await;
    let (bytes, chunk) = (noise(12 * CHUNK_MAX), 100_000);
    let raw = nodes[0].raw.clone();
    let mut victim = nodes[2].server.take();
    let mut source = Chunks::of(&bytes, chunk).with(move |left| {
        if left == 10 {
            victim = None;
        }
        assert!(left > 10 || victim.is_none());
    });
    let leader = Script::new(|said| match said {
        Said::Lost { kept, lost } => {
            assert_eq!((kept.clone(), lost.clone()), (vec![node(1), node(2)], vec![node(3)]));
            Some(FrontEvent::Replacement { kept: kept.clone(), nodes: vec![node(4)] })
        }
        Said::Staged(staged) => {
            assert_eq!(staged.confirmed, [node(1), node(2), node(4)]);
            content(said)
        }
    });
    let said = leader.said.clone();
    stage(raw, leader, blob(1), vec![node(1), node(2), node(3)], &mut source).await.unwrap();
    assert_eq!(said.lock().unwrap().len(), 2);
    for n in [0, 1, 3] {
        assert!(nodes[n].bytes(blob(1)).unwrap() == bytes);
    }
    until("the lost replica kept nothing", || nodes[2].is_clean()).await;
    assert!(nodes[2].bytes(blob(1)).is_none() && town.staged.lock().unwrap().contains(&(node(4), blob(1))));
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_may_want_other_copies_after_staging() {
    let (_, mut nodes) = nodes(5, quick()).await;
    nodes[3].stop().await;
    for (n, bytes) in [(1, noise(100)), (2, large())] {
        // First in place of 2, which counts no more: 4, which is dead; then 5.
        let mut wishes = vec![vec![node(5)], vec![node(4)]];
        let leader = Script::new(|said| match (said, wishes.pop()) {
            (Said::Staged(_) | Said::Lost { .. }, Some(nodes)) => {
                Some(FrontEvent::Replacement { kept: vec![node(1), node(3)], nodes })
            }
            (_, None) => content(said),
        });
        let said = leader.said.clone();
        let plan = vec![node(1), node(2), node(3)];
        let raw = nodes[0].raw.clone();
        stage(raw, leader, blob(n), plan, &mut Chunks::of(&bytes, 50_000)).await.unwrap();
        let said = said.lock().unwrap();
        let lost = Said::Lost { kept: vec![node(1), node(3)], lost: vec![node(4)] };
        assert_eq!(said[1], lost);
        assert!(matches!(&said[2], Said::Staged(s) if s.confirmed == [node(1), node(3), node(5)]), "{said:?}");
        assert_eq!(nodes[4].bytes(blob(n)).unwrap(), bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_that_is_cut_or_refused_ends_at_once_and_leaves_nothing() {
    let (_, nodes) = nodes(3, quick()).await;
    let plan = || vec![node(1), node(2), node(3)];
    let clean = || nodes.iter().all(|n| n.is_clean() && n.bytes(blob(1)).is_none());

    let mut cut = Chunks::of(&large(), 50_000);
    cut.chunks.push_back(Err(std::io::ErrorKind::ConnectionReset.into()));
    let leader = Script::new(|_| panic!("nothing is staged"));
    let error = stage(nodes[0].raw.clone(), leader, blob(1), plan(), &mut cut).await.unwrap_err();
    assert!(matches!(error, UploadError::Source(_)));
    until("nothing is left of the cut one", clean).await;

    let leader = Script::new(|_| panic!("nothing is staged"));
    let tell = leader.tell.clone();
    let mut hangs = Chunks::of(&large(), 50_000).with(move |left| {
        if left == 0 {
            tell.try_send(FrontEvent::Refused(Refusal::Stalled)).unwrap();
        }
    });
    hangs.hangs = true;
    let staging = stage(nodes[0].raw.clone(), leader, blob(1), plan(), &mut hangs);
    let error = timeout(SOON, staging).await.unwrap().unwrap_err();
    assert!(matches!(error, UploadError::Refused(Refusal::Stalled)));
    until("nothing is left of the refused one", clean).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_whose_replicas_all_die_fails() {
    let (_, mut nodes) = nodes(4, quick()).await;
    nodes[1].stop().await;
    nodes[2].stop().await;
    let raw = nodes[0].raw.clone();
    let leader = Script::new(|_| panic!("nothing is staged"));
    let plan = vec![node(2), node(3)];
    let error = stage(raw.clone(), leader, blob(1), plan.clone(), &mut Chunks::of(&large(), 50_000)).await;
    assert!(matches!(error, Err(UploadError::NoReplica(_))));
    // A small one is still in memory.
    let leader = Script::new(|said| match said {
        Said::Lost { kept, .. } if kept.is_empty() => {
            Some(FrontEvent::Replacement { kept: vec![], nodes: vec![node(4)] })
        }
        _ => content(said),
    });
    stage(raw, leader, blob(2), plan, &mut Chunks::of(b"small", 2)).await.unwrap();
    assert_eq!(nodes[3].bytes(blob(2)).unwrap(), b"small");
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_that_fails_after_the_leader_heard_of_it_has_no_known_outcome() {
    let (_, mut nodes) = nodes(2, quick()).await;
    nodes[1].stop().await;
    // The copy that was confirmed counts no more, and no other node takes one.
    let leader = Script::new(|_| Some(FrontEvent::Replacement { kept: vec![], nodes: vec![node(2)] }));
    let said = leader.said.clone();
    let mut source = Chunks::of(&large(), 50_000);
    let error = stage(nodes[0].raw.clone(), leader, blob(1), vec![node(1)], &mut source).await.unwrap_err();
    assert!(matches!(error, UploadError::Refused(Refusal::Unknown)), "{error}");
    assert!(matches!(said.lock().unwrap()[..], [Said::Staged(_)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_with_staged_bytes_hear_that_the_front_lives() {
    let (town, nodes) = nodes(2, quick()).await;
    let leader = Script::new(|_| None);
    let tell = leader.tell.clone();
    let mut source = Chunks::of(b"waits for its commit", 50);
    let staging = stage(nodes[0].raw.clone(), leader, blob(1), vec![node(1), node(2)], &mut source);
    let heard = async {
        until("both heard", || [1, 2].iter().all(|n| town.kept.lock().unwrap().contains(&(node(*n), blob(1))))).await;
        tell.send(FrontEvent::Done(outcome())).await.unwrap();
    };
    let (done, ()) = tokio::join!(staging, heard);
    done.unwrap();
}
