//! Which paths have losers of conflicts: a table derived from the heads, in the same batches (`batch` keeps it in step), so
//! that nobody has to look through the index for them. Reads it and counts it; never decides what a loser is.

use super::Store;
use super::keys::{self, Table};
use super::overlay::{Reader, View};
use super::tables::Writes;
use crate::cluster::{Head, Storage};
use crate::path::FtpPath;
use std::sync::atomic::{AtomicU64, Ordering};

/// A child of a directory that has losers, itself or below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflicted {
    /// Its name in the directory.
    pub name: String,
    /// Whether versions of the path itself lost.
    pub itself: bool,
    /// Whether something below it has losers.
    pub below: bool,
}

impl Store {
    /// The versions of a path that lost a conflict, the greatest stamp first.
    pub fn losers(&self, path: &FtpPath) -> Vec<Head> {
        let Some(entry) = self.entry(path) else { return vec![] };
        entry.losers(self.is_directory(path)).into_iter().map(|(head, _)| head.clone()).collect()
    }
    /// Up to `limit` children of `dir` beyond `after` that have losers, in bytewise order. Costs two seeks a child, however
    /// much lies below it. Blocking.
    pub fn conflicts(&self, dir: &FtpPath, after: Option<&str>, limit: usize) -> Vec<Conflicted> {
        let prefix = keys::below(dir, None).start.len();
        let mut found: Vec<Conflicted> = vec![];
        let mut rows = self.view.scan(Table::Conflicts, keys::below(dir, after));
        while let Some((key, _)) = rows.next() {
            let rest = String::from_utf8_lossy(&key[prefix..]).into_owned();
            let (name, below) = rest.split_once('\0').map_or((&*rest, false), |(name, _)| (name, true));
            let full = found.len() == limit;
            match found.last_mut().filter(|last| last.name == name) {
                Some(last) => last.below |= below,
                None if full => break,
                None => found.push(Conflicted { name: name.to_owned(), itself: !below, below }),
            }
            if below {
                rows = self.view.scan(Table::Conflicts, keys::below(dir, Some(name)));
            }
        }
        found
    }
    /// Up to `limit` paths below `dir` that have losers, each directory right before what lies below it, and how many
    /// losers there are below `dir` in all. Reads a short row for each such path. Blocking.
    pub fn conflicts_below(&self, dir: &FtpPath, limit: usize) -> (Vec<FtpPath>, u64) {
        let (mut paths, mut losers) = (vec![], 0);
        for (key, value) in self.view.scan(Table::Conflicts, keys::below(dir, None)) {
            losers += keys::decode::<u64>(&value);
            if paths.len() < limit {
                paths.push(keys::read_tree(&key));
            }
        }
        (paths, losers)
    }
    /// How many losers there are. Costs nothing.
    pub fn loser_count(&self) -> u64 {
        self.losers.load(Ordering::Relaxed)
    }
}

/// Counts what a batch changes; `view` does not show it yet.
pub(super) fn count(view: &View, writes: &Writes, losers: &AtomicU64) {
    let all = keys::all();
    for ((table, key), value) in writes.range((Table::Conflicts, all.start)..(Table::Conflicts, all.end)) {
        let number = |value: Option<&fjall::Slice>| value.map_or(0, |bytes| keys::decode::<u64>(bytes));
        losers.fetch_add(number(value.as_ref()), Ordering::Relaxed);
        losers.fetch_sub(number(view.get(*table, key).as_ref()), Ordering::Relaxed);
    }
}

