//! Nodes leave, one by one or a zone at once: a node is drained under load, zones come to be and one of them dies.

use crate::cluster::{Cluster, trebol};
use crate::verify::{Surplus, all_whole, blobs};
use crate::wait::wait_for;
use crate::{Outcome, Story, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use tokio::time::Instant;

/// The tests of this file.
pub(crate) const STORIES: &[Story] = &[
    ("leave::a_node_is_drained_under_load_and_nothing_fails", &[], drained),
    ("leave::a_whole_zone_dies_and_everything_is_readable", &[], zone_dies),
];

/// For copies to be where they are to be.
const LONGEST: Duration = Duration::from_secs(120);
/// Files there before anything leaves.
const FILES: usize = 60;
/// What files are called whose nodes become zones.
const ZONED: &str = "zoned";
/// Who is drained.
const LEAVES: usize = 2;

/// Every other file is a file of its own on the disks, each of another length; the others live in databases.
fn content(seed: &str, n: usize) -> Vec<u8> {
    let mut bytes = vec![0; if is_large(n) { 400_000 } else { 2_000 } + n];
    blake3::Hasher::new().update(format!("{seed} {n}").as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn is_large(n: usize) -> bool {
    n.is_multiple_of(2)
}

fn put(cluster: &Cluster, node: usize, seed: &str, numbers: std::ops::Range<usize>) -> Outcome {
    let mut session = cluster.session(node)?;
    for n in numbers {
        let reply = session.put(&format!("/{seed}-{n}"), &content(seed, n))?;
        ensure(reply.code == 226, || format!("STOR {seed}-{n} at node {node}: {}", reply.text))?;
    }
    Ok(())
}

/// What a node says of another.
fn member(cluster: &Cluster, node: usize, of: usize) -> Outcome<Value> {
    let status = cluster.status(node)?;
    let members = status["members"].as_array().ok_or("no members")?;
    let named = members.iter().find(|m| m["info"]["name"] == cluster.nodes[of].name.as_str());
    Ok(named.ok_or_else(|| format!("{} is not in {status}", cluster.nodes[of].name))?.clone())
}

fn data(cluster: &Cluster, node: usize) -> Outcome<String> {
    Ok(cluster.nodes[node].data.to_str().ok_or("a data directory that is no text")?.to_owned())
}

/// Clients at every node, that of the drained one too, store, append, read and delete until it is empty. Then it is stopped
/// and forgotten, and the rest has three copies of everything.
fn drained() -> Outcome {
    Cluster::run(&[], |cluster| {
        put(cluster, 0, "before", 0..FILES)?;
        cluster.settle()?;
        let had = member(cluster, 0, LEAVES)?["copies"].as_u64().unwrap_or_default();
        ensure(had > 0, || format!("nothing to drain: {had} copies"))?;
        let (name, at) = (cluster.nodes[LEAVES].name.clone(), data(cluster, 0)?);

        let (over, done) = (AtomicBool::new(false), AtomicUsize::new(0));
        let began = Instant::now();
        let stored = thread::scope(|scope| -> Outcome<Vec<usize>> {
            let clients: Vec<_> = (0..5)
                .map(|node| {
                    let (cluster, over, done) = (&*cluster, &over, &done);
                    scope.spawn(move || work(cluster, node, over, done))
                })
                .collect();
            let busy = wait_for("clients at work", LONGEST, || {
                ensure(done.load(Ordering::Relaxed) >= 20, || "few operations yet".to_owned())
            });
            let ran = busy.and_then(|()| trebol(&["drain", &name, "--data", &at], &[]));
            over.store(true, Ordering::Relaxed);
            let counts = clients.into_iter().map(|client| client.join().map_err(|_| "a client panicked")?);
            let counts = counts.collect::<Outcome<Vec<usize>>>()?;
            let (status, said) = ran?;
            ensure(status.success() && said.contains("is empty"), || said)?;
            Ok(counts)
        })?;
        println!(
            "drain: {had} copies moved in {:.1} s, {} operations of clients meanwhile",
            began.elapsed().as_secs_f64(),
            done.load(Ordering::Relaxed)
        );
        // Clients went on after it was empty: what node 0 says waits until it has the last of their records.
        wait_for("node 0 to say so, too", LONGEST, || {
            let of = member(cluster, 0, LEAVES)?;
            ensure(of["draining"] == "done" && of["copies"] == 0, || format!("{of}"))
        })?;

        cluster.terminate(LEAVES)?;
        wait_for("it to be down", LONGEST, || {
            let of = member(cluster, 0, LEAVES)?;
            ensure(of["liveness"] == "down", || format!("{of}"))
        })?;
        // The leader may see it down a moment later than node 0.
        wait_for("it to be forgotten", LONGEST, || {
            let (status, said) = trebol(&["forget", &name, "--data", &at], &[])?;
            ensure(status.success(), || said)
        })?;
        cluster.nodes.remove(LEAVES);
        cluster.settle()?;
        let mut session = cluster.session(0)?;
        for n in 0..FILES {
            ensure(session.get(&format!("/before-{n}"))? == content("before", n), || format!("before-{n} is another"))?;
        }
        let kept = all_whole(cluster, Surplus::AfterDeath)?;
        let files = FILES + stored.iter().sum::<usize>();
        ensure(kept.len() == files, || format!("{} files of {files}", kept.len()))
    })
}

/// One client at one node: how many files it leaves. Fails with the first operation that does.
fn work(cluster: &Cluster, node: usize, over: &AtomicBool, done: &AtomicUsize) -> Outcome<usize> {
    let seed = format!("client{node}");
    let mut session = cluster.session(node)?;
    let mut kept = 0;
    for n in 0..10_000 {
        if over.load(Ordering::Relaxed) && kept > 0 {
            return Ok(kept);
        }
        let path = format!("/{seed}-{n}");
        let mut bytes = content(&seed, n);
        let reply = session.put(&path, &bytes)?;
        ensure(reply.code == 226, || format!("STOR {path}: {}", reply.text))?;
        let reply = session.give(&format!("APPE {path}"), b"more")?;
        ensure(reply.code == 226, || format!("APPE {path}: {}", reply.text))?;
        bytes.extend(b"more");
        ensure(session.get(&path)? == bytes, || format!("{path} has other bytes at node {node}"))?;
        let old = content("before", n % FILES);
        ensure(session.get(&format!("/before-{}", n % FILES))? == old, || format!("before-{} is another", n % FILES))?;
        if n % 3 == 0 {
            session.expect(&format!("DELE {path}"), 250)?;
        } else {
            kept += 1;
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(kept)
}

/// What a stopped node has a copy of, as `verify` sees it.
fn held(cluster: &Cluster, node: usize) -> Outcome<BTreeSet<String>> {
    let (status, said) = trebol(&["verify", "--json", "--data", &data(cluster, node)?], &[])?;
    ensure(status.success(), || said.clone())?;
    let rows = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let held = rows.filter(|row| row["holds"] == true && row["ok"] == true);
    Ok(held.filter_map(|row| row["path"].as_str().map(str::to_owned)).collect())
}

/// Five nodes, each a zone of its own, become two zones: what was on the three of one of them alone moves. Then these die.
fn zone_dies() -> Outcome {
    Cluster::run(&[], |cluster| {
        put(cluster, 0, ZONED, 0..FILES)?;
        cluster.settle()?;
        let has = |cluster: &Cluster, node: usize, n: usize| {
            blobs(cluster, node, content(ZONED, n).len()).is_ok_and(|found| !found.is_empty())
        };
        // The zone that dies is made of the three nodes of one file at least.
        let (dying, left): (Vec<usize>, Vec<usize>) = (0..5).partition(|node| has(cluster, *node, 0));
        ensure(dying.len() == 3, || format!("the first file is on {dying:?}"))?;
        let missing = |cluster: &Cluster| -> Vec<usize> {
            let large = (0..FILES).filter(|n| is_large(*n));
            large.filter(|n| !left.iter().any(|node| has(cluster, *node, *n))).collect()
        };
        let moved = missing(cluster).len();
        let began = Instant::now();
        for node in 0..5 {
            let zone = if dying.contains(&node) { "a" } else { "b" };
            cluster.terminate(node)?;
            cluster.restart_with(node, &[("TREBOL_ZONE", zone)])?;
            // One at a time, as an operator would: nobody is without its files.
            cluster.settle()?;
        }
        let of = member(cluster, 0, dying[0])?;
        ensure(of["info"]["zone"] == "a", || format!("{of}"))?;
        wait_for("a copy of everything in either zone", LONGEST, || {
            let missing = missing(cluster);
            ensure(missing.is_empty(), || format!("{missing:?} are not in zone b"))
        })?;
        println!(
            "zones: {moved} of {} large files were in one alone, none after {:.1} s and five restarts",
            FILES / 2,
            began.elapsed().as_secs_f64()
        );
        // Small ones are seen by nobody but their node while it runs.
        wait_for("a copy of every small file in zone b", LONGEST, || {
            let mut there = BTreeSet::new();
            for node in &left {
                cluster.settle()?;
                cluster.terminate(*node)?;
                let held = held(cluster, *node);
                cluster.restart_with(*node, &[("TREBOL_ZONE", "b")])?;
                there.extend(held?);
            }
            cluster.settle()?;
            let missing: Vec<_> = (0..FILES).map(|n| format!("/{ZONED}-{n}")).filter(|f| !there.contains(f)).collect();
            ensure(missing.is_empty(), || format!("{missing:?} are not in zone b"))
        })?;
        dying.iter().try_for_each(|node| cluster.kill(*node))?;
        for node in &left {
            let mut session = cluster.session(*node)?;
            for n in 0..FILES {
                let got = session.get(&format!("/{ZONED}-{n}"))?;
                ensure(got == content(ZONED, n), || format!("{ZONED}-{n} is another through node {node}"))?;
            }
        }
        dying.iter().try_for_each(|node| cluster.restart_with(*node, &[("TREBOL_ZONE", "a")]))?;
        cluster.settle()?;
        let kept = all_whole(cluster, Surplus::AfterDeath)?;
        ensure(kept.len() == FILES, || format!("{} files of {FILES}", kept.len()))
    })
}
