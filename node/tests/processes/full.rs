//! A disk without room: filled to the last byte by somebody else, too small for what is appended, or left alone by placement for
//! the reserve. The others go on, nothing that was acknowledged is lost, and the node is back once there is room.

use crate::cluster::{Cluster, Node, START, alive};
use crate::disks::{Disk, LONGEST, STOPPED, all_there, noise, run, store_until};
use crate::verify::{Surplus, all_whole, blobs};
use crate::wait::wait_for;
use crate::{LOOP, Outcome, Story, ensure};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use tokio::time::Instant;

/// The tests of this file.
pub(crate) const STORIES: &[Story] = &[
    ("full::a_disk_filled_to_the_last_byte_stops_its_node_and_nothing_else", &[LOOP], filled),
    ("full::an_append_past_the_free_space_changes_nothing", &[LOOP], append_past_room),
    ("full::a_full_disk_gets_no_copies_until_there_is_room", &[LOOP], no_place),
];

/// The node with the small disk, of 64 MiB.
const SMALL: usize = 2;
/// Seconds between two lines of one kind about one address.
const LINES: u64 = 30;
/// What placement leaves free on a disk by default.
const RESERVE: u64 = 64 << 20;

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
        let elsewhere = ["/elsewhere-1", "/elsewhere-2", "/elsewhere-3"];
        for (path, length) in [("/grows", 300_000)].into_iter().chain(elsewhere.map(|path| (path, 300_000))) {
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

        let began = Instant::now();
        for path in elsewhere {
            let reply = cluster.session(0)?.give(&format!("APPE {path}"), &much)?;
            println!("append past the free space of one replica: {}", reply.text.trim_end());
            ensure(reply.code == 226, || reply.text)?;
            told.entry(path.to_owned()).or_default().extend(&much);
        }
        all_there(cluster, &told)?;
        // Each was refused there, and the log says so now and then.
        let log = cluster.log()?;
        let refused = log.matches("its disk is full").count();
        let lines =
            log.lines().filter(|l| l.contains("a peer's request failed") && l.contains("no space left")).count();
        let most = 1 + usize::try_from(began.elapsed().as_secs() / LINES)?;
        println!("{refused} times refused, {lines} lines");
        ensure((1..=most).contains(&lines), || format!("{lines} lines of a full disk, {most} at most"))?;
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

/// Disks with less free than the reserve, though not full: no copy comes there, through whichever node a file is stored. With
/// room on one node alone nothing is stored, and what was there stays. Once there is room, copies come there again.
fn no_place() -> Outcome {
    run(&[], |cluster, disks| {
        let place = cluster.scratch("disks")?;
        for node in 0..5 {
            cluster.terminate(node)?;
        }
        for node in 1..5 {
            disks.push(Disk::under(cluster, node, place.join(format!("{node}")), 256)?);
        }
        (0..5).try_for_each(|node| cluster.restart(node))?;
        cluster.settle()?;
        let mut told = BTreeMap::new();
        // A client's own node gets a copy.
        let copies = a_round(cluster, &mut told, 300_000)?;
        ensure(copies > 0, || "no copy on an empty disk".to_owned())?;

        let mut ballast = vec![leave_less_than_reserve(&disks[SMALL - 1])?];
        leaders_word(cluster, "little room", |node, free| (free < RESERVE) == (node == SMALL))?;
        let copies = a_round(cluster, &mut told, 300_001)?;
        println!("less free than the reserve on one node: {copies} copies of 5 files there");
        ensure(copies == 0, || format!("{copies} copies on a disk with less free than the reserve"))?;

        for disk in disks.iter().enumerate().filter(|(n, _)| n + 1 != SMALL).map(|(_, disk)| disk) {
            ballast.push(leave_less_than_reserve(disk)?);
        }
        leaders_word(cluster, "little room on four", |node, free| (free < RESERVE) == (node != 0))?;
        for node in [0, SMALL] {
            for (path, length) in [("/300000-0", 400_000), ("/300000-1", 10), ("/new", 10)] {
                let reply = cluster.session(node)?.put(path, &noise("other", length))?;
                println!("STOR with room on one node alone: {}", reply.text.trim_end());
                ensure(reply.code == 452, || format!("STOR {path} was answered {}", reply.text))?;
            }
            ensure(cluster.session(node)?.command("SIZE /new")?.code == 550, || "/new is there".to_owned())?;
        }
        all_there(cluster, &told)?;

        ballast.iter().try_for_each(fs::remove_file)?;
        leaders_word(cluster, "room everywhere", |_, free| free >= RESERVE)?;
        let copies = a_round(cluster, &mut told, 300_002)?;
        println!("room again: {copies} copies of 5 files there");
        ensure(copies > 0, || "no copy came although there is room again".to_owned())?;
        all_there(cluster, &told)?;
        cluster.settle()?;
        let kept = all_whole(cluster, Surplus::None)?;
        ensure(kept.len() == told.len(), || format!("{} files of {}", kept.len(), told.len()))
    })
}

/// Stores a file through each node, and counts those that have a copy on the small disk: each round has files of a length of
/// its own.
fn a_round(cluster: &Cluster, told: &mut BTreeMap<String, Vec<u8>>, length: usize) -> Outcome<usize> {
    for node in 0..5 {
        let path = format!("/{length}-{node}");
        let bytes = noise(&path, length);
        let reply = cluster.session(node)?.put(&path, &bytes)?;
        ensure(reply.code == 226, || format!("{path}: {}", reply.text))?;
        told.insert(path, bytes);
    }
    Ok(blobs(cluster, SMALL, length)?.len())
}

/// Takes room until half of the reserve is left.
fn leave_less_than_reserve(disk: &Disk) -> Outcome<PathBuf> {
    let ballast = disk.mounted.join("lost+found/ballast");
    let room = rustix::fs::statvfs(&disk.mounted)?;
    let taken = (room.f_bavail * room.f_frsize).checked_sub(RESERVE / 2).ok_or("the disk is too small for this")?;
    rustix::fs::fallocate(File::create(&ballast)?, rustix::fs::FallocateFlags::empty(), 0, taken)?;
    Ok(ballast)
}

/// Waits until the leader, which places files, knows of each node's free bytes what is expected.
fn leaders_word(cluster: &Cluster, what: &str, expected: impl Fn(usize, u64) -> bool) -> Outcome {
    let leader = cluster.leader(None)?;
    wait_for(what, START, || {
        let status = cluster.status(leader)?;
        let members = status["members"].as_array().ok_or("no members")?;
        for (node, Node { name, .. }) in cluster.nodes.iter().enumerate() {
            let member = members.iter().find(|member| member["info"]["name"] == **name).ok_or("a node is missing")?;
            let free = member["disk"]["free"].as_u64().ok_or("no free bytes")?;
            ensure(expected(node, free), || format!("{name} has {free} free"))?;
        }
        Ok(())
    })
}
