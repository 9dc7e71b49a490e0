//! Copies that rot: bytes of one node's disk are changed, cut off or deleted behind its back, or two disks are lost at once.
//! The scrubber, a read, or a restart finds it, and in the end every file is whole on three nodes again. Small files are not
//! touched here: the database that they live in checks its own sums, and a node whose database is broken ends.

use crate::cluster::{Cluster, trebol};
use crate::control::{Control, trust};
use crate::verify::{Surplus, all_whole, blobs};
use crate::wait::wait_for;
use crate::{Outcome, Story, ensure};
use serde_json::Value;
use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

/// The tests of this file.
pub(crate) const STORIES: &[Story] = &[
    ("rot::the_scrubber_finds_and_heals_it", &[], scrubbed),
    ("rot::a_read_finds_it_and_it_heals", &[], read),
    ("rot::what_verify_reports_heals_after_a_restart", &[], verified),
    ("rot::a_file_cut_while_it_is_sent_goes_on_from_another_node", &[], cut_while_sent),
    ("rot::two_of_three_disks_lost_at_once_lose_nothing", &[], two_disks_lost),
];

/// For a copy to be found, fetched and in its place.
const HEALED: Duration = Duration::from_secs(60);
/// For a node to be down, and its files on three others again.
const REPAIRED: Duration = Duration::from_secs(120);
/// For what has one copy left to have another: nobody is waited for, beyond the 5 s until a node counts as down.
const LAST_COPY: Duration = Duration::from_secs(30);
/// No scrubber: what heals was found by something else.
const NO_SCRUBBER: (&str, &str) = ("TREBOL_REPLICA_SCRUB_MIB_S", "0");

/// What happens to a copy.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Flip,
    Cut,
    Delete,
}

const DAMAGES: [Damage; 3] = [Damage::Flip, Damage::Cut, Damage::Delete];

/// The `n`-th file: too large for the database, and of a length that no other has.
fn content(n: usize) -> Vec<u8> {
    let mut bytes = vec![0; 600_000 + n];
    blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}
fn name(n: usize) -> String {
    format!("/file-{n}")
}
fn put(cluster: &Cluster, n: usize) -> Outcome {
    let reply = cluster.session(0)?.put(&name(n), &content(n))?;
    ensure(reply.code == 226, || reply.text)
}

/// The nodes with a copy of the `n`-th file of the right length.
fn holders(cluster: &Cluster, n: usize) -> Outcome<Vec<usize>> {
    let mut all = vec![];
    for node in 0..cluster.nodes.len() {
        if cluster.nodes[node].data.join("blobs").exists() && !blobs(cluster, node, content(n).len())?.is_empty() {
            all.push(node);
        }
    }
    Ok(all)
}
/// Damages the copy of the `n`-th file on a node: where that is.
fn damage(cluster: &Cluster, node: usize, n: usize, how: Damage) -> Outcome<PathBuf> {
    let path = blobs(cluster, node, content(n).len())?.pop().ok_or("no copy to damage")?;
    match how {
        Damage::Flip => {
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            let mut byte = [0];
            file.read_exact_at(&mut byte, 1000)?;
            file.write_all_at(&[byte[0] ^ 0x10], 1000)?;
        }
        Damage::Cut => OpenOptions::new().write(true).open(&path)?.set_len(100_000)?,
        Damage::Delete => fs::remove_file(&path)?,
    }
    Ok(path)
}
fn await_healed(path: &PathBuf, n: usize) -> Outcome {
    wait_for(&format!("{} to be healed", name(n)), HEALED, || {
        ensure(fs::read(path)? == content(n), || "the copy is still bad".to_owned())
    })
}

/// Figures of the scrubber, summed over all nodes.
fn figures<const N: usize>(cluster: &Cluster, names: [&str; N]) -> Outcome<[u64; N]> {
    let mut sums = [0; N];
    for node in 0..cluster.nodes.len() {
        let status = cluster.status(node)?;
        for (sum, name) in sums.iter_mut().zip(names) {
            *sum += status["scrub"][name].as_u64().ok_or_else(|| format!("no {name} in {status}"))?;
        }
    }
    Ok(sums)
}
fn await_figures(cluster: &Cluster, bad: u64) -> Outcome {
    wait_for("the figures of what was healed", HEALED, || {
        let found = figures(cluster, ["bad", "healed", "condemned", "incurable"])?;
        ensure(found == [bad, bad, 0, 0], || format!("bad, healed, bad now, incurable: {found:?}"))
    })
}
/// Stops the cluster: every file whole on three nodes, as `verify` sees it.
fn all_healed(cluster: &mut Cluster, files: usize) -> Outcome {
    cluster.settle()?;
    let kept = all_whole(cluster, Surplus::AfterDeath)?;
    ensure(kept.len() == files, || format!("{} files of {files}", kept.len()))
}

