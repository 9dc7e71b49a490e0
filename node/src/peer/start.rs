//! Starts and stops the shell: the port, the dialler, the driver.

use super::acceptor::accept_peers;
use super::dialler::Dialler;
use super::discovery::Discovery;
use super::driver::{Driver, Order, Sources};
use super::greeter::Greeter;
use super::handle::{ClusterHandle, Peers, random128};
use crate::clock::Clock;
use crate::cluster::{Config, Member};
use crate::meter::Meter;
use crate::store::Store;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Commands of sessions that wait for the driver.
const COMMANDS: usize = 1024;
/// Messages and news of links that wait for the driver.
const LINK_EVENTS: usize = 1024;
/// Copies and merged blobs that were asked for and not begun. The core asks for a few at a time.
const ORDERS: usize = 64;
/// Peers that called and whose address the dialler has not noted yet.
const HEARD: usize = 64;

/// What the shell needs.
#[derive(Debug)]
pub struct PeerConfig<D> {
    /// Says who this node is, on both ports.
    pub greeter: Arc<Greeter>,
    /// The RPC port, bound: a port in use is the caller's to explain.
    pub listener: TcpListener,
    /// Whom to call.
    pub discovery: D,
    /// The core's settings.
    pub core: Config,
    /// Clocks.
    pub clock: Clock,
    /// For metrics.
    pub meter: Meter,
}

/// The running shell. Dropped, it ends at once.
#[derive(Debug)]
pub struct PeerTasks {
    tasks: JoinSet<()>,
    orders: Option<mpsc::Receiver<Order>>,
    stop: CancellationToken,
}

/// Starts the shell of one node. `persisted` is the other end of what the store was opened with. To be called within a
/// tokio runtime.
pub fn start<D: Discovery>(
    config: PeerConfig<D>,
    store: Arc<Store>,
    persisted: mpsc::Receiver<u64>,
) -> (ClusterHandle, PeerTasks) {
    let PeerConfig { greeter, listener, discovery, core, clock, meter } = config;
    let me = greeter.me().info.clone();
    let restored = store.restored();
    let met = restored.met.clone();
    restored.state.forgotten.iter().for_each(|node| greeter.refuse(*node));
    let peers: Peers = Arc::default();
    peers.write().expect("new").extend(met.iter().chain([&me]).map(|info| (info.node, info.clone())));

    let (commands, commanded) = mpsc::channel(COMMANDS);
    let (events, links) = mpsc::channel(LINK_EVENTS);
    let (heard, hearing) = mpsc::channel(HEARD);
    let stop = CancellationToken::new();
    let dialler = Dialler::new(greeter.clone(), discovery, &met, hearing, events.clone(), stop.clone());
    let seed = u64::try_from(random128() >> 64).expect("64 bits are left");
    let member = Member::new(clock.now(), core, me.clone(), restored, &*store, seed);
    let (order, orders) = mpsc::channel(ORDERS);
    let driver = Driver::new(clock, store, member, peers.clone(), greeter.clone(), order, meter);

    let mut tasks = JoinSet::new();
    tasks.spawn(driver.run(Sources { commands: commanded, links, persisted, stop: stop.clone() }));
    tasks.spawn(dialler.run());
    tasks.spawn(accept_peers(listener, greeter, events, heard, stop.clone()));
    (ClusterHandle::new(me.node, peers, commands), PeerTasks { tasks, orders: Some(orders), stop })
}

impl PeerTasks {
    /// Copies that the core wants made; for the first who asks. When nobody takes them they fail.
    pub fn orders(&mut self) -> Option<mpsc::Receiver<Order>> {
        self.orders.take()
    }
    /// Stops everything, and waits for it until `deadline` has passed. Operations that run end with
    /// [`Stopped`](super::Stopped).
    pub async fn stop(mut self, deadline: Duration) {
        self.stop.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(deadline, all).await.is_err() {
            tracing::warn!("the cluster's tasks did not end in time");
        }
    }
}

impl Drop for PeerTasks {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[cfg(test)]
#[path = "start_tests.rs"]
mod tests;
