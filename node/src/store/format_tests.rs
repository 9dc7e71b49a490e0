//! What happens to a data directory of another version of this program: it is refused, and left as it is.

use super::keys::{self, Table};
use super::{OpenError, Store};
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
        assert!(matches!(error, OpenError::NewerFormat { found: 3, known: 2, .. }), "{error}");
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
