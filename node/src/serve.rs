//! One node's life: listeners first, so that a port in use shows at once, and the admin port with them; then the data
//! directory, which may take as long as its holder lives; then store, peers, replicas, clients and the control socket; and
//! all of it back again. Every part owns its tasks; nothing here knows the protocol.

mod bind;
mod material;

use crate::admin::{self, Admin, ENDPOINTS, Endpoints, Panel};
use crate::clock::Clock;
use crate::cluster::{Liveness, MemberStatus, NodeId, PeerInfo, Rank};
use crate::config::Settings;
use crate::ftp;
use crate::meter::Meter;
use crate::peer::{self, ClusterHandle, DnsNames, Greeter, Identity, PeerConfig, StaticSeeds};
use crate::replica::{self, Replicas};
use crate::store::{ChainFile, OpenError, Store};
use bind::Listeners;
use material::Material;
pub use material::faults;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Between two tries for a data directory that another process has.
const HELD_RETRY: Duration = Duration::from_millis(500);
/// Batch numbers the store has written and the driver has not seen.
const PERSISTED: usize = 1024;

/// For another node to lead in this one's place, and between two looks whether it does.
const HANDED_OVER: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(20);

/// For each part that only has to end.
const WIND_UP: Duration = Duration::from_secs(3);

/// How a node is told to stop.
#[derive(Debug, Clone)]
pub struct Stop {
    /// Accept nothing new, let transfers end within the drain time, then stop.
    pub drain: CancellationToken,
    /// Do not wait for transfers.
    pub now: CancellationToken,
}

/// Why a node did not start, or what it ended with. Files that were stored are as before.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Something that a setting names is of no use.
    #[error("{0}")]
    Settings(String),
    /// A port is not to be had.
    #[error("cannot listen on {address} ({setting}): {error}{advice}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Which setting says so.
        setting: &'static str,
        /// Why not.
        error: std::io::Error,
        /// What to do.
        advice: &'static str,
    },
    /// The data directory.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A file in the data directory.
    #[error("cannot write {path}: {error}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Signals cannot be received.
    #[error("cannot receive signals: {0}")]
    Signals(std::io::Error),
}

/// Runs a node until it is told to stop. The settings were checked.
pub async fn serve(settings: Settings, stop: Stop) -> Result<(), ServeError> {
    let material = Material::load(&settings)?;
    let mut listeners = Listeners::bind(&settings).await?;
    let endpoints = listeners.endpoints()?;
    let meter = Meter::default();
    let (panel, mut shown) = (Panel::new(meter.clone(), stop.drain.clone()), JoinSet::new());
    if let Some(listener) = listeners.admin.take() {
        admin::show(listener, panel.clone(), &mut shown);
        tracing::info!(admin = ?endpoints.admin, "monitoring is open to whoever reaches this address");
    }
    let door = Door { listener: &listeners.ftp, meter: &meter, stop: &stop };
    let advertised = door.turning_away(bind::advertised(&settings, &endpoints)).await;
    let Some((peer, raw)) = advertised.transpose()? else { return Ok(()) };
    let (persisted, on_disk) = mpsc::channel(PERSISTED);
    let Some(store) = open_when_free(&settings.node.data, persisted, &door).await? else { return Ok(()) };
    write_endpoints(&settings.node.data, &endpoints)?;

    let info = peer_info(&settings, store.node(), (peer, raw), &endpoints);
    let identity = Identity { cluster: settings.node.cluster.clone(), info: info.clone(), boot: store.boots().clone() };
    let greeter = Greeter::with_memory(identity, material.peer, ChainFile::of(&settings.node.data));
    let config = PeerConfig {
        greeter: greeter.clone(),
        listener: listeners.peer,
        discovery: (StaticSeeds::new(settings.peer.seeds.clone()), DnsNames::new(&settings.peer.discover)),
        core: settings.core.to_config(),
        clock: Clock::new(settings.node.clock_offset_ms),
        meter: meter.clone(),
    };
    let (handle, mut peers) = peer::start(config, store.clone(), on_disk);
    let replicas = Replicas::new(handle.clone(), store.clone(), greeter, limits(&settings), meter.clone());
    let raw = replica::serve(listeners.raw, &replicas, peers.orders());
    let clients = ftp::serve(material.ftp, listeners.ftp, handle.clone(), replicas, store.clone(), meter);
    let (mut asked, no_more) = (JoinSet::new(), CancellationToken::new());
    let admin = Admin { handle: handle.clone(), store: store.clone(), name: info.name.clone(), endpoints };
    panel.open(admin.clone());
    admin::serve(&settings.node.data, admin, no_more.clone(), &mut asked)
        .map_err(|error| ServeError::Write { path: settings.node.data.join(admin::SOCKET), error })?;
    tracing::info!(name = info.name, node = %info.node, ftp = %endpoints.ftp, %peer, "up");

    stop.drain.cancelled().await;
    // Clients first: their transfers need all the rest.
    let drain = clients.stop(Duration::from_secs(settings.node.drain_s), &stop.now);
    tokio::join!(drain, stop.now.run_until_cancelled(hand_over(&handle)));
    no_more.cancel();
    asked.shutdown().await;
    raw.stop(WIND_UP).await;
    peers.stop(WIND_UP).await;
    panel.close();
    close(store).await;
    tracing::info!("stopped");
    Ok(())
}

