//! A cluster over two machines, each with an engine of its own, played on this machine's engine.

use crate::bed::{Access, Bed};
use crate::{Outcome, Story, ensure};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use swarm::engine::Engine;
use swarm::machines::{self, Machines};
use swarm::{Progress, sweep};

pub(crate) const STORIES: &[Story] = &[("pair::two_hosts_share_a_cluster", two_hosts)];

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
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    let copies = |host: &str| {
        nodes.iter().filter(|node| node["host"] == host).filter_map(|node| node["copies"].as_u64()).sum::<u64>()
    };
    ensure(copies("h1") > 0 && copies("h2") > 0 && copies("h1") + copies("h2") == 3, || {
        format!("one zone only: {status}")
    })?;
    ensure(status["risks"].as_array().is_some_and(Vec::is_empty), || format!("something is at risk: {status}"))?;

    missing_image(bed, &cluster, &engines[1])?;
    // A worker may change nothing.
    let worker =
        bed.swarm(&["up", "--engine", &two.engine, "--state", &bed.dir().join("worker").display().to_string()])?;
    ensure(worker.stderr.contains("name a manager as the first host"), || worker.stderr.clone())?;
    let unknown = cluster.try_run(&["scale", "6", "--host", "h9"])?;
    ensure(unknown.stderr.contains("there is no host h9"), || unknown.stderr.clone())?;

    let next = format!("localhost/trebol-node:{}", sweep::named("next"));
    tag(bed, &engines[0], &next)?;
    let written = while_used(&access, &text, || cluster.run(&["update", "--image", &next]).map(drop))?;
    for name in written {
        ensure(access.curl_get(4, &name)? == b"two hosts", || format!("{name} was acknowledged and is not there"))?;
    }
    let status = cluster.well()?;
    let images = status["nodes"].as_array().into_iter().flatten().filter(|node| node["image"] == next.as_str()).count();
    ensure(images == 5, || format!("not all nodes were replaced: {status}"))?;
    cluster.run(&["down", "--volumes"])?;
    for engine in &engines {
        let left = bed.left(engine)?;
        ensure(left.is_empty(), || format!("down leaves {left:?} on {}", engine.host))?;
    }
    Ok(())
}

/// An image that one host lost is carried there again.
fn missing_image(bed: &Bed, cluster: &crate::bed::Brought<'_>, engine: &Engine) -> Outcome {
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
