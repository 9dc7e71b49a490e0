//! Nodes die by SIGKILL while clients write: the client on another node ends without an error and without a second try,
//! nothing is lost, nothing is there twice.

use crate::clients::{LONGEST, Running, lftp, succeed};
use crate::cluster::Cluster;
use crate::verify::{Surplus, all_whole, hashes, holds_tree};
use crate::wait::wait_for;
use crate::{Outcome, Story, ensure};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The tests of this file.
pub(crate) const STORIES: &[Story] = &[
    ("death::of_the_leader_during_a_mirror_is_no_error", &["lftp", "diff"], || one_dies(Victim::Leader)),
    ("death::of_a_replica_during_a_mirror_is_no_error", &["lftp", "diff"], || one_dies(Victim::Replica)),
    ("death::of_all_five_loses_no_acknowledged_file", &[], all_die),
];

#[derive(Clone, Copy, PartialEq)]
enum Victim {
    Leader,
    Replica,
}

/// Files of a mirror.
const FILES: usize = 63;
/// Transfers at once.
const PARALLEL: usize = 8;
/// Bytes a second in all, so that the kill finds transfers open.
const RATE: usize = 10_000_000;
/// Transfers that must be open at the kill.
const OPEN: usize = 4;
/// Transfers ended before the kill.
const ENDED: usize = 10;

fn one_dies(victim: Victim) -> Outcome {
    Cluster::run(&[], |cluster| {
        let leader = cluster.leader(None)?;
        let others: Vec<_> = (0..5).filter(|node| *node != leader).collect();
        let client = others[0];
        let killed = if victim == Victim::Leader { leader } else { others[1] };
        let (up, down, logs) = (cluster.scratch("up")?, cluster.scratch("down")?, cluster.scratch("logs")?);
        write_files(&up)?;

        let log = logs.join("up");
        let script =
            format!("set net:limit-total-rate 0:{RATE}\nmirror -R --parallel={PARALLEL} {} /mirror", up.display());
        let mut mirror = Running::start(&mut lftp(cluster, client, &log, &script)?)?;
        let open = wait_for("transfers to kill", LONGEST, || {
            let (begun, ended) = (count(&log, "<--- 150")?, count(&log, "<--- 226")?);
            let open = begun.saturating_sub(ended);
            ensure(open >= OPEN && ended >= ENDED, || format!("{begun} begun, {ended} ended"))?;
            Ok(open)
        })?;
        cluster.kill(killed)?;
        let ended = count(&log, "<--- 226")?;
        ensure(open >= OPEN && ended < FILES - OPEN, || format!("{open} open, {ended} ended at the kill"))?;

        let status = mirror.finish(LONGEST)?;
        ensure(status.success(), || format!("lftp ended with {status}:\n{}", tail(&log)))?;
        let (sent, done) = (count(&log, "---> STOR")?, count(&log, "<--- 226 Transfer")?);
        ensure((sent, done) == (FILES, FILES), || format!("{sent} STORs and {done} times 226 for {FILES} files"))?;

        // The servers' own account: one line a transfer, however it ended.
        let log = cluster.log()?;
        let transfers = log.lines().filter(|line| line.contains("verb=\"STOR\"")).count();
        ensure(transfers == FILES, || format!("the nodes logged {transfers} STORs for {FILES} files"))?;

        let script = format!("mirror --parallel={PARALLEL} /mirror {}", down.display());
        let reader = others[2];
        succeed(&mut lftp(cluster, reader, &logs.join("down"), &script)?)?;
        succeed(Command::new("diff").arg("-r").args([&up, &down]))?;

        cluster.restart(killed)?;
        cluster.settle()?;
        let mut returned = cluster.session(killed)?;
        let name = "/mirror/file-0";
        ensure(returned.get(name)? == fs::read(up.join("file-0"))?, || {
            format!("the returned node has another {name}")
        })?;
        let kept = all_whole(cluster, Surplus::AfterDeath)?;
        ensure(kept.len() == FILES, || format!("{} files for {FILES}", kept.len()))?;
        holds_tree(&kept, "/mirror", &hashes(&up)?)
    })
}

/// Some that live in the database, some that are files of their own, some that are on their way to the replicas for long.
fn write_files(directory: &Path) -> Outcome {
    for number in 0..FILES {
        fs::write(directory.join(format!("file-{number}")), content(number, 0))?;
    }
    Ok(())
}

fn content(number: usize, version: usize) -> Vec<u8> {
    let mut bytes = vec![0; [40_000, 300_000, 3_000_000][number % 3] + number];
    blake3::Hasher::new().update(format!("{number} {version}").as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// How often a line of lftp's log begins so.
fn count(log: &Path, start: &str) -> Outcome<usize> {
    let text = fs::read(log).unwrap_or_default();
    Ok(String::from_utf8_lossy(&text).lines().filter(|line| line.contains(start)).count())
}

fn tail(log: &Path) -> String {
    let text = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<_> = text.lines().filter(|line| !line.contains("<--- 2") && !line.contains("---> ")).collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

fn all_die() -> Outcome {
    Cluster::run(&[], |cluster| {
        let acknowledged = Mutex::new(Vec::new());
        let next = AtomicUsize::new(0);
        let pids: Vec<_> = cluster.nodes.iter().map(|node| node.pid).collect();
        std::thread::scope(|scope| -> Outcome {
            for worker in 0..PARALLEL {
                let (cluster, acknowledged, next) = (&*cluster, &acknowledged, &next);
                // Ends with the first failure: that is the kill.
                scope.spawn(move || -> Outcome {
                    let mut session = cluster.session(worker % 5)?;
                    for _ in 0..10_000 {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let reply = session.put(&format!("/file-{number}"), &content(number, 0))?;
                        ensure(reply.code == 226, || reply.text)?;
                        acknowledged.lock().map_err(|_| "a worker panicked")?.push(number);
                    }
                    Ok(())
                });
            }
            wait_for("acknowledged files", LONGEST, || {
                let there = acknowledged.lock().map_err(|_| "a worker panicked")?.len();
                ensure(there >= 40, || format!("{there} of 40"))
            })?;
            for pid in &pids {
                rustix::process::kill_process(*pid, rustix::process::Signal::KILL)?;
            }
            Ok(())
        })?;
        (0..5).try_for_each(|node| cluster.await_end(node))?;
        let acknowledged = acknowledged.into_inner()?;
        (0..5).try_for_each(|node| cluster.restart(node))?;
        cluster.settle()?;
        let mut session = cluster.session(2)?;
        for number in &acknowledged {
            let bytes = session.get(&format!("/file-{number}"))?;
            ensure(bytes == content(*number, 0), || format!("/file-{number} has other bytes"))?;
        }
        drop(session);
        let kept = all_whole(cluster, Surplus::AfterDeath)?;
        let lost: Vec<_> =
            acknowledged.iter().filter(|number| !kept.contains_key(&format!("/file-{number}"))).collect();
        ensure(lost.is_empty(), || format!("acknowledged and lost: {lost:?}"))
    })
}
