//! Answers the command line. One task a connection, bounded in number, line length and time; what it changes goes through
//! the cluster like every other change.

use super::{Answer, Endpoints, ID_DIGITS, LINE_MAX, NodeStatus, Question, Request, Response, SOCKET, VERSION, socket};
use crate::cluster::{Change, Drain, Liveness, MemberStatus, NodeId, Status};
use crate::peer::{ClusterHandle, Stopped};
use crate::store::Store;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Connections at once; the rest wait in the kernel's queue.
const CONNECTIONS: usize = 16;
/// For one question with its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// For the cluster to log something about a node.
const ORDER: Duration = Duration::from_secs(4);

/// What the answers are made from.
#[derive(Debug, Clone)]
pub struct Admin {
    /// The door to the driver.
    pub handle: ClusterHandle,
    /// The node's disk, for its figures.
    pub store: Arc<Store>,
    /// The node's readable name.
    pub name: String,
    /// Where it listens.
    pub endpoints: Endpoints,
}

/// Answers on `control.sock` in `dir` until `cancel`; the socket is there when this returns. Only for who holds the
/// directory's lock.
pub fn serve(dir: &Path, admin: Admin, cancel: CancellationToken, tasks: &mut JoinSet<()>) -> io::Result<()> {
    let listener = socket::listen(dir, SOCKET)?;
    tasks.spawn(accept(listener, admin, cancel));
    Ok(())
}

async fn accept(listener: UnixListener, admin: Admin, cancel: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => return,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if connections.len() < CONNECTIONS => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let admin = admin.clone();
                connections.spawn(async move {
                    // A command line that went away is no news.
                    let _ = timeout(PATIENCE, answer_one(stream, &admin)).await;
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: wait until one of ours is free, or a while.
                tracing::warn!(%error, "the control socket cannot accept");
                let _ = timeout(Duration::from_secs(1), connections.join_next()).await;
            }
        }
    }
}

async fn answer_one(stream: UnixStream, admin: &Admin) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    (&mut stream).take(LINE_MAX).read_line(&mut line).await?;
    let answer = match serde_json::from_str::<Request>(&line) {
        Ok(request) if request.version > VERSION => {
            Answer::Error(format!("this node speaks version {VERSION}: use its own trebol to ask it"))
        }
        Ok(Request { request: Question::Status, .. }) => match admin.status().await {
            Ok(status) => Answer::Status(Box::new(status)),
            Err(stopped) => Answer::Error(stopped.to_string()),
        },
        Ok(Request { request: Question::Forget { node }, .. }) => {
            admin.order(&node, Liveness::Down, |node| Change::Forget { node }, Answer::Forgotten).await
        }
        Ok(Request { request: Question::Drain { node, draining }, .. }) => {
            let drain = |node| Change::Drain(Drain { node, draining });
            admin.order(&node, Liveness::Alive, drain, Answer::Drain).await
        }
        Err(error) => Answer::Error(format!("not understood: {error}")),
    };
    let mut json = serde_json::to_vec(&Response { version: VERSION, answer })?;
    json.push(b'\n');
    stream.get_mut().write_all(&json).await?;
    stream.get_mut().shutdown().await
}

impl Admin {
    /// The node and the cluster as it sees it.
    pub(super) async fn status(&self) -> Result<NodeStatus, Stopped> {
        let cluster = self.handle.status().await?;
        Ok(NodeStatus {
            name: self.name.clone(),
            pid: std::process::id(),
            endpoints: self.endpoints,
            conflicts: self.store.loser_count(),
            scrub: self.store.integrity(),
            log_records: self.store.log_records(),
            cluster,
        })
    }

    /// Has the cluster log something about one node. Of two with one name it is the one that is in the state `meant`.
    async fn order(
        &self,
        node: &str,
        meant: Liveness,
        change: impl FnOnce(NodeId) -> Change,
        done: impl FnOnce(NodeId) -> Answer,
    ) -> Answer {
        let found = match self.handle.status().await {
            Ok(cluster) => find(&cluster, node, meant),
            Err(stopped) => Err(stopped.to_string()),
        };
        let node = match found {
            Ok(node) => node,
            Err(sentence) => return Answer::Error(sentence),
        };
        match self.handle.change(change(node), ORDER).await {
            Ok(Ok(_)) => done(node),
            Ok(Err(refusal)) => Answer::Error(refusal.to_string()),
            Err(stopped) => Answer::Error(stopped.to_string()),
        }
    }
}

