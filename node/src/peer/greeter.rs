//! Opens connections between nodes, on both ports: TCP, TLS, Hello. What comes out is a peer that is known by name; what
//! fails is refused with a reason, told to the other side where there is one. It never carries anything else.

use super::acquaintance::{Acquaintances, Claim, Presence};
use super::frame::{FrameError, read_frame, write_frame};
use super::hello::{AnyHello, HELLO_MAX, Hello, HelloRefusal, PEERS, Port, Reply};
use super::quiet::Quiet;
use super::tls::{KeyHash, PeerStream, PeerTls, Secured};
use crate::cluster::{NodeId, OLDEST, PROTOCOL, PeerInfo};
use crate::store::{BootChain, ChainFile, Remembered};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// For a TCP connection to come up.
const CONNECT: Duration = Duration::from_secs(1);
/// For TLS and Hello, together.
const HELLO: Duration = Duration::from_secs(2);
/// Between two log lines of one kind about one address.
const LINES: Duration = Duration::from_secs(30);
/// The same for a copied data directory, which calls every second until somebody looks after it.
const COPY_LINES: Duration = Duration::from_secs(600);
/// What a connection reads ahead.
const READ_AHEAD: usize = 64 << 10;

/// What this node says of itself.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The cluster's name.
    pub cluster: String,
    /// Identity and addresses.
    pub info: PeerInfo,
    /// Boots so far, this one included.
    pub boot: BootChain,
}

/// Greets peers, as dialler and as acceptor. One per node, shared by both ports (`Arc`), since it knows who is connected.
#[derive(Debug)]
pub struct Greeter {
    me: Identity,
    tls: PeerTls,
    known: Arc<Mutex<Acquaintances>>,
    /// Where what is known outlives this process.
    file: Option<ChainFile>,
    /// The last attempt to write there failed, which was logged.
    unwritten: AtomicBool,
    forgotten: Mutex<BTreeSet<NodeId>>,
    quiet: Quiet,
}

