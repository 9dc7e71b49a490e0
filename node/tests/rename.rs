//! A large directory is renamed on a real disk: a member of its own, alone, over the store that `trebol serve` uses. Sees that
//! all of it moves in one step and how long the node stands still meanwhile. `TREBOL_LONG=1` takes 100,000 files.

use node::cluster::{
    BlobId, Change, Config, DiskReport, Extent, File, FrontEvent, Hash, Head, Hlc, Input, Location, MS, Member,
    Mutation, NodeId, Now, OpId, Output, PathEntry, PeerInfo, Position, Rank, Refusal, Stamp, Storage, Token, Version,
};
use node::path::FtpPath;
use node::store::Store;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Bound of every wait.
const LONG: Duration = Duration::from_secs(120);
const WALL: u64 = 1_700_000_000_000_000;

fn p(text: &str) -> FtpPath {
    FtpPath::root().resolve(text).expect("paths of this file are canonical")
}

/// One version of a file that nobody ever logged: the index came with it.
fn version(n: u64, replica: NodeId) -> PathEntry {
    let hash = Hash([n as u8; 32]);
    let blob = BlobId { op: OpId(n.into()), token: Token::default() };
    let extent = Extent { blob, offset: 0, length: 10, hash };
    let file = File {
        extents: vec![extent],
        size: 10,
        hash: Some(hash),
        modified: WALL,
        replicas: vec![replica],
        ..File::default()
    };
    head(n, Version::File(file), vec![replica])
}
fn head(n: u64, what: Version, nodes: Vec<NodeId>) -> PathEntry {
    let position = Position { seq: n, ..Position::default() };
    let location = Location { stamp: Stamp { hlc: Hlc(1), position }, nodes };
    PathEntry { heads: vec![Head { position, hlc: Hlc(1), op: OpId(n.into()), confirmed: true, what, location }] }
}

/// A node that is a cluster of its own.
struct Alone {
    member: Member,
    store: Arc<Store>,
    persisted: mpsc::Receiver<u64>,
    submitted: u64,
    now: Now,
    answer: Option<FrontEvent>,
    /// The longest that one round took.
    stood: Duration,
    _dir: tempfile::TempDir,
}

impl Alone {
    /// With `files` files in `/from`, a thousand to a directory.
    fn new(files: u64, config: Config) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let open = || {
            let (tell, persisted) = mpsc::channel(64);
            (Store::open(dir.path(), tell).expect("an empty directory"), persisted)
        };
        let (store, _) = open();
        let node = store.node();
        let made = head(u64::MAX, Version::Directory { modified: WALL }, vec![]);
        let mut mutations = vec![Mutation::Entry(p("/from"), Some(made))];
        for n in 0..files {
            let entry = version(n + 1, node);
            let path = p(&format!("/from/directory-{:04}/file-{n:06}.txt", n / 1000));
            let blob = BlobId { op: OpId((n + 1).into()), token: Token::default() };
            mutations.push(Mutation::Reference(blob, path.clone(), true));
            mutations.push(Mutation::Entry(path, Some(entry)));
        }
        store.submit(node::cluster::Batch { number: 1, sync: true, mutations });
        drop(Arc::into_inner(store).expect("the only one"));
        let (store, persisted) = open();
        let address = std::net::SocketAddr::from(([10, 0, 0, 1], 2123));
        let rank = Rank { priority: 0, address, node };
        let me = PeerInfo { node, rank, raw: address, ftp: String::new(), name: "n".into(), zone: String::new() };
        let now = Now { mono: 1_000_000 * MS, wall: WALL };
        let member = Member::new(now, config, me, store.restored(), &*store, 1);
        let mut alone =
            Self { member, store, persisted, submitted: 0, now, answer: None, stood: Duration::ZERO, _dir: dir };
        alone.round(Input::Disk(DiskReport { used: 0, free: 1 << 40, healthy: true }));
        for _ in 0..400 {
            alone.tick();
        }
        alone
    }
    fn tick(&mut self) {
        self.now.mono += 25 * MS;
        self.now.wall += 25 * MS;
        self.round(Input::Tick);
    }
    /// One input, what it causes, and the disk's report on it.
    fn round(&mut self, input: Input) {
        let began = Instant::now();
        self.member.handle(self.now, input, &*self.store);
        self.member.settle(self.now, &*self.store);
        let batch = self.member.take_batch();
        let number = batch.as_ref().map(|batch| batch.number);
        batch.into_iter().for_each(|batch| self.store.submit(batch));
        for output in self.member.take_outputs() {
            if let Output::Front { event, .. } = output {
                self.answer = Some(event);
            }
        }
        self.stood = self.stood.max(began.elapsed());

        self.submitted = number.unwrap_or(self.submitted);
        if number.is_some() {
            self.written();
        }
    }
    fn written(&mut self) {
        let began = Instant::now();
        while began.elapsed() < LONG {
            match self.persisted.try_recv() {
                Ok(batch) if batch >= self.submitted => return self.round(Input::Persisted { batch }),
                _ => std::thread::yield_now(),
            }
        }
        panic!("the store does not write");
    }
    fn change(&mut self, n: u128, change: Change) -> FrontEvent {
        self.answer = None;
        self.round(Input::Submit { op: OpId(n << 64), change, patience: 10_000 * MS });
        for _ in 0..400 {
            if let Some(answer) = self.answer.take() {
                return answer;
            }
            self.tick();
        }
        panic!("no answer");
    }
    /// How many files are below a directory, by its listings.
    fn files(&self, dir: &str) -> usize {
        let dirs = self.store.list(&p(dir), None, usize::MAX);
        dirs.iter().map(|row| self.store.list(&p(&format!("{dir}/{}", row.name)), None, usize::MAX).len()).sum()
    }
}

