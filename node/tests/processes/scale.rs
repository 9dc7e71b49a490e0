//! What a large index costs: leaders killed and networks healed with as many files as `TREBOL_FILES` says, such as
//! `TREBOL_FILES=10000,100000,1000000`; not run without it. It prints figures, and fails only when something is wrong.
//! `TREBOL_FILES_KEPT` names what a run left that was cut short: its data are taken over, and what lacks is stored.

use crate::cluster::Cluster;
use crate::control::{Control, trust};
use crate::network::Network;
use crate::wait::wait_for;
use crate::{NETWORKS, Outcome, Story, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use tokio::time::Instant;

/// The tests of this file.
pub(crate) const STORIES: &[Story] = &[("scale::of_a_large_index", &[FILES, "ip", NETWORKS], large_index)];

/// What the test needs: to be asked for.
pub(crate) const FILES: &str = "TREBOL_FILES";
/// The directory of a run that was cut short.
pub(crate) const KEPT: &str = "TREBOL_FILES_KEPT";
/// Without TLS to clients, whose cost is measured elsewhere, and without repair, which would go on changing the index.
const SETTINGS: &[(&str, &str)] = &[
    ("TREBOL_FTP_REQUIRE_TLS", "false"),
    ("TREBOL_CORE_REPAIR_LAST_COPY_S", "7200"),
    ("TREBOL_CORE_REPAIR_AFTER_S", "7200"),
];
/// Files of a directory.
const DIRECTORY: u64 = 1000;
/// Sessions that load files, spread over all nodes.
const LOADERS: usize = 40;
/// Sessions of each side of a cut.
const WRITERS: usize = 12;
/// Operations of each side.
const DIVERGENT: u64 = 5000;
/// One in so many changes a path that the other side changes, too.
const SHARED: u64 = 10;
/// Leaders killed.
const KILLS: usize = 20;
/// Acknowledged writes before a kill, and those begun after it.
const AROUND: usize = 50;
/// For anything that should take seconds.
const LONGEST: Duration = Duration::from_secs(120);

fn large_index() -> Outcome {
    let sizes = std::env::var(FILES)?;
    let sizes = sizes.split(',').map(str::parse).collect::<Result<Vec<u64>, _>>()?;
    Network::run_with(SETTINGS, |network, cluster| {
        let mut loaded = 0;
        for size in sizes {
            let before = std::mem::replace(&mut loaded, size);
            load(cluster, before, size)?;
            memory(cluster, &format!("with {size} files"))?;
            diverge(network, cluster, (before, size))?;
        }
        kills(cluster)?;
        wait_for("all nodes to agree", LONGEST, || cluster.agreed())?;
        memory(cluster, "at the end")
    })
}

fn plain_session(cluster: &Cluster, node: usize) -> Outcome<Control> {
    let mut control = Control::connect(cluster.nodes[node].ftp, &trust(&cluster.ca)?)?;
    control.log_in(&cluster.user, &cluster.password)?;
    Ok(control)
}

/// Runs `work` with numbers from `from` up to `to`, each once, by so many sessions at these nodes.
fn share(
    cluster: &Cluster,
    nodes: &[usize],
    sessions: usize,
    (from, to): (u64, u64),
    work: impl Fn(&mut Control, u64) -> Outcome + Sync,
) -> Outcome {
    let next = AtomicU64::new(from);
    thread::scope(|scope| {
        let worker = |session: usize| {
            let (next, work) = (&next, &work);
            scope.spawn(move || -> Outcome {
                let mut control = plain_session(cluster, nodes[session % nodes.len()])?;
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= to {
                        return Ok(());
                    }
                    work(&mut control, number)?;
                }
            })
        };
        let workers: Vec<_> = (0..sessions).map(worker).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| "a session panicked")?)
    })
}

fn file(number: u64) -> String {
    format!("/d{:04}/f{number}", number / DIRECTORY)
}

fn put(control: &mut Control, path: &str, bytes: &[u8]) -> Outcome {
    let reply = control.put(path, bytes)?;
    ensure(reply.code == 226, || format!("STOR {path} was answered {}", reply.text))
}

/// Stores files as any client does, and counts them by MLSD.
fn load(cluster: &Cluster, from: u64, to: u64) -> Outcome {
    let (began, all) = (Instant::now(), [0, 1, 2, 3, 4]);
    let directories = (from.div_ceil(DIRECTORY), to.div_ceil(DIRECTORY));
    let kept = std::env::var_os(KEPT).is_some();
    share(cluster, &all, LOADERS, directories, |control, directory| {
        let made = control.command(&format!("MKD /d{directory:04}"))?;
        ensure(made.code == 257 || kept && made.code == 550, || made.text)?;
        let there = if made.code == 257 { String::new() } else { control.list(&format!("NLST /d{directory:04}"))? };
        let there: BTreeSet<_> = there.lines().map(|line| line.rsplit('/').next().unwrap_or(line)).collect();
        let lacks = |number: &u64| !there.contains(&*format!("f{number}"));
        let files = directory * DIRECTORY..((directory + 1) * DIRECTORY).min(to);
        files.filter(lacks).map(file).try_for_each(|path| put(control, &path, path.as_bytes()))
    })?;
    let took = began.elapsed().as_secs_f64();
    let counted = AtomicU64::new(0);
    share(cluster, &all, all.len(), (0, directories.1), |control, directory| {
        let listed = control.list(&format!("MLSD /d{directory:04}"))?;
        let files = listed.lines().filter(|line| line.contains("type=file;")).count();
        counted.fetch_add(files as u64, Ordering::Relaxed);
        Ok(())
    })?;
    let counted = counted.into_inner();
    println!("{} files stored in {took:.0} s by {LOADERS} sessions, {counted} counted", to - from);
    // Of what two sides changed in an earlier cut, the one deleted and the other replaced it.
    let deleted = if from == 0 { 0 } else { DIVERGENT };
    ensure(counted <= to && counted + deleted >= to, || format!("{counted} of {to} files"))
}

