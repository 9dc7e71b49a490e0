//! SIGKILL at every step of what a node does on its disk, and of replicas while files are stored, read and repaired: what was
//! acknowledged is there, whole, on three nodes, and nothing else is.

use crate::cluster::{Cluster, alive};
use crate::control::Control;
use crate::verify::{Surplus, all_whole, blobs};
use crate::wait::wait_for;
use crate::{FAILPOINTS, Outcome, Story, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::time::Duration;

/// The tests of this file.
pub(crate) const STORIES: &[Story] = &[
    ("kills::at_each_failpoint_of_the_store", &[FAILPOINTS], at_failpoints),
    ("kills::of_replicas_during_an_upload", &[], during_upload),
    ("kills::of_replicas_during_a_download", &[], during_download),
    ("kills::of_source_and_target_during_repair", &[], during_repair),
];

/// For anything that should take seconds.
const LONGEST: Duration = Duration::from_secs(120);
/// Who dies at the failpoints.
const VICTIM: usize = 3;
/// Operations of one round at most.
const MOST: usize = 400;

fn noise(seed: &str, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// What clients were told is there.
#[derive(Default)]
struct Told(BTreeMap<String, Vec<u8>>);

impl Told {
    fn put(&mut self, session: &mut Control, path: &str, bytes: Vec<u8>) -> Outcome {
        let reply = session.put(path, &bytes)?;
        ensure(reply.code == 226, || format!("STOR {path} was answered {}", reply.text))?;
        self.0.insert(path.to_owned(), bytes);
        Ok(())
    }
    fn append(&mut self, session: &mut Control, path: &str, bytes: &[u8]) -> Outcome {
        let reply = session.give(&format!("APPE {path}"), bytes)?;
        ensure(reply.code == 226, || format!("APPE {path} was answered {}", reply.text))?;
        self.0.entry(path.to_owned()).or_default().extend(bytes);
        Ok(())
    }
    /// Through every node, and then on the stopped nodes' disks.
    fn is_there(&self, cluster: &mut Cluster) -> Outcome {
        cluster.settle()?;
        for node in 0..cluster.nodes.len() {
            let mut session = cluster.session(node)?;
            for (path, bytes) in &self.0 {
                ensure(session.get(path)? == *bytes, || format!("{path} has other bytes through node {node}"))?;
            }
        }
        let kept = all_whole(cluster, Surplus::AfterDeath)?;
        ensure(kept.len() == self.0.len(), || format!("{} files of {}", kept.len(), self.0.len()))
    }
}

/// One node dies at one point after the other, while clients of others store, replace, append and delete; each time it comes
/// back by itself.
fn at_failpoints() -> Outcome {
    // What is replaced goes at once, for that is a step, too.
    Cluster::run(&[("TREBOL_CORE_REPLACED_GRACE_S", "1")], |cluster| {
        let mut told = Told::default();
        for (round, point) in node::store::FAILPOINTS.iter().enumerate() {
            // A client's own node gets a copy: what grows is there, too.
            told.put(&mut cluster.session(VICTIM)?, &grows(round), noise("begins", 500))?;
            cluster.terminate(VICTIM)?;
            // Not the first batch of a start, but one in the middle of the work.
            let nth = if point.starts_with("batch") { ":40" } else { "" };
            cluster.restart_with(VICTIM, &[("TREBOL_FAILPOINT", &format!("{point}{nth}"))])?;
            let victim = cluster.nodes[VICTIM].pid;
            // In the middle of the work everybody takes part in it.
            wait_for("all nodes to agree, or the death of one", LONGEST, || {
                if alive(victim) { cluster.agreed().map(drop) } else { Ok(()) }
            })?;
            let mut session = cluster.session(round % VICTIM)?;
            let mut ran = 0;
            while alive(victim) && ran < MOST {
                work(&mut session, &mut told, round, ran)?;
                ran += 1;
            }
            // What it dies of may come a moment after the work that leads to it.
            wait_for(&format!("the death at {point}"), LONGEST, || {
                ensure(!alive(victim), || format!("it lives after {ran} operations"))
            })?;
            cluster.await_end(VICTIM)?;
            cluster.restart(VICTIM)?;
            wait_for("all nodes to agree", LONGEST, || cluster.agreed())?;
            println!("{point}: died after {ran} operations and came back");
        }
        told.is_there(cluster)
    })
}

fn grows(round: usize) -> String {
    format!("/grows-{round}")
}

/// One step of what clients do: small files and large ones, new and replaced, and a file that grows.
fn work(session: &mut Control, told: &mut Told, round: usize, n: usize) -> Outcome {
    let seed = format!("{round} {n}");
    match n % 4 {
        0 => told.put(session, &format!("/small-{}", n % 16), noise(&seed, 3000 + n)),
        1 => told.put(session, &format!("/large-{}", n % 8), noise(&seed, 300_000 + n)),
        2 => told.append(session, &grows(round), &noise(&seed, 500)),
        _ => {
            let path = format!("/gone-{}", n % 8);
            told.put(session, &path, noise(&seed, 280_000))?;
            session.expect(&format!("DELE {path}"), 250)?;
            told.0.remove(&path);
            Ok(())
        }
    }
}

/// The nodes other than `but` that hold, or are about to hold, a blob of at least so many bytes.
fn staging(cluster: &Cluster, but: usize, least: u64) -> Vec<usize> {
    let holds = |node: &usize| {
        let directory = cluster.nodes[*node].data.join("staging");
        let files = fs::read_dir(directory).into_iter().flatten().flatten();
        files.into_iter().any(|file| file.metadata().is_ok_and(|m| m.len() >= least))
    };
    (0..cluster.nodes.len()).filter(|node| *node != but).filter(holds).collect()
}

/// Stores `/file`: the three nodes that hold it, and the others.
fn stored(cluster: &Cluster, told: &mut Told, bytes: &[u8]) -> Outcome<(Vec<usize>, Vec<usize>)> {
    told.put(&mut cluster.session(0)?, "/file", bytes.to_vec())?;
    cluster.settle()?;
    let has = |node: &usize| blobs(cluster, *node, bytes.len()).is_ok_and(|found| !found.is_empty());
    let (holders, others): (Vec<usize>, Vec<usize>) = (0..5).partition(has);
    ensure(holders.len() == 3, || format!("on {holders:?}"))?;
    Ok((holders, others))
}

/// One replica, and then two at once, die in the middle of a STOR at a third: it ends with 226, and nothing is lost.
fn during_upload() -> Outcome {
    Cluster::run(&[], |cluster| {
        let mut told = Told::default();
        for victims in [1, 2] {
            let (path, bytes) = (format!("/killed-{victims}"), noise(&victims.to_string(), 24 << 20));
            let mut session = cluster.session(0)?;
            let mut data = session.transfer(&format!("STOR {path}"))?;
            data.write_all(&bytes[..12 << 20])?;
            let replicas = wait_for("the replicas to have begun", LONGEST, || {
                let replicas = staging(cluster, 0, 4 << 20);
                ensure(replicas.len() >= 2, || format!("{replicas:?}"))?;
                Ok(replicas)
            })?;
            replicas[..victims].iter().try_for_each(|node| cluster.kill(*node))?;
            data.write_all(&bytes[12 << 20..])?;
            data.close()?;
            let reply = session.reply()?;
            ensure(reply.code == 226, || format!("{victims} killed: {}", reply.text))?;
            println!("{victims} of its replicas killed during STOR: {}", reply.text.trim_end());
            told.0.insert(path, bytes);
            replicas[..victims].iter().try_for_each(|node| cluster.restart(*node))?;
            wait_for("all nodes to agree", LONGEST, || cluster.agreed())?;
        }
        told.is_there(cluster)
    })
}

/// Two of three replicas die, one after the other, while a node that has no copy sends the file on.
fn during_download() -> Outcome {
    Cluster::run(&[], |cluster| {
        let mut told = Told::default();
        // More than any buffer on the way holds.
        let bytes = noise("download", 96 << 20);
        let (holders, others) = stored(cluster, &mut told, &bytes)?;
        let mut session = cluster.session(others[0])?;
        let mut data = session.transfer("RETR /file")?;
        let mut got = vec![0; 4 << 20];
        data.read_exact(&mut got)?;
        // Whichever it is read from, it is one of these sooner or later.
        for (victim, upto) in [(holders[0], 40 << 20), (holders[1], 80 << 20)] {
            cluster.kill(victim)?;
            let from = got.len();
            got.resize(upto, 0);
            data.read_exact(&mut got[from..])?;
        }
        data.read_to_end(&mut got)?;
        let reply = session.reply()?;
        ensure(reply.code == 226 && got == bytes, || format!("{} bytes, {}", got.len(), reply.text))?;
        holders[..2].iter().try_for_each(|node| cluster.restart(*node))?;
        told.is_there(cluster)
    })
}

/// A replica dies for good, as far as the others know; who is to have its copy dies while it fetches it, and then the node
/// that it fetches from.
fn during_repair() -> Outcome {
    let soon = [("TREBOL_CORE_REPAIR_AFTER_S", "1"), ("TREBOL_CORE_REPAIR_LAST_COPY_S", "1")];
    Cluster::run(&soon, |cluster| {
        let mut told = Told::default();
        let bytes = noise("repair", 200 << 20);
        let (holders, _) = stored(cluster, &mut told, &bytes)?;
        cluster.kill(holders[0])?;
        let target = wait_for("a copy to be under way", LONGEST, || {
            let targets = staging(cluster, holders[0], 1 << 20);
            targets.first().copied().ok_or_else(|| "nobody fetches it".into())
        })?;
        cluster.kill(target)?;
        cluster.kill(holders[1])?;
        println!("repair: node {target} died while it fetched what {} had, and so did a source", holders[0]);
        let reader = (0..5).find(|node| ![holders[0], holders[1], target].contains(node)).ok_or("nobody is left")?;
        ensure(cluster.session(reader)?.get("/file")? == bytes, || "other bytes from the last copy".to_owned())?;
        [holders[0], holders[1], target].iter().try_for_each(|node| cluster.restart(*node))?;
        told.is_there(cluster)
    })
}
