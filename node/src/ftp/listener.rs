//! Accepts clients, within limits, and ends their sessions in order. Every session is a task in a set owned here.

use super::attempts::Attempts;
use super::config::FtpConfig;
use super::connection::Connection;
use super::files::{Cluster, Files};
use super::session::{Session, Shared};
use crate::clock::Clock;
use crate::meter::{Meter, Refused};
use crate::peer::ClusterHandle;
use crate::replica::Replicas;
use crate::store::Store;
use socket2::SockRef;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::ready;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// Pause after an accept that failed, usually for want of file descriptors.
const BREATH: Duration = Duration::from_millis(100);
/// For sessions that were cut to say so to their clients.
const FAREWELL: Duration = Duration::from_secs(1);

/// The running front. Dropped, all sessions end at once.
#[derive(Debug)]
pub struct FtpTasks {
    tasks: JoinSet<()>,
    stop: CancellationToken,
    cut: CancellationToken,
}

/// Serves clients on a bound listener. To be called within a tokio runtime.
pub fn serve(
    config: FtpConfig,
    listener: TcpListener,
    handle: ClusterHandle,
    replicas: Replicas,
    store: Arc<Store>,
    meter: Meter,
) -> FtpTasks {
    let patience = config.patience;
    serve_files(config, listener, Arc::new(Cluster { handle, replicas, store, patience }), meter)
}

/// The same, over any files.
pub(crate) fn serve_files(config: FtpConfig, listener: TcpListener, files: Arc<dyn Files>, meter: Meter) -> FtpTasks {
    let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
    let attempts = Attempts::new(config.max_failed_logins, config.ban_time, config.failed_login_delay);
    let clock = Clock::new(0);
    let shared = Shared { config, files, attempts, clock, stop: stop.clone(), cut: cut.clone(), meter };
    let mut tasks = JoinSet::new();
    tasks.spawn(accept(listener, Arc::new(shared)));
    FtpTasks { tasks, stop, cut }
}

/// Answers 421 to whoever has connected and was not accepted yet: they would see a reset when the port is closed.
pub async fn refuse_waiting(listener: &TcpListener, meter: &Meter) {
    loop {
        tokio::select! {
            biased;
            Ok((stream, _)) = listener.accept() => refuse(stream, Refused::Stopping, meter),
            () = ready(()) => return,
        }
    }
}

/// Answers 421 to whoever connects, for as long as this is awaited: clients had better go to another node than wait for what
/// this one waits for.
pub async fn turn_away(listener: &TcpListener, meter: &Meter) -> Infallible {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => refuse(stream, Refused::Starting, meter),
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                sleep(BREATH).await;
            }
        }
    }
}

impl FtpTasks {
    /// Turns new clients away, ends sessions that are idle, and lets running transfers end until `drain` has passed or `now`
    /// is cancelled. Then it cuts them: their clients are told 421. Nothing of their uploads shows, but of one whose commit was on
    /// its way the outcome is not known to its client.
    pub async fn stop(mut self, drain: Duration, now: &CancellationToken) {
        self.stop.cancel();
        let mut ended = pin!(async { while self.tasks.join_next().await.is_some() {} });
        tokio::select! {
            () = &mut ended => return,
            () = sleep(drain) => {}
            () = now.cancelled() => {}
        }
        tracing::warn!("transfers that had not ended were cut");
        self.cut.cancel();
        if timeout(FAREWELL, ended).await.is_err() {
            tracing::debug!("some clients did not take their farewell");
        }
    }
}

