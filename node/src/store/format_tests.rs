//! What happens to a data directory of another version of this program: it is refused, and left as it is.

use super::keys::{self, Table};
use super::{OpenError, Store};
use crate::cluster::{
    Batch, BlobId, Body, Epoch, Extent, Head, Hlc, Holding, Location, Marks, Mutation, NodeId, OpId, PathEntry,
    Position, Storage, Token, Version,
};
use crate::path::FtpPath;
use tokio::sync::mpsc;

/// The directory of a node that ran.
fn used() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open_with(dir.path(), mpsc::channel(1).0, 0).unwrap());
    dir
}

#[test]
fn a_newer_database_is_refused_and_left_as_it_is() {
    let dir = used();
    // A later program's database may have any tables, but one says its format.
    let path = dir.path().join("database");
    std::fs::remove_dir_all(&path).unwrap();
    let names = ["later", Table::Meta.name()];
    let database = || fjall::Database::builder(&path).open().unwrap();
    let newer = database();
    let tables = names.map(|name| newer.keyspace(name, fjall::KeyspaceCreateOptions::default).unwrap());
    tables[1].insert(keys::format(), [keys::FORMAT + 1]).unwrap();
    drop((tables, newer));
    let identity = || std::fs::read_to_string(dir.path().join("identity.json")).unwrap();
    let before = identity();
    for _ in 0..2 {
        let error = Store::open(dir.path(), mpsc::channel(1).0).unwrap_err();
        assert!(matches!(error, OpenError::NewerFormat { found: 4, known: 3, .. }), "{error}");
    }
    assert_eq!(identity(), before);
    let mut left: Vec<_> = database().list_keyspace_names().iter().map(ToString::to_string).collect();
    left.sort();
    assert_eq!(left, names);
}

