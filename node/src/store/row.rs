//! One row of a listing, as sessions get it and as it is stored.

use super::error::fatal;
use super::keys;
use fjall::Slice;

/// One row of a listing: the visible head of a child, or a directory that only exists through what is below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its name in the directory.
    pub name: String,
    /// True for a directory.
    pub directory: bool,
    /// Bytes; 0 for directories.
    pub size: u64,
    /// Microseconds since the Unix epoch; 0 for a directory that nobody made.
    pub modified: u64,
}

impl Row {
    /// All but the name, which is in the key.
    pub(super) fn encode(&self) -> Slice {
        let mut bytes = vec![keys::FORMAT, self.directory.into()];
        bytes.extend(self.size.to_be_bytes());
        bytes.extend(self.modified.to_be_bytes());
        bytes.into()
    }
    /// Reads [`Self::encode`] back.
    pub(super) fn decode(name: String, bytes: &[u8]) -> Self {
        let [directory, numbers @ ..] = keys::payload(bytes) else {
            fatal("a listing row in the database is empty", &name)
        };
        let Ok([size, modified]) = <[[u8; 8]; 2]>::try_from(numbers.as_chunks().0) else {
            fatal("a listing row in the database is too short", &name)
        };
        let (size, modified) = (u64::from_be_bytes(size), u64::from_be_bytes(modified));
        Self { name, directory: *directory != 0, size, modified }
    }
}
