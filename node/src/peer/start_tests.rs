//! Whole shells with real stores and real sockets: three nodes in one process.

use crate::clock::Clock;
use crate::cluster::{Change, Config, FrontEvent, NodeId, PeerInfo, RoleName};
use crate::meter::Meter;
use crate::path::FtpPath;
use crate::peer::testing::{Authority, info};
use crate::peer::*;
use crate::store::Store;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// For the tests' patience with a cluster on a busy machine.
const LONG: Duration = Duration::from_secs(30);

struct Node {
    handle: ClusterHandle,
    tasks: PeerTasks,
    store: Arc<Store>,
    info: PeerInfo,
    dir: tempfile::TempDir,
}

async fn start(ca: &Authority, dir: tempfile::TempDir, listener: TcpListener, seed: &str) -> Node {
    let (persisted_in, persisted) = mpsc::channel(64);
    let store = Store::open(dir.path(), persisted_in).unwrap();
    let mut info = info(store.node().0, &listener.local_addr().unwrap().to_string());
    info.name = "n".into();
    let identity = Identity { cluster: "test".into(), info: info.clone(), boot: store.boots().clone() };
    let config = PeerConfig {
        greeter: Greeter::new(identity, ca.tls("test")),
        listener,
        discovery: StaticSeeds::new(vec![seed.to_owned()]),
        core: Config::default(),
        clock: Clock::new(0),
        meter: Meter::default(),
    };
    let (handle, tasks) = crate::peer::start(config, store.clone(), persisted);
    Node { handle, tasks, store, info, dir }
}

async fn cluster(ca: &Authority, n: usize) -> Vec<Node> {
    let mut listeners = Vec::new();
    for _ in 0..n {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let seed = listeners[0].local_addr().unwrap().to_string();
    let mut nodes = Vec::new();
    for listener in listeners {
        nodes.push(start(ca, tempfile::tempdir().unwrap(), listener, &seed).await);
    }
    nodes
}

fn mkdir(path: &str) -> Change {
    Change::MakeDirectory { path: FtpPath::root().resolve(path).unwrap() }
}

/// Waits until the node with the highest rank leads all (Bully); then who it is.
async fn leader(nodes: &[Node]) -> NodeId {
    let highest = nodes.iter().map(|n| n.info.rank).max().expect("nodes").node;
    let until = Instant::now() + LONG;
    let mut looks = tokio::time::interval(Duration::from_millis(50));
    loop {
        looks.tick().await;
        let mut following = Vec::new();
        for node in nodes {
            let status = timeout(LONG, node.handle.status()).await.unwrap().unwrap();
            let serves = status.leader != Some(node.info.node) || status.role == RoleName::Lead;
            following.extend(status.leader.filter(|_| serves));
        }
        if following.len() == nodes.len() && following.iter().all(|l| *l == highest) {
            return highest;
        }
        assert!(Instant::now() < until, "{following:?} are followed, not {highest:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_elect_commit_read_and_survive_their_leader() {
    let ca = Authority::new();
    let mut nodes = cluster(&ca, 3).await;
    let first = leader(&nodes).await;

    // On every node, whoever leads; and every other node sees it at once.
    for (i, node) in nodes.iter().enumerate() {
        let outcome =
            timeout(LONG, node.handle.change(mkdir(&format!("/d{i}")), LONG)).await.unwrap().unwrap().unwrap();
        assert_eq!(outcome.copies, 3);
        for other in &nodes {
            assert!(timeout(LONG, other.handle.fresh()).await.unwrap().unwrap());
            assert!(other.store.is_directory(&FtpPath::root().resolve(&format!("/d{i}")).unwrap()));
        }
    }
    assert!(nodes[0].handle.peer(nodes[1].info.node).is_some());

    // A dropped operation leaves its lock to the next, well within its lease.
    let path = FtpPath::root().resolve("/held").unwrap();
    let store = || Change::Store { path: path.clone(), create_only: false };
    let mut held = nodes[0].handle.submit(store(), LONG).await.unwrap();
    assert!(matches!(timeout(LONG, held.next()).await.unwrap(), Ok(FrontEvent::Stage { .. })));
    let mut waiting = nodes[1].handle.submit(store(), LONG).await.unwrap();
    assert!(timeout(Duration::from_millis(300), waiting.next()).await.is_err(), "the lock is held");
    drop(held);
    let freed = timeout(Duration::from_secs(3), waiting.next()).await.expect("freed at once");
    assert!(matches!(freed, Ok(FrontEvent::Stage { .. })), "{freed:?}");
    drop(waiting);

    // Its leader stops: the others go on, and the write that meets the gap is done all the same.
    let at = nodes.iter().position(|n| n.info.node == first).unwrap();
    let gone = nodes.remove(at);
    let began = Instant::now();
    gone.tasks.stop(Duration::from_secs(5)).await;
    assert_eq!(gone.handle.fresh().await, Err(Stopped.into()));
    assert_eq!(gone.handle.submit(mkdir("/late"), LONG).await.err(), Some(Stopped));
    let done = timeout(LONG, nodes[0].handle.change(mkdir("/after"), LONG)).await.unwrap().unwrap();
    assert!(done.is_ok(), "{done:?}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());

    // It comes back with its data, catches up and sees what it missed.
    let Node { handle, store, info, dir, .. } = gone;
    drop((handle, store));
    let listener = rebind(info.rank.address).await;
    let seed = nodes[0].info.rank.address.to_string();
    nodes.push(start(&ca, dir, listener, &seed).await);
    leader(&nodes).await;
    let back = &nodes[2];
    assert_eq!(back.info.node, first, "the same node");
    let after = FtpPath::root().resolve("/after").unwrap();
    let until = Instant::now() + LONG;
    while !(back.handle.fresh().await.unwrap() && back.store.is_directory(&after)) {
        assert!(Instant::now() < until, "caught up in time");
    }
    for node in nodes {
        node.tasks.stop(Duration::from_secs(5)).await;
    }
}

async fn rebind(address: std::net::SocketAddr) -> TcpListener {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(64).unwrap()
}
