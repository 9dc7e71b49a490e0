//! Bad copies between real nodes: the scrubber and reads find them, their own nodes condemn them, nobody is given them, and
//! a copy from elsewhere ends that.

use super::Limits;
use super::pace::Pace;
use super::read::{Download, ReadError, open};
use super::scrub::{check, round};
use super::testing::*;
use super::wire::{CHUNK_MAX, Failure, RawError};
use crate::cluster::{
    Batch, BlobId, Extent, File, Head, Hlc, Holding, Location, Mutation, OpId, PathEntry, Position, Version,
};
use crate::path::FtpPath;
use crate::store::Integrity;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicU64;
use tokio::time::Instant;

/// A rate that nothing waits for.
const FAST: u64 = 1 << 40;

fn large() -> Vec<u8> {
    noise(2 * CHUNK_MAX + 77)
}
fn at(nodes: &[u128]) -> Location {
    Location { nodes: nodes.iter().map(|n| node(*n)).collect(), ..Location::default() }
}
fn file(extent: Extent) -> File {
    File { extents: vec![extent], size: extent.length, hash: None, modified: 0, ..File::default() }
}
fn path(n: u128) -> FtpPath {
    FtpPath::try_from(format!("/{n}")).unwrap()
}

impl Node {
    /// Its index has these blobs here, with these bytes.
    fn index(&self, blobs: &[(u128, &[u8])]) {
        let mut mutations = vec![];
        for (n, bytes) in blobs {
            let (what, location) = (Version::File(file(extent(blob(*n), bytes))), at(&[]));
            let head =
                Head { position: Position::default(), hlc: Hlc(1), op: OpId(1), confirmed: true, what, location };
            mutations.push(Mutation::Entry(path(*n), Some(PathEntry { heads: vec![head] })));
            mutations.push(Mutation::Reference(blob(*n), path(*n), true));
            mutations.push(Mutation::Held(Holding::Node(self.raw.store.node()), blob(*n), true));
        }
        self.raw.store.submit(Batch { number: 1, sync: true, mutations });
    }
    /// Has a blob of its own, as a file whatever its length.
    pub(super) async fn put(&self, n: u128, bytes: &[u8]) {
        let (send, blocks) = tokio::sync::mpsc::channel(64);
        for chunk in bytes.chunks(CHUNK_MAX) {
            send.send(super::raw::Block::Bytes(chunk.to_vec().into())).await.unwrap();
        }
        send.send(super::raw::Block::End(bytes.len() as u64, blake3::hash(bytes).into())).await.unwrap();
        self.raw.put_large(self.raw.me, blob(n), blocks).await.unwrap();
    }
    /// The blob's file, behind the node's back.
    fn on_disk(&self, n: u128) -> std::path::PathBuf {
        let directories = std::fs::read_dir(self.dir.path().join("blobs")).unwrap();
        let mut places = directories.map(|dir| dir.unwrap().path().join(blob(n).to_string()));
        places.find(|place| place.exists()).unwrap()
    }
    fn flip(&self, n: u128, at: u64) {
        let file = OpenOptions::new().read(true).write(true).open(self.on_disk(n)).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    }
    fn cut(&self, n: u128, length: u64) {
        OpenOptions::new().write(true).open(self.on_disk(n)).unwrap().set_len(length).unwrap();
    }
    fn integrity(&self) -> (u64, u64, u64) {
        let Integrity { bad, healed, condemned, .. } = self.raw.store.integrity();
        (bad, healed, condemned)
    }
}

