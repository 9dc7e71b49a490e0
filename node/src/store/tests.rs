//! The store as a whole: what survives a reopening, what readers see meanwhile, and listings against a plain map.

use super::*;
use crate::cluster::{Body, Cover, Epoch, Extent, File, Hash, Hlc, Location, MemberState, Mutation, Stamp, Token};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

struct Node {
    dir: tempfile::TempDir,
    store: Arc<Store>,
    persisted: mpsc::Receiver<u64>,
    number: u64,
}

fn open(dir: &Path, reserve: u64) -> (Arc<Store>, mpsc::Receiver<u64>) {
    let (tell, persisted) = mpsc::channel(4);
    (Store::open_with(dir, tell, reserve).unwrap(), persisted)
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (store, persisted) = open(dir.path(), 0);
        Self { dir, store, persisted, number: 0 }
    }
    fn submit(&mut self, mutations: Vec<Mutation>) {
        self.number += 1;
        self.store.submit(Batch { number: self.number, sync: true, mutations });
    }
    async fn written(&mut self) {
        let wait = async { while self.persisted.recv().await.unwrap() < self.number {} };
        tokio::time::timeout(SOON, wait).await.unwrap();
    }
    fn reopened(self) -> Self {
        let Self { dir, store, number, .. } = self;
        drop(Arc::into_inner(store).expect("the only one"));
        let (store, persisted) = open(dir.path(), 0);
        Self { dir, store, persisted, number }
    }
}

fn p(text: &str) -> FtpPath {
    FtpPath::try_from(text.to_owned()).unwrap()
}
fn at(counter: u64, seq: u64) -> Position {
    Position { epoch: Epoch(counter, 7), seq }
}
fn blob(n: u128) -> BlobId {
    BlobId { op: OpId(n), token: Token::default() }
}
fn record(position: Position) -> Arc<Record> {
    Arc::new(Record { position, hlc: Hlc(1), durability: vec![], body: Body::Cover(Cover::default()) })
}
fn entry(what: Version, confirmed: bool) -> Option<PathEntry> {
    let head = Head { position: at(1, 1), hlc: Hlc(1), op: OpId(1), confirmed, what, location: Location::default() };
    Some(PathEntry { heads: vec![head] })
}
fn file(size: u64) -> Version {
    let hash = blake3::hash(b"").into();
    Version::File(File { extents: vec![], size, hash: Some(hash), modified: 9, ..File::default() })
}
fn directory() -> Version {
    Version::Directory { modified: 5 }
}
fn set(path: &str, what: Version) -> Mutation {
    Mutation::Entry(p(path), entry(what, true))
}
fn positions(records: &[Arc<Record>]) -> Vec<Position> {
    records.iter().map(|r| r.position).collect()
}

#[tokio::test]
async fn reopening_keeps_everything() {
    let mut node = Node::new();
    let outcome = Outcome { position: at(1, 0), hlc: Hlc(3), copies: 3 };
    let state = MemberState { promised: Epoch(1, 7), applied: Marks::of(Epoch(1, 7), 1), ..MemberState::default() };
    node.submit(vec![
        Mutation::Record(record(at(1, 0))),
        Mutation::Record(record(at(1, 1))),
        set("/d", directory()),
        set("/d/f", file(3)),
        Mutation::Entry(p("/void"), entry(file(1), false)),
        Mutation::Outcome(OpId(4), Some(outcome)),
        Mutation::Reference(blob(1), p("/a"), true),
        Mutation::Held(Holding::Node(NodeId(1)), blob(1), true),
        Mutation::Held(Holding::Node(node.store.node()), blob(3), true),
        Mutation::State(state.clone()),
    ]);
    for n in [1, 2] {
        node.store.put_inline(blob(n), Bytes::from_static(b"small")).await.unwrap().unwrap();
    }
    node.written().await;
    let id = node.store.node();
    let boots = node.store.boots().clone();

    let mut node = node.reopened();
    assert_eq!(node.store.node(), id);
    assert!(node.store.boots().extends(&boots));
    assert_eq!(node.store.visible(&p("/d/f")).unwrap().what, file(3));
    assert_eq!((node.store.visible(&p("/void")), node.store.outcome(OpId(4))), (None, Some(outcome)));
    assert_eq!(node.store.referrers(blob(1)), [p("/a")]);
    assert_eq!(node.store.held(Holding::Node(NodeId(1)), None, 9), [blob(1)]);
    assert_eq!((&*node.store.inline(blob(1)).unwrap(), node.store.report().used), (&b"small"[..], 10));
    let restored = node.store.restored();
    assert_eq!(restored.state, MemberState { digest: Some(node.store.digest()), ..state });
    assert_eq!(positions(&restored.tail), [at(1, 1)], "the first is applied");
    assert_eq!(restored.unconfirmed, [p("/void")]);
    assert_eq!((restored.outcomes, restored.unreferenced), (vec![OpId(4)], vec![blob(2)]));
    assert_eq!(restored.astray, [blob(1), blob(3)], "one is here for others, one is to be here and is not");

    node.submit(vec![Mutation::Record(record(at(1, 2)))]);
    assert_eq!(positions(&node.store.records_beyond(&Marks::of(Epoch(1, 7), 1), 9)), [at(1, 1), at(1, 2)]);
}

