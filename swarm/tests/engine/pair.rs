//! A cluster over two machines, each with an engine of its own, played on this machine's engine.

use crate::bed::{Access, Bed, Brought, refused};
use crate::{Outcome, Story, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use swarm::engine::Engine;
use swarm::machines::{self, Machines};
use swarm::{Progress, sweep};

pub(crate) const STORIES: &[Story] = &[("pair::two_hosts_share_a_cluster", two_hosts)];

/// What is stored, by its name.
type Files = BTreeMap<String, Vec<u8>>;

/// In the database, and as files of their own.
const LENGTHS: [usize; 3] = [13, 60_000, 300_000];
/// Stored while both hosts are there, and again while one is not.
const FILES: usize = 9;

fn two_hosts(bed: &Bed) -> Outcome {
    let mut machines = bed.runtime.block_on(async {
        let labels = sweep::labels();
        let image = machines::image(&bed.engine, &labels, &Progress::silent()).await?;
        Machines::start(&bed.engine, &image, 2, &labels, &Progress::silent()).await
    })?;
    let told = told_on(bed, &machines);
    bed.runtime.block_on(machines.stop())?;
    told
}

fn told_on(bed: &Bed, machines: &Machines) -> Outcome {
    let [one, two] = machines.all() else { return Err("not two machines".into()) };
    // The image is on the engine outside only.
    let engines: Vec<Engine> = bed.runtime.block_on(async {
        let first = Engine::connect(&one.host(1)).await?;
        swarm::image::carry(&bed.engine, &first, &bed.image).await?;
        anyhow::Ok(vec![first, Engine::connect(&two.host(1)).await?])
    })?;
    let cluster = bed.cluster("pair", "", &[one.host(3), two.host(2)])?;
    let file = cluster.arguments[3].clone();
    std::fs::write(&file, std::fs::read_to_string(&file)?.replace("zones = 1", "zones = 2"))?;
    let (_, access) = cluster.up()?;
    let text = bed.dir().join("pair");
    std::fs::write(&text, "two hosts")?;
    access.curl_put(0, &text, "pair")?;
    for node in 0..5 {
        ensure(access.curl_get(node, "pair")? == b"two hosts", || "other bytes".to_owned())?;
    }
    let status = cluster.well()?;
    ensure(status["risks"].as_array().is_some_and(Vec::is_empty), || format!("something is at risk: {status}"))?;

    let mut files = Files::from([("pair".to_owned(), b"two hosts".to_vec())]);
    for number in 0..FILES {
        let length = LENGTHS[number % LENGTHS.len()];
        let bytes: Vec<u8> = (0..length).map(|at| (at * (2 * number + 3) / 7 % 251) as u8).collect();
        store(bed, &access, number % 5, &format!("file-{number}"), &bytes, &mut files)?;
    }

    missing_image(bed, &cluster, &engines[1])?;
    // A worker may change nothing.
    let worker =
        bed.swarm(&["up", "--engine", &two.engine, "--state", &bed.dir().join("worker").display().to_string()])?;
    refused(&worker, "name a manager as the first host")?;
    let unknown = cluster.try_run(&["scale", "6", "--host", "h9"])?;
    refused(&unknown, "there is no host h9")?;

    let next = format!("localhost/trebol-node:{}", sweep::named("next"));
    tag(bed, &engines[0], &next)?;
    let written = while_used(&access, &text, || cluster.run(&["update", "--image", &next]).map(drop))?;
    for name in written {
        ensure(access.curl_get(4, &name)? == b"two hosts", || format!("{name} was acknowledged and is not there"))?;
        files.insert(name, b"two hosts".to_vec());
    }
    let status = cluster.well()?;
    let images = status["nodes"].as_array().into_iter().flatten().filter(|node| node["image"] == next.as_str()).count();
    ensure(images == 5, || format!("not all nodes were replaced: {status}"))?;
    each_host_lost(bed, machines, &cluster, &access, files)?;
    cluster.run(&["down", "--volumes"])?;
    for engine in &engines {
        let left = bed.left(engine)?;
        ensure(left.is_empty(), || format!("down leaves {left:?} on {}", engine.host))?;
    }
    Ok(())
}

/// Stores a file through a node.
fn store(bed: &Bed, access: &Access, node: usize, name: &str, bytes: &[u8], files: &mut Files) -> Outcome {
    let place = bed.dir().join("stored");
    std::fs::write(&place, bytes)?;
    access.curl_put(node, &place, name)?;
    files.insert(name.to_owned(), bytes.to_vec());
    Ok(())
}

/// Either host may be lost: everything is readable through the other one, so there is a copy of each file on both. With three
/// nodes left it is writable as well, and what is written then has copies on both hosts once both are there again.
fn each_host_lost(bed: &Bed, machines: &Machines, cluster: &Brought<'_>, access: &Access, files: Files) -> Outcome {
    let [one, two] = machines.all() else { return Err("not two machines".into()) };
    let (on_one, on_two) = (access.on("h1"), access.on("h2"));
    ensure((on_one.len(), on_two.len()) == (3, 2), || format!("other nodes: {:?}", access.nodes))?;
    bed.runtime.block_on(machines.kill(one))?;
    all_through(access, &on_two, &files)?;
    bed.runtime.block_on(machines.start_again(one))?;
    whole_again(cluster)?;

    bed.runtime.block_on(machines.kill(two))?;
    all_through(access, &on_one, &files)?;
    let mut alone = Files::new();
    for number in 0..FILES {
        let bytes = vec![number as u8; LENGTHS[number % LENGTHS.len()]];
        store(bed, access, on_one[number % 3], &format!("alone-{number}"), &bytes, &mut alone)?;
    }
    all_through(access, &on_one, &alone)?;
    let status = cluster.status()?;
    let faults = status["faults"].as_array().cloned().unwrap_or_default();
    let silent = "host h2: no engine answers";
    let told = faults.iter().any(|fault| fault.as_str().is_some_and(|fault| fault.contains(silent)));
    ensure(told && status["files"] == files.len() + alone.len(), || format!("a lost host is not told: {status}"))?;
    let logs = cluster.try_run(&["logs", "h1-1"])?;
    ensure(logs.code == 0 && !logs.stdout.is_empty() && logs.stderr.contains(silent), || format!("{logs:?}"))?;
    for command in [&["up"][..], &["scale", "6"], &["down"]] {
        refused(&cluster.try_run(command)?, silent)?;
    }
    bed.runtime.block_on(machines.start_again(two))?;
    whole_again(cluster)?;
    all_through(access, &[0, 1, 2, 3, 4], &files)?;

    // Of what was written on one host alone, one copy moves, no more. The others would hide that in the sums.
    for name in files.keys() {
        access.curl_delete(0, name)?;
    }
    cluster.until("a copy on each host of what was written on one", |status| {
        let files = alone.len() as u64;
        well(status) && status["files"] == files && copies(status, "h1") == 2 * files && copies(status, "h2") == files
    })?;
    all_through(access, &[0, 1, 2, 3, 4], &alone)
}

/// Waits until all is well and there are three copies of each file, no more.
fn whole_again(cluster: &Brought<'_>) -> Outcome {
    let whole =
        |status: &Value| copies(status, "h1") + copies(status, "h2") == 3 * status["files"].as_u64().unwrap_or(0);
    cluster.until("three copies of every file", |status| well(status) && whole(status)).map(drop)
}

/// Nothing is wrong, and no copy is missing.
fn well(status: &Value) -> bool {
    status["faults"].as_array().is_some_and(Vec::is_empty) && status["missing_copies"] == 0
}

/// The copies on a host.
fn copies(status: &Value, host: &str) -> u64 {
    let nodes = status["nodes"].as_array().into_iter().flatten().filter(|node| node["host"] == host);
    nodes.filter_map(|node| node["copies"].as_u64()).sum()
}

/// Reads every file through one of these nodes, each of them in turn.
fn all_through(access: &Access, nodes: &[usize], files: &Files) -> Outcome {
    for ((name, bytes), node) in files.iter().zip(nodes.iter().cycle()) {
        ensure(access.curl_get(*node, name)? == *bytes, || format!("{name} differs at node {node}"))?;
    }
    Ok(())
}

/// An image that one host lost is carried there again.
fn missing_image(bed: &Bed, cluster: &Brought<'_>, engine: &Engine) -> Outcome {
    bed.runtime.block_on(async {
        let options = bollard::query_parameters::RemoveImageOptionsBuilder::default().force(true).build();
        engine.docker.remove_image(&bed.image, Some(options), None).await
    })?;
    let plan = cluster.run(&["plan"])?;
    ensure(plan == "carry the image from h1 to h2\n", || plan.clone())?;
    let (changes, _) = cluster.up()?;
    ensure(changes == 1, || format!("{changes} changes"))
}

/// Another name for the image, which is another version as far as anybody can tell.
fn tag(bed: &Bed, engine: &Engine, name: &str) -> Outcome {
    let (repository, tag) = name.rsplit_once(':').ok_or("no tag")?;
    let options = bollard::query_parameters::TagImageOptionsBuilder::default().repo(repository).tag(tag).build();
    bed.runtime.block_on(engine.docker.tag_image(&bed.image, Some(options)))?;
    Ok(())
}

/// Reads and writes while something else goes on, as a client does that knows all nodes: what one does not do the next
/// one has to. The names of the files whose writing was acknowledged.
fn while_used(access: &Access, file: &Path, work: impl FnOnce() -> Outcome) -> Outcome<Vec<String>> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut written = Vec::new();
            for number in 0.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let name = format!("during-{number}");
                let mut nodes = (0..5).map(|step| (number + step) % 5);
                nodes.clone().find_map(|node| access.curl_get(node, "pair").ok()).ok_or("no node answers a read")?;
                nodes.find(|node| access.curl_put(*node, file, &name).is_ok()).ok_or("no node takes a write")?;
                written.push(name);
            }
            Ok(written)
        });
        let worked = work();
        over.store(true, Ordering::Relaxed);
        let written: Outcome<Vec<String>> = client.join().map_err(|_| "the client panicked")?;
        worked?;
        let written = written?;
        ensure(written.len() > 20, || format!("only {} files in all that time", written.len()))?;
        Ok(written)
    })
}
