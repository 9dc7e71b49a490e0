//! What the tests of the raw port need: nodes on loopback with real disks and real TLS, relays that break connections, and
//! sources and operations that follow a script. It never stands in for disk or network.

use super::raw::Raw;
use super::serve::{ReplicaTasks, serve_raw};
use super::stage::Steps;
use super::wire::{Answer, HEADER_MAX, Request, write_chunk, write_end};
use super::{Answering, Cluster, Limits, Source};
use crate::cluster::{BlobId, Epoch, Extent, FrontEvent, Hash, NodeId, OpId, Outcome, Position, Staged, Token};
use crate::meter::Meter;
use crate::peer::testing::{Authority, info};
use crate::peer::{Greeter, Identity, PeerTls, Port, Stopped, read_frame, write_frame};
use crate::store::Store;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

/// Longest wait for anything in a test.
pub(super) const SOON: Duration = Duration::from_secs(20);

/// Waits until `is_so`.
pub(super) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let mut tick = interval(Duration::from_millis(10));
    let wait = async {
        while !is_so() {
            tick.tick().await;
        }
    };
    timeout(SOON, wait).await.unwrap_or_else(|_| panic!("in vain: {what}"));
}

/// Bytes that repeat nowhere soon.
pub(super) fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}
pub(super) fn blob(n: u128) -> BlobId {
    BlobId { op: OpId(n), token: Token { epoch: Epoch(1, 2), n: 3 } }
}
pub(super) fn node(n: u128) -> NodeId {
    NodeId(n)
}
pub(super) fn extent(blob: BlobId, bytes: &[u8]) -> Extent {
    Extent { blob, offset: 0, length: bytes.len() as u64, hash: blake3::hash(bytes).into() }
}

/// Who is where, and what each node told its cluster core.
#[derive(Debug, Default)]
pub(super) struct Town {
    addresses: Mutex<BTreeMap<NodeId, SocketAddr>>,
    pub(super) staged: Mutex<Vec<(NodeId, BlobId)>>,
    pub(super) kept: Mutex<Vec<(NodeId, BlobId)>>,
    pub(super) fetched: Mutex<Vec<(u64, bool)>>,
    pub(super) merged: Mutex<Vec<(BlobId, Option<Hash>)>>,
    pub(super) damaged: Mutex<Vec<(NodeId, BlobId)>>,
}

impl Town {
    /// From now on that node is found there.
    pub(super) fn move_to(&self, node: NodeId, address: SocketAddr) {
        self.addresses.lock().unwrap().insert(node, address);
    }
}

#[derive(Debug)]
struct Citizen {
    me: NodeId,
    town: Arc<Town>,
}

impl Cluster for Citizen {
    fn raw(&self, node: NodeId) -> Option<SocketAddr> {
        self.town.addresses.lock().unwrap().get(&node).copied()
    }
    fn blob_staged(&self, blob: BlobId) -> Answering<'_> {
        self.town.staged.lock().unwrap().push((self.me, blob));
        Box::pin(async { Ok(()) })
    }
    fn blob_kept(&self, blob: BlobId) -> Answering<'_> {
        self.town.kept.lock().unwrap().push((self.me, blob));
        Box::pin(async { Ok(()) })
    }
    fn merged(&self, blob: BlobId, hash: Option<Hash>) -> Answering<'_> {
        self.town.merged.lock().unwrap().push((blob, hash));
        Box::pin(async { Ok(()) })
    }
    fn fetched(&self, id: u64, good: bool) -> Answering<'_> {
        self.town.fetched.lock().unwrap().push((id, good));
        Box::pin(async { Ok(()) })
    }
    fn damaged(&self, blob: BlobId) -> Answering<'_> {
        self.town.damaged.lock().unwrap().push((self.me, blob));
        Box::pin(async { Ok(()) })
    }
}

