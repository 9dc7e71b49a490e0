//! The scrubber: reads all copies on this disk again, one at a time and slowly, and compares them with the hashes that the
//! index has. A bad one is condemned: from then on it is neither read nor vouched for, and the core has it fetched anew. It
//! deletes nothing and repairs nothing itself, and a walk holds one page of names in memory.

use super::blocks::Blocks;
use super::pace::Pace;
use super::raw::{Raw, range};
use super::wire::RawError;
use crate::cluster::{BlobId, Extent, Hash, OpId};
use crate::store::{BlobCopy, Walk};
use rustix::fs::{Advice, fadvise};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// What one copy costs besides its bytes, as bytes: small files are mostly lookups.
const LOOK: u64 = 16 * 1024;

/// Round after round until it is cancelled.
pub(super) async fn scrub(raw: Arc<Raw>, cancel: CancellationToken) {
    if raw.limits.scrub_rate == 0 {
        return;
    }
    let rounds = async {
        let mut pace = Pace::new(raw.limits.scrub_rate);
        loop {
            match round(&raw, &mut pace).await {
                Ok(()) => raw.store.walked(),
                Err(error) => tracing::error!(%error, "a round of the scrubber ended early"),
            }
            sleep(raw.limits.scrub_rest).await;
        }
    };
    cancel.run_until_cancelled(rounds).await;
}

/// Checks every copy on this disk.
pub(super) async fn round(raw: &Raw, pace: &mut Pace) -> Result<(), RawError> {
    let mut start = [0; 16];
    getrandom::fill(&mut start).expect("the system has random bytes");
    let start = BlobId { op: OpId(u128::from_le_bytes(start)), ..BlobId::default() };
    let mut walk = Some(Walk::from(start));
    while let Some(at) = walk {
        let store = raw.store.clone();
        let (page, next) = spawn_blocking(move || store.page(at)).await?;
        for blob in page {
            if let Err(error) = check(raw, blob, pace).await {
                tracing::warn!(%blob, %error, "a copy could not be read again");
            }
        }
        walk = next;
    }
    Ok(())
}

/// Reads this disk's copy of a blob again, and condemns it if it is bad. A blob that no head refers to is passed over:
/// nothing says what its bytes should be. An error says nothing of the copy.
pub(super) async fn check(raw: &Raw, blob: BlobId, pace: &mut Pace) -> Result<(), RawError> {
    let store = raw.store.clone();
    pace.spend(LOOK).await;
    let (extents, copy) = spawn_blocking(move || (store.extents(blob), store.copy(blob))).await?;
    let copy = copy?;
    if extents.is_empty() {
        return Ok(());
    }
    let mut read = 0;
    let good = match &copy {
        BlobCopy::Absent | BlobCopy::Unreadable => false,
        BlobCopy::Inline(bytes) => {
            read = bytes.len() as u64;
            pace.spend(read).await;
            let fits = |e: &Extent| {
                range(bytes, e.offset, e.length).is_some_and(|part| Hash::from(blake3::hash(&part)) == e.hash)
            };
            extents.iter().all(fits)
        }
        BlobCopy::File(file) => {
            let mut good = true;
            for extent in &extents {
                good = good && fits(file, extent, pace, &mut read).await?;
            }
            good
        }
    };
    if !matches!(copy, BlobCopy::Absent) {
        raw.store.scrubbed(read);
    }
    if good {
        raw.store.absolve(blob);
        return Ok(());
    }
    let (store, gone) = (raw.store.clone(), matches!(copy, BlobCopy::Absent));
    if spawn_blocking(move || store.condemn(blob, &copy)).await? {
        if gone {
            tracing::warn!(%blob, "a copy that should be on this disk is not: it is fetched");
        } else {
            tracing::error!(%blob, "the copy on this disk is bad: a good one is fetched in its place");
        }
        raw.cluster.damaged(blob).await?;
    }
    Ok(())
}

/// Whether a file has an extent's very bytes. `read` counts them.
async fn fits(file: &File, extent: &Extent, pace: &mut Pace, read: &mut u64) -> Result<bool, RawError> {
    let mut blocks = Blocks::new(file.try_clone()?, extent.offset, extent.length);
    let (mut hasher, mut at) = (blake3::Hasher::new(), extent.offset);
    loop {
        match blocks.next().await {
            Ok(Some(block)) => {
                hasher.update(&block);
                let length = block.len() as u64;
                // The cache is for what clients read. Only advice.
                let _ = fadvise(file, at, NonZeroU64::new(length), Advice::DontNeed);
                (at, *read) = (at + length, *read + length);
                pace.spend(length).await;
            }
            Ok(None) => return Ok(Hash::from(hasher.finalize()) == extent.hash),
            Err(error) if is_bad(&error) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether a read that failed so says something of the copy: it is too short, or the disk cannot give it.
fn is_bad(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof || error.raw_os_error() == Some(Errno::IO.raw_os_error())
}
