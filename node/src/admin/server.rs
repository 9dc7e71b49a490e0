//! Answers the command line. One task a connection, bounded in number, line length and time; what it changes goes through
//! the cluster like every other change.

use super::{Answer, Endpoints, LINE_MAX, NodeStatus, Question, Request, Response, SOCKET, VERSION, socket};
use crate::cluster::{Change, MemberStatus, NodeId, Status};
use crate::peer::ClusterHandle;
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
/// For the cluster to log that a node is forgotten.
const FORGET: Duration = Duration::from_secs(4);

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
        Ok(Request { request: Question::Status, .. }) => admin.status().await,
        Ok(Request { request: Question::Forget { node }, .. }) => admin.forget(&node).await,
        Err(error) => Answer::Error(format!("not understood: {error}")),
    };
    let mut json = serde_json::to_vec(&Response { version: VERSION, answer })?;
    json.push(b'\n');
    stream.get_mut().write_all(&json).await?;
    stream.get_mut().shutdown().await
}

impl Admin {
    async fn status(&self) -> Answer {
        match self.handle.status().await {
            Ok(cluster) => Answer::Status(Box::new(NodeStatus {
                name: self.name.clone(),
                pid: std::process::id(),
                endpoints: self.endpoints,
                conflicts: self.store.loser_count(),
                cluster,
            })),
            Err(stopped) => Answer::Error(stopped.to_string()),
        }
    }

    async fn forget(&self, node: &str) -> Answer {
        let found = match self.handle.status().await {
            Ok(cluster) => find(&cluster, node),
            Err(stopped) => Err(stopped.to_string()),
        };
        let node = match found {
            Ok(node) => node,
            Err(sentence) => return Answer::Error(sentence),
        };
        match self.handle.change(Change::Forget { node }, FORGET).await {
            Ok(Ok(_)) => Answer::Forgotten(node),
            Ok(Err(refusal)) => Answer::Error(refusal.to_string()),
            Err(stopped) => Answer::Error(stopped.to_string()),
        }
    }
}

/// The one node that is meant. A whole id need not be one that this node has met.
fn find(cluster: &Status, wanted: &str) -> Result<NodeId, String> {
    let meant = |m: &&MemberStatus| m.info.name == wanted || m.info.node.to_string().starts_with(wanted);
    let found: Vec<NodeId> = cluster.members.iter().filter(meant).map(|m| m.info.node).collect();
    match found[..] {
        [node] => Ok(node),
        [] if wanted.len() == 32 => wanted.parse().map_err(|_| format!("{wanted} is no node id")),
        [] => Err(format!("no node is called {wanted}: `trebol status` shows their names")),
        _ => Err(format!("{wanted} could be any of {} nodes: give the whole id", found.len())),
    }
}