/// A connection whose other end is known.
#[derive(Debug)]
pub struct Greeted {
    /// Who it is.
    pub info: PeerInfo,
    /// Which start of it.
    pub boot: BootChain,
    /// Whom else to call, by its word.
    pub peers: Vec<SocketAddr>,
    /// The connection, right behind the Hello.
    pub stream: BufReader<PeerStream>,
    /// To be kept as long as the connection: while it is, nobody else can take that node's id.
    pub presence: Presence,
}

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub enum GreetError {
    /// TCP did not come up.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// Nobody answered in time.
    #[error("no answer in time ({0})")]
    Timeout(&'static str),
    /// TLS failed: no certificate, another CA, another name.
    #[error("TLS: {0}")]
    Tls(io::Error),
    /// What came was no Hello.
    #[error("no Hello: {0}")]
    Frame(#[from] FrameError),
    /// The connection ended where a Hello should have been.
    #[error("closed before its Hello")]
    Ended,
    /// The other side refused.
    #[error("refused by the peer: {0}")]
    Refused(HelloRefusal),
    /// This side refused.
    #[error("peer refused: {0}")]
    Refuses(HelloRefusal),
}

impl Greeted {
    fn new(hello: Hello, stream: BufReader<PeerStream>, presence: Presence) -> Self {
        let Hello { info, boot, mut peers, .. } = hello;
        peers.truncate(PEERS);
        Self { info, boot, peers, stream, presence }
    }
}

impl GreetError {
    /// True when the port itself refused: nothing listens there.
    pub fn port_refused(&self) -> bool {
        matches!(self, Self::Connect(e) if e.kind() == io::ErrorKind::ConnectionRefused)
    }
    /// A word for each kind.
    fn kind(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Timeout(_) => "timeout",
            Self::Tls(_) => "tls",
            Self::Frame(_) => "frame",
            Self::Ended => "ended",
            Self::Refused(refusal) | Self::Refuses(refusal) => refusal.kind(),
        }
    }
    /// True when somebody's data directory is a copy.
    fn is_copy(&self) -> bool {
        matches!(self, Self::Refused(HelloRefusal::DuplicateNode) | Self::Refuses(HelloRefusal::DuplicateNode))
    }
    /// True when the address is this node's own.
    pub fn is_own(&self) -> bool {
        matches!(self, Self::Refused(HelloRefusal::Own) | Self::Refuses(HelloRefusal::Own))
    }
}

impl Greeter {
    /// Says `me` over `tls`, and knows nobody.
    pub fn new(me: Identity, tls: PeerTls) -> Arc<Self> {
        Self::knowing(me, tls, BTreeMap::new(), None)
    }
    /// The same, with a memory for other nodes' boots. Blocking: reads a small file.
    pub fn with_memory(me: Identity, tls: PeerTls, file: ChainFile) -> Arc<Self> {
        Self::knowing(me, tls, file.load(), Some(file))
    }
    fn knowing(
        me: Identity,
        tls: PeerTls,
        remembered: BTreeMap<NodeId, Remembered>,
        file: Option<ChainFile>,
    ) -> Arc<Self> {
        let (known, unwritten) = (Acquaintances::new(remembered), AtomicBool::new(false));
        Arc::new(Self { me, tls, known, file, unwritten, forgotten: Mutex::default(), quiet: Quiet::default() })
    }
    /// Writes down whose boots changed since the last time, if any did. Not to be called while it runs. Blocking.
    pub(crate) fn save(&self) {
        let Some(file) = &self.file else { return };
        let Some(peers) = self.known.lock().expect("no panic while held").unsaved() else { return };
        let saved = file.save(peers);
        let failed_before = self.unwritten.swap(saved.is_err(), Ordering::Relaxed);
        let Err(error) = saved else { return };
        if !failed_before {
            tracing::warn!(%error, "the boots of other nodes cannot be written down; it is tried again and again");
        }
        self.known.lock().expect("no panic while held").still_unsaved();
    }
    /// Refuses a node from now on, on both ports: it was removed from the cluster for good.
    pub(crate) fn refuse(&self, node: NodeId) {
        self.forgotten.lock().expect("no panic while held").insert(node);
    }
    /// Whether it is refused.
    pub(crate) fn refuses(&self, node: NodeId) -> bool {
        self.forgotten.lock().expect("no panic while held").contains(&node)
    }
    /// What this node says of itself.
    pub fn me(&self) -> &Identity {
        &self.me
    }
    /// Dials `address` and exchanges Hellos: at most 3 s.
    pub async fn dial(&self, address: SocketAddr, port: Port) -> Result<Greeted, GreetError> {
        let connecting = timeout(CONNECT, TcpStream::connect(address)).await;
        let tcp = connecting.map_err(|_| GreetError::Timeout("connect"))?.map_err(GreetError::Connect)?;
        tcp.set_nodelay(true).map_err(GreetError::Connect)?;
        let greeting = async {
            let secured = self.tls.connect(tcp).await.map_err(GreetError::Tls)?;
            self.first(secured, port).await
        };
        timeout(HELLO, greeting).await.map_err(|_| GreetError::Timeout("hello"))?
    }
    /// Takes an accepted connection: at most 2 s. A refusal is logged here, not too often for one address.
    pub async fn accept(&self, tcp: TcpStream, from: SocketAddr, port: Port) -> Result<Greeted, GreetError> {
        let greeting = async {
            tcp.set_nodelay(true).map_err(GreetError::Tls)?;
            let secured = self.tls.accept(tcp).await.map_err(GreetError::Tls)?;
            self.second(secured, port).await
        };
        let greeted = timeout(HELLO, greeting).await.unwrap_or(Err(GreetError::Timeout("hello")));
        if let Err(error) = &greeted
            && !error.is_own()
        {
            self.log_refusal(from, port, error);
        }
        greeted
    }
    /// Logs why `address` could not be greeted, unless the same was logged not long ago.
    pub(crate) fn log_refusal(&self, address: SocketAddr, port: Port, error: &GreetError) {
        let every = if error.is_copy() { COPY_LINES } else { LINES };
        let Some(left_out) = self.quiet.line(Instant::now(), address.ip(), error.kind(), every) else { return };
        if error.is_copy() {
            tracing::error!(%address, ?port, %error, left_out, "no connection to peer");
        } else {
            tracing::warn!(%address, ?port, %error, left_out, "no connection to peer");
        }
    }
    /// Logs what a peer that was greeted sent and should not have, unless the same was logged not long ago.
    pub(crate) fn log_garbage(&self, address: SocketAddr, node: NodeId, error: &impl Display) {
        if let Some(left_out) = self.quiet.line(Instant::now(), address.ip(), "garbage", LINES) {
            tracing::warn!(peer = ?node, %address, %error, left_out, "peer's connection closed");
        }
    }
    /// Logs why a request of a peer was not done, unless one of this kind was logged not long ago.
    pub(crate) fn log_failed(&self, address: SocketAddr, node: NodeId, kind: &'static str, error: &impl Display) {
        if let Some(left_out) = self.quiet.line(Instant::now(), address.ip(), kind, LINES) {
            tracing::warn!(peer = ?node, %address, %error, left_out, "a peer's request failed");
        }
    }
    /// The same of a request that ends in the middle: so do those of clients who break off, and nobody is to blame.
    pub(crate) fn log_cut(&self, address: SocketAddr, node: NodeId, error: &impl Display) {
        if let Some(left_out) = self.quiet.line(Instant::now(), address.ip(), "request: cut short", LINES) {
            tracing::info!(peer = ?node, %address, %error, left_out, "a peer broke off");
        }
    }

    fn hello(&self, port: Port) -> Hello {
        let Identity { cluster, info, boot } = self.me.clone();
        let known = self.known.lock().expect("no panic while held");
        let peers = known.addresses().take(PEERS).collect();
        Hello { protocol: PROTOCOL, oldest: Some(OLDEST), cluster, port, info, boot, peers }
    }
    /// The dialler speaks first.
    async fn first(&self, secured: Secured, port: Port) -> Result<Greeted, GreetError> {
        let mut stream = BufReader::with_capacity(READ_AHEAD, secured.stream);
        write_frame(&mut stream, &self.hello(port)).await?;
        let reply = read_frame(&mut stream, &mut Vec::new(), HELLO_MAX).await?;
        match reply.ok_or(GreetError::Ended)? {
            Reply::Refused(refusal) => Err(GreetError::Refused(refusal)),
            Reply::Welcome(hello) => {
                let presence = self.admit(&hello, port, secured.key).map_err(GreetError::Refuses)?;
                Ok(Greeted::new(*hello, stream, presence))
            }
        }
    }
    /// The acceptor answers.
    async fn second(&self, secured: Secured, port: Port) -> Result<Greeted, GreetError> {
        let mut stream = BufReader::with_capacity(READ_AHEAD, secured.stream);
        let json: Option<Box<RawValue>> = read_frame(&mut stream, &mut Vec::new(), HELLO_MAX).await?;
        let json = json.ok_or(GreetError::Ended)?;
        // The version first: the rest of a Hello that is refused may not be understood.
        let version: AnyHello = serde_json::from_str(json.get()).map_err(FrameError::from)?;
        let admitted = if let Some(refusal) = version.refusal() {
            Err(refusal)
        } else {
            let hello: Hello = serde_json::from_str(json.get()).map_err(FrameError::from)?;
            self.admit(&hello, port, secured.key).map(|presence| (hello, presence))
        };
        match admitted {
            Err(refusal) => {
                write_frame(&mut stream, &Reply::Refused(refusal.clone())).await?;
                Err(GreetError::Refuses(refusal))
            }
            Ok((hello, presence)) => {
                write_frame(&mut stream, &Reply::Welcome(Box::new(self.hello(port)))).await?;
                Ok(Greeted::new(hello, stream, presence))
            }
        }
    }
    /// Judges a Hello; counts the connection when it is welcome.
    fn admit(&self, hello: &Hello, port: Port, key: Option<KeyHash>) -> Result<Presence, HelloRefusal> {
        if let Some(refusal) = AnyHello::from(hello).refusal() {
            return Err(refusal);
        }
        if hello.cluster != self.me.cluster {
            return Err(HelloRefusal::WrongCluster);
        }
        if hello.port != port {
            return Err(HelloRefusal::WrongPort);
        }
        let node = hello.info.node;
        if hello.info.rank.node != node || !hello.boot.is_sound() {
            return Err(HelloRefusal::Malformed);
        }
        if node == self.me.info.node {
            let own = hello.boot == self.me.boot;
            return Err(if own { HelloRefusal::Own } else { HelloRefusal::DuplicateNode });
        }
        if self.refuses(node) {
            return Err(HelloRefusal::Forgotten);
        }
        let claim = Claim { node, address: hello.info.rank.address, boot: &hello.boot, key };
        Acquaintances::admit(&self.known, &claim, Instant::now())
    }
}

#[cfg(test)]
#[path = "greeter_tests.rs"]
mod tests;
