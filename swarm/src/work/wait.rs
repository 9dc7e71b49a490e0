//! Waits for nodes: until their containers are healthy, until they agree with the others. What will not mend itself
//! ([`super::fault`]) ends the wait early.

use super::fault::Patience;
use super::nodes::Nodes;
use super::{Work, until};
use crate::ask::View;
use crate::name::NodeName;
use crate::observed::{NodeSeen, TaskSeen};
use anyhow::{Result, bail};
use std::cell::RefCell;
use std::time::Duration;

/// For containers to be healthy.
const START: Duration = Duration::from_secs(180);
/// For nodes to agree, once all are healthy.
const AGREE: Duration = Duration::from_secs(120);
/// Records that a node may be behind, while clients write.
const IN_FLIGHT: u64 = 200;
/// Copies of a file.
const COPIES: usize = 3;

impl Work<'_> {
    /// Until the containers of these nodes are healthy, and those that shall be.
    pub async fn await_started(&self, nodes: &[NodeName]) -> Result<()> {
        let (last, patience) = (RefCell::new(Nodes::default()), RefCell::new(Patience::default()));
        let started = until(START, async || {
            let seen = self.look().await?;
            let late: Vec<&NodeName> = nodes.iter().filter(|node| !self.is_started(node, &seen)).collect();
            let tasks = late.iter().filter_map(|node| Some((*node, &seen.get(node)?.task)));
            if let Some(fault) = patience.borrow_mut().ends(self.wanted, tasks) {
                bail!("{fault}");
            }
            let done = late.is_empty();
            *last.borrow_mut() = seen;
            Ok(done.then_some(()))
        });
        if started.await?.is_some() {
            return Ok(());
        }
        let seen = last.into_inner();
        let Some(node) = nodes.iter().find(|node| !self.is_started(node, &seen)) else { return Ok(()) };
        let what = describe(seen.get(node).map(|seen| &seen.task));
        bail!("node {node} is not healthy after {} s: {what}; `logs {node}` may say why", START.as_secs())
    }

    fn is_started(&self, node: &NodeName, seen: &Nodes) -> bool {
        let wanted = self.wanted.fingerprint(node);
        let fits = |seen: &NodeSeen| {
            seen.task.is_healthy() && seen.task.fingerprint == wanted && seen.task.force >= self.force
        };
        seen.get(node).is_some_and(fits)
    }

    /// Until these nodes are members that have what the others have, and no copy is missing.
    pub async fn await_synchronised(&self, nodes: &[NodeName]) -> Result<()> {
        let last = RefCell::new("no node answers".to_owned());
        let agreed = until(AGREE, async || {
            let lacking = match self.view(&[]).await {
                Ok(view) => synchronised(&view, nodes).err(),
                Err(error) => Some(format!("{error:#}")),
            };
            Ok(match lacking {
                None => Some(()),
                Some(lacking) => {
                    *last.borrow_mut() = lacking;
                    None
                }
            })
        });
        match agreed.await? {
            Some(()) => Ok(()),
            None => bail!("the nodes do not agree after {} s: {}", AGREE.as_secs(), last.into_inner()),
        }
    }
}

/// Whether all nodes are members that have what the others have, and no copy is missing; else what is lacking.
pub fn synchronised(view: &View, nodes: &[NodeName]) -> std::result::Result<(), String> {
    if view.leader_name().is_none() {
        return Err("no node leads".to_owned());
    }
    for node in nodes {
        match view.member(&node.to_string()) {
            None => return Err(format!("node {node} is not known to the others")),
            Some(member) if member.liveness != "alive" => return Err(format!("node {node} is {}", member.liveness)),
            Some(member) if member.behind > IN_FLIGHT => {
                return Err(format!("node {node} lacks {} records", member.behind));
            }
            Some(_) => {}
        }
    }
    // Fewer nodes cannot keep three copies, and miss some for ever.
    if nodes.len() >= COPIES && view.missing_copies > 0 {
        return Err(format!("{} copies are missing", view.missing_copies));
    }
    Ok(())
}

/// What a task does that is not healthy.
fn describe(task: Option<&TaskSeen>) -> String {
    match task {
        Some(task) if !task.state.is_empty() => match task.complaint() {
            Some(error) => format!("{}, {error}", task.state),
            None => task.state.clone(),
        },
        _ => "the swarm has made no task for it".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(liveness: &str, behind: u64, missing: u64) -> View {
        let member = |name: &str, liveness: &str| {
            format!(r#"{{"info":{{"node":"{name}","name":"{name}"}},"liveness":"{liveness}","behind":{behind}}}"#)
        };
        let members = [member("h1-1", "alive"), member("h1-2", "alive"), member("h1-3", liveness)].join(",");
        format!(r#"{{"leader":"h1-1","members":[{members}],"files":1,"missing_copies":{missing}}}"#).parse().unwrap()
    }

    #[test]
    fn nodes_agree_when_nobody_is_away_or_behind_and_nothing_is_missing() {
        let nodes: Vec<NodeName> = ["h1-1", "h1-2", "h1-3"].iter().map(|name| name.parse().unwrap()).collect();
        let lacking = |view: View| synchronised(&view, &nodes).unwrap_err();
        assert_eq!(synchronised(&view("alive", 0, 0), &nodes), Ok(()));
        assert!(lacking(view("suspect", 0, 0)).contains("h1-3 is suspect"));
        assert!(lacking(view("alive", 5000, 0)).contains("lacks 5000 records"));
        assert!(lacking(view("alive", 0, 2)).contains("2 copies"));
        assert_eq!(synchronised(&view("alive", 0, 2), &nodes[..2]), Ok(()), "two nodes cannot keep three copies");
        let mut headless = view("alive", 0, 0);
        headless.leader = None;
        assert!(lacking(headless).contains("no node leads"));
        let stranger = ["h2-1".parse().unwrap()];
        assert!(synchronised(&view("alive", 0, 0), &stranger).unwrap_err().contains("not known"));
    }
}
