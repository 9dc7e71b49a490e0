//! A bug that the power cut of `tests/processes/disks.rs` must catch: with the feature `planted-bugs` and this variable set,
//! nothing that clients are told is stored was synced. Without the feature none of it exists.

/// Set to anything, it leaves out every fsync of bytes, of names and of the database.
#[cfg(feature = "planted-bugs")]
const UNSYNCED: &str = "TREBOL_PLANTED_UNSYNCED";

/// Whether what has to be on the disk is waited for.
#[cfg(feature = "planted-bugs")]
pub(super) fn syncs() -> bool {
    static SYNCS: std::sync::LazyLock<bool> = std::sync::LazyLock::new(|| std::env::var_os(UNSYNCED).is_none());
    *SYNCS
}

/// It is.
#[cfg(not(feature = "planted-bugs"))]
pub(super) const fn syncs() -> bool {
    true
}
