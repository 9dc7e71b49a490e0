//! Five nodes on this machine's own engine, which is in no swarm before and in none afterwards.

use crate::bed::{Bed, Brought};
use crate::{Outcome, Story, ensure};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::Stdio;

pub(crate) const STORIES: &[Story] = &[
    ("alone::five_nodes_up_used_scaled_and_gone", five_nodes),
    ("alone::a_taken_port_and_an_interrupted_up_are_gone_on_with", gone_on_with),
];

fn five_nodes(bed: &Bed) -> Outcome {
    let before = bed.left(&bed.engine)?;
    ensure(before.is_empty(), || format!("the engine is not bare: {before:?}"))?;
    let cluster = bed.cluster("five", "", &[])?;
    let plan = cluster.run(&["plan", "--image", &bed.image])?;
    ensure(plan.starts_with("begin a swarm on h1\n") && plan.contains("start node h1-5\n"), || plan.clone())?;
    ensure(bed.left(&bed.engine)?.is_empty(), || "plan changed something".to_owned())?;

    let (changes, access) = cluster.up()?;
    ensure(changes > 0 && access.nodes.len() == 5, || format!("{changes} changes, {:?}", access.nodes))?;
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

    let (changes, _) = cluster.up()?;
    ensure(changes == 0, || format!("a second up makes {changes} changes"))?;
    ensure(cluster.run(&["plan"])?.contains("nothing would change"), || "plan sees a difference".to_owned())?;
    let logs = cluster.run(&["logs", "h1-1", "--tail", "50"])?;
    ensure(logs.contains("up"), || format!("no word in the log: {logs}"))?;

    cluster.run(&["scale", "7"])?;
    for number in 0..8 {
        access.curl_put(number % 5, &small, &format!("more-{number}"))?;
    }
    let seven = cluster.well()?;
    ensure(seven["nodes"].as_array().is_some_and(|nodes| nodes.len() == 7), || seven.to_string())?;
    cluster.run(&["scale", "5"])?;
    let five = cluster.well()?;
    let copies: u64 = five["nodes"].as_array().into_iter().flatten().filter_map(|node| node["copies"].as_u64()).sum();
    let (files, missing) = (five["files"].as_u64(), five["missing_copies"].as_u64());
    ensure((files, missing, copies) == (Some(10), Some(0), 30), || format!("not three copies of ten files: {five}"))?;
    for number in 0..8 {
        let fetched = access.curl_get(4 - number % 5, &format!("more-{number}"))?;
        ensure(fetched == b"three leaves\n", || format!("more-{number} is not what it was"))?;
    }
    gone(bed, &cluster)
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