/// How many there are in all, from the rows: a short one for each path that has any.
pub(super) fn total(view: &View) -> u64 {
    view.tables.scan(Table::Conflicts, keys::all()).map(|(_, value)| keys::decode::<u64>(&value)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Batch, Epoch, File, Hash, Hlc, Location, Mutation, OpId, PathEntry, Position, Version};
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;
    use std::cell::RefCell;
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;
    use tokio::sync::mpsc;

    struct Node {
        dir: tempfile::TempDir,
        store: Arc<Store>,
        number: u64,
    }

    fn opened(dir: &tempfile::TempDir) -> Arc<Store> {
        // Reports that nobody reads are dropped.
        Store::open_with(dir.path(), mpsc::channel(1).0, 0).unwrap()
    }

    impl Node {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = opened(&dir);
            Self { dir, store, number: 0 }
        }
        fn submit(&mut self, mutations: Vec<Mutation>) {
            self.number += 1;
            self.store.submit(Batch { number: self.number, sync: true, mutations });
        }
        fn set(&mut self, path: &str, heads: &[Version]) {
            self.submit(vec![Mutation::Entry(p(path), entry(heads))]);
        }
        fn reopened(self) -> Self {
            let Self { dir, store, number } = self;
            drop(Arc::into_inner(store).expect("the only one"));
            let store = opened(&dir);
            Self { dir, store, number }
        }
        /// All paths with losers, and the number of losers.
        fn lost(&self) -> (Vec<String>, u64) {
            let (paths, losers) = self.store.conflicts_below(&FtpPath::root(), usize::MAX);
            assert_eq!(losers, self.store.loser_count(), "the count is that of the rows");
            (paths.iter().map(FtpPath::to_string).collect(), losers)
        }
        fn level(&self, dir: &str) -> Vec<(String, bool, bool)> {
            let found = self.store.conflicts(&p(dir), None, 100);
            found.into_iter().map(|c| (c.name, c.itself, c.below)).collect()
        }
    }

    fn p(text: &str) -> FtpPath {
        FtpPath::try_from(text.to_owned()).unwrap()
    }
    /// Heads with falling stamps, as an entry keeps them.
    fn entry(heads: &[Version]) -> Option<PathEntry> {
        let head = |(n, what): (usize, &Version)| Head {
            position: Position { epoch: Epoch(1, 7), seq: 100 - n as u64 },
            hlc: Hlc(100 - n as u64),
            op: OpId(n as u128),
            confirmed: true,
            what: what.clone(),
            location: Location::default(),
        };
        (!heads.is_empty()).then(|| PathEntry { heads: heads.iter().enumerate().map(head).collect() })
    }
    fn file(byte: u8) -> Version {
        let hash = Hash([byte; 32]);
        Version::File(File { extents: vec![], size: byte.into(), hash: Some(hash), modified: 9, ..File::default() })
    }
    fn made() -> Version {
        Version::Directory { modified: 5 }
    }

    #[test]
    fn a_path_is_in_the_table_while_it_has_losers() {
        let mut node = Node::new();
        node.set("/d/f", &[file(1)]);
        assert_eq!(node.lost(), (vec![], 0));
        node.set("/d/f", &[file(1), file(2), file(3)]);
        assert_eq!(node.lost(), (vec!["/d/f".into()], 2), "it lost twice");
        assert_eq!(node.store.losers(&p("/d/f")).iter().map(|h| h.position.seq).collect::<Vec<_>>(), [99, 98]);
        node.set("/d/f", &[file(1), file(2)]);
        node.set("/g", &[Version::Deleted, file(2)]);
        assert_eq!(node.lost(), (vec!["/d/f".into(), "/g".into()], 2), "one settled, one deleted while it was written");
        node = node.reopened();
        assert_eq!(node.lost().1, 2);
        node.set("/d/f", &[file(2)]);
        node.set("/g", &[]);
        assert_eq!(node.lost(), (vec![], 0));
    }

    #[test]
    fn a_file_is_a_loser_while_something_lies_below_it() {
        let mut node = Node::new();
        node.set("/x", &[file(1)]);
        node.set("/x/y/z", &[file(2)]);
        assert_eq!(node.lost(), (vec!["/x".into()], 1));
        node.set("/x/y", &[file(3)]);
        assert_eq!(node.lost(), (vec!["/x".into(), "/x/y".into()], 2), "it came after what lies below it");
        node.set("/x/y/z", &[Version::Deleted]);
        assert_eq!(node.lost(), (vec!["/x".into()], 1), "it is seen again, and hides the one above");
        node.set("/x/y", &[]);
        assert_eq!(node.lost(), (vec![], 0));
        // All of it in one batch.
        let entries = [("/x/y/z", file(2)), ("/x/y", file(3)), ("/x/y/z", Version::Deleted), ("/x/q", made())];
        node.submit(entries.map(|(path, what)| Mutation::Entry(p(path), entry(&[what]))).to_vec());
        assert_eq!(node.lost(), (vec!["/x".into()], 1));
    }

    #[test]
    fn levels_name_each_child_once_in_order_and_skip_what_lies_below() {
        let mut node = Node::new();
        let both = [file(1), file(2)];
        for path in ["/a/b", "/a/b/c", "/a/b/d", "/a/b-c", "/a b/c", "/a.b", "/b"] {
            node.set(path, &both);
        }
        let level = |names: &[(&str, bool, bool)]| names.iter().map(|(n, i, b)| ((*n).to_owned(), *i, *b)).collect();
        let expected: Vec<_> =
            level(&[("a", false, true), ("a b", false, true), ("a.b", true, false), ("b", true, false)]);
        assert_eq!(node.level("/"), expected);
        assert_eq!(node.level("/a"), level(&[("b", true, true), ("b-c", true, false)]) as Vec<_>);
        assert_eq!(node.level("/b"), vec![]);
        let mut paged: Vec<Conflicted> = vec![];
        loop {
            let page = node.store.conflicts(&FtpPath::root(), paged.last().map(|c| c.name.as_str()), 1);
            if page.is_empty() {
                break;
            }
            paged.extend(page);
        }
        assert_eq!(paged, node.store.conflicts(&FtpPath::root(), None, 9));
        // `/a/b` lost against the directory of its name, both of its versions.
        let (paths, losers) = node.store.conflicts_below(&p("/a"), 2);
        assert_eq!((paths, losers), (vec![p("/a/b"), p("/a/b/c")], 5));
    }

    fn any_heads() -> impl Strategy<Value = Vec<Version>> {
        let what = prop_oneof![Just(Version::Deleted), (1..4u8).prop_map(file), Just(made())];
        prop::collection::vec(what, 0..4)
    }

    /// The paths below `home` that have losers, with their number, from first principles.
    fn expected(model: &BTreeMap<FtpPath, Vec<Version>>) -> (BTreeSet<FtpPath>, u64) {
        let seen = |path: &FtpPath| model.get(path).and_then(|h| entry(h)).is_some_and(|e| e.visible().is_some());
        let losers = |(path, heads): (&FtpPath, &Vec<Version>)| {
            let covered = model.keys().any(|below| below != path && below.is_within(path) && seen(below));
            let lost = entry(heads).map_or(0, |e| e.losers(covered).len() as u64);
            (lost > 0).then(|| (path.clone(), lost))
        };
        let lost: Vec<_> = model.iter().filter_map(losers).collect();
        (lost.iter().map(|(path, _)| path.clone()).collect(), lost.iter().map(|(_, n)| n).sum())
    }

    #[test]
    fn the_table_is_what_the_heads_say_before_and_after_reopening() {
        let change = ("(/[ab.!]{1,2}){1,3}", any_heads(), any::<bool>());
        let mut runner = TestRunner::new(ProptestConfig { cases: 200, ..ProptestConfig::default() });
        // Opening a store syncs a lot, so all cases share one, each in a directory of its own.
        let shared = RefCell::new((Node::new(), vec![]));
        let run = runner.run(&prop::collection::vec(change, 1..40), |changes| {
            let (node, models) = &mut *shared.borrow_mut();
            let home = p(&format!("/{}", models.len()));
            let (mut model, mut batch) = (BTreeMap::new(), vec![]);
            for (path, heads, submit) in changes {
                let Ok(path) = home.resolve(&format!(".{path}")) else { continue };
                if path == home || !path.is_within(&home) {
                    continue;
                }
                batch.push(Mutation::Entry(path.clone(), entry(&heads)));
                model.insert(path, heads);
                if submit {
                    node.submit(std::mem::take(&mut batch));
                }
            }
            node.submit(batch);
            let (paths, losers) = node.store.conflicts_below(&home, usize::MAX);
            let wanted = expected(&model);
            models.push((home, wanted.clone()));
            prop_assert_eq!((paths.into_iter().collect::<BTreeSet<_>>(), losers), wanted);
            Ok(())
        });
        run.unwrap();
        let (node, models) = shared.into_inner();
        let node = node.reopened();
        for (home, wanted) in &models {
            let (paths, losers) = node.store.conflicts_below(home, usize::MAX);
            assert_eq!((paths.into_iter().collect(), losers), *wanted);
        }
        assert_eq!(node.lost().1, models.iter().map(|(_, (_, losers))| losers).sum::<u64>());
    }
}
