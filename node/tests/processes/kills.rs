//! SIGKILL at every step of what a node does on its disk, and of replicas while files are stored, read and repaired: what was
//! acknowledged is there, whole, on three nodes, and nothing else is.

use crate::cluster::{Cluster, alive, trebol};
use crate::control::Control;
use crate::verify::{Surplus, all_whole, blobs};
use crate::wait::wait_for;
use crate::watched::{Versions, while_read};
use crate::{FAILPOINTS, Outcome, Story, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

/// The tests of this file.
pub(crate) const STORIES: &[Story] = &[
    ("kills::at_each_failpoint_of_the_store", &[FAILPOINTS], at_failpoints),
    ("kills::of_replicas_during_an_upload", &[], during_upload),
    ("kills::of_replicas_during_a_download", &[], during_download),
    ("kills::of_one_more_during_repair", &[], one_during_repair),
    ("kills::of_source_and_target_during_repair", &[], both_during_repair),
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

/// What clients were told is there, and what whoever reads meanwhile may see.
#[derive(Default)]
struct Told(BTreeMap<String, Vec<u8>>, Arc<Versions>);

impl Told {
    fn put(&mut self, session: &mut Control, path: &str, bytes: Vec<u8>) -> Outcome {
        self.1.sends(path, &bytes);
        let reply = session.put(path, &bytes)?;
        ensure(reply.code == 226, || format!("STOR {path} was answered {}", reply.text))?;
        self.stored(path, bytes);
        Ok(())
    }
    fn append(&mut self, session: &mut Control, path: &str, bytes: &[u8]) -> Outcome {
        let whole = [self.0.get(path).map_or(&[][..], Vec::as_slice), bytes].concat();
        self.1.sends(path, &whole);
        let reply = session.give(&format!("APPE {path}"), bytes)?;
        ensure(reply.code == 226, || format!("APPE {path} was answered {}", reply.text))?;
        self.stored(path, whole);
        Ok(())
    }
    /// What was sent is acknowledged.
    fn stored(&mut self, path: &str, bytes: Vec<u8>) {
        self.1.acknowledge(path);
        self.0.insert(path.to_owned(), bytes);
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
        let (mut told, mut reads) = (Told::default(), 0);
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
            let (mut session, reader) = (cluster.session(round % VICTIM)?, cluster.session((round + 1) % VICTIM)?);
            let mut ran = 0;
            let read = while_read(&told.1.clone(), reader, || {
                while alive(victim) && ran < MOST {
                    work(&mut session, &mut told, round, ran)?;
                    ran += 1;
                }
                // What it dies of may come a moment after the work that leads to it.
                wait_for(&format!("the death at {point}"), LONGEST, || {
                    ensure(!alive(victim), || format!("it lives after {ran} operations"))
                })
            })?;
            cluster.await_end(VICTIM)?;
            cluster.restart(VICTIM)?;
            wait_for("all nodes to agree", LONGEST, || cluster.agreed())?;
            println!("{point}: died after {ran} operations and {read} reads of whole versions, and came back");
            reads += read;
        }
        // Some die before anybody can read.
        ensure(reads >= node::store::FAILPOINTS.len(), || format!("{reads} reads in all"))?;
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
            let reply = session.put(&path, &noise(&seed, 280_000))?;
            ensure(reply.code == 226, || format!("STOR {path} was answered {}", reply.text))?;
            session.expect(&format!("DELE {path}"), 250).map(drop)
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

/// One replica, and then two at once, die in the middle of a STOR at a third: it ends with 226, and nothing is lost. Who reads
/// meanwhile sees what was there before, whole, until it is the new version.
fn during_upload() -> Outcome {
    Cluster::run(&[], |cluster| {
        let mut told = Told::default();
        for victims in [1, 2] {
            let (path, bytes) = (format!("/killed-{victims}"), noise(&victims.to_string(), 24 << 20));
            let mut session = cluster.session(0)?;
            told.put(&mut session, &path, noise("before", 2 << 20))?;
            let (mut killed, mut said) = (vec![], String::new());
            let reads = while_read(&told.1.clone(), cluster.session(0)?, || {
                told.1.sends(&path, &bytes);
                let mut data = session.transfer(&format!("STOR {path}"))?;
                data.write_all(&bytes[..12 << 20])?;
                let replicas = wait_for("the replicas to have begun", LONGEST, || {
                    let replicas = staging(cluster, 0, 4 << 20);
                    ensure(replicas.len() >= 2, || format!("{replicas:?}"))?;
                    Ok(replicas)
                })?;
                killed = replicas[..victims].to_vec();
                killed.iter().try_for_each(|node| cluster.nodes[*node].strike())?;
                data.write_all(&bytes[12 << 20..])?;
                data.close()?;
                let reply = session.reply()?;
                ensure(reply.code == 226, || format!("{victims} killed: {}", reply.text))?;
                reply.text.trim_end().clone_into(&mut said);
                told.stored(&path, bytes);
                // And now the new one.
                ensure(cluster.session(0)?.get(&path)? == told.0[&path], || format!("{path} is another"))
            })?;
            println!("{victims} of its replicas killed during STOR: {said}; {reads} reads of whole versions");
            ensure(reads > 0, || "nothing was read meanwhile".to_owned())?;
            for node in killed {
                cluster.await_end(node)?;
                cluster.restart(node)?;
            }
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

/// Who dies while a copy is made in the place of one that died before.
#[derive(Debug, Clone, Copy)]
enum During {
    /// A node that has the file.
    Source,
    /// Who is to have it.
    Target,
    /// Both; the target comes back, for three nodes of five are gone otherwise.
    Both,
}

/// A replica dies, and one more node dies while its copy is made elsewhere. Neither comes back: all three copies in the end
/// are those that were left, and what repair made of them.
fn one_during_repair() -> Outcome {
    repaired(During::Source)?;
    repaired(During::Target)
}

/// The same, where source and target die at once, and one copy is left.
fn both_during_repair() -> Outcome {
    repaired(During::Both)
}

fn repaired(dies: During) -> Outcome {
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
        let (victims, mut gone) = match dies {
            During::Source => (vec![holders[1]], vec![holders[0], holders[1]]),
            During::Target => (vec![target], vec![holders[0], target]),
            During::Both => (vec![target, holders[1]], vec![holders[0], holders[1]]),
        };
        victims.iter().try_for_each(|node| cluster.nodes[*node].strike())?;
        victims.iter().try_for_each(|node| cluster.await_end(*node))?;
        let begun = blobs(cluster, target, bytes.len())?;
        ensure(begun.is_empty(), || format!("{target} had its copy before anybody died"))?;
        let reader = (0..5).find(|node| ![holders[0], holders[1], target].contains(node)).ok_or("nobody is left")?;
        ensure(cluster.session(reader)?.get("/file")? == bytes, || "other bytes from the last copy".to_owned())?;
        for node in victims.iter().filter(|node| !gone.contains(node)) {
            cluster.restart(*node)?;
        }
        let left: Vec<usize> = (0..5).filter(|node| !gone.contains(node)).collect();
        wait_for("copies on all that are left", LONGEST, || {
            let without = |node: &&usize| blobs(cluster, **node, bytes.len()).is_ok_and(|found| found.is_empty());
            let without: Vec<_> = left.iter().filter(without).collect();
            ensure(without.is_empty(), || format!("none on {without:?}"))
        })?;
        println!(
            "repair: {} died for good, {victims:?} ({dies:?}) meanwhile; copies on {left:?} in the end",
            holders[0]
        );
        // They will not come back: judged by what the others have.
        let data = cluster.nodes[left[0]].data.to_str().ok_or("a data directory that is no text")?.to_owned();
        gone.sort_unstable();
        for node in gone.into_iter().rev() {
            let name = cluster.nodes.remove(node).name;
            wait_for("it to be forgotten", LONGEST, || {
                let (status, said) = trebol(&["forget", &name, "--data", &data], &[])?;
                ensure(status.success(), || said)
            })?;
        }
        told.is_there(cluster)
    })
}
