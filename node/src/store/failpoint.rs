//! Points at which a test has the process killed: `TREBOL_FAILPOINT=NAME`, or `NAME:N` for the N-th time that one is come
//! to. By SIGKILL, so that nothing is tidied up. Only in builds for development; in a release build none of it exists.

/// Steps of what is done on the disk, in the order of a node's life. A release build has none.
#[cfg(not(debug_assertions))]
pub const FAILPOINTS: &[&str] = &[];
/// Steps of what is done on the disk, in the order of a node's life. A release build has none.
#[cfg(debug_assertions)]
pub const FAILPOINTS: &[&str] = &[
    // A start.
    "identity-written",
    "identity-replaced",
    "tables-opened",
    "staging-cleared",
    // A large file.
    "blob-created",
    "blob-written",
    "blob-synced",
    "blob-renamed",
    "blob-durable",
    // Log, index, small files.
    "batch-taken",
    "batch-committed",
    // Several blobs made into one, and what was replaced.
    "blob-merged",
    "blob-removed",
];

/// Dies here if a test wants that.
#[cfg(debug_assertions)]
pub(crate) fn reach(point: &'static str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    static ARMED: LazyLock<Option<(String, AtomicU64)>> = LazyLock::new(|| {
        let said = std::env::var("TREBOL_FAILPOINT").ok()?;
        let (name, times) = said.split_once(':').unwrap_or((&said, "1"));
        let times = times.parse().ok().filter(|_| FAILPOINTS.contains(&name));
        let times = times.unwrap_or_else(|| super::error::fatal("TREBOL_FAILPOINT names no failpoint", &said));
        Some((name.to_owned(), AtomicU64::new(times)))
    });
    debug_assert!(FAILPOINTS.contains(&point), "{point} is in the list");
    if let Some((name, left)) = &*ARMED
        && name == point
        && left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        // Whoever was faster than the signal comes no further.
        loop {
            std::thread::park();
        }
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
pub(crate) fn reach(_: &'static str) {}
