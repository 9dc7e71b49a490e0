//! What happens to a data directory of another version of this program: it is refused, and left as it is.

use super::keys::{self, Table};
use super::{OpenError, Store};
use crate::cluster::{Batch, Head, Hlc, Location, Mutation, OpId, PathEntry, Position, Storage, Version};
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
