//! Disks of our own under the nodes, ext4 on loop devices: all lose power at once, one fails to sync. What was acknowledged is
//! there afterwards, and the node comes back. `full.rs` and `stalls.rs` use them too.

use crate::clients::succeed;
use crate::cluster::{Cluster, Node, alive};
use crate::verify::{Surplus, all_whole};
use crate::wait::wait_for;
use crate::{LOOP, Outcome, PLANTED, Story, ensure};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// The tests of this file.
pub(crate) const STORIES: &[Story] = &[
    ("disks::all_lose_power_at_once_and_no_acknowledged_file", &[LOOP, "python3"], power_cut),
    ("disks::all_lose_power_at_once_and_files_that_were_not_synced", &[PLANTED, LOOP, "python3"], unsynced_power_cut),
    ("disks::one_that_cannot_sync_ends_its_node_and_nothing_else", &[LOOP], unsynced),
];

/// For anything that should take seconds.
pub(crate) const LONGEST: Duration = Duration::from_secs(120);
/// Clients that write until the power goes.
const CLIENTS: usize = 8;
/// Acknowledged operations before it does.
const ACKNOWLEDGED: usize = 300;
/// What a device's node logs when it stops by itself.
pub(crate) const STOPPED: &str = "stopping at once, nothing unwritten was confirmed";
/// EXT4_IOC_SHUTDOWN (linux/fs/ext4/ext4.h) with EXT4_GOING_FLAGS_NOLOGFLUSH: from here on nothing reaches the device, as
/// when power is lost. Here in Python, for this workspace has no unsafe code.
const GOING_DOWN: &str = "\
import fcntl, os, struct, sys
open_now = [os.open(path, os.O_RDONLY) for path in sys.argv[1:]]
for directory in open_now:
    fcntl.ioctl(directory, 0x8004587D, struct.pack('I', 2))
";

pub(crate) fn noise(seed: &str, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A file system of its own in the place of a node's data directory; unmounted when dropped.
pub(crate) struct Disk {
    image: PathBuf,
    /// Where it is mounted.
    pub(crate) mounted: PathBuf,
}

impl Disk {
    /// With what the stopped node has.
    pub(crate) fn under(cluster: &Cluster, node: usize, image: PathBuf, mib: u64) -> Outcome<Self> {
        let data = cluster.nodes[node].data.clone();
        File::create(&image)?.set_len(mib << 20)?;
        succeed(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image))?;
        let aside = data.with_extension("aside");
        fs::rename(&data, &aside)?;
        fs::create_dir(&data)?;
        let disk = Self { image, mounted: data };
        disk.mount()?;
        succeed(Command::new("cp").arg("-a").arg(aside.join(".")).arg(&disk.mounted))?;
        // As it is on the disk that it comes from.
        succeed(Command::new("sync").arg("-f").arg(&disk.mounted))?;
        fs::remove_dir_all(&aside)?;
        Ok(disk)
    }
    fn mount(&self) -> Outcome {
        succeed(Command::new("mount").args(["-o", "loop"]).args([&self.image, &self.mounted])).map(drop)
    }
    fn unmount(&self) -> Outcome {
        // A killed process counts as gone while a thread of it still waits for the device.
        wait_for("the disk to be let go", LONGEST, || succeed(Command::new("umount").arg(&self.mounted)).map(drop))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: the node may still be on its way out.
        let _ = Command::new("umount").arg("-l").arg(&self.mounted).status();
    }
}

/// Whether five file systems on loop devices may be mounted here at once.
pub(crate) fn may_loop() -> bool {
    let Ok(directory) = tempfile::tempdir() else { return false };
    let ran = |command: &mut Command| command.output().is_ok_and(|ran| ran.status.success());
    let mount = |n: usize| {
        let (image, at) = (directory.path().join(format!("{n}.image")), directory.path().join(format!("{n}")));
        let made = File::create(&image).and_then(|file| file.set_len(8 << 20)).and_then(|()| fs::create_dir(&at));
        made.is_ok()
            && ran(Command::new("mkfs.ext4").arg("-q").arg(&image))
            && ran(Command::new("mount").args(["-o", "loop"]).args([&image, &at]))
    };
    let mounted = (0..5).take_while(|n| mount(*n)).count();
    (0..mounted).all(|n| ran(Command::new("umount").arg(directory.path().join(format!("{n}"))))) && mounted == 5
}