#[tokio::test]
async fn what_is_submitted_is_read_at_once_and_a_dropped_store_has_written_it() {
    let mut node = Node::new();
    for n in 0..300u64 {
        node.number += 1;
        let mutations = vec![set(&format!("/f{n:03}"), file(n)), Mutation::Held(Holding::Short, blob(n.into()), true)];
        node.store.submit(Batch { number: node.number, sync: false, mutations });
        assert!(node.store.held(Holding::Short, None, 999).contains(&blob(n.into())));
        assert_eq!(node.store.list(&FtpPath::root(), None, 1000).len() as u64, n + 1);
    }
    // Nobody reads `persisted`, whose queue is full by now: that must not stop the store thread.
    let node = node.reopened();
    assert_eq!(node.store.list(&FtpPath::root(), Some("f149"), 1000).len(), 150);
    assert_eq!(
        node.store.list(&FtpPath::root(), Some("f149"), 2).iter().map(|r| r.size).collect::<Vec<_>>(),
        [150, 151]
    );
}

#[tokio::test]
async fn the_greatest_written_number_is_reported_even_to_a_driver_that_reads_late() {
    let mut node = Node::new();
    for _ in 0..100 {
        node.submit(vec![]);
    }
    node.written().await;
}

/// Copies a data directory as a process that is killed would leave it.
fn killed(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let copied = std::process::Command::new("cp").arg("-a").arg(dir.join(".")).arg(copy.path()).status().unwrap();
    assert!(copied.success());
    copy
}

#[tokio::test]
async fn what_was_reported_survives_a_kill_and_a_torn_journal_loses_whole_batches_from_its_end() {
    let mut node = Node::new();
    for n in 0..20 {
        let state = MemberState { files: n + 1, ..MemberState::default() };
        node.submit(vec![
            Mutation::Record(record(at(1, n))),
            set(&format!("/f{n:02}"), file(n)),
            Mutation::State(state),
        ]);
        node.written().await;
    }
    let count = |dir: &Path| {
        let (store, _persisted) = open(dir, 0);
        let records = store.records_beyond(&Marks::default(), 100).len();
        assert_eq!(store.list(&FtpPath::root(), None, 100).len(), records);
        assert_eq!(store.restored().state.files, records as u64);
        records
    };
    assert_eq!(count(killed(node.dir.path()).path()), 20);

    let torn = killed(node.dir.path());
    let journal = std::fs::read_dir(torn.path().join("database")).unwrap().map(|e| e.unwrap().path());
    let journal = journal.filter(|path| path.extension().is_some_and(|e| e == "jnl")).max().unwrap();
    let bytes = std::fs::read(&journal).unwrap();
    let used = bytes.iter().rposition(|b| *b != 0).unwrap();
    std::fs::write(&journal, &bytes[..used * 4 / 5]).unwrap();
    let left = count(torn.path());
    assert!((5..20).contains(&left), "{left}");
}

#[test]
fn records_come_in_the_order_of_arrival_over_all_epochs() {
    let mut node = Node::new();
    let order = [at(1, 0), at(2, 0), at(1, 1), at(3, 0), at(2, 1), at(1, 2)];
    for position in order {
        node.submit(vec![Mutation::Record(record(position))]);
    }
    assert_eq!(positions(&node.store.records_beyond(&Marks::default(), 100)), order);
    assert_eq!(positions(&node.store.records_beyond(&Marks::default(), 4)), order[..4]);
    let known = Marks::from(vec![(Epoch(1, 7), 2), (Epoch(3, 7), 1), (Epoch(9, 9), 5)]);
    assert_eq!(positions(&node.store.records_beyond(&known, 100)), [at(2, 0), at(2, 1), at(1, 2)]);
    let node = node.reopened();
    assert_eq!(positions(&node.store.records_beyond(&known, 100)), [at(2, 0), at(2, 1), at(1, 2)]);
}

