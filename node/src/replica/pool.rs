//! Connections to other nodes' raw ports, kept alive between requests: a TLS handshake per small file would cost more
//! than the file. A connection that turns out dead is replaced once, before anything of an answer was consumed.

use super::Limits;
use super::wire::{Answer, HEADER_MAX, RawError, Request, within};
use crate::cluster::{Hash, NodeId};
use crate::meter::Meter;
use crate::peer::{Greeter, PeerStream, Port, Presence, encode, read_frame};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWriteExt, BufReader, ReadBuf};
use tokio::time::Instant;

/// A node that failed is asked last for this long.
const SHUNNED: Duration = Duration::from_secs(5);
/// Nodes remembered as failed; beyond, none more is.
const FAILED_MAX: usize = 1024;

/// A connection right between two requests, or in the middle of one.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) node: NodeId,
    address: SocketAddr,
    pub(crate) stream: BufReader<PeerStream>,
    pub(crate) buffer: Vec<u8>,
    _presence: Presence,
}

/// Idle connections by node.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) greeter: Arc<Greeter>,
    pub(crate) limits: Limits,
    pub(crate) meter: Meter,
    idle: Mutex<BTreeMap<NodeId, Vec<(Instant, Connection)>>>,
    failed: Mutex<BTreeMap<NodeId, Instant>>,
}

impl Connection {
    /// The next answer.
    pub(crate) async fn answer(&mut self) -> Result<Answer, RawError> {
        read_frame(&mut self.stream, &mut self.buffer, HEADER_MAX).await?.ok_or(RawError::Ended)
    }
    async fn exchange(&mut self, message: &[u8], limit: Duration) -> Result<Answer, RawError> {
        within(limit, async {
            self.stream.write_all(message).await?;
            self.stream.flush().await?;
            self.answer().await
        })
        .await
    }
    /// Whether nothing came while it was idle: neither its end nor bytes that nobody asked for.
    fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut context = Context::from_waker(Waker::noop());
        Pin::new(&mut self.stream).poll_read(&mut context, &mut ReadBuf::new(&mut byte)).is_pending()
    }
}

impl Pool {
    pub(crate) fn new(greeter: Arc<Greeter>, limits: Limits, meter: Meter) -> Self {
        Self { greeter, limits, meter, idle: Mutex::default(), failed: Mutex::default() }
    }
    /// Sends a request (and a small body behind it) and takes the first answer, within `limit`. `Failed` is an error. A
    /// request may be carried out twice: all of them allow it.
    pub(crate) async fn ask(
        &self,
        (node, address): (NodeId, SocketAddr),
        message: &[u8],
        limit: Duration,
    ) -> Result<(Connection, Answer), RawError> {
        if let Some(mut connection) = self.take(node, address) {
            match connection.exchange(message, limit).await {
                Err(error) if error.is_broken() => tracing::debug!(%node, %error, "kept-alive connection was dead"),
                done => return self.judge(connection, done),
            }
        }
        let mut connection = self.dial(node, address).await.inspect_err(|_| self.shun(node))?;
        let done = connection.exchange(message, limit).await;
        self.judge(connection, done)
    }
    /// Takes back a connection that is right between two requests.
    pub(crate) fn give_back(&self, connection: Connection) {
        let now = Instant::now();
        let mut idle = self.idle.lock().expect("no panic while held");
        let list = idle.entry(connection.node).or_default();
        if list.len() < self.limits.idle_per_peer && connection.stream.buffer().is_empty() {
            list.push((now, connection));
        }
    }
    /// Closes connections that were idle for too long or are dead. To be called every few seconds.
    pub(crate) fn reap(&self) {
        let mut idle = self.idle.lock().expect("no panic while held");
        idle.retain(|_, list| {
            list.retain_mut(|(since, connection)| since.elapsed() < self.limits.idle && connection.is_quiet());
            !list.is_empty()
        });
        drop(idle);
        self.failed.lock().expect("no panic while held").retain(|_, at| at.elapsed() < SHUNNED);
    }
    /// Closes all of them.
    #[cfg(test)]
    pub(crate) fn close(&self) {
        self.idle.lock().expect("no panic while held").clear();
    }
    /// Remembers that a node does not serve just now.
    pub(crate) fn shun(&self, node: NodeId) {
        let mut failed = self.failed.lock().expect("no panic while held");
        if failed.len() < FAILED_MAX || failed.contains_key(&node) {
            failed.insert(node, Instant::now());
        }
    }
    /// Whether it failed a moment ago.
    pub(crate) fn is_shunned(&self, node: NodeId) -> bool {
        self.failed.lock().expect("no panic while held").get(&node).is_some_and(|at| at.elapsed() < SHUNNED)
    }

    /// The connection used last: the others may age. Those to an address that the node has left are closed.
    fn take(&self, node: NodeId, address: SocketAddr) -> Option<Connection> {
        let mut idle = self.idle.lock().expect("no panic while held");
        let list = idle.get_mut(&node)?;
        while let Some((since, mut connection)) = list.pop() {
            if connection.address == address && since.elapsed() < self.limits.idle && connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    }
    async fn dial(&self, node: NodeId, address: SocketAddr) -> Result<Connection, RawError> {
        let greeted = self.greeter.dial(address, Port::Raw).await?;
        if greeted.info.node != node {
            return Err(RawError::WrongNode(greeted.info.node));
        }
        Ok(Connection { node, address, stream: greeted.stream, buffer: Vec::new(), _presence: greeted.presence })
    }
    fn judge(&self, connection: Connection, done: Result<Answer, RawError>) -> Result<(Connection, Answer), RawError> {
        match done {
            Ok(Answer::Failed(failure)) => {
                self.give_back(connection);
                Err(failure.into())
            }
            Ok(answer) => Ok((connection, answer)),
            Err(error) => {
                self.shun(connection.node);
                Err(error)
            }
        }
    }
}

/// A request as bytes, ready for [`Pool::ask`].
pub(crate) fn message(request: &Request) -> Result<Vec<u8>, RawError> {
    let mut bytes = Vec::new();
    encode(request, &mut bytes)?;
    Ok(bytes)
}

/// Whether an answer says that just these bytes are stored.
pub(crate) fn check_stored(answer: &Answer, length: u64, expected: Hash) -> Result<(), RawError> {
    match answer {
        Answer::Stored { size, hash } if *size == length && *hash == expected => Ok(()),
        Answer::Stored { .. } => Err(RawError::Damaged),
        Answer::Failed(failure) => Err((*failure).into()),
        _ => Err(RawError::Unexpected),
    }
}
