//! Calls every address that may be a node's, for ever: whoever is down may be the other half of the cluster. One link a
//! node, however many addresses lead to it. It never judges who is a member.

use super::discovery::Discovery;
use super::greeter::{GreetError, Greeted, Greeter};
use super::hello::Port;
use super::link::{LinkEnd, LinkEvent, queues, send_all};
use crate::cluster::{NodeId, PeerInfo};
use crate::store::BootChain;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Between two calls of one address.
const REDIAL: Duration = Duration::from_secs(1);
/// The same for an address where nobody lives by his own word or this node's memory, once it has failed for `COLD`: nodes
/// move, and what they leave behind must not be called as often as they are.
const REDIAL_COLD: Duration = Duration::from_secs(30);
const COLD: Duration = Duration::from_secs(600);
/// Between two calls of an address that turned out to be this node's own: it may pass to another node.
const REDIAL_OWN: Duration = Duration::from_secs(60);
/// Between two looks at what is due.
const LOOK: Duration = Duration::from_millis(100);
/// Between two questions to discovery.
const DISCOVER: Duration = Duration::from_secs(2);
/// Addresses that are called. Beyond, a new one takes the place of the one that has failed for longest.
const TARGETS: usize = 1024;
/// Calls at a time. A dead address takes a second, so this many are called every second.
const CALLS: usize = 128;

/// By whose word an address is called. The later ones outweigh the earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Word {
    /// Only discovery has ever named it.
    Discovery,
    /// A peer named it as somebody's, or somebody's it was.
    Hearsay,
    /// `node` is remembered to live there, from before this process.
    Memory,
    /// `node` lives there: its latest Hello says so.
    Hello,
}

/// An address.
#[derive(Debug)]
struct Target {
    /// Who answered there last, says to live there or is remembered to.
    node: Option<NodeId>,
    word: Word,
    /// When to call next; `None` while a call or a link runs.
    due: Option<Instant>,
    /// Since when calls have failed, which was logged then.
    failing: Option<Instant>,
    /// Whether discovery names it now.
    seed: bool,
}

/// A peer that called this node.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) info: PeerInfo,
    /// Whom else to call, by its word.
    pub(crate) peers: Vec<SocketAddr>,
}

/// What a task of the dialler has done.
#[derive(Debug)]
enum Did {
    Dialled(SocketAddr, Box<Result<Greeted, GreetError>>, Instant),
    Linked(SocketAddr, NodeId, LinkEnd, Instant),
    Discovered(Vec<SocketAddr>),
    Saved,
}

/// The one caller of other nodes.
#[derive(Debug)]
pub(crate) struct Dialler<D> {
    greeter: Arc<Greeter>,
    discovery: Arc<D>,
    events: mpsc::Sender<LinkEvent>,
    /// Addresses of peers that called this node.
    heard: mpsc::Receiver<Heard>,
    targets: BTreeMap<SocketAddr, Target>,
    /// Linked nodes: which start of each, and what ends its link.
    linked: BTreeMap<NodeId, (BootChain, CancellationToken)>,
    calls: usize,
    /// What is known of others is being written down.
    saving: bool,
    tasks: JoinSet<Did>,
    stop: CancellationToken,
}