/// The one node that is meant: by its name or whole id before by how its id begins. Of two with one name it is the one in
/// the state `meant`, for a node that was emptied and came back keeps its name and has a new id. A whole id need not be one
/// that this node has met.
fn find(cluster: &Status, wanted: &str, meant: Liveness) -> Result<NodeId, String> {
    let those = |fits: &dyn Fn(&MemberStatus) -> bool| {
        cluster.members.iter().filter(|m| fits(m)).map(|m| m.info.node).collect::<Vec<_>>()
    };
    let mut found = those(&|m| m.info.name == wanted || m.info.node.to_string() == wanted);
    if found.len() > 1 {
        let one = those(&|m| m.info.name == wanted && m.liveness == meant);
        found = if one.len() == 1 { one } else { found };
    }
    if found.is_empty() && wanted.len() >= ID_DIGITS {
        found = those(&|m| m.info.node.to_string().starts_with(wanted));
    }
    match found[..] {
        [node] => Ok(node),
        [] if wanted.len() == 32 => wanted.parse().map_err(|_| format!("{wanted} is no node id")),
        [] => Err(format!("no node is called {wanted}: `trebol status` shows their names and how their ids begin")),
        _ => Err(format!("{wanted} could be any of {} nodes: give the id, as `trebol status` shows it", found.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Digest, DiskReport, Draining, Epoch, PeerInfo, RoleName};
    use crate::peer::testing::info;

    /// Nodes with these ids, names and states.
    fn cluster(nodes: &[(u128, &str, Liveness)]) -> Status {
        let member = |&(node, name, liveness): &(u128, &str, Liveness)| MemberStatus {
            info: PeerInfo { name: name.to_owned(), ..info(node, "127.0.0.1:1") },
            liveness,
            role: RoleName::Follow,
            behind: 0,
            disk: DiskReport::default(),
            clock_ahead: 0,
            draining: Draining::No,
            copies: 0,
            leaving: false,
            protocol: 5,
        };
        Status {
            node: NodeId(1),
            role: RoleName::Follow,
            leader: None,
            epoch: Epoch::default(),
            members: nodes.iter().map(member).collect(),
            digest: Digest::default(),
            files: 0,
            missing_copies: 0,
            applied: 0,
        }
    }

    #[test]
    fn of_two_nodes_with_one_name_the_state_tells() {
        let (old, new, third) = (0xa1 << 120, 0xb2 << 120, 0xc3 << 120);
        let mut nodes = [(old, "n3", Liveness::Down), (new, "n3", Liveness::Alive), (third, "n4", Liveness::Alive)];
        assert_eq!(find(&cluster(&nodes), "n3", Liveness::Down), Ok(NodeId(old)));
        assert_eq!(find(&cluster(&nodes), "n3", Liveness::Alive), Ok(NodeId(new)));
        assert_eq!(find(&cluster(&nodes), "n4", Liveness::Down), Ok(NodeId(third)));
        nodes[1].2 = Liveness::Down;
        let ambiguous = find(&cluster(&nodes), "n3", Liveness::Down).unwrap_err();
        assert!(ambiguous.contains("2 nodes"), "{ambiguous}");
        assert_eq!(find(&cluster(&nodes), "b2000000", Liveness::Down), Ok(NodeId(new)), "its id tells");
        assert_eq!(find(&cluster(&nodes), &NodeId(old).to_string(), Liveness::Down), Ok(NodeId(old)));
    }

    #[test]
    fn names_go_before_ids_and_a_few_digits_name_nobody() {
        let (named, begins) = (1 << 120, 0xabcd_ef01 << 96);
        let nodes = [(named, "abcdef01", Liveness::Down), (begins, "n2", Liveness::Down)];
        assert_eq!(find(&cluster(&nodes), "abcdef01", Liveness::Down), Ok(NodeId(named)));
        assert_eq!(find(&cluster(&nodes), "abcdef010", Liveness::Down), Ok(NodeId(begins)));
        assert!(find(&cluster(&nodes), "abcdef0", Liveness::Down).is_err());
        let unknown = NodeId(7);
        assert_eq!(find(&cluster(&nodes), &unknown.to_string(), Liveness::Down), Ok(unknown));
    }
}
