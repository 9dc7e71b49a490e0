//! The database: one fjall instance with a keyspace for each table. Only the store thread writes; every write is one atomic
//! batch over all tables. A failed read or write ends the process, since fjall poisons itself then.

use super::error::{OpenError, fatal};
use super::keys::{self, Table};
use super::planted::syncs;
use fjall::config::FilterPolicy;
use fjall::{Database, Guard, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode, Slice};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// Changes by key; `None` removes. A map, since a batch of fjall must not name a key twice.
pub(super) type Writes = BTreeMap<(Table, Slice), Option<Slice>>;

/// Block cache shared by all tables, in bytes. The defaults of fjall would take hundreds of MiB per node.
const CACHE: u64 = 12 << 20;
/// Bytes of a table kept in memory before they go to a file; records, index and small files get the greater one.
const MEMTABLE: u64 = 1 << 20;
const MEMTABLE_BIG: u64 = 4 << 20;
/// Values of `inline` from this size on stay out of the tree, so that compaction does not copy them again and again.
const SEPARATE: u32 = 1024;
/// Bytes of journal before memtables are flushed to let it go; 64 MiB is the least that fjall allows.
const JOURNAL: u64 = 64 << 20;

/// The open database.
#[derive(Clone)]
pub(super) struct Tables {
    database: Database,
    keyspaces: Vec<Keyspace>,
}

impl Tables {
    /// Opens or creates the database in `path`. One of another format is left as it is: its tables may be others.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let refused = |source| OpenError::Database { path: path.to_owned(), source };
        let database = Database::builder(path)
            .cache_size(CACHE)
            .max_journaling_size(JOURNAL)
            .max_cached_files(Some(128))
            .worker_threads(2)
            .open()
            .map_err(refused)?;
        let open = |table: &Table| database.keyspace(table.name(), || options(*table));
        let format = open(&Table::Meta).and_then(|meta| meta.get(keys::format())).map_err(refused)?;
        let found = format.as_ref().map(|format| format.first().copied().unwrap_or(0));
        if let Some(found) = found.filter(|found| !(keys::OLDEST..=keys::FORMAT).contains(found)) {
            return Err(OpenError::NewerFormat {
                file: path.to_owned(),
                found: found.into(),
                known: keys::FORMAT.into(),
            });
        }
        let keyspaces = Table::ALL.iter().map(open).collect::<Result<_, _>>().map_err(refused)?;
        let tables = Self { database, keyspaces };
        // From here on an older program would misread what is written.
        if found != Some(keys::FORMAT) {
            tables.commit(Writes::from([((Table::Meta, keys::format()), Some([keys::FORMAT].into()))]), true);
        }
        Ok(tables)
    }

    /// One value.
    pub(super) fn get(&self, table: Table, key: &Slice) -> Option<Slice> {
        self.try_get(table, key).unwrap_or_else(|error| fatal("the database cannot be read", &error))
    }
    /// The same of a value that can be had elsewhere when this disk does not give it any more.
    pub(super) fn try_get(&self, table: Table, key: &Slice) -> Result<Option<Slice>, fjall::Error> {
        self.keyspace(table).get(key)
    }
    /// How long a value is, in bytes, without reading it.
    pub(super) fn size_of(&self, table: Table, key: &Slice) -> Option<u64> {
        let size = self.keyspace(table).size_of(key);
        size.unwrap_or_else(|error| fatal("the database cannot be read", &error)).map(u64::from)
    }
    /// All keys with their values in a range, in order, as they are now.
    pub(super) fn scan(
        &self,
        table: Table,
        range: Range<Slice>,
    ) -> impl DoubleEndedIterator<Item = (Slice, Slice)> + use<> {
        self.guards(table, range)
            .map(|guard| guard.into_inner().unwrap_or_else(|error| fatal("the database cannot be read", &error)))
    }
    /// All keys in a range, in order, as they are now.
    pub(super) fn keys(&self, table: Table, range: Range<Slice>) -> impl DoubleEndedIterator<Item = Slice> + use<> {
        self.guards(table, range)
            .map(|guard| guard.key().unwrap_or_else(|error| fatal("the database cannot be read", &error)))
    }
    /// The lengths of all values in a table, in bytes, without reading them.
    pub(super) fn sizes(&self, table: Table) -> impl Iterator<Item = u64> + use<> {
        self.guards(table, keys::all())
            .map(|guard| guard.size().unwrap_or_else(|error| fatal("the database cannot be read", &error)).into())
    }
    /// Writes all of it or nothing; with `sync` it is on the disk when this returns, and everything before it, else it is
    /// with the operating system.
    pub(super) fn commit(&self, writes: Writes, sync: bool) {
        let mode = if sync && syncs() { PersistMode::SyncData } else { PersistMode::Buffer };
        let mut batch = self.database.batch().durability(Some(mode));
        for ((table, key), value) in writes {
            match value {
                Some(value) => batch.insert(self.keyspace(table), key, value),
                None => batch.remove(self.keyspace(table), key),
            }
        }
        // An empty batch would not be synced, though what went before it may have to be.
        let done = if batch.is_empty() { self.database.persist(mode) } else { batch.commit() };
        done.unwrap_or_else(|error| fatal("the database cannot be written", &error));
    }

    fn guards(&self, table: Table, range: Range<Slice>) -> impl DoubleEndedIterator<Item = Guard> + use<> {
        self.keyspace(table).range(range)
    }
    fn keyspace(&self, table: Table) -> &Keyspace {
        &self.keyspaces[table as usize]
    }
}

fn options(table: Table) -> KeyspaceCreateOptions {
    let options = KeyspaceCreateOptions::default();
    match table {
        Table::Inline => options
            .max_memtable_size(MEMTABLE_BIG)
            .with_kv_separation(Some(KvSeparationOptions::default().separation_threshold(SEPARATE))),
        Table::Log | Table::Index => options.max_memtable_size(MEMTABLE_BIG),
        // Scanned and never missed: filters would only take memory.
        Table::Position => options.max_memtable_size(MEMTABLE).filter_policy(FilterPolicy::disabled()),
        _ => options.max_memtable_size(MEMTABLE),
    }
}
