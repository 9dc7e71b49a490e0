//! Five nodes on this machine's own engine, which is in no swarm before and in none afterwards.

use crate::bed::{self, Access, Bed, Brought};
use crate::{Outcome, Story, ensure};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

pub(crate) const STORIES: &[Story] = &[
    ("alone::five_nodes_up_used_scaled_and_gone", five_nodes),
    ("alone::a_taken_port_and_an_interrupted_up_are_gone_on_with", gone_on_with),
];

/// Files that are stored at most until every node has a copy of one.
const MORE: usize = 80;

fn five_nodes(bed: &Bed) -> Outcome {
    let before = bed.left(&bed.engine)?;
    ensure(before.is_empty(), || format!("the engine is not bare: {before:?}"))?;
    let cluster = bed.cluster("five", "", &[])?;
    let plan = cluster.run(&["plan", "--image", &bed.image])?;
    ensure(plan.starts_with("begin a swarm on h1\n") && plan.contains("start node h1-5\n"), || plan.clone())?;
    ensure(bed.left(&bed.engine)?.is_empty(), || "plan changed something".to_owned())?;

    // As people do it, but for the profile: built from this workspace, and told in words.
    let told = cluster.run(&["up", "--profile", bed::PROFILE])?;
    let (changes, access) = cluster.up()?;
    ensure(changes == 0 && access.nodes.len() == 5, || format!("{changes} changes, {:?}", access.nodes))?;
    as_printed(bed, &access, &told)?;
    inspected(bed)?;
    let (small, large) = (bed.dir().join("small"), bed.dir().join("large"));
    std::fs::write(&small, "three leaves\n")?;
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(&large, &bytes)?;
    access.curl_put(0, &small, "small")?;
    ensure(access.curl_get(3, "small")? == b"three leaves\n", || "curl fetches other bytes".to_owned())?;
    access.lftp(1, &format!("put {} -o large", large.display()))?;
    let fetched = bed.dir().join("fetched");
    access.lftp(4, &format!("get large -o {}", fetched.display()))?;
    ensure(std::fs::read(&fetched)? == bytes, || "lftp fetches other bytes".to_owned())?;

    let again = cluster.run(&["up"])?;
    ensure(again.starts_with("nothing changed\n"), || format!("a second up: {again}"))?;
    ensure(cluster.run(&["plan"])?.contains("nothing would change"), || "plan sees a difference".to_owned())?;
    let logs = cluster.run(&["logs", "h1-1", "--tail", "50"])?;
    ensure(logs.contains("up"), || format!("no word in the log: {logs}"))?;

    cluster.run(&["scale", "7"])?;
    let more = fill(&cluster, &access, &small)?;
    cluster.run(&["scale", "5"])?;
    let five = cluster.well()?;
    ensure(copies(&five, "").len() == 5, || format!("not five nodes: {five}"))?;
    let (files, missing) = (five["files"].as_u64(), five["missing_copies"].as_u64());
    let whole = copies(&five, "").iter().sum::<u64>() == 3 * files.unwrap_or_default();
    ensure(files == Some(3 + more as u64) && missing == Some(0) && whole, || format!("not three copies each: {five}"))?;
    for number in 0..more {
        let fetched = access.curl_get(4 - number % 5, &format!("more-{number}"))?;
        ensure(fetched == b"three leaves\n", || format!("more-{number} is not what it was"))?;
    }
    all_gone(bed, &cluster)
}

/// Stores files until both nodes that are to go have copies of some; how many it took.
fn fill(cluster: &Brought<'_>, access: &Access, file: &Path) -> Outcome<usize> {
    let mut stored = 0;
    while stored < MORE {
        for _ in 0..8 {
            access.curl_put(stored % 5, file, &format!("more-{stored}"))?;
            stored += 1;
        }
        let seven = cluster.well()?;
        ensure(copies(&seven, "").len() == 7, || seven.to_string())?;
        if ["h1-6", "h1-7"].iter().all(|node| copies(&seven, node).iter().all(|copies| *copies > 0)) {
            return Ok(stored);
        }
    }
    Err(format!("{stored} files, and no copy of them on one of the new nodes").into())
}

/// The copies on each node whose name begins like this.
fn copies(status: &Value, node: &str) -> Vec<u64> {
    let nodes = status["nodes"].as_array().into_iter().flatten();
    let named = nodes.filter(|seen| seen["node"].as_str().is_some_and(|name| name.starts_with(node)));
    named.filter_map(|seen| seen["copies"].as_u64()).collect()
}

/// What `up` prints names all nodes, and its two commands work as they stand.
fn as_printed(bed: &Bed, access: &Access, told: &str) -> Outcome {
    for (node, ftp) in &access.nodes {
        let named = told.lines().any(|line| line.split_whitespace().eq([node.as_str(), ftp.as_str()]));
        ensure(named, || format!("{node} at {ftp} is not in {told}"))?;
    }
    let commands: Vec<&str> = told.lines().filter_map(|line| line.trim().strip_prefix("curl ")).collect();
    ensure(commands.len() == 2, || format!("not two commands: {told}"))?;
    let (here, there) = (bed.dir().join("here"), bed.dir().join("there"));
    for place in [&here, &there] {
        std::fs::create_dir(place)?;
    }
    std::fs::write(here.join("FILE"), "as printed")?;
    for (command, place) in commands.into_iter().zip([&here, &there]) {
        let script = format!("curl --silent --show-error --max-time 60 {command}");
        let output = Command::new("sh").arg("-c").arg(script).current_dir(place).stdin(Stdio::null()).output()?;
        ensure(output.status.success(), || format!("{command}: {}", String::from_utf8_lossy(&output.stderr)))?;
    }
    ensure(std::fs::read(there.join("FILE"))? == b"as printed", || "other bytes".to_owned())
}

