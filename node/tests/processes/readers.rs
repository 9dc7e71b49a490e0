//! Clients that read a version while it is replaced: they get that version to its end, however slow they are, and its bytes
//! go from the disks only afterwards.

use crate::cluster::Cluster;
use crate::disks::{LONGEST, noise};
use crate::verify::{Surplus, all_whole, blobs};
use crate::wait::wait_for;
use crate::{Outcome, Story, ensure};
use std::io::Read;

/// The tests of this file.
pub(crate) const STORIES: &[Story] =
    &[("readers::an_old_version_is_read_to_its_end_while_others_are_collected", &[], slow_reader)];

/// Bytes of the old version's extents. The first is more than all buffers between disk and client hold, so the second is
/// asked for only once the client reads on.
const EXTENTS: [usize; 2] = [64 << 20, 16 << 20];
/// What the client takes before it rests.
const TAKEN: usize = 4 << 20;
/// Of files that nobody reads.
const OTHER: usize = 300_000;

/// A client at a node without a copy takes a part of a file and rests. Meanwhile the file is overwritten, and so is another
/// one later on, whose old bytes are collected everywhere. The client then gets the rest of what it began with.
fn slow_reader() -> Outcome {
    let environment = [("TREBOL_CORE_REPLACED_GRACE_S", "6"), ("TREBOL_FTP_STALL_TIMEOUT_S", "300")];
    Cluster::run(&environment, |cluster| {
        let [first, second] = EXTENTS.map(|length| noise(&length.to_string(), length));
        let mut writer = cluster.session(0)?;
        for (command, bytes) in [("STOR /read", &first), ("APPE /read", &second), ("STOR /other", &noise("o", OTHER))] {
            let reply = writer.give(command, bytes)?;
            ensure(reply.code == 226, || reply.text)?;
        }
        let on = |cluster: &Cluster, length: usize| -> Outcome<Vec<usize>> {
            let counts = (0..5).map(|node| Ok((node, blobs(cluster, node, length)?.len())));
            let counts: Vec<(usize, usize)> = counts.collect::<Outcome<_>>()?;
            Ok(counts.into_iter().filter(|(_, count)| *count > 0).map(|(node, _)| node).collect())
        };
        let holders = on(cluster, EXTENTS[1])?;
        let proxy = (0..5).find(|node| !holders.contains(node)).ok_or("all nodes have a copy")?;
        let mut reader = cluster.session(proxy)?;
        let mut data = reader.transfer("RETR /read")?;
        let mut got = vec![0; TAKEN];
        data.read_exact(&mut got)?;

        for path in ["/read", "/other"] {
            let reply = writer.put(path, b"new")?;
            ensure(reply.code == 226, || reply.text)?;
        }
        // It was replaced after what the client reads: that would be gone by now.
        wait_for("the other file's old bytes to go", LONGEST, || {
            let left = on(cluster, OTHER)?;
            ensure(left.is_empty(), || format!("they are on nodes {left:?}"))
        })?;
        data.read_to_end(&mut got).map_err(|error| format!("the old version broke off: {error}"))?;
        let reply = reader.reply()?;
        ensure(reply.code == 226, || format!("RETR ended with {}", reply.text))?;
        ensure(got == [first, second].concat(), || format!("{} other bytes came", got.len()))?;
        ensure(cluster.session(proxy)?.get("/read")? == b"new", || "the new version is not there".to_owned())?;

        wait_for("the old version's bytes to go", LONGEST, || {
            let left = EXTENTS.map(|length| on(cluster, length));
            ensure(left.iter().all(|on| on.as_ref().is_ok_and(Vec::is_empty)), || format!("they are on {left:?}"))
        })?;
        cluster.settle()?;
        let kept = all_whole(cluster, Surplus::None)?;
        ensure(kept.len() == 2, || format!("{kept:?}"))
    })
}
