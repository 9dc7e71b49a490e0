//! Appends: many at a time, from all nodes, to one large file; what goes over the wires for them; deaths in the middle.

use crate::cluster::Cluster;
use crate::control::{Control, trust};
use crate::network::Network;
use crate::verify::{Surplus, all_whole};
use crate::wait::wait_for;
use crate::{NETWORKS, Outcome, Story, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// The tests of this file.
pub(crate) const STORIES: &[Story] = &[
    ("append::moves_the_delta_and_no_more", &["ip", "nft", NETWORKS], many_at_once),
    ("append::goes_on_while_replicas_die", &[], replicas_die),
    ("append::restarts_where_rest_says", &[], restarts),
];

/// Bytes of an append.
const RECORD: usize = 1000;
/// Appends of each session before anything is counted.
const WARM: usize = 4;
/// The most that may go over the raw port for each byte that is appended: three copies, and what frames them.
const RAW_PER_BYTE: f64 = 3.0 * 1.3;
/// The most that may go over the RPC port for appends to a large file, for each byte that does for as many to a small one:
/// heartbeats of the longer time are among them.
const RPC_OF_LARGE: f64 = 1.5;
/// Extents that a file may have when all is quiet; they are merged from 16 on, and while that goes on more come.
const EXTENTS: u64 = 24;
/// For anything that should take seconds.
const LONGEST: Duration = Duration::from_secs(120);

fn noise(seed: &str, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// What one session appends as its `number`th record: it can be told from all others.
fn record(session: usize, number: usize) -> Vec<u8> {
    let mut bytes = format!("{session} {number} ").into_bytes();
    bytes.extend(noise(&format!("{session} {number}"), RECORD - bytes.len()));
    bytes
}

fn append(control: &mut Control, path: &str, bytes: &[u8]) -> Outcome {
    let reply = control.give(&format!("APPE {path}"), bytes)?;
    ensure(reply.code == 226, || format!("APPE {path} was answered {}", reply.text))
}

/// A session at every node appends the records with these numbers.
fn append_from_all(cluster: &Cluster, path: &str, numbers: Range<usize>) -> Outcome {
    let sessions = (0..5).map(|node| cluster.session(node)).collect::<Outcome<Vec<_>>>()?;
    thread::scope(|scope| {
        let session = |(session, mut control): (usize, Control)| {
            let mut numbers = numbers.clone();
            scope.spawn(move || numbers.try_for_each(|n| append(&mut control, path, &record(session, n))))
        };
        let all: Vec<_> = sessions.into_iter().enumerate().map(session).collect();
        all.into_iter().try_for_each(|one| one.join().map_err(|_| "a session panicked")?)
    })
}

/// Fails unless the file is `base` and all records, each once, those of a session in their order.
fn is_whole(file: &[u8], base: &[u8], each: usize) -> Outcome {
    let all = records(file, base)?;
    ensure(all.len() == 5 && all.values().all(|number| *number == each), || format!("{all:?} of {each} records"))
}

/// Fails unless the file is `base` and whole records, those of a session in their order and none left out: how many of each.
fn records(file: &[u8], base: &[u8]) -> Outcome<BTreeMap<usize, usize>> {
    ensure(file.starts_with(base) && (file.len() - base.len()).is_multiple_of(RECORD), || {
        format!("{} bytes, or others than were there before", file.len())
    })?;
    let mut next = BTreeMap::new();
    for bytes in file[base.len()..].chunks(RECORD) {
        let text = String::from_utf8_lossy(&bytes[..12]);
        let session: usize = text.split(' ').next().unwrap_or_default().parse()?;
        let number = next.entry(session).or_insert(0);
        ensure(bytes == record(session, *number), || format!("record {number} of session {session} is not there"))?;
        *number += 1;
    }
    Ok(next)
}

/// Reads a file while it is appended to until it is over: how often. Each time it is whole, goes on from what it was before,
/// and has all appends that were acknowledged when it was asked for.
fn read_on(control: &mut Control, path: &str, base: &[u8], done: &Mutex<usize>, over: &AtomicBool) -> Outcome<usize> {
    let (mut reads, mut before) = (0, base.to_vec());
    while !over.load(Ordering::Relaxed) {
        let acknowledged = *done.lock().map_err(|_| "a session panicked")?;
        let file = control.get(path)?;
        let there: usize = records(&file, base)?.values().sum();
        ensure(there >= acknowledged, || format!("read {there} records where {acknowledged} were acknowledged"))?;
        ensure(file.starts_with(&before), || {
            format!("{} bytes do not begin with {} of before", file.len(), before.len())
        })?;
        (reads, before) = (reads + 1, file);
    }
    Ok(reads)
}

fn many_at_once() -> Outcome {
    let long = std::env::var("TREBOL_LONG").is_ok_and(|set| set == "1");
    // As many to a small file as to a large one, or what an append costs could not be compared.
    let (sizes, each) = if long { ([1 << 20, 1 << 30], 2004) } else { ([1 << 20, 64 << 20], 100 + WARM) };
    Network::run(|network, cluster| {
        let (mut bases, mut spoken) = (Vec::new(), Vec::new());
        for size in sizes {
            let (path, base) = (format!("/log-{size}"), noise(&format!("base {size}"), size));
            let reply = cluster.session(0)?.put(&path, &base)?;
            ensure(reply.code == 226, || reply.text)?;
            // Whoever speaks to whom is known by then: no handshake is counted.
            append_from_all(cluster, &path, 0..WARM)?;
            network.count()?;
            append_from_all(cluster, &path, WARM..each)?;
            let (rpc, raw) = (network.counted(2123)?, network.counted(2124)?);
            let appends = 5 * (each - WARM);
            let appended = (appends * RECORD) as f64;
            println!(
                "{} appends of {RECORD} bytes to {size} bytes from 5 nodes at once: {:.2} bytes over the raw port for each, \
                 {} over RPC for each append",
                appends,
                raw as f64 / appended,
                rpc / appends as u64
            );
            ensure(raw as f64 <= RAW_PER_BYTE * appended, || format!("{raw} bytes over the raw port"))?;
            spoken.push(rpc as f64);
            bases.push((path, base));
        }
        ensure(spoken[1] <= RPC_OF_LARGE * spoken[0], || {
            format!(
                "over RPC {} bytes for a file of {} bytes, {} for one of {}",
                spoken[1], sizes[1], spoken[0], sizes[0]
            )
        })?;
        for (path, base) in &bases {
            for node in 0..5 {
                is_whole(&cluster.session(node)?.get(path)?, base, each)?;
            }
        }
        cluster.settle()?;
        let kept = all_whole(cluster, Surplus::None)?;
        for (path, ..) in &bases {
            let extents = kept.get(path).ok_or_else(|| format!("{path} is not there"))?.extents;
            println!("{path} ends with {extents} extents");
            ensure(extents <= EXTENTS, || format!("{path} has {extents} extents"))?;
        }
        Ok(())
    })
}

fn replicas_die() -> Outcome {
    const PATH: &str = "/log";
    const EACH: usize = 60;
    Cluster::run(&[], |cluster| {
        let base = noise("base", 300_000);
        let reply = cluster.session(0)?.put(PATH, &base)?;
        ensure(reply.code == 226, || reply.text)?;
        let (leader, holders) = (cluster.leader(None)?, holders(cluster)?);
        // Sessions are at nodes that live on; those that hold the file may be among them.
        let victims: Vec<usize> = holders.into_iter().filter(|node| *node != leader).take(2).collect();
        ensure(victims.len() == 2, || "no two replicas besides the leader".to_owned())?;
        let fronts: Vec<usize> = (0..5).filter(|node| !victims.contains(node)).collect();
        let (done, over) = (Mutex::new(0), AtomicBool::new(false));
        let progress = |least: usize| {
            wait_for("appends to kill among", LONGEST, || {
                let done = *done.lock().map_err(|_| "a session panicked")?;
                ensure(done >= least, || format!("{done} of {least}"))
            })
        };
        let sessions = (0..5).map(|n| cluster.session(fronts[n % fronts.len()])).collect::<Outcome<Vec<_>>>()?;
        let mut reader = cluster.session(fronts[1])?;
        let reads = thread::scope(|scope| {
            let reads = scope.spawn(|| read_on(&mut reader, PATH, &base, &done, &over));
            let session = |(session, mut control): (usize, Control)| {
                let done = &done;
                scope.spawn(move || -> Outcome {
                    for n in 0..EACH {
                        append(&mut control, PATH, &record(session, n))?;
                        *done.lock().map_err(|_| "a session panicked")? += 1;
                    }
                    Ok(())
                })
            };
            let all: Vec<_> = sessions.into_iter().enumerate().map(session).collect();
            // One, then two at once: what is left of the file is then on one node, and repaired before appends go on.
            let mut kill = || -> Outcome {
                progress(20)?;
                cluster.kill(victims[0])?;
                progress(80)?;
                cluster.restart(victims[0])?;
                progress(140)?;
                victims.iter().try_for_each(|victim| cluster.kill(*victim))
            };
            let killed = kill();
            let appended = all.into_iter().try_for_each(|one| one.join().map_err(|_| "a session panicked")?);
            over.store(true, Ordering::Relaxed);
            let reads = reads.join().map_err(|_| "the reader panicked")?;
            killed.and(appended).and(reads)
        })?;
        println!("appends went on while replicas died; {reads} reads of a whole file meanwhile");
        ensure(reads > 0, || "nothing was read meanwhile".to_owned())?;
        is_whole(&cluster.session(fronts[0])?.get(PATH)?, &base, EACH)?;
        victims.iter().try_for_each(|victim| cluster.restart(*victim))?;
        cluster.settle()?;
        for node in 0..5 {
            is_whole(&cluster.session(node)?.get(PATH)?, &base, EACH)?;
        }
        all_whole(cluster, Surplus::AfterDeath).map(drop)
    })
}

/// The nodes that hold the only file of a cluster, which is too large for the database.
fn holders(cluster: &Cluster) -> Outcome<Vec<usize>> {
    let holds = |node: &usize| -> Outcome<bool> {
        for directory in fs::read_dir(cluster.nodes[*node].data.join("blobs"))? {
            if fs::read_dir(directory?.path())?.next().is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    };
    (0..5).filter_map(|node| holds(&node).map(|holds| holds.then_some(node)).transpose()).collect()
}

fn restarts() -> Outcome {
    Cluster::run(&[], |cluster| {
        let (mut one, mut other) = (cluster.session(0)?, cluster.session(3)?);
        let bytes = noise("restarts", 5_000_000);
        for cut in [0, 1, 60_000, 2_500_000, 4_999_999, 5_000_000] {
            ensure(one.put("/f", &bytes[..cut])?.code == 226, || format!("STOR of {cut}"))?;
            other.expect(&format!("REST {cut}"), 350)?;
            ensure(other.put("/f", &bytes[cut..])?.code == 226, || format!("the rest behind {cut}"))?;
            ensure(one.get("/f")? == bytes, || format!("other bytes with a cut at {cut}"))?;
        }
        // In the middle of what is there, and of one extent of several.
        let mut expected = bytes.clone();
        for (cut, more) in [(70_000, 200_000), (150_000, 10), (150_005, 3_000_000), (100, 100), (200, 70_000)] {
            let new = noise(&format!("{cut}"), more);
            expected.truncate(cut);
            expected.extend_from_slice(&new);
            one.expect(&format!("REST {cut}"), 350)?;
            ensure(one.put("/f", &new)?.code == 226, || format!("STOR behind {cut}"))?;
            ensure(other.get("/f")? == expected, || format!("other bytes behind {cut}"))?;
        }
        one.expect("REST 80000", 350)?;
        let reply = one.put("/f", b"x")?;
        ensure(reply.code == 554, || format!("beyond the end: {}", reply.text))?;

        // An append that is cut leaves nothing; so does one that is refused.
        let mut data = one.transfer("APPE /f")?;
        data.write_all(&noise("cut", 200_000))?;
        data.reset()?;
        let reply = one.reply()?;
        ensure(reply.code == 426, || reply.text)?;
        ensure(other.get("/f")? == expected, || "a cut append shows".to_owned())?;
        one.expect("MKD /d", 257)?;
        ensure(one.command("EPSV")?.code == 229, || "no port".to_owned())?;
        one.expect("APPE /d", 550)?;

        // One to a file that is not there makes it; STOU makes one under a name that it says in its 150 (RFC 1123, section
        // 4.1.2.9), another each time.
        let mut made = BTreeMap::from([("/f".to_owned(), expected), ("/new".to_owned(), noise("new", 90_000))]);
        append(&mut one, "/new", &made["/new"])?;
        for (n, length) in [(0, 70_000), (1, 5)] {
            let bytes = noise(&format!("unique {n}"), length);
            let name = store_unique(cluster, &mut other, &bytes)?;
            ensure(made.insert(name.clone(), bytes).is_none(), || format!("{name} was there before"))?;
        }
        for (path, bytes) in &made {
            ensure(one.get(path)? == *bytes, || format!("{path} has other bytes"))?;
        }
        cluster.settle()?;
        let kept = all_whole(cluster, Surplus::None)?;
        ensure(kept.keys().eq(made.keys()), || format!("{:?} of {:?}", kept.keys(), made.keys()))
    })
}

/// STOU to its end: the name that the server chose.
fn store_unique(cluster: &Cluster, control: &mut Control, bytes: &[u8]) -> Outcome<String> {
    let data = control.passive()?;
    let begun = control.command("STOU")?;
    let name = begun.text.strip_prefix("150 FILE: ").ok_or_else(|| format!("STOU was answered {}", begun.text))?;
    let mut data = data.encrypt(&trust(&cluster.ca)?)?;
    data.write_all(bytes)?;
    data.close()?;
    let reply = control.reply()?;
    ensure(reply.code == 226, || format!("STOU ended with {}", reply.text))?;
    Ok(name.trim_end().to_owned())
}