impl<D: Discovery> Dialler<D> {
    /// Will call what `discovery` finds, the peers `met` before and those that are `heard`.
    pub(crate) fn new(
        greeter: Arc<Greeter>,
        discovery: D,
        met: &[PeerInfo],
        heard: mpsc::Receiver<Heard>,
        events: mpsc::Sender<LinkEvent>,
        stop: CancellationToken,
    ) -> Self {
        let mut dialler = Self {
            greeter,
            discovery: Arc::new(discovery),
            events,
            heard,
            targets: BTreeMap::new(),
            linked: BTreeMap::new(),
            calls: 0,
            saving: false,
            tasks: JoinSet::new(),
            stop,
        };
        for info in met {
            dialler.learn(info.rank.address, Some(info.node), Word::Memory);
        }
        dialler
    }
    /// Runs until it is stopped; then all its links end.
    pub(crate) async fn run(mut self) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.discover();
        let stop = self.stop.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(did) = self.tasks.join_next() => {
                    // A task is only ever aborted below; a panic in one is a bug like any other.
                    if self.conclude(did.expect("dialling tasks do not panic")).await.is_err() {
                        break;
                    }
                }
                Some(Heard { info, peers }) = self.heard.recv() => self.meet(&info, peers),
                _ = look.tick() => self.call_due(),
            }
        }
        self.tasks.shutdown().await;
    }

    fn meet(&mut self, info: &PeerInfo, peers: Vec<SocketAddr>) {
        for target in self.targets.values_mut().filter(|t| t.node == Some(info.node)) {
            // It lives elsewhere now, or it is confirmed below.
            target.word = target.word.min(Word::Hearsay);
        }
        self.learn(info.rank.address, Some(info.node), Word::Hello);
        peers.into_iter().for_each(|address| self.learn(address, None, Word::Hearsay));
    }
    fn learn(&mut self, address: SocketAddr, node: Option<NodeId>, word: Word) {
        let me = &self.greeter.me().info;
        if node == Some(me.node) || (word != Word::Discovery && address == me.rank.address) {
            return;
        }
        if let Some(target) = self.targets.get_mut(&address) {
            target.node = node.or(target.node);
            target.word = target.word.max(word);
        } else if self.targets.len() < TARGETS || self.evict() {
            let (due, seed) = (Some(Instant::now()), word == Word::Discovery);
            self.targets.insert(address, Target { node, word, due, failing: None, seed });
        } else {
            tracing::debug!(%address, "too many addresses of peers, this one is not called");
        }
    }
    /// Drops the address that has failed for longest, where nobody lives by his own word and that discovery does not
    /// name; false when there is none.
    fn evict(&mut self) -> bool {
        let idle = self.targets.iter().filter(|(_, t)| t.word < Word::Memory && !t.seed);
        let oldest = idle.filter_map(|(address, t)| Some((t.failing?, *address))).min();
        oldest.is_some_and(|(_, address)| self.targets.remove(&address).is_some())
    }
    fn discover(&mut self) {
        let discovery = self.discovery.clone();
        self.tasks.spawn(async move { Did::Discovered(discovery.addresses().await) });
    }
    fn call_due(&mut self) {
        let now = Instant::now();
        let linked = |target: &Target| target.node.is_some_and(|node| self.linked.contains_key(&node));
        let due = self.targets.iter_mut().filter(|(_, t)| !linked(t) && t.due.is_some_and(|due| due <= now));
        let mut due: Vec<_> = due.collect();
        due.sort_by_key(|(_, target)| target.due);
        for (&address, target) in due.into_iter().take(CALLS.saturating_sub(self.calls)) {
            target.due = None;
            self.calls += 1;
            let greeter = self.greeter.clone();
            self.tasks.spawn(async move {
                let result = greeter.dial(address, Port::Rpc).await;
                Did::Dialled(address, Box::new(result), now)
            });
        }
    }
    /// Takes a finished task in; fails when the driver is gone.
    async fn conclude(&mut self, did: Did) -> Result<(), mpsc::error::SendError<LinkEvent>> {
        match did {
            Did::Discovered(addresses) => {
                self.forget_strangers(&addresses);
                addresses.into_iter().for_each(|address| self.learn(address, None, Word::Discovery));
                let (discovery, greeter) = (self.discovery.clone(), self.greeter.clone());
                self.tasks.spawn(async move {
                    tokio::time::sleep(DISCOVER).await;
                    Did::Discovered(discovery.addresses().await)
                });
                // One at a time, since they share a temporary file; a disk may take longer than discovery.
                if !std::mem::replace(&mut self.saving, true) {
                    self.tasks.spawn_blocking(move || {
                        greeter.save();
                        Did::Saved
                    });
                }
                Ok(())
            }
            Did::Saved => {
                self.saving = false;
                Ok(())
            }
            Did::Dialled(address, result, since) => {
                self.calls -= 1;
                match *result {
                    Ok(greeted) => self.link(address, greeted).await,
                    Err(error) => self.failed(address, &error, since).await,
                }
            }
            Did::Linked(address, node, end, since) => {
                tracing::info!(peer = ?node, %address, %end, "link down");
                self.linked.remove(&node);
                // At once: a refusing port tells that the process is gone. Not at once again if that led nowhere.
                self.due(address, since + REDIAL);
                self.events.send(LinkEvent::Down(node)).await
            }
        }
    }
    /// Drops addresses that discovery does not name any more and that never answered, or where a node lived that was removed
    /// from the cluster for good: it would be refused.
    fn forget_strangers(&mut self, named: &[SocketAddr]) {
        self.targets.retain(|address, target| {
            target.seed = named.contains(address);
            let stranger = target.word == Word::Discovery && target.node.is_none();
            let removed = target.node.is_some_and(|node| self.greeter.refuses(node));
            target.seed || target.due.is_none() || !(stranger || removed)
        });
    }
    fn due(&mut self, address: SocketAddr, at: Instant) {
        if let Some(target) = self.targets.get_mut(&address) {
            target.due = Some(at.max(Instant::now()));
        }
    }
    async fn link(&mut self, address: SocketAddr, greeted: Greeted) -> Result<(), mpsc::error::SendError<LinkEvent>> {
        let info = greeted.info.clone();
        let peers = greeted.peers.clone();
        let node = info.node;
        if let Some(target) = self.targets.get_mut(&address) {
            target.node = Some(node);
            target.failing = None;
        }
        self.meet(&info, peers);
        if let Some((boot, link)) = self.linked.get(&node) {
            if *boot == greeted.boot {
                // It is linked by another of its addresses; this one is called again when that link is down.
                self.due(address, Instant::now() + REDIAL);
            } else {
                // It has started again, perhaps elsewhere: that link leads to nobody any more.
                link.cancel();
                self.due(address, Instant::now());
            }
            return Ok(());
        }
        // Where it was before, somebody else may answer now.
        for (other, target) in &mut self.targets {
            if target.node == Some(node) && *other != address && *other != info.rank.address {
                target.node = None;
            }
        }
        tracing::info!(peer = ?node, name = %info.name, %address, "link up");
        let stop = self.stop.child_token();
        self.linked.insert(node, (greeted.boot.clone(), stop.clone()));
        let (outgoing, queues) = queues(stop);
        let since = Instant::now();
        self.tasks.spawn(async move { Did::Linked(address, node, send_all(greeted, queues).await, since) });
        self.events.send(LinkEvent::Up(info, outgoing)).await
    }
    async fn failed(
        &mut self,
        address: SocketAddr,
        error: &GreetError,
        since: Instant,
    ) -> Result<(), mpsc::error::SendError<LinkEvent>> {
        let own = error.is_own();
        let target = self.targets.get(&address);
        let cold =
            target.is_some_and(|t| t.word < Word::Memory && !t.seed && t.failing.is_some_and(|f| f + COLD < since));
        self.due(
            address,
            since
                + if own {
                    REDIAL_OWN
                } else if cold {
                    REDIAL_COLD
                } else {
                    REDIAL
                },
        );
        // A Hello that came before this refusal says whether the node lives elsewhere by now.
        while let Ok(Heard { info, peers }) = self.heard.try_recv() {
            self.meet(&info, peers);
        }
        let Some(target) = self.targets.get_mut(&address).filter(|_| !own) else { return Ok(()) };
        match error {
            // Nobody there: said once, until somebody was.
            GreetError::Connect(_) | GreetError::Timeout(_) if target.failing.is_some() => {}
            GreetError::Connect(_) | GreetError::Timeout(_) => tracing::info!(%address, %error, "no peer there"),
            _ => self.greeter.log_refusal(address, Port::Rpc, error),
        }
        target.failing = target.failing.or(Some(since));
        match target.node {
            // Taken as a proof that its process is gone, so only where it lives by its own, latest word.
            Some(node) if error.port_refused() && target.word == Word::Hello && !self.linked.contains_key(&node) => {
                self.events.send(LinkEvent::PortRefused(node)).await
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "dialler_tests.rs"]
mod tests;