/// Has another node lead, where one stays: writers wait for less than until they find this one dead.
async fn hand_over(handle: &ClusterHandle) {
    if handle.leave().await.is_err() {
        return;
    }
    let led_elsewhere = async {
        let mut looks = tokio::time::interval(LOOK);
        loop {
            looks.tick().await;
            let Ok(status) = handle.status().await else { return };
            let stays = |member: &MemberStatus| member.liveness == Liveness::Alive && !member.leaving;
            if status.leader.is_some_and(|leader| leader != status.node) || !status.members.iter().any(stays) {
                return;
            }
        }
    };
    if tokio::time::timeout(HANDED_OVER, led_elsewhere).await.is_err() {
        tracing::info!("no other node took over yet");
    }
}

/// Of the raw port. Whoever waits for a lock waits a little longer than the leader lets it, so that the refusal comes from
/// the leader. What is read or staged shows signs of life three times at least before it would be collected.
fn limits(settings: &Settings) -> replica::Limits {
    let patience = Duration::from_millis(settings.core.lock_wait_ms) + Duration::from_secs(5);
    let usual = replica::Limits::default();
    let grace = Duration::from_secs(settings.core.replaced_grace_s.min(settings.core.staged_grace_s));
    replica::Limits {
        patience,
        keep: (grace / 3).clamp(Duration::from_millis(300), usual.keep),
        stalled: Duration::from_secs(settings.ftp.stall_timeout_s),
        scrub_rate: settings.replica.scrub_mib_s.saturating_mul(1 << 20),
        scrub_rest: Duration::from_secs(settings.replica.scrub_rest_s),
        repair_rate: settings.replica.repair_mib_s.saturating_mul(1 << 20),
        ..usual
    }
}

/// What this node tells its peers of itself.
fn peer_info(
    settings: &Settings,
    node: NodeId,
    (peer, raw): (SocketAddr, SocketAddr),
    endpoints: &Endpoints,
) -> PeerInfo {
    let listen = endpoints.ftp;
    let reachable = if listen.ip().is_unspecified() { SocketAddr::new(peer.ip(), listen.port()) } else { listen };
    PeerInfo {
        node,
        rank: Rank { priority: settings.node.priority, address: peer, node },
        raw,
        ftp: settings.ftp.advertise.clone().unwrap_or_else(|| reachable.to_string()),
        name: settings.node.name.clone().unwrap_or_else(host_name),
        zone: settings.node.zone.clone().unwrap_or_else(host_name),
    }
}

/// The last owner writes what was submitted and lets the directory go; that is disk work.
async fn close(store: Arc<Store>) {
    let closing = tokio::task::spawn_blocking(move || drop(store));
    if tokio::time::timeout(WIND_UP, closing).await.is_err() {
        tracing::warn!("the disk did not take the last writes in time; nothing unwritten was confirmed");
    }
}

/// Where clients connect while there is no node yet to serve them.
struct Door<'a> {
    listener: &'a TcpListener,
    meter: &'a Meter,
    stop: &'a Stop,
}