#[test]
fn boots_of_others_in_a_newer_format_are_refused_and_left_as_they_are() {
    let dir = used();
    let read = || ["identity.json", "peers.json"].map(|name| std::fs::read_to_string(dir.path().join(name)).unwrap());
    std::fs::write(dir.path().join("peers.json"), r#"{"format":2,"souls":[]}"#).unwrap();
    let before = read();
    let error = Store::open(dir.path(), mpsc::channel(1).0).unwrap_err();
    assert!(matches!(error, OpenError::NewerFormat { found: 2, known: 1, .. }), "{error}");
    assert_eq!(read(), before);
}

#[test]
fn the_format_before_is_read_and_becomes_this_one() {
    let dir = used();
    let rewrite = |format: u8| {
        let database = fjall::Database::builder(dir.path().join("database")).open().unwrap();
        let mut before = vec![];
        for table in Table::ALL {
            let rows = database.keyspace(table.name(), fjall::KeyspaceCreateOptions::default).unwrap();
            let all: Vec<_> = rows.iter().map(|row| row.into_inner().unwrap()).collect();
            for (key, value) in all {
                before.push(value[0]);
                rows.insert(key, [&[format], &value[1..]].concat()).unwrap();
            }
        }
        before
    };
    let path = FtpPath::root().join("d").unwrap();
    let (what, location) = (Version::Directory { modified: 1 }, Location::default());
    let position = Position::default();
    let entry = PathEntry { heads: vec![Head { position, hlc: Hlc(1), op: OpId(1), confirmed: true, what, location }] };
    let store = Store::open_with(dir.path(), mpsc::channel(8).0, 0).unwrap();
    let mutations = vec![Mutation::Entry(path.clone(), Some(entry.clone()))];
    store.submit(Batch { number: 1, sync: true, mutations });
    drop(store);
    assert!(rewrite(keys::OLDEST).iter().all(|format| *format == keys::FORMAT));
    let store = Store::open(dir.path(), mpsc::channel(8).0).unwrap();
    assert_eq!((store.entry(&path), store.is_directory(&path)), (Some(entry), true));
    drop(store);
    assert!(rewrite(keys::OLDEST).contains(&keys::FORMAT), "an older program is told so");
    rewrite(keys::OLDEST - 1);
    let error = Store::open(dir.path(), mpsc::channel(8).0).unwrap_err();
    assert!(matches!(error, OpenError::NewerFormat { found: 1, known: 3, .. }), "{error}");
}

/// Rows as a program of format 2 wrote them, letter by letter: a small file is logged and in the index, and its new location
/// is logged and not in the index yet. A Move had no extents then, and a state knew of no node that is drained.
mod two {
    pub(super) const COVER: &str = r#"{"position":{"epoch":[3,9],"seq":0},"hlc":69,"durability":["00000000000000000000000000000001","00000000000000000000000000000002"],"body":{"cover":{"marks":[[[2,8],7]],"voids":[],"members":["00000000000000000000000000000001","00000000000000000000000000000002"]}}}"#;
    pub(super) const WRITE: &str = r#"{"position":{"epoch":[3,9],"seq":1},"hlc":70,"durability":["00000000000000000000000000000001","00000000000000000000000000000002"],"body":{"write":{"op":"00000000000000000000000000000005","blob":{"op":"00000000000000000000000000000005","token":{"epoch":[3,9],"n":4}},"effects":[{"path":"/d/f","over":[],"what":{"file":{"extents":[{"blob":{"op":"00000000000000000000000000000005","token":{"epoch":[3,9],"n":4}},"offset":0,"length":5,"hash":"ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f"}],"size":5,"hash":"ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f","modified":60,"replicas":["00000000000000000000000000000001","00000000000000000000000000000002"]}}}]}}}"#;
    pub(super) const MOVE: &str = r#"{"position":{"epoch":[3,9],"seq":2},"hlc":71,"durability":["00000000000000000000000000000001","00000000000000000000000000000002"],"body":{"move":{"versions":[{"path":"/d/f","position":{"epoch":[3,9],"seq":1},"nodes":["00000000000000000000000000000001","00000000000000000000000000000004"]}]}}}"#;
    pub(super) const ENTRY: &str = r#"{"heads":[{"position":{"epoch":[3,9],"seq":1},"hlc":70,"op":"00000000000000000000000000000005","confirmed":true,"what":{"file":{"extents":[{"blob":{"op":"00000000000000000000000000000005","token":{"epoch":[3,9],"n":4}},"offset":0,"length":5,"hash":"ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f"}],"size":5,"hash":"ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f","modified":60,"replicas":["00000000000000000000000000000001","00000000000000000000000000000002"]}},"location":{"stamp":{"hlc":70,"position":{"epoch":[3,9],"seq":1}},"nodes":["00000000000000000000000000000001","00000000000000000000000000000002"]}}]}"#;
    pub(super) const OUTCOME: &str = r#"{"position":{"epoch":[3,9],"seq":1},"hlc":70,"copies":2}"#;
    pub(super) const STATE: &str = r#"{"promised":[3,9],"logged":[],"applied":[],"committed":[],"truncated":[],"borrowed":[],"hlc":71,"known":["00000000000000000000000000000001","00000000000000000000000000000002"],"forgotten":[],"digest":null,"files":1,"shortfall":1,"copies":{"00000000000000000000000000000001":1,"00000000000000000000000000000002":1}}"#;
    /// Of a listing: whether it is a directory, its bytes, and when it was modified.
    pub(super) const DIRECTORY: &[u8] = &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    pub(super) const FILE: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 60];
}

