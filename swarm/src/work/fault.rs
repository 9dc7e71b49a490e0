//! What will not mend itself: a port that another program has, an image that is not there, a label that is gone. Knows how
//! engines say so, and how often, or for how long, that is heard until it is believed. Reads nothing.

use super::LOOK;
use crate::name::{self, NodeName};
use crate::observed::TaskSeen;
use crate::wanted::Wanted;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Containers of a node that failed alike, until waiting is believed to mend nothing: an old one may just be letting go.
const FAILURES: usize = 3;
/// What keeps a container from being made at all is believed after this.
const BELIEVED: Duration = Duration::from_secs(4);
/// Beyond what nodes are given to drain: Swarm starts no container before the one that has its ports is gone.
const GONE: Duration = Duration::from_secs(30);

/// What was seen while nodes were waited for, look by look.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// The failed tasks of each node. The first may be from before the wait.
    failures: BTreeMap<NodeName, BTreeSet<String>>,
    /// How long some node has had no place.
    stuck: Duration,
}

impl Patience {
    /// The sentence for the first node for which waiting is in vain, by one more look at the tasks of those that are late.
    pub(super) fn ends<'a>(
        &mut self,
        wanted: &Wanted,
        late: impl Iterator<Item = (&'a NodeName, &'a TaskSeen)>,
    ) -> Option<String> {
        let (mut ends, mut stuck) = (None, false);
        for (node, task) in late {
            let failure =
                task.failure.as_ref().and_then(|failure| Some((failure, sentence(wanted, node, &failure.error)?)));
            if let Some((failure, (sentence, _))) = failure {
                let failures = self.failures.entry(node.clone()).or_default();
                failures.insert(failure.task.clone());
                ends = ends.or((failures.len() >= FAILURES).then_some(sentence));
            } else if let Some((sentence, believed)) =
                task.error.as_ref().and_then(|error| sentence(wanted, node, error))
            {
                stuck = true;
                ends = ends.or((self.stuck >= believed).then_some(sentence));
            }
        }
        self.stuck = if stuck { self.stuck + LOOK } else { Duration::ZERO };
        ends
    }
}

/// The sentence for an error that waiting does not mend, and when it is believed if no container was made.
fn sentence(wanted: &Wanted, node: &NodeName, error: &str) -> Option<(String, Duration)> {
    let (host, cluster) = (&node.host, &wanted.cluster);
    let said = |words: &[&str]| words.iter().any(|words| error.contains(words));
    let by_swarm = said(&["host-mode port already in use"]);
    if by_swarm || said(&["address already in use", "port is already allocated"]) {
        let named = cluster.ports(node).find(|port| said(&[&format!(":{port}:"), &format!(":{port} ")]));
        let port = named.map_or_else(|| "one of its ports".to_owned(), |port| format!("port {port}"));
        let advice = "stop the program that has it, or set other ports (ftp_port, passive_port); then run `up` again";
        let believed = if by_swarm { Duration::from_secs(cluster.drain_s()) + GONE } else { BELIEVED };
        return Some((format!("node {node}: {port} is taken on host {host}; {advice}"), believed));
    }
    if said(&["No such image", "no such image"]) {
        let image = &wanted.image;
        return Some((format!("node {node}: host {host} has no image {image}; `up` carries it there again"), BELIEVED));
    }
    if said(&["no suitable node"]) {
        let label = name::host_label(&cluster.name);
        let lacking = "no machine of the swarm that can run it is labelled";
        return Some((format!("node {node}: {lacking} {label}={host} ({error}); `up` labels it again"), BELIEVED));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Cluster;
    use crate::observed::Failure;

    const TAKEN: &str = "driver failed programming external connectivity on endpoint gateway_1 (2): Error starting userland \
                         proxy: listen tcp4 0.0.0.0:2122: bind: address already in use";

    fn looks(tasks: &[TaskSeen]) -> Vec<Option<String>> {
        let wanted = Wanted::new(Cluster::default(), "image:1".to_owned(), &BTreeMap::new());
        let (node, mut patience) = ("h1-2".parse().unwrap(), Patience::default());
        tasks.iter().map(|task| patience.ends(&wanted, std::iter::once((&node, task)))).collect()
    }
    fn failed(task: &str, error: &str) -> TaskSeen {
        let failure = Some(Failure { task: task.to_owned(), error: error.to_owned() });
        TaskSeen { state: "preparing".to_owned(), failure, ..TaskSeen::default() }
    }
    fn stuck(error: &str) -> TaskSeen {
        TaskSeen { state: "pending".to_owned(), error: Some(error.to_owned()), ..TaskSeen::default() }
    }

    #[test]
    fn a_taken_port_is_believed_at_the_third_container_that_fails_for_it() {
        let sentences = looks(&["a", "a", "a", "b", "b", "c"].map(|task| failed(task, TAKEN)));
        assert_eq!(sentences.iter().position(Option::is_some), Some(5), "an old failure that is still shown is one");
        let sentence = sentences[5].clone().unwrap();
        assert!(sentence.starts_with("node h1-2: port 2122 is taken on host h1; stop the program"), "{sentence}");
        let other = looks(&["a", "b", "c", "d"].map(|task| failed(task, "task: non-zero exit (1)")));
        assert_eq!(other, vec![None; 4], "who knows what a node's own failure is");
    }

    #[test]
    fn no_place_is_believed_after_a_while_and_ports_of_a_draining_task_after_a_long_one() {
        let after = |error: &str| {
            let sentences = looks(&vec![stuck(error); 200]);
            let first = sentences.iter().position(Option::is_some).unwrap();
            (LOOK * u32::try_from(first).unwrap(), sentences[first].clone().unwrap())
        };
        let (wait, sentence) = after("no suitable node (scheduling constraints not satisfied on 1 node)");
        assert_eq!(wait, BELIEVED);
        assert!(sentence.contains("labelled trebol.host.trebol=h1"), "{sentence}");
        let (wait, sentence) = after("no suitable node (host-mode port already in use on 1 node)");
        assert_eq!(wait, Duration::from_secs(25) + GONE);
        assert!(sentence.contains("one of its ports is taken"), "{sentence}");
        assert!(after("No such image: image:1").1.contains("has no image image:1"));
        let mended: Vec<TaskSeen> =
            (0..90).map(|look| stuck(if look % 3 == 0 { "" } else { "no suitable node" })).collect();
        assert!(looks(&mended).iter().all(Option::is_none));
    }
}
