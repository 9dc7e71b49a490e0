//! Bad input: one clear sentence each, and nothing is made.

use crate::bed::{Bed, refused};
use crate::{Outcome, Story, ensure};
use swarm::Host;

pub(crate) const STORIES: &[Story] = &[("inputs::bad_input_is_one_sentence", bad_input)];

fn bad_input(bed: &Bed) -> Outcome {
    let state = bed.dir().join("inputs").display().to_string();
    let says = |arguments: &[&str], sentence: &str| {
        let ran = bed.swarm(&[arguments, &["--state", &state]].concat())?;
        refused(&ran, sentence)
    };
    let nowhere = format!("unix://{}/none.sock", bed.dir().display());
    says(&["up", "--engine", &nowhere], "no engine answers at unix://")?;
    says(&["up", "--engine", "pigeon://x"], "is no engine: write unix:///PATH")?;
    says(&["up", "--file", "nowhere.toml"], "cannot read nowhere.toml")?;
    says(&["up", "--nodes", "0"], "no host is to have a node")?;
    says(&["up", "--ftp-port", "2377"], "one of Swarm's own")?;
    let image = "localhost/trebol-node:never-built";
    says(&["up", "--name", "inputs", "--image", image], "is on none of the hosts")?;
    for command in [&["status"][..], &["scale", "7"], &["update", "--image", "x"]] {
        says(&[command, &["--name", "inputs"]].concat(), "there is no cluster inputs")?;
    }
    let cluster = bed.cluster("few", "", &[Host::local("h1".parse().map_err(|_| "no name")?, 3)])?;
    let file = cluster.arguments[3].clone();
    let text = std::fs::read_to_string(&file)?.replace("zones = 1", "zones = 2");
    let few = bed.dir().join("zones.toml").display().to_string();
    std::fs::write(&few, text)?;
    says(&["up", "--file", &few], "spread over 2 hosts and only 1 host has nodes")?;
    let left = bed.left(&bed.engine)?;
    ensure(left.is_empty(), || format!("bad input leaves {left:?}"))
}