#[test]
fn directories_come_and_go_with_what_is_below_them() {
    let mut node = Node::new();
    let names = |node: &Node, dir: &str| -> Vec<(String, bool)> {
        node.store.list(&p(dir), None, 10).into_iter().map(|r| (r.name, r.directory)).collect()
    };
    node.submit(vec![set("/a/b/c", file(1)), set("/a/b/d", file(1))]);
    assert_eq!(names(&node, "/"), [("a".to_owned(), true)]);
    assert_eq!(names(&node, "/a"), [("b".to_owned(), true)]);
    assert!(node.store.is_directory(&p("/a/b")) && node.store.visible(&p("/a/b")).is_none());
    assert_eq!(node.store.next_child(&p("/a/b"), Some("c")), Some("d".to_owned()));

    node.submit(vec![set("/a", file(7))]);
    assert_eq!(names(&node, "/"), [("a".to_owned(), true)], "a directory wins over a file");
    assert!(node.store.visible(&p("/a")).is_none());

    node.submit(vec![set("/a/b/c", Version::Deleted), Mutation::Entry(p("/a/b/d"), None)]);
    assert_eq!(names(&node, "/"), [("a".to_owned(), false)], "and gives it back");
    assert!(node.store.visible(&p("/a")).is_some() && !node.store.is_directory(&p("/a")));

    node.submit(vec![set("/a", directory())]);
    assert!(node.store.is_directory(&p("/a")) && node.store.visible(&p("/a")).is_some());
    assert_eq!(node.store.next_child(&p("/a"), None), None);
}

fn has(store: &Store, n: u128) -> bool {
    store.inline(blob(n)).is_some() || store.open_blob(blob(n)).unwrap().is_some()
}

#[tokio::test]
async fn a_full_disk_refuses_bytes_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _persisted) = open(dir.path(), u64::MAX);
    assert!(matches!(store.put_inline(blob(1), Bytes::from_static(b"x")).await.unwrap(), Err(StoreError::Full)));
    assert!(matches!(store.create_blob(blob(1)), Err(StoreError::Full)));
    assert!(!has(&store, 1));
    assert_eq!(store.report().used, 0);
}

#[tokio::test]
async fn blobs_are_dropped_inline_or_files_and_counted() {
    let node = Node::new();
    let store = &node.store;
    store.put_inline(blob(1), Bytes::from_static(b"12345")).await.unwrap().unwrap();
    store.put_inline(blob(1), Bytes::from_static(b"12345")).await.unwrap().unwrap();
    store.put_inline(blob(3), Bytes::new()).await.unwrap().unwrap();
    let mut writer = store.create_blob(blob(2)).unwrap();
    writer.write(b"1234567").unwrap();
    writer.finish().unwrap();
    assert_eq!(store.report().used, 12);
    assert_eq!(store.inline(blob(3)).unwrap(), "");
    assert!([1, 2, 3].iter().all(|n| has(store, *n)));
    store.drop_blobs(&[blob(1), blob(2), blob(3), blob(4)]).unwrap();
    assert!([1, 2, 3].iter().all(|n| !has(store, *n)));
    assert_eq!(store.report().used, 0);
    let large = Bytes::from(vec![0; 65537]);
    assert!(matches!(store.put_inline(blob(5), large).await.unwrap(), Err(StoreError::TooLarge(65537))));
}

#[test]
fn a_held_directory_is_refused_with_the_pid() {
    let node = Node::new();
    let error = Store::open(node.dir.path(), mpsc::channel(1).0).unwrap_err();
    assert!(matches!(error, OpenError::Held { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
    assert!(matches!(verify(node.dir.path(), |_| ()), Err(OpenError::Held { .. })));
}

/// A stopped node with one good file, one rotten, one missing, one that is none of its business, and one left over.
async fn damaged() -> tempfile::TempDir {
    let mut node = Node::new();
    let me = node.store.node();
    let mut mutations = vec![];
    for (name, n, bytes, stored, nodes) in [
        ("/good", 1, &b"good"[..], Some(&b"good"[..]), vec![me]),
        ("/missing", 2, b"gone", None, vec![me]),
        ("/rotten", 3, b"fresh", Some(b"frosh"), vec![me]),
        ("/surplus", 4, b"more", Some(b"more"), vec![NodeId(1)]),
        ("/theirs", 5, b"away", None, vec![NodeId(1)]),
    ] {
        let (size, hash): (u64, Hash) = (bytes.len() as u64, blake3::hash(bytes).into());
        let extents = vec![Extent { blob: blob(n), offset: 0, length: size, hash }];
        let replicas = nodes.clone();
        let what = Version::File(File { extents, size, hash: Some(hash), modified: 1, replicas, ..File::default() });
        let mut entry = entry(what, true).unwrap();
        entry.heads[0].location = Location { stamp: Stamp::default(), nodes };
        mutations.extend([Mutation::Entry(p(name), Some(entry)), Mutation::Reference(blob(n), p(name), true)]);
        if let Some(stored) = stored {
            if n % 2 == 0 {
                node.store.put_inline(blob(n), Bytes::from_static(stored)).await.unwrap().unwrap();
            } else {
                let mut writer = node.store.create_blob(blob(n)).unwrap();
                writer.write(stored).unwrap();
                writer.finish().unwrap();
            }
        }
    }
    node.store.put_inline(blob(9), Bytes::from_static(b"left over")).await.unwrap().unwrap();
    node.submit(mutations);
    node.dir
}

#[tokio::test]
async fn verify_tells_good_missing_rotten_and_surplus_apart() {
    let dir = damaged().await;
    let mut reports = vec![];
    let summary = verify(dir.path(), |report| reports.push(report.clone())).unwrap();
    let seen: Vec<_> = reports.iter().map(|r| (r.path.as_str(), r.listed, r.holds, r.ok)).collect();
    let expected = [
        ("/good", true, true, true),
        ("/missing", true, false, false),
        ("/rotten", true, false, false),
        ("/surplus", false, true, true),
        ("/theirs", false, false, true),
    ];
    assert_eq!(seen, expected, "{reports:#?}");
    assert_eq!(reports.iter().filter(|r| r.problem.is_some()).count(), 2);
    let Summary { files, held, problems, surplus, unreferenced, bytes, .. } = summary;
    assert_eq!((files, held, problems, surplus, unreferenced, bytes), (5, 2, 2, 1, 1, 8));
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(verify(empty.path(), |_| ()), Err(OpenError::NotADataDirectory(_))));
}

/// What a path is in the plain model: nothing, a file or a directory.
fn any_version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::Deleted), (0..3u64).prop_map(file), Just(directory())]
}

