//! Disks that are slow, and one that hangs: freezing the file system under a node (FIFREEZE) makes every write to it wait, as a
//! failing disk or a busy array does. Heartbeats go on; who hangs for long leads nothing and holds nobody up.

use crate::cluster::Cluster;
use crate::disks::{Disk, LONGEST, all_there, noise, run};
use crate::verify::{Surplus, all_whole};
use crate::wait::wait_for;
use crate::{LOOP, Outcome, Story, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The tests of this file.
pub(crate) const STORIES: &[Story] = &[
    ("stalls::a_slow_disk_of_the_leader_slows_writes_and_no_heartbeat", &[LOOP, "fsfreeze"], slow),
    ("stalls::a_disk_that_hangs_takes_its_node_out_of_the_way", &[LOOP, "fsfreeze"], hung),
];

/// Stands still three quarters of the time, and longer than two heartbeats each time.
/// Ends, thawed, when the flag is gone.
const STUTTER: &str = "while [ -e \"$1\" ]; do fsfreeze -f \"$0\"; sleep 0.6; fsfreeze -u \"$0\"; sleep 0.2; done";
/// Files that are stored meanwhile.
const FILES: usize = 30;

/// A file system that is frozen now, or every other moment; thaws when dropped, or nothing could let go of it.
struct Frozen {
    mounted: PathBuf,
    /// With its flag.
    stutter: Option<(Child, PathBuf)>,
}

impl Frozen {
    fn now(mounted: &Path) -> Outcome<Self> {
        crate::clients::succeed(Command::new("fsfreeze").arg("-f").arg(mounted))?;
        Ok(Self { mounted: mounted.to_owned(), stutter: None })
    }
    fn now_and_then(mounted: &Path) -> Outcome<Self> {
        let flag = mounted.with_extension("stutters");
        File::create(&flag)?;
        let stutter = Command::new("sh").args(["-c", STUTTER]).args([mounted, &flag]).stdin(Stdio::null()).spawn()?;
        Ok(Self { mounted: mounted.to_owned(), stutter: Some((stutter, flag)) })
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // Killed, it could leave a freeze on its way that nobody thaws.
        if let Some((stutter, flag)) = &mut self.stutter {
            let _ = fs::remove_file(flag);
            let _ = stutter.wait();
        }
        // It may be thawed already, which this tool calls an error.
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.mounted).stderr(Stdio::null()).status();
    }
}

/// The leader, with a disk of its own.
fn leader_on_a_disk(cluster: &mut Cluster, disks: &mut Vec<Disk>) -> Outcome<usize> {
    let leader = cluster.leader(None)?;
    cluster.terminate(leader)?;
    disks.push(Disk::under(cluster, leader, cluster.scratch("disks")?.join("slow"), 256)?);
    cluster.restart(leader)?;
    wait_for("it to lead again", LONGEST, || {
        cluster.settle()?;
        let now = cluster.leader(None)?;
        ensure(now == leader, || format!("{now} leads"))
    })?;
    Ok(leader)
}

fn store(cluster: &Cluster, told: &mut BTreeMap<String, Vec<u8>>, files: usize) -> Outcome {
    let mut session = cluster.session(0)?;
    for _ in 0..files {
        let path = format!("/file-{}", told.len());
        let bytes = noise(&path, [2_000, 100_000][told.len() % 2]);
        let reply = session.put(&path, &bytes)?;
        ensure(reply.code == 226, || format!("STOR {path}: {}", reply.text))?;
        told.insert(path, bytes);
    }
    Ok(())
}

/// Every write waits for the leader's disk, which stands still most of the time: nobody is suspected, and no election is held.
fn slow() -> Outcome {
    run(&[], |cluster, disks| {
        let leader = leader_on_a_disk(cluster, disks)?;
        let mut told = BTreeMap::new();
        let before = cluster.status(0)?["epoch"].clone();
        let frozen = Frozen::now_and_then(&disks[0].mounted)?;
        for _ in 0..FILES {
            store(cluster, &mut told, 1)?;
            let status = cluster.status(0)?;
            let members = status["members"].as_array().ok_or("no members")?;
            let quiet = |member: &&Value| member["liveness"] != "alive";
            ensure(!members.iter().any(|member| quiet(&member)), || format!("somebody is suspected: {status}"))?;
        }
        let after = cluster.status(0)?["epoch"].clone();
        ensure(before == after, || format!("epoch {before} became {after} while node {leader} was slow"))?;
        println!("slow: {FILES} files stored by a leader whose disk stood still most of the time, in one epoch");
        drop(frozen);
        cluster.settle()?;
        all_there(cluster, &told)?;
        let kept = all_whole(cluster, Surplus::None)?;
        ensure(kept.len() == told.len(), || format!("{} files of {}", kept.len(), told.len()))
    })
}

/// First the leader's disk hangs, and another node leads; then a follower's would hold up what it is to keep. It is as it was
/// once the disk goes on.
fn hung() -> Outcome {
    run(&[], |cluster, disks| {
        let leader = leader_on_a_disk(cluster, disks)?;
        let mut told = BTreeMap::new();
        store(cluster, &mut told, 4)?;
        let frozen = Frozen::now(&disks[0].mounted)?;
        // All of them at once need its disk to be acknowledged, until somebody else leads.
        store(cluster, &mut told, FILES)?;
        let status = cluster.status(0)?;
        ensure(status["leader"] != status["members"][leader]["info"]["node"], || format!("it still leads: {status}"))?;
        println!("hung: {FILES} files stored while the disk of node {leader}, which led, took no write");
        drop(frozen);
        cluster.settle()?;
        all_there(cluster, &told)?;
        let kept = all_whole(cluster, Surplus::AfterDeath)?;
        ensure(kept.len() == told.len(), || format!("{} files of {}", kept.len(), told.len()))
    })
}