fn scrubbed() -> Outcome {
    let environment = [("TREBOL_REPLICA_SCRUB_REST_S", "1"), ("TREBOL_REPLICA_SCRUB_MIB_S", "64")];
    Cluster::run(&environment, |cluster| {
        let files = DAMAGES.len() + 1;
        (0..files).try_for_each(|n| put(cluster, n))?;
        cluster.settle()?;
        let mut damaged = vec![];
        for (n, how) in DAMAGES.into_iter().enumerate() {
            let node = holders(cluster, n)?[n % 3];
            damaged.push((n, damage(cluster, node, n, how)?));
        }
        damaged.iter().try_for_each(|(n, path)| await_healed(path, *n))?;
        await_figures(cluster, 3)?;
        // And nothing that is whole is called bad, however often it is read.
        let [before] = figures(cluster, ["rounds"])?;
        wait_for("ten more rounds", HEALED, || {
            let [rounds] = figures(cluster, ["rounds"])?;
            ensure(rounds >= before + 10, || format!("{rounds} rounds, {before} before"))
        })?;
        await_figures(cluster, 3)?;
        all_healed(cluster, files)
    })
}

fn read() -> Outcome {
    Cluster::run(&[NO_SCRUBBER], |cluster| {
        (0..3).try_for_each(|n| put(cluster, n))?;
        cluster.settle()?;
        for (n, how) in DAMAGES.into_iter().enumerate() {
            let holders = holders(cluster, n)?;
            let node = holders[1];
            let path = damage(cluster, node, n, how)?;
            // Through the node itself, which goes on from another at once. What it would send of a file of the right length
            // it does not look at: then through one that has no copy, until the bad one is the one it asks.
            let away = (0..5).find(|node| !holders.contains(node)).ok_or("everybody has it")?;
            let reader = if matches!(how, Damage::Flip) { away } else { node };
            wait_for(&format!("{how:?} to be found by a read"), HEALED, || {
                match (cluster.session(reader)?.get(&name(n)), how) {
                    (Ok(bytes), _) => ensure(bytes == content(n), || "other bytes, and 226".to_owned())?,
                    // Said before the end, so that nobody takes it for the file.
                    (Err(_), Damage::Flip) => {}
                    (Err(failed), _) => return Err(failed),
                }
                let status = cluster.status(node)?;
                let bad = status["scrub"]["bad"].as_u64().unwrap_or_default();
                ensure(bad > 0, || format!("{status}"))
            })?;
            await_healed(&path, n)?;
            for reader in 0..5 {
                let bytes = cluster.session(reader)?.get(&name(n))?;
                ensure(bytes == content(n), || format!("{how:?}: other bytes through node {reader}"))?;
            }
            await_figures(cluster, n as u64 + 1)?;
        }
        all_healed(cluster, 3)
    })
}

fn verified() -> Outcome {
    Cluster::run(&[], |cluster| {
        let files = 9;
        (0..files).try_for_each(|n| put(cluster, n))?;
        cluster.settle()?;
        // 27 copies on five nodes: one of them has six.
        let mut on: Vec<Vec<usize>> = vec![vec![]; 5];
        for n in 0..files {
            holders(cluster, n)?.into_iter().for_each(|node| on[node].push(n));
        }
        let node = (0..5).max_by_key(|node| on[*node].len()).ok_or("no nodes")?;
        cluster.terminate(node)?;
        let mut damaged = vec![];
        for (n, how) in on[node].iter().copied().zip(DAMAGES) {
            damaged.push((n, damage(cluster, node, n, how)?));
        }
        let data = cluster.nodes[node].data.to_str().ok_or("a data directory that is no text")?;
        let (status, said) = trebol(&["verify", "--json", "--data", data], &[])?;
        ensure(status.code() == Some(1), || format!("verify ended with {status}: {said}"))?;
        let summary: Value = serde_json::from_str(said.lines().last().unwrap_or_default())?;
        ensure(summary["summary"]["problems"] == 3, || said)?;

        cluster.restart(node)?;
        damaged.iter().try_for_each(|(n, path)| await_healed(path, *n))?;
        all_healed(cluster, files)
    })
}