impl Door<'_> {
    /// Awaits `work`; where that takes longer than a moment, clients are told to go elsewhere instead of waiting with it.
    /// `None` when told to stop.
    async fn turning_away<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.stop.drain.cancelled() => {
                ftp::refuse_waiting(self.listener, self.meter).await;
                None
            }
            done = work => Some(done),
            never = ftp::turn_away(self.listener, self.meter) => match never {},
        }
    }
}

/// Opens the data directory, and waits for it while another process has it: a new container may start while the old one
/// on the same volume still drains. `None` when told to stop meanwhile.
async fn open_when_free(
    dir: &Path,
    persisted: mpsc::Sender<u64>,
    door: &Door<'_>,
) -> Result<Option<Arc<Store>>, ServeError> {
    let mut retry = tokio::time::interval(HELD_RETRY);
    let mut said = false;
    loop {
        if door.turning_away(retry.tick()).await.is_none() {
            return Ok(None);
        }
        let (dir, persisted) = (dir.to_owned(), persisted.clone());
        let opened = tokio::task::spawn_blocking(move || Store::open(&dir, persisted)).await;
        match opened.expect("a panic aborts the process") {
            Ok(store) => return Ok(Some(store)),
            Err(OpenError::Held { dir, pid }) => {
                if !said {
                    tracing::warn!(dir = %dir.display(), pid, "the data directory is held by another process; waiting for it");
                }
                said = true;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Where the node listens, for scripts: whole or not at all.
fn write_endpoints(dir: &Path, endpoints: &Endpoints) -> Result<(), ServeError> {
    let (path, draft) = (dir.join(ENDPOINTS), dir.join("endpoints.json.new"));
    let mut json = serde_json::json!({
        "version": admin::VERSION,
        "pid": std::process::id(),
        "ftp": endpoints.ftp,
        "peer": endpoints.peer,
        "raw": endpoints.raw,
    });
    if let Some(admin) = endpoints.admin {
        json["admin"] = serde_json::json!(admin);
    }
    let written = std::fs::write(&draft, format!("{json}\n")).and_then(|()| std::fs::rename(&draft, &path));
    written.map_err(|error| ServeError::Write { path, error })
}

/// What the machine calls itself.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "node".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    /// For the kernel and this process to do their part on a busy machine.
    const LONG: Duration = Duration::from_secs(20);

    fn not_told() -> Stop {
        Stop { drain: CancellationToken::new(), now: CancellationToken::new() }
    }

    /// All that a client is told.
    async fn told(mut client: TcpStream) -> String {
        let mut text = String::new();
        timeout(LONG, client.read_to_string(&mut text)).await.expect("the connection ends").unwrap();
        text
    }

    #[tokio::test]
    async fn clients_are_turned_away_while_a_node_waits_and_when_it_is_told_to_stop() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, meter, stop) = (listener.local_addr().unwrap(), Meter::default(), not_told());
        let door = Door { listener: &listener, meter: &meter, stop: &stop };
        let clients = async {
            let first = told(TcpStream::connect(address).await.unwrap()).await;
            assert!(first.starts_with("421 ") && first.contains("starting"), "{first}");
            stop.drain.cancel();
        };
        let (waited, ()) = tokio::join!(door.turning_away(pending::<()>()), clients);
        assert_eq!(waited, None);
        let late = TcpStream::connect(address).await.unwrap();
        assert_eq!(door.turning_away(pending::<()>()).await, None);
        let late = told(late).await;
        assert!(late.starts_with("421 ") && late.contains("shutting down"), "{late}");
        assert!(meter.shows("trebol_sessions_refused_total{reason=\"starting\"} 1"));
        assert!(meter.shows("trebol_sessions_refused_total{reason=\"stopping\"} 1"));
    }

    #[tokio::test]
    async fn what_takes_no_time_turns_nobody_away() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (meter, stop) = (Meter::default(), not_told());
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let door = Door { listener: &listener, meter: &meter, stop: &stop };
        assert_eq!(door.turning_away(ready(7)).await, Some(7));
        assert!(timeout(LONG, listener.accept()).await.is_ok(), "the client waits for the node");
    }
}