fn memory(cluster: &Cluster, when: &str) -> Outcome {
    let mebibytes = |node: &crate::cluster::Node| -> Outcome<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", node.pid.as_raw_nonzero()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? / 1024)
    };
    let each = cluster.nodes.iter().map(mebibytes).collect::<Outcome<Vec<_>>>()?;
    println!("memory {when}, MiB: {each:?}");
    Ok(())
}

/// Both sides of a cut change things, then it ends: how long until all indexes are equal, and what went over the wires.
fn diverge(network: &Network, cluster: &Cluster, (before, size): (u64, u64)) -> Outcome {
    let leader = cluster.leader(None)?;
    let two = [leader, (leader + 1) % 5];
    let three: Vec<_> = (0..5).filter(|node| !two.contains(node)).collect();
    plain_session(cluster, leader)?.expect(&format!("MKD /at-{size}"), 257)?;
    network.cut_off(&two)?;
    let changes = (0, DIVERGENT);
    thread::scope(|scope| {
        // Nothing here leaves work for repair: what has bytes is written where there are three nodes.
        let deletes = scope.spawn(|| {
            share(cluster, &two, WRITERS, changes, |control, number| match number % SHARED {
                0 => control.expect(&format!("DELE {}", file(before + number)), 250).map(drop),
                _ => control.expect(&format!("MKD /at-{size}/two-{number}"), 257).map(drop),
            })
        });
        share(cluster, &three, WRITERS, changes, |control, number| match number % SHARED {
            0 => put(control, &file(before + number), format!("changed at {size}").as_bytes()),
            _ => put(control, &format!("/at-{size}/three-{number}"), b"new"),
        })?;
        deletes.join().map_err(|_| "the other side panicked")?
    })?;
    let (before, healed) = (network.bytes()?, Instant::now());
    network.heal()?;
    wait_for("all nodes to agree", LONGEST, || cluster.agreed())?;
    let (took, bytes) = (healed.elapsed().as_secs_f32(), network.bytes()? - before);
    println!(
        "{size} files, {} divergent operations: equal digests {took:.2} s after the heal, {bytes} bytes",
        2 * DIVERGENT
    );
    Ok(())
}

fn kills(cluster: &mut Cluster) -> Outcome {
    let mut gaps = Vec::new();
    for kill in 1..=KILLS {
        wait_for("all nodes to agree", LONGEST, || cluster.agreed())?;
        let leader = cluster.leader(None)?;
        let gap = one_kill(cluster, leader)?;
        println!(
            "kill {kill}, of {}: no write acknowledged for {:.3} s",
            cluster.nodes[leader].name,
            gap.as_secs_f32()
        );
        gaps.push(gap);
        cluster.restart(leader)?;
    }
    gaps.sort();
    println!(
        "write gap over {KILLS} kills: p50 {:.3} s, max {:.3} s",
        gaps[KILLS / 2].as_secs_f32(),
        gaps[KILLS - 1].as_secs_f32()
    );
    Ok(())
}

/// Kills the leader under writers at all other nodes; the longest time without an acknowledgement around it.
fn one_kill(cluster: &mut Cluster, leader: usize) -> Outcome<Duration> {
    let (said, heard) = mpsc::sync_channel(1024);
    let writing = AtomicBool::new(true);
    let others: Vec<_> = (0..5).filter(|node| *node != leader).collect();
    let sessions = others.iter().map(|node| plain_session(cluster, *node)).collect::<Outcome<Vec<_>>>()?;
    thread::scope(|scope| {
        let writers: Vec<_> = sessions
            .into_iter()
            .zip(&others)
            .map(|(mut control, node)| {
                let (said, writing) = (said.clone(), &writing);
                scope.spawn(move || -> Outcome {
                    while writing.load(Ordering::Relaxed) {
                        let began = Instant::now();
                        put(&mut control, &format!("/killed-{node}"), b"small")?;
                        said.send((began, Instant::now()))?;
                    }
                    Ok(())
                })
            })
            .collect();
        drop(said);
        let gap = (|| -> Outcome<Duration> {
            for _ in 0..AROUND {
                heard.recv_timeout(LONGEST)?;
            }
            let (_, mut last) = heard.recv_timeout(LONGEST)?;
            cluster.kill(leader)?;
            let (killed, mut gap, mut left) = (Instant::now(), Duration::ZERO, AROUND);
            while left > 0 {
                let (began, ended) = heard.recv_timeout(LONGEST)?;
                gap = gap.max(ended.saturating_duration_since(last));
                last = last.max(ended);
                // Only what began after the kill and needed a leader shows that there is one.
                left -= usize::from(began > killed);
            }
            Ok(gap)
        })();
        writing.store(false, Ordering::Relaxed);
        heard.into_iter().for_each(drop);
        writers.into_iter().try_for_each(|writer| writer.join().map_err(|_| "a writer panicked")?)?;
        gap
    })
}