fn cut_while_sent() -> Outcome {
    // In clear sendfile sends it, under TLS it is read piece by piece.
    Cluster::run(&[NO_SCRUBBER, ("TREBOL_FTP_REQUIRE_TLS", "false")], |cluster| {
        for (n, encrypted) in [(0, false), (1, true)] {
            // More than any buffer on the way holds.
            let mut bytes = content(n);
            bytes.resize((96 << 20) + n, 7);
            let length = bytes.len();
            let reply = cluster.session(0)?.put(&name(n), &bytes)?;
            ensure(reply.code == 226, || reply.text)?;
            let node = (0..5).find(|node| blobs(cluster, *node, length).is_ok_and(|b| b.len() == 1));
            let node = node.ok_or("nobody has it")?;
            let path = blobs(cluster, node, length)?.remove(0);
            let mut control = if encrypted { cluster.session(node)? } else { in_clear(cluster, node)? };
            let mut data = control.transfer(&format!("RETR {}", name(n)))?;
            let mut got = vec![0; 1 << 20];
            data.read_exact(&mut got)?;
            OpenOptions::new().write(true).open(&path)?.set_len(80 << 20)?;
            data.read_to_end(&mut got).map_err(|error| format!("encrypted {encrypted}: {error}"))?;
            let reply = control.reply()?;
            ensure(reply.code == 226, || format!("encrypted {encrypted}: {}", reply.text))?;
            ensure(got == bytes, || format!("encrypted {encrypted}: {} other bytes", got.len()))?;
            wait_for("the copy to be healed", HEALED, || {
                ensure(fs::metadata(&path)?.len() == length as u64, || "it is short".to_owned())
            })?;
            await_figures(cluster, n as u64 + 1)?;
        }
        all_healed(cluster, 2)
    })
}

fn in_clear(cluster: &Cluster, node: usize) -> Outcome<Control> {
    let mut control = Control::connect(cluster.nodes[node].ftp, &trust(&cluster.ca)?)?;
    control.log_in(&cluster.user, &cluster.password)?;
    Ok(control)
}

fn two_disks_lost() -> Outcome {
    Cluster::run(&[], |cluster| {
        let files = 6;
        (0..files).try_for_each(|n| put(cluster, n))?;
        cluster.settle()?;
        let held = holders(cluster, 0)?;
        let (lost, left) = (&held[..2], held[2]);
        for node in lost {
            cluster.kill(*node)?;
            fs::remove_dir_all(&cluster.nodes[*node].data)?;
        }
        let began = Instant::now();
        for node in lost {
            cluster.restart(*node)?;
        }
        let living: Vec<usize> = (0..5).filter(|node| !lost.contains(node)).collect();
        let mut reads = 0;
        let readable = |reads: &mut usize| -> Outcome {
            let reader = living[*reads % living.len()];
            let n = *reads % files;
            *reads += 1;
            let bytes = cluster.session(reader)?.get(&name(n))?;
            ensure(bytes == content(n), || format!("{} has other bytes through node {reader}", name(n)))
        };
        readable(&mut reads)?;
        let whole = |n: usize| -> Outcome<usize> {
            let mut whole = 0;
            for node in holders(cluster, n)? {
                let copies = blobs(cluster, node, content(n).len())?;
                whole += copies.iter().filter(|path| fs::read(path).is_ok_and(|bytes| bytes == content(n))).count();
            }
            Ok(whole)
        };
        // The first file has one copy left, and is not to wait as long as those that have two.
        wait_for("another copy of what has one", LAST_COPY.saturating_sub(began.elapsed()), || {
            ensure(whole(0)? >= 2, || format!("one whole copy of {}", name(0)))
        })?;
        println!("rot: a second copy of what had one after {:.1} s", began.elapsed().as_secs_f64());
        let mut failed = None;
        wait_for("three whole copies of every file", REPAIRED, || {
            if let Err(error) = readable(&mut reads) {
                failed.get_or_insert(error);
            }
            for n in 0..files {
                let whole = whole(n)?;
                ensure(whole >= 3, || format!("{whole} whole copies of {}", name(n)))?;
            }
            Ok(())
        })?;
        println!(
            "rot: two of three disks lost, three whole copies of all {files} files after {:.1} s; {reads} reads meanwhile",
            began.elapsed().as_secs_f64()
        );
        if let Some(failed) = failed {
            return Err(failed);
        }
        // The nodes that these were will not come back.
        let names: Vec<String> = lost.iter().map(|node| cluster.nodes[*node].name.clone()).collect();
        let data = cluster.nodes[left].data.to_str().ok_or("a data directory that is no text")?.to_owned();
        for name in names {
            let (status, said) = trebol(&["forget", &name, "--data", &data], &[])?;
            ensure(status.success(), || said)?;
        }
        all_healed(cluster, files)
    })
}
