//! A cluster over two machines, each with an engine of its own, played on this machine's engine.

use crate::bed::Bed;
use crate::{Outcome, Story, ensure};
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

    // All nodes are replaced one by one, and somebody reads all the while.
    cluster.run(&["update", "--force"])?;
    ensure(access.curl_get(4, "pair")? == b"two hosts", || "other bytes".to_owned())?;
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
