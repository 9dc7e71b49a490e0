//! Two writers to one path, readers beside them: whole versions only, and the later commit is what everybody sees.

use crate::cluster::Cluster;
use crate::wait::wait_for;
use crate::{Outcome, Story, ensure};
use libtest_mimic::Failed;
use std::collections::BTreeSet;
use std::io::Write;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

/// The tests of this file.
pub(crate) const STORIES: &[Story] = &[("writers::of_one_path_are_serialised", &[], two_writers)];

/// Versions that each writer writes.
const VERSIONS: u8 = 15;
/// Where.
const PATH: &str = "/contended";

/// A version: `marker` all over, in a length of its own; odd ones are files, even ones live in the database.
fn version(marker: u8) -> Vec<u8> {
    vec![marker; if marker % 2 == 1 { 200_000 } else { 10_000 } + usize::from(marker)]
}

/// The marker of a whole version.
fn marker(bytes: &[u8]) -> Outcome<u8> {
    let marker = *bytes.first().ok_or("an empty version")?;
    ensure(bytes == version(marker), || format!("{} bytes that begin with {marker} are no version", bytes.len()))?;
    Ok(marker)
}

fn two_writers() -> Outcome {
    Cluster::run(&[], |cluster| {
        cluster.session(0)?.put(PATH, &version(0))?;
        let (writing, seen) = (AtomicBool::new(true), Mutex::new(BTreeSet::new()));
        std::thread::scope(|scope| -> Outcome {
            let (cluster, writing, seen) = (&*cluster, &writing, &seen);
            let readers = [2, 3, 4].map(|node| scope.spawn(move || read(cluster, node, writing, seen)));
            let writers = [(0, 1..VERSIONS), (1, VERSIONS..2 * VERSIONS)]
                .map(|(node, markers)| scope.spawn(move || write(cluster, node, markers)));
            let wrote = writers.map(ScopedJoinHandle::join);
            writing.store(false, Ordering::Relaxed);
            for ended in wrote.into_iter().chain(readers.map(ScopedJoinHandle::join)) {
                ended.map_err(|_| "a thread panicked")??;
            }
            Ok(())
        })?;
        let seen = seen.into_inner()?;
        ensure(seen.len() > 2, || format!("the readers saw only {seen:?}"))?;

        let last = marker(&cluster.session(4)?.get(PATH)?)?;
        ensure([VERSIONS - 1, 2 * VERSIONS - 1].contains(&last), || {
            format!("{last} is neither writer's last version")
        })?;
        for node in 0..5 {
            let there = marker(&cluster.session(node)?.get(PATH)?)?;
            ensure(there == last, || format!("node {node} shows {there}, another {last}"))?;
        }
        waits_for_the_lock(cluster)
    })
}

fn write(cluster: &Cluster, node: usize, markers: Range<u8>) -> Outcome {
    let mut session = cluster.session(node)?;
    for marker in markers.clone() {
        let reply = session.put(PATH, &version(marker))?;
        ensure(reply.code == 226, || reply.text)?;
        // What was acknowledged or the other's, never something older of our own.
        let read = self::marker(&session.get(PATH)?)?;
        ensure(read == marker || !markers.contains(&read), || format!("wrote {marker}, read {read} after it"))?;
    }
    Ok(())
}

fn read(cluster: &Cluster, node: usize, writing: &AtomicBool, seen: &Mutex<BTreeSet<u8>>) -> Outcome {
    let mut session = cluster.session(node)?;
    while writing.load(Ordering::Relaxed) {
        let marker = marker(&session.get(PATH)?)?;
        seen.lock().map_err(|_| "a reader panicked")?.insert(marker);
    }
    Ok(())
}

/// A second writer waits while the first one is at it, and its version is the later one on every node at once.
fn waits_for_the_lock(cluster: &Cluster) -> Outcome {
    let (first, second) = (version(201), version(203));
    let mut one = cluster.session(1)?;
    let mut data = one.transfer(&format!("STOR {PATH}"))?;
    data.write_all(&first[..first.len() / 2])?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| -> Outcome {
        let (second, done) = (&second, &done);
        let waiting = scope.spawn(move || {
            let reply = cluster.session(2)?.put(PATH, second);
            done.store(true, Ordering::Relaxed);
            reply
        });
        // Nothing to wait for shows that somebody waits: a second in which it would long have been done has to do.
        let early = wait_for("nothing", Duration::from_secs(1), || {
            ensure(done.load(Ordering::Relaxed), || "it waits, as it should".to_owned())
        });
        ensure(early.is_err(), || "the second writer did not wait for the first".to_owned())?;
        data.write_all(&first[first.len() / 2..])?;
        data.close()?;
        let reply = one.reply()?;
        ensure(reply.code == 226, || reply.text)?;
        let reply = waiting.join().map_err(|_| Failed::from("the second writer panicked"))??;
        ensure(reply.code == 226, || reply.text)
    })?;
    for node in 0..5 {
        let there = marker(&cluster.session(node)?.get(PATH)?)?;
        ensure(there == 203, || format!("node {node} shows {there} after the commit of 203"))?;
    }
    Ok(())
}