#[test]
fn rows_that_the_format_before_wrote_mean_the_same() {
    let dir = used();
    let path = FtpPath::root().resolve("d/f").unwrap();
    let (directory, epoch) = (FtpPath::root().join("d").unwrap(), Epoch(3, 9));
    let (op, at) = (OpId(5), |seq| Position { epoch, seq });
    let blob = BlobId { op, token: Token { epoch, n: 4 } };
    let arrival = |number: u64| keys::arrival(number);
    let rows: Vec<(Table, fjall::Slice, &[u8])> = vec![
        (Table::Log, arrival(0), two::COVER.as_bytes()),
        (Table::Log, arrival(1), two::WRITE.as_bytes()),
        (Table::Log, arrival(2), two::MOVE.as_bytes()),
        (Table::Index, keys::path(&path), two::ENTRY.as_bytes()),
        (Table::Live, keys::child(&FtpPath::root(), "d"), two::DIRECTORY),
        (Table::Live, keys::child(&directory, "f"), two::FILE),
        (Table::Outcomes, keys::op(op), two::OUTCOME.as_bytes()),
        (Table::Referrers, keys::referrer(blob, &path), b""),
        (Table::Held, keys::held(Holding::Node(NodeId(1)), blob), b""),
        (Table::Held, keys::held(Holding::Short, blob), b""),
        (Table::Inline, keys::blob(blob), b"hello"),
        (Table::Marks, keys::mark(0, epoch), b"3"),
        (Table::Marks, keys::mark(1, epoch), b"2"),
        (Table::Meta, keys::state(), two::STATE.as_bytes()),
        (Table::Meta, keys::format(), b""),
    ];
    let database = fjall::Database::builder(dir.path().join("database")).open().unwrap();
    let table = |table: Table| database.keyspace(table.name(), fjall::KeyspaceCreateOptions::default).unwrap();
    for (name, key, value) in rows {
        table(name).insert(key, [&[2], value].concat()).unwrap();
    }
    // Where a record is has no format: it is the number that the log has it under.
    (0..3).for_each(|n| table(Table::Position).insert(keys::position(at(n)), arrival(n)).unwrap());
    drop(database);

    let store = Store::open_with(dir.path(), mpsc::channel(8).0, 0).unwrap();
    let restored = store.restored();
    assert_eq!((restored.state.promised, restored.state.files), (epoch, 1));
    assert!(restored.state.drains.is_empty());
    assert_eq!((restored.state.logged.count(epoch), restored.state.applied.count(epoch)), (3, 2));
    let log = store.records_beyond(&Marks::default(), 10);
    assert_eq!(log.iter().map(|record| record.position).collect::<Vec<_>>(), [at(0), at(1), at(2)]);
    assert!(matches!(&log[0].body, Body::Cover(cover) if cover.members == [NodeId(1), NodeId(2)]));
    let write = log[1].write().unwrap();
    assert_eq!((write.op, write.blob, write.drain, write.part), (op, Some(blob), None, None));

    let extents = vec![Extent { blob, offset: 0, length: 5, hash: blake3::hash(b"hello").into() }];
    let is_whole = |head: &Head| {
        matches!(&head.what, Version::File(file)
            if file.extents == extents && file.size == 5 && file.hash == Some(extents[0].hash) && file.modified == 60)
    };
    let mut head = store.visible(&path).unwrap();
    assert!(is_whole(&head) && head.location.nodes == [NodeId(1), NodeId(2)], "{head:?}");
    assert!(matches!(&write.effects[..], [effect] if effect.path == path && effect.what == head.what));
    let listed: Vec<_> =
        store.list(&directory, None, 9).into_iter().map(|row| (row.name, row.size, row.modified)).collect();
    assert_eq!((listed, store.is_directory(&directory)), (vec![("f".to_owned(), 5, 60)], true));
    assert_eq!(store.inline(blob).as_deref(), Some(&b"hello"[..]));
    assert_eq!(store.outcome(op).map(|outcome| outcome.copies), Some(2));
    assert_eq!((store.referrers(blob), store.held(Holding::Short, None, 9)), (vec![path.clone()], vec![blob]));

    // What was logged last is still to be applied: it moves the version, and its extents stay those that it has.
    let [moved] = &restored.tail[..] else { panic!("{:?}", restored.tail) };
    let [to] = moved.moved() else { panic!("{moved:?}") };
    assert_eq!((&to.path, to.position), (&path, at(1)));
    head.relocate(moved.stamp(), to);
    assert!(is_whole(&head) && head.location.nodes == [NodeId(1), NodeId(4)], "{head:?}");
}