impl Drop for FtpTasks {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let slots = Arc::new(Slots::default());
    let mut sessions = JoinSet::new();
    let mut number = 0u64;
    loop {
        let stopping = shared.stop.is_cancelled();
        if stopping && sessions.is_empty() {
            break;
        }
        let accepted = tokio::select! {
            () = shared.stop.cancelled(), if !stopping => continue,
            // Ended sessions are reaped as they end.
            Some(ended) = sessions.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a session failed");
                }
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                let peer = from.ip().to_canonical();
                let slot = match admit(&shared, &slots, peer, &stream) {
                    Ok(slot) => slot,
                    Err(why) => {
                        refuse(stream, why, &shared.meter);
                        continue;
                    }
                };
                number += 1;
                let span = tracing::info_span!("session", number, %peer);
                let (shared, open) = (shared.clone(), shared.meter.session());
                sessions.spawn(
                    async move {
                        let _held = (slot, open);
                        match session(shared, stream, peer) {
                            Ok(session) => session.run().await,
                            Err(error) => tracing::debug!(%error, "the connection was gone at once"),
                        }
                    }
                    .instrument(span),
                );
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                sleep(BREATH).await;
            }
        }
    }
    refuse_waiting(&listener, &shared.meter).await;
}

fn session(shared: Arc<Shared>, stream: TcpStream, peer: IpAddr) -> io::Result<Session> {
    let local = stream.local_addr()?.ip().to_canonical();
    stream.set_nodelay(true)?;
    // Clients send the last byte of an ABOR as urgent data (RFC 959, section 4.1.3); it must not be taken out of line.
    SockRef::from(&stream).set_out_of_band_inline(true)?;
    SockRef::from(&stream).set_keepalive(true)?;
    let connection = Connection::new(stream, shared.config.stall_timeout);
    Ok(Session::new(shared, connection, local, peer))
}

fn admit(shared: &Shared, slots: &Arc<Slots>, peer: IpAddr, stream: &TcpStream) -> Result<Slot, Refused> {
    if shared.stop.is_cancelled() {
        return Err(Refused::Stopping);
    }
    if shared.attempts.is_banned(Instant::now(), peer) {
        tracing::debug!(%peer, "banned");
        return Err(Refused::Banned);
    }
    let slot = slots.take(peer, shared.config.max_sessions, shared.config.max_sessions_per_address);
    slot.ok_or_else(|| {
        tracing::warn!(%peer, socket = ?stream.local_addr().ok(), "too many sessions");
        Refused::Limit
    })
}

/// One try to say why, which never waits: the buffer of a fresh connection is empty.
fn refuse(stream: TcpStream, why: Refused, meter: &Meter) {
    meter.refused(why);
    let text: &[u8] = match why {
        Refused::Limit | Refused::Banned => b"421 Too many sessions or failed logins, try again later.\r\n",
        Refused::Starting => b"421 The node is starting, try again later or on another one.\r\n",
        Refused::Stopping => b"421 The node is shutting down, connect to another one.\r\n",
    };
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write(text);
    }
}

/// Sessions by address.
#[derive(Debug, Default)]
struct Slots(Mutex<BTreeMap<IpAddr, usize>>);

/// The place of one session; given back when dropped.
#[derive(Debug)]
struct Slot {
    slots: Arc<Slots>,
    peer: IpAddr,
}

impl Slots {
    fn take(self: &Arc<Self>, peer: IpAddr, max: usize, max_per_address: usize) -> Option<Slot> {
        let mut table = self.0.lock().expect("no panic while held");
        let (all, here) = (table.values().sum::<usize>(), table.get(&peer).copied().unwrap_or(0));
        if all >= max || here >= max_per_address {
            return None;
        }
        table.insert(peer, here + 1);
        Some(Slot { slots: self.clone(), peer })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut table = self.slots.0.lock().expect("no panic while held");
        if let Some(count) = table.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                table.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_by_node_and_by_address_and_come_back() {
        let slots = Arc::new(Slots::default());
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = slots.take(a, 3, 2);
        let second = slots.take(a, 3, 2);
        assert!(first.is_some() && second.is_some() && slots.take(a, 3, 2).is_none());
        let third = slots.take(b, 3, 2);
        assert!(third.is_some() && slots.take(b, 3, 2).is_none());
        drop((first, second, third));
        assert!(slots.0.lock().unwrap().is_empty());
    }
}
