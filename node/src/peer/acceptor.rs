//! The RPC port: accepts peers and runs what they dialled. Of several connections of one node the newest counts; nothing
//! of an older one is heard once it is up.

use super::dialler::Heard;
use super::frame::FrameError;
use super::greeter::{Greeted, Greeter};
use super::hello::Port;
use super::link::{LinkEnd, LinkEvent, receive_all, used};
use crate::cluster::NodeId;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Connections at a time, greeted or not.
const CONNECTIONS: usize = 512;
/// Rest after an accept failed, mostly for want of file descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Everything an accepted connection needs.
#[derive(Debug, Clone)]
struct Shared {
    greeter: Arc<Greeter>,
    events: mpsc::Sender<LinkEvent>,
    heard: mpsc::Sender<Heard>,
    current: Arc<Mutex<BTreeMap<NodeId, Running>>>,
    stop: CancellationToken,
}

/// The connection of a node that is listened to.
#[derive(Debug)]
struct Running {
    stop: CancellationToken,
    finished: CancellationToken,
}

/// Accepts until `stop`; then all connections end.
pub(crate) async fn accept_peers(
    listener: TcpListener,
    greeter: Arc<Greeter>,
    events: mpsc::Sender<LinkEvent>,
    heard: mpsc::Sender<Heard>,
    stop: CancellationToken,
) {
    let shared = Shared { greeter, events, heard, current: Arc::default(), stop: stop.clone() };
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if connections.len() < CONNECTIONS => accepted,
        };
        match accepted {
            Ok((tcp, from)) => drop(connections.spawn(run(tcp, from, shared.clone()))),
            Err(error) => {
                tracing::warn!(%error, "cannot accept peers");
                tokio::select! { () = stop.cancelled() => break, () = sleep(ACCEPT_REST) => {} }
            }
        }
    }
    connections.shutdown().await;
}

/// One connection from its first byte to its last.
async fn run(tcp: TcpStream, from: SocketAddr, shared: Shared) {
    let serve = async {
        // The greeter has logged why, if there is something to say.
        let Ok(Greeted { info, peers, mut stream, presence, .. }) = shared.greeter.accept(tcp, from, Port::Rpc).await
        else {
            return;
        };
        let node = info.node;
        let gone = shared.heard.send(Heard { info: info.clone(), peers }).await.is_err();
        if gone || shared.events.send(LinkEvent::Heard(info)).await.is_err() || used(&mut stream).await.is_err() {
            return;
        }
        let (stop, _finished) = take_over(node, &shared).await;
        let end = receive_all(&presence, node, stream, shared.events.clone(), stop).await;
        match end {
            // A frame that cannot be read is somebody's bug: it must be seen.
            LinkEnd::Frame(ref error) if !matches!(error, FrameError::Io(_)) => {
                shared.greeter.log_garbage(from, node, error);
            }
            _ => tracing::debug!(peer = ?node, %from, %end, "peer's connection ended"),
        }
    };
    tokio::select! { () = shared.stop.cancelled() => {}, () = serve => {} }
}

/// Ends the node's older connection and waits until nothing of it can be heard any more.
async fn take_over(node: NodeId, shared: &Shared) -> (CancellationToken, DropGuard) {
    let running = Running { stop: shared.stop.child_token(), finished: CancellationToken::new() };
    let mine = (running.stop.clone(), running.finished.clone().drop_guard());
    let older = shared.current.lock().expect("no panic while held").insert(node, running);
    if let Some(older) = older {
        older.stop.cancel();
        older.finished.cancelled().await;
    }
    mine
}