/// A node with its server.
pub(super) struct Node {
    pub(super) raw: Arc<Raw>,
    pub(super) dir: tempfile::TempDir,
    pub(super) address: SocketAddr,
    pub(super) server: Option<ReplicaTasks>,
    _persisted: mpsc::Receiver<u64>,
}

impl Node {
    /// The whole blob, if it is here.
    pub(super) fn bytes(&self, blob: BlobId) -> Option<Vec<u8>> {
        if let Some(bytes) = self.raw.store.inline(blob) {
            return Some(bytes.into());
        }
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut self.raw.store.open_blob(blob).unwrap()?, &mut bytes).unwrap();
        Some(bytes)
    }
    /// Whether nothing half-written lies about.
    pub(super) fn is_clean(&self) -> bool {
        std::fs::read_dir(self.staging()).unwrap().next().is_none()
    }
    fn staging(&self) -> PathBuf {
        self.dir.path().join("staging")
    }
    /// Afterwards nobody answers at its port.
    pub(super) async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop(SOON).await;
        }
    }
    /// The same address again.
    pub(super) async fn start(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.server = Some(serve_raw(listener, self.raw.clone()));
    }
}

/// Nodes 1 to `count`, each knowing the others, under one CA.
pub(super) async fn nodes(count: u128, limits: Limits) -> (Arc<Town>, Vec<Node>) {
    let authority = Authority::new();
    let town = Arc::new(Town::default());
    let mut all = Vec::new();
    for n in 1..=count {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        town.move_to(node(n), address);
        let raw = raw(n, &town, authority.tls("t"), limits.clone());
        let (dir, raw, persisted) = raw;
        let server = Some(serve_raw(listener, raw.clone()));
        all.push(Node { raw, dir, address, server, _persisted: persisted });
    }
    (town, all)
}

fn raw(n: u128, town: &Arc<Town>, tls: PeerTls, limits: Limits) -> (tempfile::TempDir, Arc<Raw>, mpsc::Receiver<u64>) {
    let dir = tempfile::tempdir().unwrap();
    let (tell, persisted) = mpsc::channel(4);
    let store = Store::open(dir.path(), tell).unwrap();
    let boot = store.boots().clone();
    let me = Identity { cluster: "t".into(), info: info(n, &format!("127.0.0.1:{n}")), boot };
    let citizen = Citizen { me: node(n), town: town.clone() };
    let raw = Raw::new(node(n), Box::new(citizen), store, Greeter::new(me, tls), limits, Meter::default());
    (dir, Arc::new(raw), persisted)
}

/// Stands before a node, counts connections, and cuts each once so many bytes came from the node.
pub(super) struct Relay {
    pub(super) accepted: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Before `of`: from now on `town` finds the relay at its place.
    pub(super) async fn before(of: &Node, town: &Town, cut_after: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        town.move_to(of.raw.me, listener.local_addr().unwrap());
        let (accepted, to) = (Arc::new(AtomicUsize::new(0)), of.address);
        let count = accepted.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut relays = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                relays.spawn(relay(client, to, cut_after));
            }
        });
        Self { accepted, _tasks: tasks }
    }
}

async fn relay(mut client: TcpStream, to: SocketAddr, cut_after: u64) {
    let Ok(server) = TcpStream::connect(to).await else { return };
    let (mut from_client, mut to_client) = client.split();
    let (from_server, mut to_server) = server.into_split();
    let mut limited = from_server.take(cut_after);
    tokio::select! {
        _ = tokio::io::copy(&mut limited, &mut to_client) => {}
        _ = async {
            tokio::io::copy(&mut from_client, &mut to_server).await.ok();
            to_server.shutdown().await.ok();
            std::future::pending::<()>().await;
        } => {}
    }
}

