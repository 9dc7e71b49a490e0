//! RNFR and RNTO of a directory: one operation over everything visible in it. Each file and each directory that was made is
//! a write at its new path and a delete at its old one; directories that are only implied go with what implies them. Losers
//! of conflicts stay at their old paths, under the delete. Never judges files: that is `decide`.

use super::change::Refusal;
use super::decide::{Sight, carried, is_directory, may_be_made, replaced};
use super::frame;
use super::record::{Effect, Version};
use crate::path::FtpPath;

/// Encoded bytes of all effects of one rename. They are in memory at once, on every node.
const BYTES: usize = 256 << 20;

/// Whether the directory `from` may be moved to `to`, but for how much is in it.
pub(super) fn admit(sight: &dyn Sight, from: &FtpPath, to: &FtpPath) -> Result<(), Refusal> {
    // The root is refused by this, too: everything is in it.
    if to.is_within(from) {
        return Err(Refusal::IntoItself);
    }
    if sight.entry(to).visible().is_some() || is_directory(sight, to) {
        return Err(Refusal::Exists);
    }
    may_be_made(sight, to)
}

/// What moves the directory `from` to `to`, all of it or nothing.
pub(super) fn effects(sight: &dyn Sight, from: &FtpPath, to: &FtpPath) -> Result<Vec<Effect>, Refusal> {
    admit(sight, from, to)?;
    let (mut effects, mut bytes) = (vec![], 0);
    for path in std::iter::once(from.clone()).chain(sight.visible_below(from)?) {
        let entry = sight.entry(&path);
        let what = match entry.visible().map(|h| (h, &h.what)) {
            Some((head, Version::File(file))) => Version::File(carried(head, file)),
            Some((_, made @ Version::Directory { .. })) => made.clone(),
            Some((_, Version::Deleted | Version::Resolved)) | None => continue,
        };
        let target = path.moved(from, to).map_err(|_| Refusal::TooLong)?;
        // The write first: bytes that lose their last reference for a moment would be looked at by the collector.
        let write = Effect { over: replaced(&sight.entry(&target)), path: target, what };
        let delete = Effect { over: replaced(&entry), path, what: Version::Deleted };
        bytes += frame::weight_of(&write) + frame::weight_of(&delete);
        if bytes > BYTES {
            return Err(Refusal::TooMuch);
        }
        effects.extend([write, delete]);
    }
    Ok(effects)
}

#[cfg(test)]
#[path = "rename_tests.rs"]
mod tests;
