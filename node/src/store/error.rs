//! What can go wrong with a node's disk. None of it leaves the store half-changed: what could, aborts the process.

use std::fmt::Display;
use std::io;
use std::path::PathBuf;

/// Why a data directory could not be opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{dir} is in use by {}; stop that process or choose another directory", holder(*.pid))]
    Held {
        /// Which directory.
        dir: PathBuf,
        /// Who has it, if its lock file says so.
        pid: Option<u32>,
    },
    /// Another version of this program wrote it.
    #[error("{file} has format {found}, this program reads {known}; run the version that wrote it")]
    NewerFormat {
        /// Which file or table.
        file: PathBuf,
        /// Its format.
        found: u64,
        /// The format known here.
        known: u64,
    },
    /// There are data, but what should be beside them is missing or unreadable.
    #[error(
        "{file} is damaged ({reason}); restore it from a copy, or empty the directory and let the node start as a new one"
    )]
    Damaged {
        /// Which file.
        file: PathBuf,
        /// How.
        reason: String,
    },
    /// Something else lives there: it would be closed to its users.
    #[error("{0} holds files that are not a node's; choose an empty directory, or one that a node has used")]
    Foreign(PathBuf),
    /// No node has ever used it.
    #[error("{0} is not the data directory of a node")]
    NotADataDirectory(PathBuf),
    /// The system refused something.
    #[error("cannot {context} {path}: {source}")]
    Io {
        /// What was tried.
        context: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The database refused to open.
    #[error("cannot open the database in {path}: {source}")]
    Database {
        /// Where it is.
        path: PathBuf,
        /// Its answer.
        source: fjall::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl OpenError {
    /// For `map_err`: names what was tried and on what.
    pub(super) fn io(context: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { context, path, source }
    }
}

/// Why bytes could not be stored or read. The store is as before.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No space is left, or only the reserve that the database needs.
    #[error("no space left on the node's disk")]
    Full,
    /// More bytes wait for the disk than the bound allows.
    #[error("the node's disk does not keep up")]
    Busy,
    /// Too long to be stored inline, in bytes.
    #[error("{0} bytes are too many to be stored inline")]
    TooLarge(usize),
    /// The store is closing.
    #[error("the node is shutting down")]
    Closing,
    /// The system refused something else.
    #[error("cannot {context}: {source}")]
    Io {
        /// What was tried.
        context: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

impl StoreError {
    /// For `map_err`: a full disk is an error of its own.
    pub(super) fn io(context: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io { context, source },
        }
    }
}

/// Ends the process: after a failed write or fsync nobody knows what is on the disk (Rebello et al., ATC 2020), and a node
/// that went on would confirm what it may not have. The restart reads what is really there.
pub(super) fn fatal(what: &str, error: &dyn Display) -> ! {
    tracing::error!(%error, "{what}; stopping at once, nothing unwritten was confirmed");
    std::process::abort()
}
