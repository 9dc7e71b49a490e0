//! A disk without room: filled to the last byte by somebody else, or too small for what is appended. The others go on, nothing
//! that was acknowledged is lost, and the node is back once there is room.

use crate::cluster::alive;
use crate::disks::{Disk, LONGEST, STOPPED, all_there, noise, run, store_until};
use crate::verify::{Surplus, all_whole};
use crate::wait::wait_for;
use crate::{LOOP, Outcome, Story, ensure};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

/// The tests of this file.
pub(crate) const STORIES: &[Story] = &[
    ("full::a_disk_filled_to_the_last_byte_stops_its_node_and_nothing_else", &[LOOP], filled),
    ("full::an_append_past_the_free_space_changes_nothing", &[LOOP], append_past_room),
];

/// The node with the small disk, of 64 MiB.
const SMALL: usize = 2;

/// Somebody fills a node's disk of 64 MiB: not a byte is left, not even for its log. The others go on without an error; the
/// node stops with a sentence, and is back once there is room.
fn filled() -> Outcome {
    run(&[("TREBOL_CORE_DISK_RESERVE_BYTES", "0")], |cluster, disks| {
        let mut told = BTreeMap::new();
        cluster.terminate(SMALL)?;
        disks.push(Disk::under(cluster, SMALL, cluster.scratch("disks")?.join("small"), 64)?);
        cluster.restart(SMALL)?;
        cluster.settle()?;
        let stored = std::cell::Cell::new(0);
        store_until(cluster, 0, &mut told, 20_000, || {
            stored.set(stored.get() + 1);
            Ok(stored.get() > 20)
        })?;
        let ballast = disks[0].mounted.join("lost+found/ballast");
        fill(&ballast)?;
        let small = cluster.nodes[SMALL].pid;
        store_until(cluster, 0, &mut told, 20_000, || Ok(!alive(small)))?;
        cluster.await_end(SMALL)?;
        ensure(cluster.log()?.contains(STOPPED), || "the node died without a word".to_owned())?;
        all_there(cluster, &told)?;
        println!("filled: the node stopped after {} files", told.len());

        // Whoever starts it all the same is told why it ends, as often as they try.
        for _ in 0..2 {
            let before = cluster.log()?.len();
            cluster.restart(SMALL)?;
            cluster.await_end(SMALL)?;
            let said = cluster.log()?.split_off(before);
            ensure(said.contains("No space left on device"), || format!("started on a full disk, it said {said:?}"))?;
        }
        fs::remove_file(&ballast)?;
        cluster.restart(SMALL)?;
        cluster.settle()?;
        all_there(cluster, &told)?;
        let mut session = cluster.session(SMALL)?;
        let reply = session.put("/after", b"there is room")?;
        ensure(reply.code == 226, || reply.text)?;
        told.insert("/after".to_owned(), b"there is room".to_vec());
        drop(session);
        cluster.settle()?;
        let kept = all_whole(cluster, Surplus::AfterDeath)?;
        ensure(kept.len() == told.len(), || format!("{} files of {}", kept.len(), told.len()))
    })
}

/// Writes until not a byte is left.
fn fill(path: &Path) -> Outcome {
    let mut file = File::create(path)?;
    for size in [1 << 20, 4096, 1] {
        // A disk is full in steps of its blocks; the metadata of what grows takes some, too.
        while file.write_all(&vec![0x5a; size]).is_ok() {}
    }
    let _ = file.sync_all();
    Ok(())
}

/// More is appended than the disk of one replica takes: refused where the node itself would have to take the bytes in, and
/// made of the other replicas elsewhere.
fn append_past_room() -> Outcome {
    run(&[("TREBOL_CORE_DISK_RESERVE_BYTES", "0")], |cluster, disks| {
        cluster.terminate(SMALL)?;
        disks.push(Disk::under(cluster, SMALL, cluster.scratch("disks")?.join("small"), 64)?);
        cluster.restart(SMALL)?;
        cluster.settle()?;
        let mut told = BTreeMap::new();
        for (path, length) in [("/grows", 300_000), ("/elsewhere", 300_000)] {
            // A client's own node gets a copy.
            let (bytes, mut session) = (noise(path, length), cluster.session(SMALL)?);
            let reply = session.put(path, &bytes)?;
            ensure(reply.code == 226, || reply.text)?;
            told.insert(path.to_owned(), bytes);
        }
        let much = noise("much", 80 << 20);
        let reply = cluster.session(SMALL)?.give("APPE /grows", &much)?;
        let refused = reply.code == 452 && reply.text.contains("its disk is full");
        ensure(refused, || format!("an append larger than the node's disk was answered {}", reply.text))?;
        println!("append past the free space, at the node itself: {}", reply.text.trim_end());
        all_there(cluster, &told)?;

        let reply = cluster.session(0)?.give("APPE /elsewhere", &much)?;
        println!("append past the free space of one replica: {}", reply.text.trim_end());
        ensure(reply.code == 226, || reply.text)?;
        told.entry("/elsewhere".to_owned()).or_default().extend(&much);
        all_there(cluster, &told)?;
        // Nothing of either is left on the small disk but what is whole, and it takes files again.
        let staging = cluster.nodes[SMALL].data.join("staging");
        wait_for("the staged bytes to go", LONGEST, || {
            let left = fs::read_dir(&staging)?.count();
            ensure(left == 0, || format!("{left} files are staged"))
        })?;
        let reply = cluster.session(SMALL)?.put("/after", b"there is room")?;
        ensure(reply.code == 226, || reply.text)?;
        told.insert("/after".to_owned(), b"there is room".to_vec());
        cluster.settle()?;
        let kept = all_whole(cluster, Surplus::AfterDeath)?;
        ensure(kept.len() == told.len(), || format!("{} files of {}", kept.len(), told.len()))
    })
}
