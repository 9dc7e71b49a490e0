//! Where nodes are: in containers, or in processes of this machine where there is no engine. Both start, stop, kill and
//! wipe nodes and run `trebol` beside them; what only containers can do ([`Containers::cut_off`], [`Containers::listen`],
//! [`Containers::move_away`]) is theirs. Nothing here knows the protocol.

mod companion;
mod containers;
mod processes;

pub use companion::{Cut, Ear, Heard};
pub use containers::Containers;
pub use processes::Processes;

use crate::access::Access;
use anyhow::{Result, bail};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use swarm::ask::Output;

/// A whole cluster's nodes.
pub enum Place {
    /// Containers of a bridge network.
    Containers(Box<Containers>),
    /// Processes on loopback.
    Processes(Box<Processes>),
}

/// Ports of a node on this machine, one after the other: clients, and what else it needs.
const PORTS: u16 = 10;
/// Below those that the system hands out, above most that people use.
static NEXT: AtomicU16 = AtomicU16::new(14_000);

/// The first of [`PORTS`] ports that nobody listens on now.
fn free_ports() -> Result<u16> {
    loop {
        let first = NEXT.fetch_add(PORTS, Ordering::Relaxed);
        if first > 20_000 {
            bail!("no free ports");
        }
        if (first..first + PORTS).all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()) {
            return Ok(first);
        }
    }
}

/// The labels on everything that this run makes.
pub fn labels() -> BTreeMap<String, String> {
    swarm::sweep::labels()
}

impl Place {
    /// Their certificates.
    pub fn access(&self) -> &Access {
        match self {
            Self::Containers(place) => place.access(),
            Self::Processes(place) => place.access(),
        }
    }
    /// Where each takes clients.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        match self {
            Self::Containers(place) => place.addresses(),
            Self::Processes(place) => place.addresses(),
        }
    }
    /// Where a node takes other nodes: coordination and file bytes.
    pub async fn between_nodes(&self, node: usize) -> Result<[SocketAddr; 2]> {
        match self {
            Self::Containers(place) => place.between_nodes(node).await,
            Self::Processes(place) => Ok(place.between_nodes(node)),
        }
    }
    /// Starts a node that is stopped, with the disk it has, or an empty one.
    pub async fn start(&mut self, node: usize) -> Result<()> {
        match self {
            Self::Containers(place) => place.start(node).await,
            Self::Processes(place) => place.start(node),
        }
    }
    /// SIGKILL, and waits for the end.
    pub async fn kill(&mut self, node: usize) -> Result<()> {
        match self {
            Self::Containers(place) => place.kill(node).await,
            Self::Processes(place) => place.kill(node).await,
        }
    }
    /// SIGTERM, and waits for the end, which must come by itself.
    pub async fn stop(&mut self, node: usize) -> Result<()> {
        match self {
            Self::Containers(place) => place.stop(node).await,
            Self::Processes(place) => place.stop(node).await,
        }
    }
    /// Empties the disk of a stopped node.
    pub async fn wipe(&mut self, node: usize) -> Result<()> {
        match self {
            Self::Containers(place) => place.wipe(node).await,
            Self::Processes(place) => place.wipe(node),
        }
    }
    /// `trebol` with these arguments, beside a running node.
    pub async fn ask(&self, node: usize, arguments: &[&str]) -> Result<Output> {
        match self {
            Self::Containers(place) => place.ask(node, arguments).await,
            Self::Processes(place) => place.ask(node, arguments).await,
        }
    }
    /// `trebol verify --json` on the disk of a stopped node: its exit code and what it printed.
    pub async fn verify(&self, node: usize) -> Result<Output> {
        match self {
            Self::Containers(place) => place.verify(node).await,
            Self::Processes(place) => place.verify(node).await,
        }
    }
    /// The last lines of a node's log.
    pub async fn log(&self, node: usize) -> String {
        match self {
            Self::Containers(place) => place.log(node).await,
            Self::Processes(place) => place.log(node),
        }
    }
    /// Takes everything away.
    pub async fn clear(self) -> Result<()> {
        match self {
            Self::Containers(place) => place.clear().await,
            // They end with what holds them.
            Self::Processes(_) => Ok(()),
        }
    }
}

/// The end of a log, for people.
fn tail(log: &[u8]) -> String {
    const LINES: usize = 12;
    let text = String::from_utf8_lossy(log);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