fn alone() -> Config {
    Config { min_copies: 1, ..Config::default() }
}

#[test]
fn a_large_directory_moves_in_one_step() {
    let files = if std::env::var("TREBOL_LONG").is_ok_and(|set| set == "1") { 100_000 } else { 5000 };
    let mut node = Alone::new(files, Config { rename_entries: 200_000, ..alone() });
    node.stood = Duration::ZERO;
    let began = Instant::now();
    let answer = node.change(1 << 40, Change::Rename { from: p("/from"), to: p("/to") });
    assert!(matches!(answer, FrontEvent::Done(_)), "{answer:?}");
    println!("{files} files: {:?} in all, {:?} in the longest round", began.elapsed(), node.stood);
    assert_eq!((node.files("/from"), node.files("/to")), (0, files as usize));
    assert!(!node.store.is_directory(&p("/from")) && node.store.is_directory(&p("/to")));
    assert!(node.store.restored().tail.is_empty(), "all of it is applied");
    let log = node.store.records_beyond(&node::cluster::Marks::default(), 10_000);
    let parts: Vec<_> = log.iter().filter_map(|r| r.write()?.part).collect();
    assert_eq!(parts.len() as u64, (files * 2 + 2).div_ceil(1000), "the directory and what is in it");
    assert!(parts.iter().enumerate().all(|(n, part)| part.index == n as u64 && part.count == parts.len() as u64));
    // And back: the positions that the heads have now are those of the parts.
    let answer = node.change(2 << 40, Change::Rename { from: p("/to"), to: p("/from") });
    assert!(matches!(answer, FrontEvent::Done(_)), "{answer:?}");
    assert_eq!((node.files("/from"), node.files("/to")), (files as usize, 0));
}

#[test]
fn more_than_is_moved_at_once_stays_where_it_is() {
    let rename = || Change::Rename { from: p("/from"), to: p("/to") };
    let mut node = Alone::new(3000, Config { rename_entries: 3002, ..alone() });
    assert_eq!(node.change(1 << 40, rename()), FrontEvent::Refused(Refusal::TooMuch));
    assert_eq!((node.files("/from"), node.files("/to")), (3000, 0));
    let mut node = Alone::new(3000, Config { rename_entries: 3003, ..alone() });
    assert!(matches!(node.change(1 << 40, rename()), FrontEvent::Done(_)), "files and directories count");
}