/// A node that answers every read with the same body, whatever was announced.
pub(super) struct Liar {
    pub(super) accepted: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Liar {
    /// In the place of `of`, with its certificate: `body` is what it sends.
    pub(super) async fn in_place_of(of: &Node, town: &Town, body: Vec<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        town.move_to(of.raw.me, listener.local_addr().unwrap());
        let (accepted, greeter) = (Arc::new(AtomicUsize::new(0)), of.raw.pool.greeter.clone());
        let count = accepted.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((tcp, from)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let Ok(greeted) = greeter.accept(tcp, from, Port::Raw).await else { continue };
                let (mut stream, mut buffer) = (greeted.stream, Vec::new());
                while let Ok(Some(Request::Get { .. })) = read_frame(&mut stream, &mut buffer, HEADER_MAX).await {
                    let mut hasher = blake3::Hasher::new();
                    write_frame(&mut stream, &Answer::Sending).await.unwrap();
                    for chunk in &body {
                        hasher.update(chunk);
                        // Whoever noticed is gone.
                        write_chunk(&mut stream, chunk).await.ok();
                    }
                    write_end(&mut stream, hasher.finalize().into()).await.ok();
                }
            }
        });
        Self { accepted, _tasks: tasks }
    }
}

/// A client: chunks, and what happens between them.
pub(super) struct Chunks<'a> {
    pub(super) chunks: VecDeque<io::Result<Bytes>>,
    /// Called before each chunk with the number left.
    pub(super) before: Box<dyn FnMut(usize) + Send + 'a>,
    /// Whether it never ends.
    pub(super) hangs: bool,
}

impl<'a> Chunks<'a> {
    pub(super) fn of(bytes: &[u8], length: usize) -> Self {
        let chunks = bytes.chunks(length).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
        Self { chunks, before: Box::new(|_| {}), hangs: false }
    }
    pub(super) fn with(mut self, before: impl FnMut(usize) + Send + 'a) -> Self {
        self.before = Box::new(before);
        self
    }
}

impl Source for Chunks<'_> {
    async fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        (self.before)(self.chunks.len());
        if self.chunks.is_empty() && self.hangs {
            std::future::pending::<()>().await;
        }
        self.chunks.pop_front().transpose()
    }
}

/// What an upload told its leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    Staged(Staged),
    Lost { kept: Vec<NodeId>, lost: Vec<NodeId> },
}

type React<'a> = Box<dyn FnMut(&Said) -> Option<FrontEvent> + Send + 'a>;

/// A leader that answers by a script.
pub(super) struct Script<'a> {
    react: Mutex<React<'a>>,
    events: mpsc::Receiver<FrontEvent>,
    pub(super) tell: mpsc::Sender<FrontEvent>,
    pub(super) said: Arc<Mutex<Vec<Said>>>,
    pub(super) moved: Arc<AtomicU64>,
}

impl<'a> Script<'a> {
    pub(super) fn new(react: impl FnMut(&Said) -> Option<FrontEvent> + Send + 'a) -> Self {
        let (tell, events) = mpsc::channel(16);
        Self { react: Mutex::new(Box::new(react)), events, tell, said: Arc::default(), moved: Arc::default() }
    }
    fn hear(&self, said: Said) {
        let answer = (self.react.lock().unwrap())(&said);
        self.said.lock().unwrap().push(said);
        if let Some(event) = answer {
            self.tell.try_send(event).unwrap();
        }
    }
}

impl Steps for Script<'_> {
    async fn next(&mut self) -> Result<FrontEvent, Stopped> {
        self.events.recv().await.ok_or(Stopped)
    }
    async fn staged(&self, staged: Staged) -> Result<(), Stopped> {
        self.hear(Said::Staged(staged));
        Ok(())
    }
    async fn replica_lost(&self, kept: Vec<NodeId>, lost: Vec<NodeId>) -> Result<(), Stopped> {
        self.hear(Said::Lost { kept, lost });
        Ok(())
    }
    fn progress(&self, bytes: u64) {
        self.moved.store(bytes, Ordering::Relaxed);
    }
}

pub(super) fn outcome() -> Outcome {
    Outcome { position: Position::default(), hlc: crate::cluster::Hlc(1), copies: 3 }
}
