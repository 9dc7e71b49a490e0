//! Waits until a `dev` cluster serves: every node answers on its control socket and follows the same leader.

use super::layout::Layout;
use crate::admin::{NodeStatus, ask};
use crate::cli::status;
use crate::cluster::{Liveness, RoleName};
use serde::Serialize;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Between two rounds of questions.
const ROUND: Duration = Duration::from_millis(50);

/// One node that serves.
#[derive(Debug, Serialize)]
pub(super) struct Node {
    pub(super) node: String,
    pub(super) ftp: SocketAddr,
    pub(super) pid: u32,
    pub(super) role: &'static str,
}

/// All nodes, once they follow one leader; or a sentence about what is missing after `patience`.
pub(super) async fn wait(layout: &Layout, patience: Duration) -> Result<Vec<Node>, String> {
    let deadline = Instant::now() + patience;
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let missing = match ask_all(layout).await {
            Ok(answers) => match disagreement(&answers) {
                None => return Ok(answers.iter().map(node).collect()),
                Some(missing) => missing,
            },
            Err(missing) => missing,
        };
        if Instant::now() >= deadline {
            let logs = layout.dir.join("n*.log");
            return Err(format!("no leader after {} s: {missing}; see {}", patience.as_secs(), logs.display()));
        }
    }
}

async fn ask_all(layout: &Layout) -> Result<Vec<NodeStatus>, String> {
    let mut answers = Vec::new();
    for node in &layout.nodes {
        let answer = ask(&node.data).await.map_err(|error| format!("{}: {error}", node.name))?;
        answers.push(answer);
    }
    Ok(answers)
}

/// What keeps these nodes from being one cluster with one leader.
fn disagreement(answers: &[NodeStatus]) -> Option<String> {
    let leader = answers.iter().find(|a| a.cluster.role == RoleName::Lead);
    let Some(leader) = leader else { return Some("nobody leads".to_owned()) };
    let stray = answers.iter().find(|a| a.cluster.leader != Some(leader.cluster.node));
    if let Some(stray) = stray {
        return Some(format!("{} does not follow {}", stray.name, leader.name));
    }
    let alive = leader.cluster.members.iter().filter(|member| member.liveness == Liveness::Alive).count();
    (alive < answers.len()).then(|| format!("{} sees {alive} of {} nodes", leader.name, answers.len()))
}

fn node(status: &NodeStatus) -> Node {
    let role = status::role(status.cluster.role);
    Node { node: status.name.clone(), ftp: status.endpoints.ftp, pid: status.pid, role }
}