/// What the image says of itself, and whom it runs as.
fn inspected(bed: &Bed) -> Outcome {
    let seen = bed.runtime.block_on(bed.engine.docker.inspect_image(&bed.image))?;
    let config = seen.config.ok_or("an image without a configuration")?;
    let health = config.healthcheck.and_then(|health| health.test).unwrap_or_default();
    let user = config.user.unwrap_or_default();
    ensure(health == ["CMD", "trebol", "healthcheck"], || format!("HEALTHCHECK is {health:?}"))?;
    ensure(user.split(':').next().is_some_and(|id| id.parse().is_ok_and(|id: u32| id > 0)), || {
        format!("it runs as {user:?}")
    })?;
    ensure(config.stop_signal.as_deref() == Some("SIGTERM"), || format!("STOPSIGNAL is {:?}", config.stop_signal))?;
    let labels = config.labels.unwrap_or_default();
    for label in ["title", "description", "licenses", "version"] {
        let label = format!("org.opencontainers.image.{label}");
        ensure(labels.contains_key(&label), || format!("there is no {label} in {labels:?}"))?;
    }
    Ok(())
}

/// `down --volumes` leaves nothing, the image built here and what this machine keeps included.
fn all_gone(bed: &Bed, cluster: &Brought<'_>) -> Outcome {
    ensure(bed.has(&bed.engine, &bed.image), || "there was no image".to_owned())?;
    let state = bed.dir().join(bed.name("five"));
    ensure(state.join("pki/ca.pem").exists(), || "this machine keeps no authority".to_owned())?;
    cluster.run(&["down", "--volumes"])?;
    let left = bed.left(&bed.engine)?;
    ensure(left.is_empty() && !bed.has(&bed.engine, &bed.image), || format!("down leaves {left:?}, or the image"))?;
    ensure(!state.exists(), || format!("down leaves {}", state.display()))?;
    bed.image_again()
}

/// `down --volumes` leaves nothing.
fn gone(bed: &Bed, cluster: &Brought<'_>) -> Outcome {
    cluster.run(&["down", "--volumes", "--keep-images"])?;
    let left = bed.left(&bed.engine)?;
    ensure(left.is_empty(), || format!("down leaves {left:?}"))?;
    let again = cluster.run(&["down", "--volumes", "--keep-images"])?;
    ensure(again == "there was nothing\n", || again.clone())
}

fn gone_on_with(bed: &Bed) -> Outcome {
    let cluster = bed.cluster("half", "", &[swarm::Host::local("h1".parse().map_err(|_| "no name")?, 3)])?;
    interrupt(bed, &cluster)?;
    let (_, access) = cluster.up()?;
    let file = bed.dir().join("half");
    std::fs::write(&file, "whole")?;
    access.curl_put(1, &file, "half")?;
    ensure(access.curl_get(2, "half")? == b"whole", || "other bytes".to_owned())?;

    // Files outlive a cluster that is taken down without its volumes.
    cluster.run(&["down"])?;
    let asked: swarm::Cluster = toml::from_str(&std::fs::read_to_string(&cluster.arguments[3])?)?;
    let port = asked.ftp_port(&"h1-2".parse()?);
    let taken = TcpListener::bind(("0.0.0.0", port))?;
    let ran = cluster.try_run(&["up", "--image", &bed.image])?;
    let sentence = format!("node h1-2: port {port} is taken on host h1");
    ensure(ran.code == 1 && ran.stderr.contains(&sentence), || format!("{}: {}", ran.code, ran.stderr))?;
    drop(taken);
    let (_, access) = cluster.up()?;
    ensure(access.curl_get(0, "half")? == b"whole", || "files did not outlive down".to_owned())?;
    gone(bed, &cluster)?;
    // The other way on from there.
    interrupt(bed, &cluster)?;
    gone(bed, &cluster)
}

/// Ctrl-C while nodes are being started.
fn interrupt(bed: &Bed, cluster: &Brought<'_>) -> Outcome {
    let mut child = bed
        .command(&cluster.all(&["up", "--image", &bed.image]))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut said = Vec::new();
    for line in BufReader::new(child.stderr.take().ok_or("no stderr")?).lines() {
        let line = line?;
        if line.contains("start node h1-2") {
            let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw).ok_or("no pid")?;
            rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
        }
        said.push(line);
    }
    let status = child.wait()?;
    let last = said.last().cloned().unwrap_or_default();
    ensure(status.code() == Some(1) && last.contains("interrupted: the same command goes on from here"), || {
        format!("{status}: {said:?}")
    })
}