/// A cluster's disks go with it, and before it: a mount in its directory would stay.
pub(crate) fn run(
    environment: &[(&'static str, &str)],
    test: impl FnOnce(&mut Cluster, &mut Vec<Disk>) -> Outcome,
) -> Outcome {
    let mut disks = Vec::new();
    Cluster::run(environment, |cluster| {
        let outcome = test(cluster, &mut disks);
        if outcome.is_err() {
            cluster.nodes.iter().filter(|node| alive(node.pid)).for_each(|node| drop(node.strike()));
        }
        disks.clear();
        outcome
    })
}

/// All five at once, in the middle of the work of eight clients; what they were told is there when power is back.
fn power_cut() -> Outcome {
    cut_power(&[], |survived| survived)
}

/// The same, where nothing was synced: were files found all the same, the story above would prove nothing.
fn unsynced_power_cut() -> Outcome {
    cut_power(&[("TREBOL_PLANTED_UNSYNCED", "1")], |survived| {
        let Err(lost) = survived else { return Err("nothing was synced, and nothing is missing".into()) };
        let said = lost.message().unwrap_or_default();
        println!("power cut: without fsync it ends with: {}", said.lines().next().unwrap_or_default());
        Ok(())
    })
}

/// `judge` is told what came of looking at all files once the power is back.
fn cut_power(environment: &[(&'static str, &str)], judge: impl FnOnce(Outcome) -> Outcome) -> Outcome {
    run(environment, |cluster, disks| {
        let place = cluster.scratch("disks")?;
        for node in 0..5 {
            cluster.terminate(node)?;
        }
        for node in 0..5 {
            disks.push(Disk::under(cluster, node, place.join(format!("{node}")), 512)?);
        }
        (0..5).try_for_each(|node| cluster.restart(node))?;
        cluster.settle()?;

        let (told, done, over) = (Mutex::new(BTreeMap::new()), AtomicUsize::new(0), AtomicBool::new(false));
        let mounts: Vec<PathBuf> = disks.iter().map(|disk| disk.mounted.clone()).collect();
        thread::scope(|scope| -> Outcome {
            for client in 0..CLIENTS {
                let (cluster, told, done, over) = (&*cluster, &told, &done, &over);
                // Ends with the first failure: that is the power cut.
                scope.spawn(move || work(cluster, client, told, done, over));
            }
            let busy = wait_for("acknowledged operations", LONGEST, || {
                let done = done.load(Ordering::Relaxed);
                ensure(done >= ACKNOWLEDGED, || format!("{done} of {ACKNOWLEDGED}"))
            });
            let cut = busy
                .and_then(|()| succeed(Command::new("python3").args(["-c", GOING_DOWN]).args(&mounts)))
                .and_then(|_| cluster.nodes.iter().filter(|node| alive(node.pid)).try_for_each(Node::strike));
            // Should nothing have been cut, they must end all the same.
            over.store(true, Ordering::Relaxed);
            cut
        })?;
        (0..5).try_for_each(|node| cluster.await_end(node))?;
        for disk in &*disks {
            disk.unmount()?;
            disk.mount()?;
        }
        let told = told.into_inner().map_err(|_| "a client panicked")?;
        println!("power cut: {} operations acknowledged, {} files", done.into_inner(), told.len());
        judge(survived(cluster, &told))
    })
}

/// The nodes come back, and have all that clients were told.
fn survived(cluster: &mut Cluster, told: &BTreeMap<String, Vec<u8>>) -> Outcome {
    (0..5).try_for_each(|node| cluster.restart(node))?;
    cluster.settle()?;
    let mut session = cluster.session(0)?;
    for (path, bytes) in told {
        let there: Vec<u8> = session.get(path)?;
        ensure(there == *bytes, || format!("{path} has {} other bytes of {}", there.len(), bytes.len()))?;
    }
    drop(session);
    // And what was under way when power went: whole or not at all.
    let kept = all_whole(cluster, Surplus::AfterDeath)?;
    ensure(kept.len() >= told.len(), || format!("{} files of {}", kept.len(), told.len()))
}

/// Small files, large ones and appends, each file written by one client alone, and told of once it is acknowledged. What is
/// under way when power goes is forgotten here: it may be there or not.
fn work(
    cluster: &Cluster,
    client: usize,
    told: &Mutex<BTreeMap<String, Vec<u8>>>,
    done: &AtomicUsize,
    over: &AtomicBool,
) -> Outcome {
    let mut session = cluster.session(client % 5)?;
    for n in 0..100_000 {
        if over.load(Ordering::Relaxed) {
            return Ok(());
        }
        let path = format!("/file-{client}-{n}");
        let mut bytes = noise(&path, [2_000, 300_000, 40_000][n % 3]);
        let reply = session.put(&path, &bytes)?;
        ensure(reply.code == 226, || reply.text)?;
        told.lock().map_err(|_| "a client panicked")?.insert(path.clone(), bytes.clone());
        done.fetch_add(1, Ordering::Relaxed);
        if n % 4 == 0 {
            // Whether this one took effect is not known until it is acknowledged.
            told.lock().map_err(|_| "a client panicked")?.remove(&path);
            let reply = session.give(&format!("APPE {path}"), b"and more")?;
            ensure(reply.code == 226, || reply.text)?;
            bytes.extend(b"and more");
            told.lock().map_err(|_| "a client panicked")?.insert(path, bytes);
            done.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Stores numbered files through a node until `enough`.
pub(crate) fn store_until(
    cluster: &Cluster,
    node: usize,
    told: &mut BTreeMap<String, Vec<u8>>,
    length: usize,
    enough: impl Fn() -> Outcome<bool>,
) -> Outcome {
    let mut session = cluster.session(node)?;
    for _ in 0..400 {
        if enough()? {
            return Ok(());
        }
        let path = format!("/file-{}", told.len());
        let bytes = noise(&path, length);
        let reply = session.put(&path, &bytes)?;
        ensure(reply.code == 226, || format!("STOR {path}: {}", reply.text))?;
        told.insert(path, bytes);
    }
    Err("stored 400 files, and what was waited for did not come".into())
}

/// Every file that was told of, through node 0.
pub(crate) fn all_there(cluster: &Cluster, told: &BTreeMap<String, Vec<u8>>) -> Outcome {
    let mut session = cluster.session(0)?;
    told.iter().try_for_each(|(path, bytes)| ensure(session.get(path)? == *bytes, || format!("{path} has other bytes")))
}

/// The device under a node's disk is full though the disk is not, as a thin-provisioned one may be: writes go well until they
/// are to be synced. The node must not believe a second sync; it stops, and comes back when the device takes writes again.
fn unsynced() -> Outcome {
    const THIN: usize = 3;
    run(&[], |cluster, disks| {
        let mut told = BTreeMap::new();
        let pool = cluster.scratch("pool")?;
        succeed(Command::new("mount").args(["-t", "tmpfs", "-o", "size=40m", "tmpfs"]).arg(&pool))?;
        let pool = Pool(pool);
        cluster.terminate(THIN)?;
        disks.push(Disk::under(cluster, THIN, pool.0.join("thin"), 400)?);
        cluster.restart(THIN)?;
        cluster.settle()?;
        let thin = cluster.nodes[THIN].pid;
        store_until(cluster, 0, &mut told, 2 << 20, || Ok(!alive(thin)))?;
        cluster.await_end(THIN)?;
        ensure(cluster.log()?.contains(STOPPED), || "the node died without a word".to_owned())?;
        all_there(cluster, &told)?;
        println!("unsynced: the node stopped after {} files", told.len());

        disks[0].unmount()?;
        succeed(Command::new("mount").args(["-o", "remount,size=600m"]).arg(&pool.0))?;
        // What was never synced is gone, as the operator is told: 1 is "errors were corrected".
        let checked = Command::new("e2fsck").args(["-fy"]).arg(&disks[0].image).output()?;
        ensure(checked.status.code().is_some_and(|code| code <= 1), || format!("{checked:?}"))?;
        disks[0].mount()?;
        cluster.restart(THIN)?;
        cluster.settle()?;
        all_there(cluster, &told)?;
        let kept = all_whole(cluster, Surplus::AfterDeath)?;
        ensure(kept.len() == told.len(), || format!("{} files of {}", kept.len(), told.len()))?;
        disks.clear();
        drop(pool);
        Ok(())
    })
}

/// The device's room; unmounted when dropped.
struct Pool(PathBuf);

impl Drop for Pool {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