/// The rows of `dir` from first principles: visible paths, and the ancestors of visible paths.
fn expected(model: &BTreeMap<FtpPath, Version>, dir: &FtpPath) -> Vec<(String, bool)> {
    let visible = || model.iter().filter(|(_, what)| **what != Version::Deleted);
    let mut names = BTreeSet::new();
    for (path, _) in visible().filter(|(path, _)| path.is_within(dir) && *path != dir) {
        let depth = dir.components().count();
        names.extend(path.components().nth(depth).map(str::to_owned));
    }
    let below = |path: &FtpPath| visible().any(|(below, _)| below != path && below.is_within(path));
    let directory = |path: &FtpPath| matches!(model.get(path), Some(Version::Directory { .. })) || below(path);
    names.into_iter().map(|name| (name.clone(), directory(&dir.join(&name).unwrap()))).collect()
}

/// Compares all listings of the model's directories with the store's, whole and child by child.
fn compare(store: &Store, model: &BTreeMap<FtpPath, Version>) -> Result<(), TestCaseError> {
    let dirs: BTreeSet<_> = model.keys().flat_map(|path| [path.clone(), path.split().expect("no root").0]).collect();
    for dir in dirs.into_iter().filter(|dir| !dir.is_root()) {
        let rows: Vec<_> = store.list(&dir, None, 100).into_iter().map(|r| (r.name, r.directory)).collect();
        prop_assert_eq!(&rows, &expected(model, &dir), "{}", dir);
        let mut paged = vec![];
        while let Some(name) = store.next_child(&dir, paged.last().map(String::as_str)) {
            paged.push(name);
        }
        prop_assert_eq!(paged, rows.into_iter().map(|r| r.0).collect::<Vec<_>>());
    }
    Ok(())
}

#[test]
fn listings_are_those_of_a_plain_map_before_and_after_reopening() {
    let change = ("(/[ab.!]{1,2}){1,3}", any_version(), any::<bool>());
    let mut runner = TestRunner::new(ProptestConfig { cases: 200, ..ProptestConfig::default() });
    // Opening a store syncs a lot, so all cases share one, each in a directory of its own.
    let shared = RefCell::new((Node::new(), vec![]));
    let run = runner.run(&prop::collection::vec(change, 1..40), |changes| {
        let (node, models) = &mut *shared.borrow_mut();
        let home = p(&format!("/{}", models.len()));
        let (mut model, mut batch) = (BTreeMap::new(), vec![]);
        for (path, what, submit) in changes {
            let Ok(path) = home.resolve(&format!(".{path}")) else { continue };
            if path == home || !path.is_within(&home) {
                continue;
            }
            model.insert(path.clone(), what.clone());
            batch.push(Mutation::Entry(path, entry(what, true)));
            if submit {
                node.submit(std::mem::take(&mut batch));
            }
        }
        node.submit(batch);
        models.push(model);
        compare(&node.store, models.last().expect("just pushed"))
    });
    run.unwrap();
    let (node, models) = shared.into_inner();
    let node = node.reopened();
    models.iter().for_each(|model| compare(&node.store, model).unwrap());
}