async fn read(on: &Node, bytes: &[u8], n: u128, nodes: &[u128]) -> Result<Vec<u8>, ReadError> {
    let (mut read, what) = (vec![], file(extent(blob(n), bytes)));
    match open(&on.raw, &what, &at(nodes), 0).await? {
        Download::Local { .. } => panic!("not from here"),
        Download::Stream(mut stream) => {
            while let Some(chunk) = stream.next_chunk().await? {
                read.extend_from_slice(&chunk);
            }
        }
    }
    Ok(read)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scrubber_condemns_what_rotted_and_a_good_copy_ends_that() {
    let (town, nodes) = nodes(2, Limits::default()).await;
    let (big, small) = (large(), noise(1000));
    let (here, there) = (&nodes[0], &nodes[1]);
    let all: Vec<(u128, &[u8])> = (1..=5).map(|n| (n, &big[..])).chain([(6, &small[..]), (7, &small[..])]).collect();
    here.index(&all);
    for n in 1..=4 {
        here.put(n, &big).await;
        there.put(n, &big).await;
    }
    there.put(5, &big).await;
    here.raw.stage_small(blob(6), noise(1000).into()).await.unwrap();
    let mut rotten = small.clone();
    rotten[500] ^= 1;
    here.raw.stage_small(blob(7), rotten.into()).await.unwrap();
    there.raw.stage_small(blob(7), small.clone().into()).await.unwrap();
    // 1 is good; 2 differs in its last byte, 3 is too short, 4 is empty, 5 is gone; of the small ones 7 is bad.
    here.flip(2, big.len() as u64 - 1);
    here.cut(3, big.len() as u64 - 1);
    here.cut(4, 0);

    round(&here.raw, &mut Pace::new(FAST)).await.unwrap();
    let bad = [2, 3, 4, 5, 7].map(blob);
    let told = |town: &Town| {
        let mut told: Vec<BlobId> = town.damaged.lock().unwrap().iter().map(|(_, blob)| *blob).collect();
        told.sort_unstable();
        told
    };
    assert_eq!(told(&town), bad);
    let seen = here.raw.store.integrity();
    assert_eq!((seen.blobs, seen.bad, seen.condemned), (6, 5, 5));
    assert!(seen.bytes >= 3 * big.len() as u64);
    round(&here.raw, &mut Pace::new(FAST)).await.unwrap();
    assert_eq!(told(&town).len(), 5, "told once");

    for n in [2, 3, 4, 5, 7] {
        let length = if n == 7 { 1000 } else { big.len() as u64 };
        let refused = there.raw.get(node(1), blob(n), 0, 1).await.unwrap_err();
        assert!(matches!(refused, RawError::Failed(Failure::NotHere)), "{refused}");
        let hash = if n == 7 { extent(blob(n), &small).hash } else { extent(blob(n), &big).hash };
        here.raw.fetch(blob(n), (length, hash), node(2), &AtomicU64::new(0), None).await.unwrap();
        assert!(there.raw.get(node(1), blob(n), 0, length).await.is_ok());
    }
    round(&here.raw, &mut Pace::new(FAST)).await.unwrap();
    assert_eq!((here.integrity(), told(&town).len()), ((5, 5, 0), 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_copy_of_which_there_is_no_other_is_kept_and_reported() {
    let (_, nodes) = nodes(2, Limits::default()).await;
    let big = large();
    nodes[0].index(&[(1, &big)]);
    nodes[0].put(1, &big).await;
    nodes[0].flip(1, 10);
    check(&nodes[0].raw, blob(1), &mut Pace::new(FAST)).await.unwrap();
    let order = crate::peer::Order::Fetch { id: 1, extents: vec![extent(blob(1), &big)], sources: vec![node(2)] };
    super::pull::carry_out(nodes[0].raw.clone(), order).await;
    assert_eq!(nodes[0].raw.store.integrity().incurable, 1);
    assert_eq!(nodes[0].on_disk(1).metadata().unwrap().len(), big.len() as u64);
    // Should it turn out to be good, it is.
    nodes[0].flip(1, 10);
    check(&nodes[0].raw, blob(1), &mut Pace::new(FAST)).await.unwrap();
    assert_eq!((nodes[0].integrity(), nodes[0].bytes(blob(1)).unwrap()), ((1, 0, 0), big));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scrubber_reads_no_faster_than_it_may() {
    let (_, nodes) = nodes(1, Limits::default()).await;
    let big = large();
    nodes[0].index(&[(1, &big)]);
    nodes[0].put(1, &big).await;
    let began = Instant::now();
    check(&nodes[0].raw, blob(1), &mut Pace::new(2 << 20)).await.unwrap();
    let least = big.len() as f64 / f64::from(2 << 20);
    assert!(began.elapsed().as_secs_f64() >= least, "{:?} for {least} s", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_read_finds_bad_its_own_node_condemns() {
    let (_, nodes) = nodes(3, Limits::default()).await;
    let big = large();
    for node in &nodes[1..] {
        node.index(&[(1, &big), (2, &big), (3, &big)]);
        for n in [1, 2, 3] {
            node.put(n, &big).await;
        }
    }
    nodes[1].flip(1, 10);
    nodes[1].cut(2, 10);
    std::fs::remove_file(nodes[1].on_disk(3)).unwrap();
    for (n, found) in [(1, 1), (2, 2), (3, 3)] {
        // In turn one of both is asked first.
        for _ in 0..2 {
            match read(&nodes[0], &big, n, &[2, 3]).await {
                Ok(bytes) => assert!(bytes == big),
                Err(error) => assert!(n == 1 && matches!(error, ReadError::Damaged), "{n}: {error}"),
            }
        }
        until("the copy is condemned", || nodes[1].integrity() == (found, 0, found)).await;
        for _ in 0..2 {
            assert!(read(&nodes[0], &big, n, &[2, 3]).await.unwrap() == big);
        }
    }
    assert_eq!(nodes[2].integrity(), (0, 0, 0));
    // A copy made from a rotten one is refused, and the source hears of it.
    nodes[2].flip(1, 10);
    let what = extent(blob(1), &big);
    let error =
        nodes[0].raw.fetch(blob(1), (what.length, what.hash), node(3), &AtomicU64::new(0), None).await.unwrap_err();
    assert!(matches!(error, RawError::Failed(Failure::Origin)), "{error}");
    until("the source looked", || nodes[2].integrity() == (1, 0, 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_copy_here_is_bad_comes_from_elsewhere() {
    let (_, nodes) = nodes(2, Limits::default()).await;
    let big = large();
    let (small, mut rotten) = (noise(1000), noise(1000));
    rotten[999] ^= 1;
    nodes[0].index(&[(1, &big), (2, &big), (3, &small)]);
    for n in [1, 2] {
        nodes[0].put(n, &big).await;
        nodes[1].put(n, &big).await;
    }
    nodes[0].raw.stage_small(blob(3), rotten.into()).await.unwrap();
    nodes[1].raw.stage_small(blob(3), small.clone().into()).await.unwrap();
    assert!(read(&nodes[0], &small, 3, &[1, 2]).await.unwrap() == small);
    until("the small one is condemned", || nodes[0].integrity() == (1, 0, 1)).await;
    nodes[0].cut(1, 10);
    assert!(read(&nodes[0], &big, 1, &[1, 2]).await.unwrap() == big);
    until("it is condemned", || nodes[0].integrity() == (2, 0, 2)).await;

    // Cut after it was opened.
    let what = file(extent(blob(2), &big));
    let Download::Local { elsewhere, length, .. } = open(&nodes[0].raw, &what, &at(&[1, 2]), 5).await.unwrap() else {
        panic!("it is here")
    };
    assert_eq!(length, big.len() as u64 - 5);
    nodes[0].cut(2, 1000);
    let (mut rest, mut stream) = (vec![], elsewhere.unwrap().resume(1000).await.unwrap());
    while let Some(chunk) = stream.next_chunk().await.unwrap() {
        rest.extend_from_slice(&chunk);
    }
    assert!(rest == big[1000..]);
    until("it is condemned", || nodes[0].integrity() == (3, 0, 3)).await;
}
