//! A client that reads files all the while others write them and nodes die (I10): each time it gets a whole version, and one
//! that was the newest while it read. It never writes.

use crate::control::Control;
use crate::{Outcome, ensure};
use blake3::Hash;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a reader may see, by path. Shared by those who write and those who read.
#[derive(Default)]
pub(crate) struct Versions(Mutex<BTreeMap<String, History>>);

/// One path's versions, in the order in which one client sent them.
#[derive(Default)]
struct History {
    sent: Vec<Hash>,
    /// So many of them were acknowledged: a reader who asks now sees the last of these, or a later one.
    acknowledged: usize,
}

impl Versions {
    /// A client is about to send this: from now on readers may see it.
    pub(crate) fn sends(&self, path: &str, bytes: &[u8]) {
        self.lock().entry(path.to_owned()).or_default().sent.push(blake3::hash(bytes));
    }
    /// What was sent last is acknowledged: from now on readers see nothing older.
    pub(crate) fn acknowledge(&self, path: &str) {
        if let Some(history) = self.lock().get_mut(path) {
            history.acknowledged = history.sent.len();
        }
    }
    /// Reads what is there, one path after the other, until it is over: how often. Fails with the first read that does, or
    /// that brings anything else than a version of that time.
    pub(crate) fn read(&self, mut session: Control, over: &AtomicBool) -> Outcome<usize> {
        let (mut reads, mut last) = (0, String::new());
        while !over.load(Ordering::Relaxed) {
            let Some((path, from)) = self.next(&last) else {
                std::thread::yield_now();
                continue;
            };
            let got = session.get(&path)?;
            let (hash, length) = (blake3::hash(&got), got.len());
            let known = self.lock().get(&path).is_some_and(|history| history.sent[from..].contains(&hash));
            ensure(known, || format!("{path} shows {length} bytes that are no version of that time"))?;
            (reads, last) = (reads + 1, path);
        }
        Ok(reads)
    }
    /// The next path that is there, and which of its versions is the oldest that may be seen now.
    fn next(&self, last: &str) -> Option<(String, usize)> {
        let all = self.lock();
        let behind = all.range::<str, _>((Bound::Excluded(last), Bound::Unbounded));
        let (path, history) = behind.chain(all.iter()).find(|(_, history)| history.acknowledged > 0)?;
        Some((path.clone(), history.acknowledged - 1))
    }
    /// A thread that panicked has not left anything half done here.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, History>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `work` while a reader reads: how often it did.
pub(crate) fn while_read(versions: &Versions, reader: Control, work: impl FnOnce() -> Outcome) -> Outcome<usize> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| versions.read(reader, &over));
        let worked = work();
        over.store(true, Ordering::Relaxed);
        let read = reader.join().map_err(|_| "the reader panicked")?;
        worked.and(read)
    })
}
